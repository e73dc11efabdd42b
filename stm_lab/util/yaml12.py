"""YAML as people expect it: `no` is a word, `1e-3` a number, and a key written twice an error.

PyYAML reads YAML 1.1, in which `precision: no` is false and `lr: 1e-3` a string. Its parser is kept; the values are
those of YAML 1.2's core schema: null, truth values, numbers, text, lists, and mappings whose keys are text. No file can
run code. Megabytes of text, deep nesting, aliases of aliases and integers of more than 64 bits are refused before they
cost memory or time.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from stm_lab.util import files
from stm_lab.util.errors import UserError, shown

MAX_BYTES = 2**22  # of a file; ImageNet-22k's classes and their names are half of it
MAX_DEPTH = 40  # lists and mappings inside one another
MAX_VALUES = 200_000  # with every alias written out

_TAG = "tag:yaml.org,2002:"
_TOO_DEEP = f"lists and mappings more than {MAX_DEPTH} deep in one another"
_HINTS = (  # what PyYAML says, and what to do about it
    ("found character '\\t'", "a tab; YAML is indented by spaces"),
    ("that cannot start any token", "text that begins with a special character; write it in quotes"),
    ("but found another document", "another document begins here; a file holds one"),
    ("mapping values are not allowed here", "a colon that ends no key; write text that holds one in quotes"),
    ("'<stream end>'", "it ends too early: a [ or { is not closed"),
    ("unexpected end of stream", "it ends too early: a quote is not closed"),
)


def _integer(text: str) -> int:
    digits = len(text.lstrip("+-0"))
    if digits > 19 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"an integer of {digits} digits is beyond 64 bits; write it in quotes if it is a name")
    return int(text)  # 010 is ten, not eight


def _number(text: str) -> float:
    value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    if math.isinf(value) and "inf" not in text:
        raise ValueError(f"{shown(text)} is larger than any number")
    return value


_SCALARS: dict[str, tuple[str, Callable[[str], Any]]] = {  # kind: pattern, value
    "null": (r"~|null|Null|NULL|", lambda text: None),
    "bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text[0] in "tT"),
    "int": (r"[-+]?[0-9]+", _integer),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", _number),
    "str": (r"(?s:.*)", str),
}


class _Loader(yaml.SafeLoader):
    """Makes nodes of text; `_value` makes values of nodes."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  (PyYAML's own name for a class attribute)


for _kind in ("null", "bool", "int", "float"):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"^(?:{_SCALARS[_kind][0]})$"), None)


def _refused(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _value(node: yaml.Node, count: Iterator[int], depth: int = 1) -> Any:
    """The value of a node. An alias gets its own copy in each place, so that aliases of aliases are counted in full."""
    mark, kind = node.start_mark, node.tag.removeprefix(_TAG)
    if depth > MAX_DEPTH:  # an alias may also stand for a list that it stands in
        raise _refused(_TOO_DEEP, mark)
    if next(count) > MAX_VALUES:
        raise _refused(f"more than {MAX_VALUES:,} values, with every alias written out", mark)
    if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
        return _scalar(node, kind)
    if (type(node), kind) == (yaml.SequenceNode, "seq"):
        return [_value(item, count, depth + 1) for item in node.value]
    if (type(node), kind) != (yaml.MappingNode, "map"):
        raise _refused(f"the tag {shown(node.tag.replace(_TAG, '!!'))} is not read here; leave it out", mark)
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _value(key_node, count, depth + 1)
        if not isinstance(key, str):
            hint = f"; write it in quotes: '{key_node.value}'" if isinstance(key_node, yaml.ScalarNode) else ""
            raise _refused(f"the key {shown(key)} is not text{hint}", key_node.start_mark)
        if key in values:
            raise _refused(f"key {shown(key)} stands twice", key_node.start_mark)
        if key == "<<" and key_node.style is None:
            raise _refused("merge keys (<<) are not read; write out the keys that are meant", key_node.start_mark)
        values[key] = _value(value_node, count, depth + 1)
    return values


def _scalar(node: yaml.ScalarNode, kind: str) -> Any:
    pattern, value = _SCALARS[kind]
    if not re.fullmatch(pattern, node.value):  # of a tag that was written, such as !!int
        raise _refused(f"{shown(node.value)} is no {kind}", node.start_mark)
    if strange := yaml.reader.Reader.NON_PRINTABLE.search(node.value):  # by an escape, such as "\0"
        raise _refused(f"text with the character U+{ord(strange[0]):04X}, which is not allowed", node.start_mark)
    try:
        return value(node.value)
    except ValueError as error:
        raise _refused(str(error), node.start_mark) from None


def parse(text: str, where: str) -> Any:
    """The value written in `text`; UserError with `where`, line and column if it is not YAML, or more than is read."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _value(node, itertools.count(1))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
        problem = f"the character U+{error.character:04X} is not allowed in YAML"
    except yaml.YAMLError as error:
        line, column = error.problem_mark.line, error.problem_mark.column
        said = error.problem.replace("the node content", "a value")
        problem = next((better for known, better in _HINTS if known in said), said)
    except (ValueError, OverflowError, RecursionError) as error:  # of PyYAML's own int and chr, and its composer
        line, column = loader.line, loader.column
        too_large = "a number in an escape or a directive that is too large"
        problem = _TOO_DEEP if isinstance(error, RecursionError) else too_large
    place = f"line {line + 1}, column {column + 1}: " if "\n" in text.strip() else ""
    raise UserError(f"{where}: {place}{problem}")


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; UserError naming the file if it is missing, unreadable or holds something else."""
    if os.path.isfile(path) and os.path.getsize(path) > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES // 2**20} MiB, so it is not a file of ours")
    values = parse(files.read_text(path), str(path))
    if values is None:
        raise UserError(f"{path}: it is empty; expected `key: value` lines")
    if not isinstance(values, dict):
        found = "a list" if isinstance(values, list) else shown(values)
        raise UserError(f"{path}: expected `key: value` lines, found {found}")
    return values
