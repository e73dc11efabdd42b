"""A process and its children as the system sees them: how much memory they hold, and how they end."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import psutil

from stm_lab.util.errors import UserError

GIGABYTE = 1e9


class Watch:
    """Limits of time and memory for a process tree; `look` now and then.

    Args:
        seconds: wall time, from now; None: any.
        memory: gigabytes (1e9 bytes) that the process and its children may hold at once, resident; None: any.

    Attributes:
        peak: the most that was seen, in gigabytes. Between two looks there may have been more; pages that several of
            the processes share are counted in each.
    """

    def __init__(self, *, seconds: float | None = None, memory: float | None = None):
        self.started = time.monotonic()
        self.seconds, self.memory = seconds, memory
        self.peak = 0.0

    def look(self, pid: int | None) -> tuple[str, str] | None:
        """Which limit is passed, "timeout" or "memory", with a sentence; None if none is. `pid` None: not started."""
        if pid is not None:
            self.peak = max(self.peak, held(pid))
        if self.memory is not None and self.peak > self.memory:
            return "memory", f"it held {self.peak:.2f} GB of memory, and may hold {self.memory:g} GB"
        if self.seconds is not None and time.monotonic() - self.started > self.seconds:
            return "timeout", f"it was not done after {self.seconds / 60:g} min"
        return None


def check_limits(timeout: float | None, memory: float | None) -> None:
    """Raise UserError for a limit that no run could keep; minutes and gigabytes."""
    for name, value, unit in (("timeout", timeout, "minutes"), ("memory", memory, "GB")):
        if value is not None and not value > 0:
            raise UserError(f"{name} = {value:g}: expected more than 0 {unit}")


def held(pid: int) -> float:
    """Gigabytes that a process and its children hold, resident; 0 if it is gone."""
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total / GIGABYTE


def kill_tree(pid: int) -> None:
    """End a process and its children at once."""
    for process in _tree(pid):
        with contextlib.suppress(psutil.Error):
            process.kill()


def how_it_ended(exit_code: int) -> str:
    """In words, by the exit status of a process, which is negative where a signal ended it."""
    if exit_code >= 0:
        return f"exit status {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-exit_code}"


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, which batch systems send, raises KeyboardInterrupt like Ctrl-C; in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
