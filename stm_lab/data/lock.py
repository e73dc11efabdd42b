"""The lock: only one caller at a time prepares the same images; held by `prepare`.

The system holds it, and lets go when the process ends, however it does: nobody has to guess whether a holder is alive.
Its empty file stays, since one that is deleted could be held twice, under its name and without. A second file names the
process and its machine, for who is turned away: data roots may be shared by several machines.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stm_lab.util.errors import UserError


@contextmanager
def alone(lock: Path, doing: str) -> Iterator[None]:
    """Hold a lock file while this process is `doing` something.

    Raises UserError if it is held already, by another process or by another caller in this one.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    named = lock.with_name(f"{lock.name}.holder")  # not in the lock's own file, which Windows lets nobody else read
    us = f"{os.getpid()} {socket.gethostname()}"
    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout:
        raise UserError(_refused(named, us, lock, doing)) from None
    try:
        named.write_text(us)
        yield
    finally:
        named.unlink(missing_ok=True)
        held.release()


def _refused(named: Path, us: str, lock: Path, doing: str) -> str:
    """What is said to a second one."""
    try:
        holder = named.read_text()
    except OSError:  # it has only just taken the lock, or is about to let go
        holder = ""
    if holder == us:
        return f"this process is {doing} already; wait for that to end"
    return (
        f"another process (pid {' on '.join(holder.split()) or 'unknown'}) is {doing}; wait for it, or delete {lock} "
        "if there is none"
    )
