"""A data recipe: what a set of images is for, what it holds and where it comes from, as a YAML file that is checked."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, get_args

from huggingface_hub.utils import validate_repo_id
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    PrivateAttr,
    field_validator,
    model_validator,
)

from stm_lab.data import shards
from stm_lab.util import paths, yaml12
from stm_lab.util.errors import UserError, check_known, nearest, shown
from stm_lab.util.files import read_text, same_name
from stm_lab.util.validation import validated

Name = Annotated[str, AfterValidator(same_name)]
Names = Annotated[tuple[Name, ...], Field(strict=False)]  # YAML has lists


def _leads_down(path: str) -> str:
    """A path as a recipe spells it. Raises ValueError if it is absolute or has a '..', as any system writes them."""
    for spelled in (PurePosixPath(path), PureWindowsPath(path)):
        if spelled.anchor or ".." in spelled.parts or "\0" in path:
            raise ValueError(f"{path!r} may lead out of the recipe's folder or its data root; give a path below it")
    return path


Below = Annotated[str, AfterValidator(_leads_down)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class GeneratorSource(_Part):
    """Images drawn by a program of ours, as many as the recipe's counts say."""

    kind: Literal["generator"]
    name: Literal["shapes", "shape-pairs"]
    seed: int = Field(0, ge=0, lt=2**63)


class ParquetSource(_Part):
    """Local files `<split>.parquet` with columns `image` and `label`."""

    kind: Literal["parquet"]


class FolderSource(_Part):
    """A folder of image files, as people have it on disk (`stm_lab.data.folders` says how each layout looks)."""

    kind: Literal["folder"]
    layout: Literal["ilsvrc", "tiny-imagenet", "imagefolder"]


class WebdatasetSource(_Part):
    """Local tar shards, in each KEY.jpg (or .png, .webp) beside KEY.cls or KEY.json with a `label`."""

    kind: Literal["webdataset"]
    shards: dict[str, Below]  # split -> file name; {000..012} stands for the numbers from 000 to 012
    labels: Names | None = None  # which class a number stands for, where labels are numbers

    @field_validator("shards")
    @classmethod
    def _ranges(cls, value: dict[str, str]) -> dict[str, str]:
        for pattern in value.values():
            shards.expanded(pattern)
        return value


class HubSource(_Part):
    """Parquet files of a data set on the Hugging Face hub, at one commit."""

    kind: Literal["hub"]
    name: str
    revision: str  # the whole commit hash: a branch or tag may move
    files: dict[str, Below]  # split -> pattern of file names
    gated: bool = False  # whether one has to accept terms there first
    labels: Names | None = None  # which class label 0, 1, ... stands for; default: the names in the files

    @field_validator("name")
    @classmethod
    def _owner_and_name(cls, value: str) -> str:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
            raise ValueError(f"{value!r} is not OWNER/NAME, such as 'ILSVRC/imagenet-1k'")
        validate_repo_id(value)  # not "../..", say
        return value

    @field_validator("revision")
    @classmethod
    def _whole_hash(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9a-f]{40}", value):
            raise ValueError(f"{value!r} is not a whole commit hash (40 hexadecimal digits); names of branches move")
        return value


# Another kind of source is a class here and a reader in sources.py.
Source = Annotated[
    GeneratorSource | ParquetSource | FolderSource | WebdatasetSource | HubSource, Field(discriminator="kind")
]
_SOURCES = get_args(get_args(Source)[0])
KINDS = tuple(get_args(source.model_fields["kind"].annotation)[0] for source in _SOURCES)
SPLITS = ("train", "validation")


class Subset(_Part):
    """A part of a source's images. The number of images is cut in the training split alone; validation stays whole.

    Where the images' files have no names of their own, only classes can be chosen."""

    classes: Annotated[Names, Field(min_length=2)] | None = None  # their identifiers, in any order
    per_class: PositiveInt | None = None  # images of each class
    fraction: float | None = Field(None, gt=0, lt=1)  # of all images, as evenly from all classes as can be
    seed: int = Field(0, ge=0, lt=2**63)  # which images: a hash of their identifiers with it decides

    @model_validator(mode="after")
    def _one_way_to_cut(self) -> Subset:
        if self.per_class and self.fraction:
            raise ValueError("give per_class or fraction, not both")
        return self


