"""A notebook's card: what it asks, how long it takes, which parameters it has. Read from `notebooks/course.yaml`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from stm_lab.mixers.plugins import load_plugins
from stm_lab.util import paths, yaml12
from stm_lab.util.errors import UserError, check_known, shown
from stm_lab.util.validation import checked, validated

# `quick` is the defaults. `test` runs each cell and fills each explorer with as little as possible, for tests of all
# but the numbers; learners are not offered it.
Profile = Literal["quick", "demo", "class", "paper", "test"]
_TYPE = r"((list\[)?(int|float|str|bool|path)(?(2)\]))( \| None)?"


def dots(level: int) -> str:
    """1 to 5, as people see it."""
    return "●" * level + "○" * (5 - level)


class Strict(BaseModel):
    """What a file says: unknown keys and other types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _absolute(value: Any) -> Any:
    return paths.expanded(value).absolute() if isinstance(value, str | Path) and str(value) else value


_ITEMS = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": Annotated[str, Field(min_length=1)],
    "path": Annotated[Path, BeforeValidator(_absolute)],
}


class Parameter(Strict):
    """One parameter of a notebook. `choices` and `range` hold for each item of a list."""

    type: str  # int, float, str, bool, path, a list[...] of these, and any of them `| None`
    default: Any
    help: str = Field(pattern=r"^[^\n=]+$")  # no "=": papermill could not read the parameters cell
    choices: list[Any] | Literal["mixers", "models", "scales", "recipes", "weights"] | None = None  # see _check_dynamic
    range: Annotated[tuple[int | float | None, int | float | None], Field(strict=False)] | None = None  # null: open
    in_key: bool = True  # whether another value makes another run (unlike a folder for results, or a device)

    @model_validator(mode="after")
    def _is_consistent(self) -> Parameter:
        if not re.fullmatch(_TYPE, self.type):
            raise ValueError(f"unknown type {shown(self.type)}; such as int, list[str], path | None")
        if self.range and self.item not in ("int", "float"):
            raise ValueError(f"a range is for numbers, not for {self.type}")
        if isinstance(self.choices, str) and self.item not in ("str", "path"):
            raise ValueError(f"choices: {self.choices} are names, not of type {self.type}")
        if self.choices in ("recipes", "weights") and self.is_list:
            raise ValueError(f"choices: {self.choices} are for one value, not for {self.type}")
        return self

    @property
    def kind(self) -> str:
        """The type without `| None`."""
        return self.type.removesuffix(" | None")

    @property
    def is_list(self) -> bool:
        return self.kind.startswith("list[")

    @property
    def item(self) -> str:
        """The type of one item: `int` for `list[int]`, and for `int`."""
        return self.kind.removeprefix("list[").removesuffix("]")

    def annotation(self) -> Any:
        """The type that pydantic checks values by."""
        low, high = self.range or (None, None)
        item = Annotated[_ITEMS[self.item], Field(ge=low, le=high)] if self.range else _ITEMS[self.item]
        item = Annotated[item, AfterValidator(self._chosen)] if isinstance(self.choices, list) else item
        whole = Annotated[list[item], Field(min_length=1), AfterValidator(_distinct)] if self.is_list else item
        return Annotated[whole if self.kind == self.type else whole | None, BeforeValidator(self._parsed)]

    def _chosen(self, value: Any) -> Any:
        check_known("value", value, self.choices)
        return value

    def _parsed(self, value: Any) -> Any:
        """Text as the value that is written there, where the type is not text itself: papermill's `-p` passes text."""
        if value in ("None", "null") and (self.kind != self.type or self.item != "str"):
            return None
        if isinstance(value, str) and self.kind not in ("str", "path"):
            text = value.strip()
            value = yaml12.parse(f"[{text[1:-1]}]" if self.is_list and text[:1] + text[-1:] == "()" else text, "text")
        if self.is_list and not isinstance(value, list | tuple | None):
            raise ValueError(f"expected {self.type} such as {literal([value])}, got {shown(value)}")
        return list(value) if isinstance(value, tuple) else value


