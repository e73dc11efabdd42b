"""A notebook's card: what it asks, how long it takes, which parameters it has. Read from `notebooks/course.yaml`.

What the stored notebook says of itself is made from its card, by the module `notebooks`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stm_lab.mixers.plugins import load_plugins
from stm_lab.util import paths, yaml12
from stm_lab.util.errors import UserError, check_known, nearest, shown
from stm_lab.util.validation import validated

# `quick` is the defaults. `test` is the least that runs each cell and fills each explorer: for tests of anything but
# the numbers, and no learner is offered it.
Profile = Literal["quick", "demo", "class", "paper", "test"]
_TYPE = r"((list\[)?(int|float|str|bool|path)(?(2)\]))( \| None)?"


def dots(level: int) -> str:
    """1 to 5, as people see it."""
    return "●" * level + "○" * (5 - level)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Parameter(_Strict):
    """One parameter of a notebook. `choices` and `range` hold for each item of a list."""

    type: str  # int, float, str, bool, path, a list[...] of these, and any of them `| None`
    default: Any
    help: str = Field(pattern=r"^[^\n=]+$")  # no "=": papermill could not read the parameters cell
    choices: list[Any] | Literal["mixers", "models", "scales", "recipes", "weights"] | None = None  # see _check_dynamic
    range: Annotated[tuple[int | float | None, int | float | None], Field(strict=False)] | None = None  # null: open
    in_key: bool = True  # does another value make another run? (not so: where to write, which device)

    @model_validator(mode="after")
    def _is_consistent(self) -> Parameter:
        if not re.fullmatch(_TYPE, self.type):
            raise ValueError(f"unknown type {shown(self.type)}; such as int, list[str], path | None")
        if self.range and self.item not in ("int", "float"):
            raise ValueError(f"a range is for numbers, not for {self.type}")
        if isinstance(self.choices, str) and self.item not in ("str", "path"):
            raise ValueError(f"choices: {self.choices} are names, not of type {self.type}")
        if self.choices in ("recipes", "weights") and self.kind != self.item:
            raise ValueError(f"choices: {self.choices} are for one value, not for {self.type}")
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
        is_text = self.kind == "str" and not self.optional
        if value is None or (value in ("None", "null") and not is_text):
            if self.optional:
                return None
            raise UserError(f"{where}: expected {self.type}, got None")
        if self.kind == self.item:
            return self._read_item(value, where)
        if isinstance(value, str):
            text = value.strip()
            value = yaml12.parse(f"[{text[1:-1]}]" if text[:1] + text[-1:] == "()" else text, where)
        if not isinstance(value, (list, tuple)):
            such_as = literal([value] if self.default is None else self.default)
            raise UserError(f"{where}: expected {self.type} such as {such_as}, got {shown(value)}")
        items = [self._read_item(item, where) for item in value]
        if not items:
            raise UserError(f"{where}: the list is empty; such as {literal(self.default)}")
        if twice := [item for i, item in enumerate(items) if item in items[:i]]:
            raise UserError(f"{where}: {shown(twice[0])} stands twice in the list")
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
        return paths.expanded(found).absolute()
    raise UserError(f"{where}: expected {kind}, got {shown(value)}")


class Needs(_Strict):
    gpu: bool = False
    network: bool = False
    data: str | None = None  # a recipe that must be there besides those that are drawn

    def words(self) -> list[str]:
        """Each need in a few words."""
        return [
            *([f"the data of recipe `{self.data}`"] if self.data else []),
            "a GPU" if self.gpu else "a CPU is enough",
            "the network" if self.network else "no network",
        ]


class Resources(_Strict):
    """What one run of a profile is expected to take."""

    minutes: float = Field(gt=0)  # by the clock
    memory_gb: float = Field(gt=0)  # the most that is resident at once, of all its processes, in 1e9 bytes
    cpus: int = Field(default=1, ge=1)
    gpus: float = Field(default=0, ge=0)  # a share, where several runs fit on one


class Exercise(_Strict):
    """What the card says of one exercise; its task stands in the notebook."""

    title: str = Field(min_length=1)
    difficulty: int = Field(ge=1, le=5)
    importance: int = Field(ge=1, le=5)
    minutes: int = Field(gt=0)  # of a learner


class Card(_Strict):
    """What `course.yaml` says of one notebook.

    The profile `quick` is the defaults, so it is not written down; every card has a profile `test`, by default `quick`.
    """

    name: str = Field(pattern=r"^[0-9][0-9]_[a-z0-9_]+$")
    folder: Path  # of `course.yaml`, and of the notebook
    title: str
    question: str
    goals: list[str] = Field(min_length=1)
    minutes: int = Field(gt=0)  # of a learner
    difficulty: int = Field(ge=1, le=5)
    needs: Needs = Needs()
    parameters: dict[str, Parameter]
    profiles: dict[Literal["demo", "class", "paper", "test"], dict[str, Any]] = {}
    resources: dict[Profile, Resources]  # of all but `test`: of those that learners choose from
    outputs: list[str] = Field(min_length=1)  # what the run's folder holds at the end, in words
    exercises: list[Exercise] = []  # in the notebook's order

    @model_validator(mode="after")
    def _profiles_fit(self) -> Card:
        for profile, values in self.profiles.items():
            for name, value in values.items():
                check_known("parameter", name, self.parameters, f"profile {profile}: ")
                self.parameters[name].read(value, f"profile {profile}: {name}")
        return self

    @model_validator(mode="after")
    def _resources_fit(self) -> Card:
        profiles = ["quick", *(profile for profile in self.profiles if profile != "test")]
        for profile in profiles:
            if profile not in self.resources:
                raise ValueError(f"resources: the profile {profile!r} is missing: minutes, memory_gb, cpus, gpus")
        for profile in self.resources:
            check_known("profile", profile, profiles, "resources: ")
        return self

    @model_validator(mode="after")
    def _plugins_are_files(self) -> Card:
        if "plugins" in self.parameters and self.parameters["plugins"].kind != "list[path]":
            raise ValueError("the parameter 'plugins' is of type list[path] | None: its files are run")
        return self

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def path(self) -> Path:
        """The notebook itself."""
        return self.folder / f"{self.name}.ipynb"

    def needs_of_profiles(self) -> dict[str, list[str]]:
        """What the profiles besides `quick` need more than it: a GPU, images of another recipe."""
        needs = {}
        for profile in self.resources:
            recipe = self.profiles.get(profile, {}).get("recipe")
            needs[profile] = ["a GPU"] * (self.resources[profile].gpus > 0)
            needs[profile] += [f"the images of `{recipe}`"] * (recipe is not None)
        return {profile: words for profile, words in needs.items() if words}

    def resources_of(self, profile: str) -> Resources:
        """What a run of that profile is expected to take. Raises UserError if the card has no such profile."""
        self.check_profile(profile)
        return self.resources["quick" if profile == "test" else profile]

    def check_profile(self, profile: str) -> None:
        """Raise UserError, with the nearest that learners choose from, if the card has no such profile."""
        if profile != "test":
            check_known("profile", profile, self.resources, f"{self.name}: ")


def load_cards(folder: Path | None = None) -> dict[str, Card]:
    """The cards of a course by name, in the order of its `course.yaml`.

    Args:
        folder: the course's; default: `paths.notebooks_dir()`.

    Raises:
        UserError: the file is missing, not YAML (line and column), or a card does not fit (card, field, value).
    """
    folder = paths.notebooks_dir() if folder is None else folder.absolute()
    path = folder / "course.yaml"
    cards = {}
    for name, body in yaml12.read_mapping(path).items():
        if not isinstance(body, Mapping):
            raise UserError(f"{path}: {shown(name)}: expected a card, found {shown(body)}")
        cards[name] = validated(Card, body, f"{path}: {name}", known={"name": name, "folder": folder})
    return cards


def load_card(notebook: str | int | Path) -> Card:
    """The card of a notebook given by name, number or path: "00_quickstart", 0, "00", "notebooks/00_quickstart.ipynb".

    A path with a `course.yaml` beside it is of that course; all else is of the course in `paths.notebooks_dir()`.

    Raises:
        UserError: there is no such notebook (the nearest is named), or `course.yaml` is not right.
    """
    name, folder = str(notebook), None
    if name.endswith(".ipynb"):
        path = paths.expanded(name)
        name, folder = path.stem, path.parent if (path.parent / "course.yaml").is_file() else None
        if folder is None and path.is_file():  # or another notebook of the same name would be taken for it
            raise UserError(f"{path}: no course.yaml beside it that declares its parameters; see `stm-lab course copy`")
        if path.is_dir():
            raise UserError(f"{path}: a folder, not a notebook; name a notebook in it")
        if folder is None and path.parent != Path("."):  # likewise
            beside = [file.name for file in path.parent.glob("*.ipynb")]
            hint = nearest(path.name, beside)
            raise UserError(f"{path}: no such notebook{f'; {hint}' if hint.startswith('did you mean') else ''}")
    return find_card(load_cards(folder), name)


def find_card(cards: Mapping[str, Card], notebook: str | int) -> Card:
    """The card of a notebook given by name or number. Raises UserError, with the nearest, if there is none."""
    name = str(notebook)
    if name.isdecimal():
        name = next((card.name for card in cards.values() if card.number == name.lstrip("0").zfill(2)), name)
    if name not in cards:
        hint = nearest(name, cards)
        if not hint.startswith("did you mean") and len(cards) > 5:  # the names of all would be five lines
            hint = f"there are {_spans(cards)}; see `stm-lab course list`"
        raise UserError(f"unknown notebook {shown(name)}; {hint}")
    return cards[name]


def _spans(cards: Mapping[str, Card]) -> str:
    """The numbers that there are: "00 to 15, 19 to 21"."""
    spans: list[list[str]] = []
    for number in sorted({card.number for card in cards.values()}):
        if spans and int(number) == int(spans[-1][-1]) + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ", ".join(" to ".join(dict.fromkeys((span[0], span[-1]))) for span in spans) or "none"


def check_values(card: Card, values: Mapping[str, Any] | None = None, *, profile: str = "quick") -> dict[str, Any]:
    """Every parameter's value, with its type: the defaults, the profile's values over them, then `values`.

    Relative paths are taken from the working folder. The files of a parameter `plugins` are run, so that the mixers
    that they register can be chosen.

    Raises:
        UserError: an unknown parameter, profile or choice (the nearest is named), a wrong type, a value out of range, a
            plugin that is missing or fails.
    """
    card.check_profile(profile)
    for name in values or {}:
        check_known("parameter", name, card.parameters, f"{card.name}: ")
    given = {**card.profiles.get(profile, {}), **(values or {})}
    checked = {
        name: parameter.read(given.get(name, parameter.default), f"{card.name}: {name}")
        for name, parameter in card.parameters.items()
    }
    load_plugins(checked.get("plugins") or ())
    for name, parameter in card.parameters.items():
        if isinstance(parameter.choices, str):
            checked[name] = _check_dynamic(parameter.choices, checked[name], f"{card.name}: {name}")
    if checked.get("recipe") and {"train_size", "validation_size"} & checked.keys():
        from stm_lab import data  # here, because it is slow to import

        data.load_recipe(checked["recipe"]).check_sizes(checked, f"{card.name}: ")
    return checked


def _check_dynamic(choices: str, value: Any, where: str) -> Any:
    """Hold `value` (one, or a list) against what there is now, a user's own among it.

    models: mixers, and all that timm builds. weights: a word of `zoo.WORDS`, else a path that is there.
    """
    if choices == "weights":
        from stm_lab import zoo

        return value if value is None else zoo.check_source(value, where)
    if value is None:
        return None
    if choices == "models":
        from stm_lab import zoo

        zoo.check_models(value if isinstance(value, list) else [value], f"{where}: ")
        return value
    if choices == "recipes":
        from stm_lab import data  # here, because it is slow to import

        if Path(value).suffix in (".yaml", ".yml"):  # a recipe of one's own, by path
            path = paths.expanded(value).absolute()
            if not path.is_file():
                raise UserError(f"{where}: no such file {shown(value)}")
            return str(path)
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
