"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from stm_lab.errors import UserError


def replace_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` in one go: a reader finds the old file or the new one, never half of it.

    Raises:
        UserError: the file cannot be written; the old one is as it was.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise UserError(f"{path}: {error.strerror}") from None
