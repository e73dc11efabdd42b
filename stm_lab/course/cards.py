"""A notebook's card: what it asks, how long it takes, which parameters it has. Read from `notebooks/course.yaml`.

A notebook and its card say the same thing twice: the header cell and the `parameters` cell are what this module renders
from the card (`header_markdown`, `parameters_source`), and `check_notebook` tells where they differ.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stm_lab import paths, yaml12
from stm_lab.errors import UserError, check_known, nearest
from stm_lab.validation import validated

TAGS = ("parameters", "by-hand", "solution", "check", "explorer")
_TYPE = r"^((list\[)?(int|float|str|bool|path)(?(2)\]))( \| None)?$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Parameter(_Strict):
    """One parameter of a notebook. `choices` and `range` hold for each item of a list."""

    type: str  # int, float, str, bool, path, a list[...] of these, and any of them `| None`
    default: Any
    help: str = Field(pattern=r"^[^\n=]+$")  # no "=": papermill could not read the parameters cell
    choices: list[Any] | Literal["mixers", "scales", "recipes"] | None = None  # written out, or those there are
    range: tuple[int | float | None, int | float | None] | None = None  # both ends allowed; null: open
    in_key: bool = True  # does another value make another run? (not so: where to write, which device)

    @model_validator(mode="after")
    def _is_consistent(self) -> Parameter:
        if not re.match(_TYPE, self.type):
            raise ValueError(f"unknown type {self.type!r}; such as int, list[str], path | None")
        self.read(self.default, "default")
        return self

    @property
    def optional(self) -> bool:
        return self.type.endswith(" | None")

    @property
    def kind(self) -> str:
        """The type without `| None`."""
        return self.type.removesuffix(" | None")

    @property
    def item(self) -> str:
        """The type of one item: `int` for `list[int]`, and for `int`."""
        return self.kind.removeprefix("list[").removesuffix("]")

    def read(self, value: Any, where: str) -> Any:
        """`value` as this parameter's type; text is read as YAML where the type is not text itself (papermill's `-p`).

        Raises:
            UserError: `where`, what was expected and what was found: type, range, or a choice that is written out.
        """
        if value is None or (value in ("None", "null") and self.item != "str"):
            if self.optional:
                return None
            raise UserError(f"{where}: expected {self.type}, got None")
        if self.kind == self.item:
            return self._read_item(value, where)
        if isinstance(value, str):
            text = value.strip()
            value = yaml12.parse(f"[{text[1:-1]}]" if text[:1] + text[-1:] == "()" else text, where)
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where}: expected {self.type} such as {literal(self.default)}, got {value!r}")
        items = [self._read_item(item, where) for item in value]
        if not items:
            raise UserError(f"{where}: the list is empty; such as {literal(self.default)}")
        if twice := [item for i, item in enumerate(items) if item in items[:i]]:
            raise UserError(f"{where}: {twice[0]!r} stands twice in the list")
        return items

    def _read_item(self, value: Any, where: str) -> Any:
        item = _read_scalar(self.item, value, where)
        if isinstance(self.choices, list):
            check_known("value", item, self.choices, f"{where}: ")
        low, high = self.range or (None, None)
        if low is not None and item < low:
            raise UserError(f"{where} = {item!r}: must be at least {low}")
        if high is not None and item > high:
            raise UserError(f"{where} = {item!r}: must be at most {high}")
        return item


def _read_scalar(kind: str, value: Any, where: str) -> Any:
    found = value
    if kind in ("int", "float", "bool") and isinstance(value, str):
        found = yaml12.parse(value, where)
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool) and math.isfinite(found)
    if kind == "bool" and isinstance(found, bool):
        return found
    if kind == "int" and is_number and isinstance(found, int):
        return found
    if kind == "float" and is_number:
        return float(found)
    if kind == "str" and isinstance(found, str) and found:
        return found
    if kind == "path" and isinstance(found, (str, Path)) and str(found):
        return Path(found).expanduser().absolute()
    raise UserError(f"{where}: expected {kind}, got {value!r}")


class Needs(_Strict):
    gpu: bool = False
    network: bool = False
    data: str | None = None  # a recipe that must be there besides those that are drawn


class Card(_Strict):
    """What `course.yaml` says of one notebook. The profile `quick` is the defaults, so it is not written down."""

    name: str = Field(pattern=r"^\d\d_[a-z0-9_]+$")
    title: str
    question: str
    goals: list[str] = Field(min_length=1)
    minutes: int = Field(gt=0)  # of a learner
    difficulty: int = Field(ge=1, le=5)
    needs: Needs = Needs()
    parameters: dict[str, Parameter]
    profiles: dict[Literal["demo", "class", "paper"], dict[str, Any]] = {}
    outputs: list[str] = Field(min_length=1)  # what the run's folder holds at the end, in words

    @model_validator(mode="after")
    def _profiles_fit(self) -> Card:
        for profile, values in self.profiles.items():
            for name, value in values.items():
                check_known("parameter", name, self.parameters, f"profile {profile}: ")
                self.parameters[name].read(value, f"profile {profile}: {name}")
        return self

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def path(self) -> Path:
        """The notebook itself."""
        return paths.notebooks_dir() / f"{self.name}.ipynb"


def load_cards() -> dict[str, Card]:
    """The cards of `course.yaml` by name, in the order of the file.

    Raises:
        UserError: the file is missing, not YAML (line and column), or a card does not fit (card, field, value).
    """
    path = paths.notebooks_dir() / "course.yaml"
    cards = {}
    for name, body in yaml12.read_mapping(path).items():
        if not isinstance(body, Mapping):
            raise UserError(f"{path}: {name}: expected a card, found {body!r}")
        cards[name] = validated(Card, {"name": name, **body}, f"{path}: {name}")
    return cards


def load_card(notebook: str | int | Path) -> Card:
    """The card of a notebook given by name, number or path: "00_quickstart", 0, "00", "notebooks/00_quickstart.ipynb".

    Raises:
        UserError: there is no such notebook (the nearest is named), or `course.yaml` is not right.
    """
    cards = load_cards()
    name = str(notebook)
    if name.endswith(".ipynb"):
        name = Path(name).stem
    if name.isdecimal():
        name = next((card.name for card in cards.values() if int(card.number) == int(name)), name)
    check_known("notebook", name, cards)
    return cards[name]


def check_values(card: Card, values: Mapping[str, Any] | None = None, *, profile: str = "quick") -> dict[str, Any]:
    """Every parameter's value, with its type: the defaults, the profile's values over them, then `values`.

    Relative paths are taken from the working folder.

    Raises:
        UserError: an unknown parameter, profile or choice (the nearest is named), a wrong type, a value out of range.
    """
    check_known("profile", profile, ["quick", *card.profiles], f"{card.name}: ")
    for name in values or {}:
        check_known("parameter", name, card.parameters, f"{card.name}: ")
    given = {**card.profiles.get(profile, {}), **(values or {})}
    checked = {}
    for name, parameter in card.parameters.items():
        where = f"{card.name}: {name}"
        checked[name] = parameter.read(given.get(name, parameter.default), where)
        if isinstance(parameter.choices, str):
            checked[name] = _check_dynamic(parameter.choices, checked[name], where)
    return checked


def _check_dynamic(choices: str, value: Any, where: str) -> Any:
    """Hold `value` (one, or a list) against the mixers, scales or recipes there are now, a user's own among them."""
    if choices == "recipes":
        from stm_lab import data  # here, because it is slow to import

        if Path(value).suffix in (".yaml", ".yml"):  # a recipe of one's own, by path
            if not Path(value).is_file():
                raise UserError(f"{where}: no such file {value!r}")
            return str(Path(value).absolute())
        known = data.list_recipes()
    else:
        import stm_lab

        known = {"mixers": stm_lab.list_mixers, "scales": stm_lab.list_scales}[choices]()
    for item in value if isinstance(value, list) else [value]:
        check_known("value", item, known, f"{where}: ")
    return value


