"""Values on top of others: `-p key=value`, wherever the project takes parameters, and `extends:` in files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from stm_lab.util import yaml12
from stm_lab.util.errors import UserError, shown


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """`["lr=1e-3", "augmentation.flip=true"]` -> `{"lr": 0.001, "augmentation": {"flip": True}}`.

    Values are YAML (1.2: `no` is a string), so lists and mappings can be written: `seeds=[0, 1]`. Dotted keys nest.

    Raises UserError for an assignment without `=`, without a key, with a value that is not YAML, or a key given twice.
    """
    result: dict[str, Any] = {}
    for assignment in assignments:
        where = f"-p {shown(assignment)}"
        key, equals, text = assignment.partition("=")
        *parents, last = parts = key.strip().split(".")
        if not equals or not all(parts):
            raise UserError(f"{where}: expected key=value, such as -p lr=1e-3")
        if len(parts) > yaml12.MAX_DEPTH:
            raise UserError(f"{where}: more than {yaml12.MAX_DEPTH} keys in one another")
        inner = result
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise UserError(f"{where}: {shown(parent)} already has the value {shown(inner)}")
        if last in inner:
            raise UserError(f"{where}: {shown(key.strip())} is given twice")
        inner[last] = yaml12.parse(text, where)
    return result


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` on top. Mappings that both have are merged in turn; neither argument is modified."""
    merged = dict(base)
    for key, value in changes.items():
        both_nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both_nested else value
    return merged


def extended(
    values: Mapping[str, Any],
    where: str,
    find: Callable[[Any, Path], Path],
    *,
    file: Path | None = None,
    read: Callable[[Path], dict[str, Any]] = yaml12.read_mapping,
    on_top: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = merge,
) -> tuple[dict[str, Any], list[Path]]:
    """`values` on top of those of the file that their key `extends` names, which may extend another.

    Args:
        values, where: the keys of a file or mapping, and its name for error messages.
        find: the file that a name means in a file of a folder: `find(name, folder)`; UserError if there is none.
        file: the file of `values`; None: a mapping, whose names are relative to the working folder.
        read: the keys in a file.
        on_top: combines the keys of a file that is extended (first) with those of what extends it.

    Returns:
        The keys without `extends`, and the files that were extended, the nearest first.

    Raises:
        UserError: what `find` and `read` raise, after the name of the file that extends; files that extend each other.
    """
    layers, files = [dict(values)], [file] if file else []
    while (name := layers[-1].pop("extends", None)) is not None:
        where = str(files[-1]) if files else where
        try:
            base = find(name, files[-1].parent if files else Path.cwd())
            if base.resolve() in [path.resolve() for path in files]:
                raise UserError(f"{base} extends itself")
            layers.append(dict(read(base)))
        except UserError as error:
            raise UserError(f"{where}: extends: {error}") from None
        files.append(base)
    combined = layers.pop()
    while layers:
        combined = on_top(combined, layers.pop())
    return combined, files[1:] if file else files
