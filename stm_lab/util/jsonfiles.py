"""JSON files that may be damaged: what is whole is read, and what is not is left out and named.

A full disk, a killed process, a copy that broke off or an editor leaves half a line, another encoding or another type.
One such piece must not stop a command that reads hundreds. So every reader of rows, status and environment goes through
here; each piece of damage is one sentence that names the file, the line and the reason.
"""

from __future__ import annotations

import codecs
import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stm_lab.util.errors import WorkFailed
from stm_lab.util.files import read_bytes

_NAMED = 3  # lines damaged in the same way, of as many as there may be


class Damaged(WorkFailed):
    """Everything that was to be read is damaged; the message names the files."""

    @classmethod
    def all_of(cls, said: Sequence[str]) -> Damaged:
        """The error for these pieces, of which there are no others."""
        more = f"; and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
        return cls(f"nothing to read: {'; '.join(said[:_NAMED])}{more}")


class Line(NamedTuple):
    """A line of a file: its object, or why it has none."""

    number: int
    value: dict[str, Any]
    damage: str


def tell(said: Iterable[str]) -> None:
    """Warn of each piece that is left out; Python shows the same warning once."""
    for sentence in said:
        warnings.warn(f"left out: {sentence}", stacklevel=1)  # of one place, or it would be shown once for each


def lines(path: Path, check: Callable[[dict[str, Any]], str] = lambda value: "") -> list[Line]:
    """The lines of a file of JSON objects, damaged ones too; blank ones hold nothing and are passed over.

    Args:
        path: the file.
        check: what else is wrong with an object; "" if nothing is.

    Raises OSError if the file cannot be read.
    """
    contents = read_bytes(path).removeprefix(codecs.BOM_UTF8).split(b"\n")
    return [Line(number, *_object(line, check)) for number, line in enumerate(contents, 1) if line.strip()]


def epochs(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of a training's `metrics.jsonl`, one an epoch, and its damage. Raises OSError if it cannot be read."""
    of_it = lines(path, _no_epoch)
    return [line.value for line in of_it if not line.damage], damage_of(path, of_it)


def all_epochs(path: Path, length: float) -> list[dict[str, Any]]:
    """The rows of a finished training of so many epochs. Raises Damaged if one of them is damaged or missing."""
    try:
        rows, damage = epochs(path)
    except OSError as error:
        raise Damaged(f"{path}: {error.strerror}") from None
    if damage or not rows:
        raise Damaged("; ".join(damage) or f"{path}: empty")
    step, epoch = (rows[-1].get(name, 0) for name in ("step", "epoch"))
    if step < round(length * step / max(epoch, 1e-9)):
        raise Damaged(f"{path}: ends at epoch {epoch:g} of {length:g}")
    return rows


def _no_epoch(value: dict[str, Any]) -> str:
    if not value:
        return "no numbers"
    words = ("weights", "health")  # all else of an epoch is numbers
    wrong = (name for name in value if name not in words and _kind(value[name]) != "a number")
    return next((f"{name} is {_kind(value[name])}, not a number" for name in wrong), "")


def damage_of(path: Path, of_it: Iterable[Line]) -> list[str]:
    """The damage of a file's lines: a sentence for each reason."""
    by_reason: dict[str, list[str]] = {}
    for line in of_it:
        if line.damage:
            by_reason.setdefault(line.damage, []).append(str(line.number))
    said = []
    for reason, numbers in by_reason.items():
        more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
        said.append(f"{path}, line{'s' * (len(numbers) > 1)} {', '.join(numbers[:_NAMED])}{more}: {reason}")
    return said


def mapping(path: Path, parts: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON object in a file; empty if the file is missing, or damaged, of which a warning is given."""
    try:
        return read(path, parts)
    except FileNotFoundError:
        return {}
    except (Damaged, OSError) as error:
        tell([str(error) if isinstance(error, Damaged) else f"{path}: {error.strerror}"])
        return {}


def read(path: Path, parts: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: the file.
        parts: names of entries that are objects themselves; null counts as missing, and is left out.

    Raises OSError if the file cannot be read, Damaged if it holds something else.
    """
    value, damage = _object(read_bytes(path).removeprefix(codecs.BOM_UTF8), lambda value: not_objects(value, parts))
    if damage:
        raise Damaged(f"{path}: {damage}")
    return {name: entry for name, entry in value.items() if entry is not None or name not in parts}


def not_objects(value: dict[str, Any], parts: Sequence[str], *, needed: bool = False) -> str:
    """Which of an object's entries should be objects and are not; "" if there is none."""
    for name in parts:
        entry = value.get(name)
        if not isinstance(entry, dict) and (needed or entry is not None):
            return f"{name} is {_kind(entry)}, not an object" if name in value else f"no {name}"
    return ""


def _object(contents: bytes, check: Callable[[dict[str, Any]], str]) -> tuple[dict[str, Any], str]:
    try:
        value = json.loads(contents.decode("utf-8"))
        if b"\\u" in contents:  # half of a surrogate pair can be escaped, but cannot be printed
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        return {}, "not UTF-8 text"
    except (ValueError, RecursionError):
        return {}, "not JSON, perhaps cut off"
    if not isinstance(value, dict):
        return {}, f"{_kind(value)}, not an object"
    damage = check(value)
    return ({}, damage) if damage else (value, "")


def _kind(value: Any) -> str:
    """A value's type as JSON calls it."""
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return kinds.get(type(value), "null")