class Recipe(_Part):
    """A data set, declared: the keys of a recipe's file, and what its name and the recipes it extends are."""

    name: str
    bases: Names = ()  # the recipes that it extends, nearest first: their raw data are its own
    title: str
    question: str  # what the set is good for
    licence: str
    terms: str | None = None  # what one has to do to be given the images
    homepage: str | None = None
    size: str | None = None  # of the download, for people
    image_size: int = Field(ge=1, le=8192)  # pixels, side of the square images that training sees
    classes: dict[Name, str]  # identifier (WordNet's for photographs) -> readable name, in the order of the labels
    subset: Subset = Subset()
    counts: dict[str, PositiveInt] = Field(min_length=1)  # images of each split
    source: tuple[Source, ...] = Field(min_length=1, strict=False)  # the first that is there is taken
    fingerprint: str | None = Field(None, pattern="^[0-9a-f]{16}$")  # of the images on disk it was written for
    max_broken: int = Field(0, ge=0)  # how many images of a split `prepare` may leave out because they are broken
    _given: str | None = PrivateAttr(None)  # how it was asked for: a name or a path

    @property
    def argument(self) -> str:
        """What to type for it on a command line."""
        return shlex.quote(self._given or self.name)

    def check_sizes(self, values: Mapping[str, Any], where: str = "") -> None:
        """Raise UserError if `train_size` or `validation_size` in `values` is more than the images of that split."""
        for split, count in self.counts.items():
            size = values.get(f"{split}_size")
            if size is not None and size > count:
                raise UserError(f"{where}{split}_size = {size}: {self.name} has {count:,} {split} images")

    @field_validator("classes", mode="before")
    @classmethod
    def _two_classes_or_more(cls, value: Any) -> Any:
        if isinstance(value, list):  # identifiers that read well enough
            for name in value:
                if not isinstance(name, str):
                    hint = f"; write it in quotes: '{name}'" if isinstance(name, int | float) else ""
                    raise ValueError(f"{shown(name)} is not a class's identifier, which is text{hint}")
            if len(set(value)) < len(value):
                raise ValueError("a class stands twice")
            value = {name: name for name in value}
        if isinstance(value, Mapping) and len(value) < 2:
            raise ValueError(f"{len(value)} of them; there is nothing to tell apart with fewer than 2")
        return value

    @field_validator("counts")
    @classmethod
    def _known_splits(cls, value: dict[str, int]) -> dict[str, int]:
        for split in value:
            check_known("split", split, SPLITS)
        return value

    @field_validator("source", mode="before")
    @classmethod
    def _known_kinds(cls, value: Any) -> Any:
        value = value if isinstance(value, list | tuple) else [value]
        for source in value:
            if isinstance(source, Mapping) and "kind" not in source:
                keys = {key for kind in _SOURCES for key in kind.model_fields}
                for key in source:  # a misspelt one may be the kind
                    check_known("key", key, keys)
                raise ValueError(f"'kind' is missing; {nearest('', KINDS)}")
            if isinstance(source, Mapping):
                check_known("kind", source["kind"], KINDS)
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        for source in self.source:
            for what in ("files", "shards"):
                for split in getattr(source, what, self.counts):
                    check_known("split", split, self.counts, where=f"source: {what} of ")
                for split in self.counts:
                    if split not in getattr(source, what, self.counts):
                        raise ValueError(f"source: {what} has nothing for {split!r}")
        for name in self.subset.classes or ():
            check_known("class", name, self.classes, where="subset: ")
        return self


def list_recipes() -> list[str]:
    """The names of the recipes that come with the project, sorted."""
    return sorted(path.stem for path in paths.recipes_dir().glob("*.yaml"))