def _distinct(items: list[Any]) -> list[Any]:
    if twice := [item for i, item in enumerate(items) if item in items[:i]]:
        raise ValueError(f"{shown(twice[0])} stands twice in the list")
    return items


class Resources(Strict):
    """What one run of a profile is expected to take."""

    minutes: float = Field(gt=0)  # by the clock
    memory_gb: float = Field(gt=0)  # peak resident memory of all its processes together, in 1e9 bytes
    cpus: int = Field(default=1, ge=1)
    gpus: float = Field(default=0, ge=0)  # a share, where several runs fit on one


class Exercise(Strict):
    """What the card says about one exercise; the notebook has its task."""

    title: str = Field(min_length=1)
    difficulty: int = Field(ge=1, le=5)
    importance: int = Field(ge=1, le=5)
    minutes: int = Field(gt=0)  # of a learner


class Card(Strict):
    """What `course.yaml` says about one notebook.

    The profile `quick` is the defaults, so it is not written down; every card has a profile `test`, by default `quick`.
    """

    name: str = Field(pattern=r"^[0-9][0-9]_[a-z0-9_]+$")
    folder: Path  # of `course.yaml`, and of the notebook
    title: str
    question: str
    goals: list[str] = Field(min_length=1)
    minutes: int = Field(gt=0)  # of a learner
    difficulty: int = Field(ge=1, le=5)
    parameters: dict[str, Parameter]
    profiles: dict[Literal["demo", "class", "paper", "test"], dict[str, Any]] = {}
    resources: dict[Profile, Resources]  # of all profiles except `test`
    outputs: list[str] = Field(min_length=1)  # what the run's folder holds at the end, in words
    exercises: list[Exercise] = []  # in the notebook's order

    @model_validator(mode="after")
    def _is_consistent(self) -> Card:
        schema = self._schema()
        for profile in ("quick", *self.profiles):
            validated(schema, self._given({}, profile, f"profile {profile}: "), f"profile {profile}")
        profiles = ["quick", *(profile for profile in self.profiles if profile != "test")]
        for profile in profiles:
            if profile not in self.resources:
                raise ValueError(f"resources: the profile {profile!r} is missing: minutes, memory_gb, cpus, gpus")
        for profile in self.resources:
            check_known("profile", profile, profiles, "resources: ")
        if "plugins" in self.parameters and self.parameters["plugins"].kind != "list[path]":
            raise ValueError("the parameter 'plugins' is of type list[path] | None: its files are run")
        return self

    def read(self, values: Mapping[str, Any], profile: str) -> dict[str, Any]:
        """Every parameter's value, with its type: the defaults, the profile's values over them, then `values`.

        Raises UserError for an unknown name, a wrong type, a value out of range or not among choices that are listed.
        """
        return dict(validated(self._schema(), self._given(values, profile, f"{self.name}: "), self.name))

    def _schema(self) -> type[BaseModel]:
        fields = {name: (parameter.annotation(), ...) for name, parameter in self.parameters.items()}
        return create_model("Values", __base__=Strict, **fields)

    def _given(self, values: Mapping[str, Any], profile: str, where: str) -> dict[str, Any]:
        given = {**self.profiles.get(profile, {}), **values}
        for name in given:
            check_known("parameter", name, self.parameters, where)
        return {name: parameter.default for name, parameter in self.parameters.items()} | given

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def path(self) -> Path:
        """The notebook itself."""
        return self.folder / f"{self.name}.ipynb"

    def needs_of_profiles(self) -> dict[str, list[str]]:
        """What the profiles need in addition to `quick`: a GPU, images of another recipe."""
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
        """Raise UserError, with the nearest profile that learners may choose, if the card has no such profile."""
        if profile != "test":
            check_known("profile", profile, self.resources, f"{self.name}: ")


