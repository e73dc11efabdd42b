"""Processes that tests start and stop: one place for what is awkward about signals."""

import signal
import time


def hears_ctrl_c() -> None:
    """`preexec_fn` of a child: tests that run in the background have SIGINT ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(what, seconds: float = 90) -> None:
    """Return once `what()` is true; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