def load_recipe(name_or_path: str | os.PathLike) -> Recipe:
    """The recipe of that name (see `list_recipes`), or in that YAML file; `classes` are those of its subset.

    `extends: NAME` (a shipped recipe, or a file beside this one) takes over every key that the file does not give, but
    not the fingerprint; `subset` is taken over key by key. Where classes are listed, the path of a list file may stand
    instead, relative to the recipe: a line is an identifier, then a name; # begins a comment.

    A recipe may come from a stranger. The files that it names lie below its own folder, links followed, or its data
    root; what the user has linked into a data root is the user's.

    Raises UserError, one line: unknown name (the nearest is named), no such file, not YAML (with the line), an unknown
    or missing key, a value out of range, a path that leads out, fewer than two classes, no images, recipes that extend
    each other.
    """
    path = _recipe_file(name_or_path)
    values, bases = _extended(path, ())
    recipe = validated(Recipe, values, str(path), known={"name": path.stem, "bases": bases}, also=["extends"])
    wanted = recipe.subset.classes or recipe.classes
    classes = {identifier: name for identifier, name in recipe.classes.items() if identifier in set(wanted)}
    recipe = recipe.model_copy(update={"classes": classes})
    recipe._given = os.fspath(name_or_path)
    return recipe


def _recipe_file(name_or_path: str | os.PathLike) -> Path:
    path = paths.expanded(name_or_path)
    if isinstance(name_or_path, str) and path.suffix not in (".yaml", ".yml") and path.name == name_or_path:
        check_known("recipe", name_or_path, list_recipes())
        return paths.recipes_dir() / f"{name_or_path}.yaml"
    return path


def _extended(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The values of a recipe file on top of those that it extends, and the names of those."""
    if path.resolve() in above:
        raise UserError(f"{path}: extends itself, by way of {', '.join(file.stem for file in above)}")
    values = yaml12.read_mapping(path)
    values = _with_lists(values, path)
    if "extends" not in values:
        return values, ()
    extends = values.pop("extends")
    if not isinstance(extends, str):
        raise UserError(f"{path}: extends = {shown(extends)}: expected a recipe's name or file")
    if Path(extends).suffix in (".yaml", ".yml"):
        base = _beside(path, extends, f"{path}: extends: ")
    else:
        check_known("recipe", extends, list_recipes(), where=f"{path}: extends: ")
        base = _recipe_file(extends)
    if not base.is_file():
        raise UserError(f"{path}: extends: {base}: No such file")
    inherited, bases = _extended(base, (*above, path.resolve()))
    inherited.pop("fingerprint", None)  # that of other images
    subsets = [part["subset"] for part in (inherited, values) if isinstance(part.get("subset"), dict)]
    if len(subsets) == 2:
        values = values | {"subset": subsets[0] | subsets[1]}
    return inherited | values, (base.stem, *bases)


def _beside(recipe: Path, name: str, where: str) -> Path:
    """The file that a recipe calls `name`. Raises UserError if it is not below the recipe's folder, links followed."""
    try:
        file = paths.expanded(recipe.parent / _leads_down(name))
    except ValueError as error:
        raise UserError(f"{where}{error}") from None
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(recipe.parent)):
        raise UserError(f"{where}{name!r} is a link that leads out of {recipe.parent}; copy the file there")
    return file


def _with_lists(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The values of a recipe's file with what its list files hold in the place of their paths."""

    def listed(part: Any, key: str) -> Any:
        if not isinstance(part, dict) or not isinstance(part.get(key), str):
            return part
        where = f"{path}: {key}: "
        classes = _read_list(_beside(path, part[key], where), where)
        return part | {key: classes if part is values else list(classes)}

    source, subset = values.get("source"), listed(values.get("subset"), "classes")
    sources = [listed(one, "labels") for one in source] if isinstance(source, list) else listed(source, "labels")
    return listed(values, "classes") | {k: v for k, v in (("subset", subset), ("source", sources)) if k in values}


def _read_list(path: Path, where: str) -> dict[str, str]:
    try:
        lines = read_text(path).splitlines()
    except UserError as error:
        raise UserError(f"{where}{error}") from None
    classes: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        identifier, _, name = same_name(line).partition("#")[0].strip().partition(" ")
        if identifier in classes:
            raise UserError(f"{where}{path}, line {number}: {identifier!r} stands twice")
        if identifier:
            classes[identifier] = name.strip() or identifier
    return classes
