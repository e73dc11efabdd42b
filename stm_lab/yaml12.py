"""YAML as people expect it: `no` is a word, `1e-3` a number, and a key written twice an error.

PyYAML reads YAML 1.1, in which `precision: no` is false and `lr: 1e-3` a string. Its safe loader is kept (no file
can run code), with the scalars of YAML 1.2's core schema.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from stm_lab.errors import UserError
from stm_lab.files import read_text


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  (PyYAML's own name for a class attribute)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"key {key.value!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))  # 010 is ten, not eight


def parse(text: str, where: str) -> Any:
    """The value written in `text`; UserError with `where`, line and column if it is not YAML."""
    try:
        return yaml.load(text, Loader=_Loader)  # a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None and "\n" in text.strip() else ""
        raise UserError(f"{where}: {line}{getattr(error, 'problem', None) or 'not YAML'}") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; UserError naming the file if it is missing, unreadable or holds something else."""
    values = parse(read_text(path), str(path))
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
    return values
