"""YAML as people expect it: `no` is a word, `1e-3` a number, and a key written twice an error.

PyYAML reads YAML 1.1, in which `precision: no` is false and `lr: 1e-3` a string. Its parser is kept; the values are
those of YAML 1.2's core schema and nothing else: null, truth values, numbers, text, lists, and mappings whose keys are
text. No file can run code. What no file of ours needs is refused before it costs memory or time: megabytes of text,
deep nesting, aliases of aliases, integers of more than 64 bits.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from stm_lab.util import files
from stm_lab.util.errors import UserError, shown

MAX_BYTES = 2**22  # of a file; ImageNet-22k's classes and their names are half of it
MAX_DEPTH = 40  # lists and mappings in one another
MAX_VALUES = 200_000  # with every alias written out

_TAG = "tag:yaml.org,2002:"


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


_SCALARS: dict[str, tuple[str, Sequence[str], Callable[[str], Any]]] = {  # kind -> pattern, first characters, value
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""], lambda text: None),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF", lambda text: text[0] in "tT"),
    "int": (r"[-+]?[0-9]+", "-+0123456789", _integer),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        "-+.0123456789",
        _number,
    ),
    "str": (r"(?s:.*)", "", str),
}
_EXPECTED = {yaml.SequenceNode: "seq", yaml.MappingNode: "map"}
_HINTS = (  # what PyYAML says, and what to do about it
    ("found character '\\t'", "a tab; YAML is indented by spaces"),
    ("but found another document", "another document begins here; a file holds one"),
    ("mapping values are not allowed here", "a colon that ends no key; write text that holds one in quotes"),
    ("'<stream end>'", "it ends too early: a [ or { is not closed"),
    ("unexpected end of stream", "it ends too early: a quote is not closed"),
    ("found character '%'", "text that begins with %; write it in quotes"),
    ("found character '@'", "text that begins with @; write it in quotes"),
    ("found character '`'", "text that begins with `; write it in quotes"),
)


class _Refused(yaml.YAMLError):
    def __init__(self, problem: str, mark: yaml.Mark):
        super().__init__(problem)
        self.problem, self.problem_mark = problem, mark


class _Loader(yaml.SafeLoader):
    """Makes nodes of text; `_value` makes values of nodes."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  (PyYAML's own name for a class attribute)
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        self.depth += 1
        _check_depth(self.depth, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _kind, (_pattern, _first, _) in _SCALARS.items():
    if _first:
        _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"^(?:{_pattern})$"), _first)


def _check_depth(depth: int, mark: yaml.Mark) -> None:
    if depth > MAX_DEPTH:
        raise _Refused(f"lists and mappings more than {MAX_DEPTH} deep in one another", mark)


def _value(node: yaml.Node, count: Iterator[int], depth: int = 1) -> Any:
    """The value of a node. An alias's is made anew in each place, so that aliases of aliases are counted in full."""
    _check_depth(depth, node.start_mark)  # an alias may stand for a list that it stands in
    if next(count) > MAX_VALUES:
        raise _Refused(f"more than {MAX_VALUES:,} values, with every alias written out", node.start_mark)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    kind = _EXPECTED[type(node)]
    if node.tag != _TAG + kind:
        raise _Refused(f"the tag {shown(_short(node.tag))} is not read here; leave it out", node.start_mark)
    if kind == "seq":
        return [_value(item, count, depth + 1) for item in node.value]
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _value(key_node, count, depth + 1)
        if not isinstance(key, str):
            hint = f"; write it in quotes: '{key_node.value}'" if isinstance(key_node, yaml.ScalarNode) else ""
            raise _Refused(f"the key {shown(key)} is not text{hint}", key_node.start_mark)
        if key in values:
            raise _Refused(f"key {shown(key)} stands twice", key_node.start_mark)
        if key == "<<" and key_node.style is None:
            raise _Refused("merge keys (<<) are not read; write out the keys that are meant", key_node.start_mark)
        values[key] = _value(value_node, count, depth + 1)
    return values


def _scalar(node: yaml.ScalarNode) -> Any:
    kind = node.tag.removeprefix(_TAG)
    if kind not in _SCALARS:
        raise _Refused(f"the tag {shown(_short(node.tag))} is not read here; leave it out", node.start_mark)
    pattern, _, value = _SCALARS[kind]
    if not re.fullmatch(pattern, node.value):
        raise _Refused(f"{shown(node.value)} is no {kind}", node.start_mark)
    if strange := yaml.reader.Reader.NON_PRINTABLE.search(node.value):  # by an escape, such as "\0"
        raise _Refused(f"text with the character {_named(strange[0])}, which is not allowed", node.start_mark)
    try:
        return value(node.value)
    except ValueError as error:
        raise _Refused(str(error), node.start_mark) from None


def _short(tag: str) -> str:
    return tag.replace(_TAG, "!!")


def _named(character: str) -> str:
    return f"U+{ord(character):04X}"


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
        problem = f"the character {_named(chr(error.character))} is not allowed in YAML"
    except yaml.YAMLError as error:
        line, column = error.problem_mark.line, error.problem_mark.column
        said = error.problem.replace("the node content", "a value")
        problem = next((better for known, better in _HINTS if known in said), said)
    except (ValueError, OverflowError):  # of PyYAML's own int and chr
        line, column = loader.line, loader.column
        problem = "a number in an escape or a directive that is too large"
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
        raise UserError(f"{path}: expected `key: value` lines, found {_kind_of(values)}")
    return values


def _kind_of(value: Any) -> str:
    return "a list" if isinstance(value, list) else shown(value)