def load_cards(folder: Path | None = None) -> dict[str, Card]:
    """The cards of a course by name, in the order of its `course.yaml`. `folder`: default `paths.notebooks_dir()`.

    A parameter of a card takes the fields that it does not give from the parameter of that name in `common`. Raises
    UserError if the file is missing, not YAML (line and column), or a card does not fit (card, field, value).
    """
    folder = paths.notebooks_dir() if folder is None else folder.absolute()
    path = folder / "course.yaml"
    cards = yaml12.read_mapping(path)
    common = checked({"common": dict[str, dict[str, Any]]}, {"common": cards.pop("common", {})}, str(path))["common"]
    for name, body in cards.items():
        if not isinstance(body, Mapping):
            raise UserError(f"{path}: {shown(name)}: expected a card, found {shown(body)}")
        if isinstance(own := body.get("parameters"), Mapping):
            shared = {name: {**common.get(name, {}), **one} for name, one in own.items() if isinstance(one, Mapping)}
            body = {**body, "parameters": {**own, **shared}}
        cards[name] = validated(Card, body, f"{path}: {name}", known={"name": name, "folder": folder})
    return cards


def load_card(notebook: str | int | Path) -> Card:
    """The card of a notebook given by name, number or path: "00_quickstart", 0, "00", "notebooks/00_quickstart.ipynb".

    A path with a `course.yaml` beside it belongs to that course; everything else to the one in `paths.notebooks_dir()`.
    Raises UserError if there is no such notebook (the nearest is named), or `course.yaml` is not right.
    """
    if not str(notebook).endswith(".ipynb"):
        return find_card(load_cards(), notebook)
    path = paths.expanded(notebook)
    if (path.parent / "course.yaml").is_file():
        return find_card(load_cards(path.parent), path.stem)
    if path.exists() or path.parent != Path("."):  # or another notebook of the same name would be taken for it
        raise UserError(f"{path}: no course.yaml beside it that declares its parameters; see `stm-lab course copy`")
    return find_card(load_cards(), path.stem)


def find_card(cards: Mapping[str, Card], notebook: str | int) -> Card:
    """The card of a notebook given by name or number. Raises UserError, with the nearest, if there is none."""
    name = str(notebook)
    if name.isdecimal():
        name = next((card.name for card in cards.values() if int(card.number) == int(name)), name)
    check_known("notebook", name, cards)
    return cards[name]


def check_values(card: Card, values: Mapping[str, Any] | None = None, *, profile: str = "quick") -> dict[str, Any]:
    """Every parameter's value, with its type: the defaults, the profile's values over them, then `values`.

    Relative paths are taken from the working folder. The files of a parameter `plugins` are run, so that the mixers
    that they register can be chosen. Raises UserError for a wrong name, profile or value, and for a plugin that fails.
    """
    card.check_profile(profile)
    found = card.read(values or {}, profile)
    load_plugins(found.get("plugins") or ())
    for name, parameter in card.parameters.items():
        if isinstance(parameter.choices, str) and found[name] is not None:
            found[name] = _check_dynamic(parameter.choices, found[name], f"{card.name}: {name}")
    if found.get("recipe") and {"train_size", "validation_size"} & found.keys():
        from stm_lab import data  # here, because it is slow to import

        data.load_recipe(found["recipe"]).check_sizes(found, f"{card.name}: ")
    return found


def _check_dynamic(choices: str, value: Any, where: str) -> Any:
    """Check `value` (one, or a list) against what exists now, the user's own included.

    models: mixers, and everything that timm builds. weights: a word of `zoo.WORDS`, else a path that exists.
    """
    items = value if isinstance(value, list) else [value]
    if choices in ("weights", "models"):
        from stm_lab import zoo  # here, because it is slow to import, as below

        if choices == "weights":
            return zoo.check_source(value, where)
        zoo.check_models(items, f"{where}: ")
        return value
    if choices == "recipes" and Path(value).suffix in (".yaml", ".yml"):  # a recipe of one's own, by path
        path = paths.expanded(value).absolute()
        if not path.is_file():
            raise UserError(f"{where}: no such file {shown(value)}")
        return str(path)
    if choices == "recipes":
        from stm_lab.data import list_recipes as known
    else:
        import stm_lab

        known = {"mixers": stm_lab.list_mixers, "scales": stm_lab.list_scales}[choices]
    for item in items:
        check_known("value", item, known(), f"{where}: ")
    return value


def literal(value: Any) -> str:
    """`value` as Python source, strings in double quotes."""
    if isinstance(value, (str, Path)):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(literal, value))}]"
    return repr(value)
