"""Folders of runs and trainings, one process at a time in each. Its own file, since filelock is slow to import."""

from __future__ import annotations

from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from stm_lab.util.errors import UserError

ELSEWHERE = "; give a folder that can be written to, by out or by STM_LAB_RUNS"


class Held(UserError):
    """Another process works in the folder, or did when it was asked."""


def hold(folder: Path, what: str) -> AcquireReturnProxy:
    """Make a folder and hold it: until the returned context ends, `.lock.release()` is called, or the process ends.

    Args:
        folder: of a run or training; its parameter is called `out`.
        what: "run" or "training", for the error message.

    Raises:
        Held: another process holds it, or another thread.
        UserError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / ".lock", timeout=0).acquire()
    except Timeout:
        raise Held(f"out = {str(folder)!r}: this {what} is already going on in another process") from None
    except OSError as error:
        raise UserError(f"out = {str(folder)!r}: {error.strerror}{ELSEWHERE}") from None


def is_held(folder: Path) -> bool:
    """Whether some process holds the folder now."""
    if not (folder / ".lock").is_file():
        return False
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True