def literal(value: Any) -> str:
    """`value` as Python source, strings in double quotes."""
    if isinstance(value, (str, Path)):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(literal, value))}]"
    return repr(value)


def header_markdown(card: Card) -> str:
    """The notebook's first cell."""
    needs = [
        f"the data of recipe `{card.needs.data}`" if card.needs.data else "",
        "a GPU" if card.needs.gpu else "a CPU is enough",
        "the network" if card.needs.network else "no network",
    ]
    dots = "●" * card.difficulty + "○" * (5 - card.difficulty)
    rows = [f"| `{name}` | `{literal(p.default)}` | {_explained(p)} |" for name, p in card.parameters.items()]
    return "\n".join(
        [
            f"# {card.number} · {card.title}",
            "",
            f"**{card.question}**",
            "",
            "After this notebook you can",
            "",
            *(f"* {goal}" for goal in card.goals),
            "",
            f"About {card.minutes} minutes · difficulty {dots} · needs: {', '.join(filter(None, needs))}",
            "",
            "| parameter | default | meaning |",
            "|---|---|---|",
            *rows,
        ]
    )


def _explained(parameter: Parameter) -> str:
    limits = ""
    if isinstance(parameter.choices, list):
        limits = f" (one of {', '.join(f'`{literal(choice)}`' for choice in parameter.choices)})"
    elif parameter.range is not None:
        low, high = parameter.range
        ends = [f"{word} {end}" for word, end in (("at least", low), ("at most", high)) if end is not None]
        limits = f" ({', '.join(ends)})"
    return parameter.help + limits


