"""`-p key=value`: one syntax for overriding a parameter, wherever the project takes parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
