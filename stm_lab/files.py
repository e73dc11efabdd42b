"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from stm_lab.errors import UserError

UNFINISHED = ".part"  # how the name of a file ends that is being written, or was when its process was killed


def write_whole(path: Path, contents: bytes, *, durable: bool = False) -> None:
    """Write a file in one go: a reader finds the old one or the new one, never half of it.

    Args:
        path: in a folder that is there.
        contents: of the whole file.
        durable: wait until they are on the disk, so that this holds even if the machine stops. It takes milliseconds.

    Raises:
        OSError: the file cannot be written; the old one is as it was.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            file.write(contents)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            unfinished.unlink()
        raise
    if durable and os.name == "posix":  # the rename itself has to reach the disk
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_bytes(path: Path, contents: bytes) -> None:
    """`write_whole` for a file that the user named. Raises UserError where it raises OSError."""
    try:
        write_whole(path, contents)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