def parameters_source(card: Card) -> str:
    """The source of the cell tagged `parameters`.

    `Optional[int]`, not `int | None`: papermill does not recognise the latter and would warn of an unknown parameter.
    """
    lines = ["from typing import Optional", ""] * any(p.optional for p in card.parameters.values())
    for name, parameter in card.parameters.items():
        annotation = parameter.kind.replace("path", "str")
        annotation = f"Optional[{annotation}]" if parameter.optional else annotation
        lines.append(f"{name}: {annotation} = {literal(parameter.default)}  # {parameter.help}")
    return "\n".join(lines)


def setup_call(card: Card) -> str:
    """What the cell after the parameters must contain."""
    return f'lab = stm_lab.course.setup("{card.name}", globals())'


def read_notebook(path: Path) -> dict[str, Any]:
    """The notebook in a file (format 4), each cell's source as one string.

    Read as the JSON it is: importing nbformat takes longer than many a notebook's work.

    Raises:
        UserError: the file is missing or no notebook.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"])
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not a Jupyter notebook (of format 4)") from None
    return notebook


def tags(cell: Mapping[str, Any]) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def check_notebook(path: Path, card: Card) -> list[str]:
    """Where a stored notebook disagrees with its card or with the rules for stored notebooks; empty if nowhere."""
    notebook = read_notebook(path)
    cells = notebook["cells"]
    problems = _difference("header", cells[0]["source"] if cells else "", header_markdown(card))

    places = [i for i, cell in enumerate(cells) if "parameters" in tags(cell)]
    if len(places) != 1:
        problems.append(f"one cell must be tagged 'parameters', found {len(places)}")
    else:
        after = cells[places[0] + 1]["source"] if places[0] + 1 < len(cells) else ""
        problems += _difference("parameters", cells[places[0]]["source"], parameters_source(card))
        if setup_call(card) not in after:
            problems.append(f"the cell after the parameters must contain `{setup_call(card)}`")

    for number, cell in enumerate(cells):
        unknown = [tag for tag in tags(cell) if tag not in TAGS]
        problems += [f"cell {number}: unknown tag {tag!r}; {nearest(tag, TAGS)}" for tag in unknown]
        if cell.get("outputs"):
            problems.append(f"cell {number}: outputs are stored")
        if cell.get("execution_count") is not None:
            problems.append(f"cell {number}: an execution count is stored")
    metadata = notebook.get("metadata", {})
    if "widgets" in metadata:
        problems.append("widget state is stored")
    if metadata.get("kernelspec", {}).get("name") != "python3":
        problems.append("the kernel must be 'python3'")
    return problems


def _difference(what: str, found: str, expected: str) -> list[str]:
    """The first line that differs, if any."""
    theirs, ours = found.splitlines(), expected.splitlines()
    for number in range(max(len(theirs), len(ours))):
        here, there = _line(theirs, number), _line(ours, number)
        if here != there:
            return [f"{what}, line {number + 1}: {here} should be {there}"]
    return []


def _line(lines: list[str], number: int) -> str:
    return repr(lines[number]) if number < len(lines) else "nothing"
