"""A process and its children as the system sees them: how much memory they hold, and how they end."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import psutil

GIGABYTE = 1e9


class Watch:
    """Limits of time and memory for a process tree; `look` checks them.

    Args:
        timeout: minutes, from now; None: any.
        memory: gigabytes (1e9 bytes) that the process and its children may hold at once, resident; None: any.

    Attributes:
        peak: the most that was seen, in gigabytes. Between two looks there may have been more. Pages that several
            processes share count in each.
        cost: seconds that the last look took.
    """

    def __init__(self, timeout: float | None = None, memory: float | None = None):
        self._started = time.monotonic()
        self._timeout, self._memory = timeout, memory
        self.peak, self.cost = 0.0, 0.0

    def look(self, pid: int | None) -> tuple[str, str] | None:
        """The limit passed, "timeout" or "memory", with a sentence; None if none is. `pid` is None before the start."""
        begun = time.monotonic()
        total = 0
        for process in [] if pid is None else _tree(pid):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        self.peak = max(self.peak, total / GIGABYTE)
        self.cost = time.monotonic() - begun
        if self._memory is not None and self.peak > self._memory:
            return "memory", f"it held {self.peak:.2f} GB of memory, and may hold {self._memory:g} GB"
        if self._timeout is not None and begun - self._started > 60 * self._timeout:
            return "timeout", f"it was not done after {self._timeout:g} min"
        return None


def kill_tree(pid: int | None) -> None:
    """End a process, if it runs, and its children at once."""
    for process in [] if pid is None else _tree(pid):
        with contextlib.suppress(psutil.Error):
            process.kill()


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def how_it_ended(exit_code: int) -> str:
    """In words, by the exit status of a process, which is negative where a signal ended it."""
    if exit_code >= 0:
        return f"exit status {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-exit_code}"


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
