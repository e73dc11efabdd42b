"""JSON files that may be damaged: whole pieces are read, damaged ones are left out and named.

A full disk, a killed process or an editor leaves half a line, another encoding or another type. One such piece must not
stop a command that reads hundreds of files. Each piece of damage is one sentence: the file, the line and the reason.
"""

from __future__ import annotations

import codecs
import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from stm_lab.util.errors import WorkFailed
from stm_lab.util.files import read_bytes

Object = dict[str, Any]
_NAMED = 3  # lines or files that are damaged in the same way, of as many as there may be
_KINDS = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}


class Damaged(WorkFailed):
    """Everything that was to be read is damaged; the message names the files."""

    @classmethod
    def all_of(cls, said: Sequence[str]) -> Damaged:
        """The error for these pieces, if nothing else was found."""
        return cls(f"nothing to read: {_some(said, '; ')}")


def or_damaged(found: list[Object], damage: Sequence[str]) -> list[Object]:
    """`found`, with warnings of the damage beside it. Raises Damaged if all is damage."""
    if damage and not found:
        raise Damaged.all_of(damage)
    tell(damage)
    return found


def tell(said: Iterable[str]) -> None:
    """Warn of each piece that is left out; Python shows the same warning once."""
    for sentence in said:
        warnings.warn(f"left out: {sentence}", stacklevel=1)  # from one place, or Python would repeat it for each


def lines(path: Path, check: Callable[[Object], str] = lambda value: "") -> tuple[list[Object], list[str]]:
    """The objects in a file of JSON lines, and the damage of the other lines. Blank lines count as neither.

    `check` says what else is wrong with an object, "" for nothing. Raises OSError if the file cannot be read.
    """
    values, numbers = [], {}  # numbers: reason -> the lines that it holds for
    for number, line in enumerate(read_bytes(path).removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if line.strip():
            value, damage = _object(line, check)
            if damage:
                numbers.setdefault(damage, []).append(str(number))
            else:
                values.append(value)
    lines_of = {reason: f"line{'s' * (len(of_it) > 1)} {_some(of_it, ', ')}" for reason, of_it in numbers.items()}
    return values, [f"{path}, {where}: {reason}" for reason, where in lines_of.items()]


def _some(parts: Sequence[str], between: str) -> str:
    more = f"{';' * (between == '; ')} and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return between.join(parts[:_NAMED]) + more


def epochs(path: Path) -> tuple[list[Object], list[str]]:
    """The rows of a training's `metrics.jsonl`, one per epoch, and its damage. Raises OSError if it cannot be read."""
    return lines(path, _no_epoch)


def all_epochs(path: Path, length: float) -> list[Object]:
    """The rows of a finished training of `length` epochs. Raises Damaged if one of them is damaged or missing."""
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


def _no_epoch(value: Object) -> str:
    if not value:
        return "no numbers"
    wrong = (name for name in value if name not in ("weights", "health") and _kind(value[name]) != "a number")
    return next((f"{name} is {_kind(value[name])}, not a number" for name in wrong), "")


def mapping(path: Path, parts: Sequence[str] = ()) -> Object:
    """As `read`, but empty if the file is missing or damaged; a warning tells of damage."""
    try:
        return read(path, parts)
    except FileNotFoundError:
        return {}
    except (Damaged, OSError) as error:
        tell([str(error) if isinstance(error, Damaged) else f"{path}: {error.strerror}"])
        return {}


def read(path: Path, parts: Sequence[str] = ()) -> Object:
    """The JSON object in a file. Entries named in `parts` are objects themselves; null counts as missing there.

    Raises OSError if the file cannot be read, Damaged if it holds something else.
    """
    value, damage = _object(read_bytes(path).removeprefix(codecs.BOM_UTF8), lambda value: not_objects(value, parts))
    if damage:
        raise Damaged(f"{path}: {damage}")
    return {name: entry for name, entry in value.items() if entry is not None or name not in parts}


def not_objects(value: Object, parts: Sequence[str], *, needed: bool = False) -> str:
    """Which entry of an object should be an object and is not; "" if there is none."""
    for name in parts:
        entry = value.get(name)
        if not isinstance(entry, dict) and (needed or entry is not None):
            return f"{name} is {_kind(entry)}, not an object" if name in value else f"no {name}"
    return ""


def _object(contents: bytes, check: Callable[[Object], str]) -> tuple[Object, str]:
    try:
        value = json.loads(contents.decode("utf-8"))
        if b"\\u" in contents:  # half of a surrogate pair can be escaped, but cannot be printed
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        return {}, "not UTF-8 text"
    except (ValueError, RecursionError):
        return {}, "not JSON, perhaps cut off"
    return (value, check(value)) if isinstance(value, dict) else ({}, f"{_kind(value)}, not an object")


def _kind(value: Any) -> str:
    """A value's type as JSON calls it."""
    return _KINDS.get(type(value), "null")
