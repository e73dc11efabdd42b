"""The lock: only one process at a time prepares the same images; held by `prepare`.

It is a file that names the process and its machine, since data roots may be shared by several machines: one whose
process is gone from this machine is taken over, one of another machine is for a person to delete.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stm_lab.errors import UserError


@contextmanager
def alone(lock: Path, doing: str) -> Iterator[None]:
    """Hold a lock file while this process is `doing` something; that of a process that is gone is taken over.

    Raises UserError if another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    if lock.exists() and _is_stale(lock):
        lock.unlink(missing_ok=True)
    try:
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        holder = lock.read_text().split()
        raise UserError(
            f"another process (pid {' on '.join(holder) or 'unknown'}) is {doing}; wait for it, or delete "
            f"{lock} if there is none"
        ) from None
    try:
        with open(handle, "w") as file:
            file.write(f"{os.getpid()} {socket.gethostname()}")
        yield
    finally:
        lock.unlink(missing_ok=True)


def _is_stale(lock: Path) -> bool:
    """Whether the process that holds a lock ran on this machine, and is gone; False where that cannot be told."""
    holder, _, machine = lock.read_text().partition(" ")
    if machine != socket.gethostname() or os.name == "nt":  # nothing harmless asks about a process there
        return False
    try:
        os.kill(int(holder), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return int(holder) == os.getpid()  # another of that number, before this machine was started anew
