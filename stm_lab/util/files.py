"""Files: written as a whole or not at all, and read as text that people wrote on any system."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stm_lab.util.errors import UserError, WorkFailed

_OF_THE_DISK = (errno.ENOSPC, errno.EFBIG, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC))
UNFINISHED = ".part"  # suffix of a file that is being written, or was when its process was killed


def write_whole(path: Path, contents: bytes, *, durable: bool = False) -> None:
    """Write a file in one go: a reader finds the old one or the new one, never half of it.

    durable: wait until the contents are on the disk, so that this holds even if the machine stops. Takes milliseconds.

    Raises OSError if the file cannot be written; the old one is unchanged.
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
    """`write_whole` for a file that the user named: UserError if it cannot be there, WorkFailed if the disk fails."""
    try:
        write_whole(path, contents)
    except OSError as error:
        kind = WorkFailed if error.errno in _OF_THE_DISK else UserError
        raise kind(f"{path}: {error.strerror}") from None


def read_bytes(path: Path) -> bytes:
    """The contents of a file. Raises OSError, also for a named pipe or a socket: reading one may never end."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a folder has an error of its own
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_bytes()


def sha256_of(path: Path) -> str:
    """The hexadecimal digest of a file. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without the byte-order mark that editors on Windows write.

    Raises UserError, which names the file, if it is missing, cannot be read or is not UTF-8 text.
    """
    with told():
        try:
            text = read_bytes(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
            wrong = text.find("\0")  # of UTF-16 without its mark, or left by a machine that stopped
            before = text[:wrong].encode()
        except UnicodeDecodeError as error:
            wrong, before = error.start, error.object[: error.start]
    if wrong >= 0:
        line = before.count(b"\n") + 1
        raise UserError(f"{path}: not a UTF-8 text file, see line {line}; save it in the encoding UTF-8")
    return text


@contextmanager
def told() -> Iterator[None]:
    """Turn an OSError into a UserError of one line: the file, and what the system says of it."""
    try:
        yield
    except OSError as error:
        raise UserError(said_by(error)) from error


def said_by(error: OSError) -> str:
    """The file that an error is about, and what the system says of it."""
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}"


def same_name(name: str) -> str:
    """A name in the form in which names are compared, Unicode's NFC: macOS stores ä as two characters (NFD)."""
    return unicodedata.normalize("NFC", name)
