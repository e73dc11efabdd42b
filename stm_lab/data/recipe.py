"""A data recipe: what a set of images is for, what it holds and where it comes from, as a YAML file that is checked."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

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
from stm_lab.util.errors import UserError, check_known, shown
from stm_lab.util.files import read_text, same_name
from stm_lab.util.overrides import extended
from stm_lab.util.validation import validated

Name = Annotated[str, AfterValidator(same_name)]
Names = Annotated[tuple[Name, ...], Field(strict=False)]  # YAML has lists
Split = Literal["train", "validation"]


def _leads_down(path: str) -> str:
    """A path as a recipe spells it. Raises UserError if it is absolute or has a '..', as any system writes them."""
    for spelled in (PurePosixPath(path), PureWindowsPath(path)):
        if spelled.anchor or ".." in spelled.parts or "\0" in path:
            raise UserError(f"{path!r} may lead out of the recipe's folder or its data root; give a path below it")
    return path


def _has_a_range(pattern: str) -> str:
    shards.expanded(pattern)
    return pattern


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
    """A folder of image files, as people have it on disk (`stm_lab.data.folders` describes the layouts)."""

    kind: Literal["folder"]
    layout: Literal["ilsvrc", "tiny-imagenet", "imagefolder"]


class WebdatasetSource(_Part):
    """Local tar shards, in each KEY.jpg (or .png, .webp) beside KEY.cls or KEY.json with a `label`."""

    kind: Literal["webdataset"]
    shards: dict[Split, Annotated[Below, AfterValidator(_has_a_range)]]  # file name; {000..012}: numbers 000 to 012
    labels: Names | None = None  # the classes that the numbers 0, 1, ... stand for, where labels are numbers


class HubSource(_Part):
    """Parquet files of a data set on the Hugging Face hub, at one commit."""

    kind: Literal["hub"]
    name: str = Field(pattern=r"^\w+([.-]\w+)*/\w+([.-]\w+)*$")  # OWNER/NAME
    revision: str = Field(pattern="^[0-9a-f]{40}$")  # a whole commit hash: names of branches move
    files: dict[Split, Below]  # pattern of file names
    gated: bool = False  # whether one has to accept terms there first
    labels: Names | None = None  # the classes that the labels 0, 1, ... stand for; default: the names in the files


# Another kind of source is a class here and a reader in sources.py.
Source = Annotated[
    GeneratorSource | ParquetSource | FolderSource | WebdatasetSource | HubSource, Field(discriminator="kind")
]
_KINDS = ("generator", "parquet", "folder", "webdataset", "hub")


class Subset(_Part):
    """A part of a source's images. The number of images is reduced in the training split only.

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
    """A data set, declared: the keys of a recipe's file, its name, and the names of the recipes that it extends."""

    name: str
    bases: Names = ()  # the recipes that it extends, nearest first: their raw data are its own
    title: str
    question: str  # what the set is good for
    licence: str
    terms: str | None = None  # what one has to do to be given the images
    homepage: str | None = None
    size: str | None = None  # of the download, for people
    image_size: int = Field(ge=1, le=8192)  # pixels, side of the square images that training sees
    classes: dict[Name, str] = Field(min_length=2)  # identifier (WordNet's) -> readable name, in the order of labels
    subset: Subset = Subset()
    counts: dict[Split, PositiveInt] = Field(min_length=1)  # images of each split
    source: tuple[Source, ...] = Field(min_length=1, strict=False)  # the first whose images are found is taken
    fingerprint: str | None = Field(None, pattern="^[0-9a-f]{16}$")  # of the images on disk it was written for
    max_broken: int = Field(0, ge=0)  # how many images of a split `prepare` may leave out because they are broken
    _given: str | None = PrivateAttr(None)  # how it was asked for: a name or a path

    @property
    def argument(self) -> str:
        """How a command line names it."""
        return shlex.quote(self._given or self.name)

    def check_sizes(self, values: Mapping[str, Any], where: str = "") -> None:
        """Raise UserError if `train_size` or `validation_size` in `values` is more than the images of that split."""
        for split, count in self.counts.items():
            size = values.get(f"{split}_size")
            if size is not None and size > count:
                raise UserError(f"{where}{split}_size = {size}: {self.name} has {count:,} {split} images")

    @field_validator("classes", mode="before")
    @classmethod
    def _identifiers_only(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        for name in value:
            if not isinstance(name, str):
                raise ValueError(f"{shown(name)} is not text; write a class's identifier in quotes")
        if len(set(value)) < len(value):
            raise ValueError("a class is listed twice")
        return {name: name for name in value}

    @field_validator("source", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        value = value if isinstance(value, list | tuple) else [value]
        for source in value:
            if isinstance(source, Mapping):
                check_known("kind", source.get("kind"), _KINDS)
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        for source in self.source:
            for what in ("files", "shards"):
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

    `extends: NAME` (a shipped recipe, or a file beside this one) inherits every key that the file does not give, except
    the fingerprint; `subset` is inherited key by key. A list of classes may be the path of a list file, relative to the
    recipe: a line is an identifier, then a name; # begins a comment.

    A recipe may come from a stranger. The files that it names lie below its own folder, links followed, or its data
    root; links that the user has put into a data root are followed.

    Raises UserError: an unknown name, no such file, not YAML, an unknown or missing key, a value out of range, a path
    that leads out, recipes that extend each other.
    """
    path = _recipe_file(name_or_path)
    values, files = extended(_read(path), str(path), _extended_file, read=_read, on_top=_on_top, file=path)
    known = {"name": path.stem, "bases": tuple(file.stem for file in files)}
    recipe = validated(Recipe, values, str(path), known=known, also=["extends"])
    wanted = set(recipe.subset.classes or recipe.classes)
    classes = {identifier: name for identifier, name in recipe.classes.items() if identifier in wanted}
    recipe = recipe.model_copy(update={"classes": classes})
    recipe._given = os.fspath(name_or_path)
    return recipe


def _recipe_file(name_or_path: str | os.PathLike) -> Path:
    path = paths.expanded(name_or_path)
    if isinstance(name_or_path, str) and path.suffix not in (".yaml", ".yml") and path.name == name_or_path:
        check_known("recipe", name_or_path, list_recipes())
        return paths.recipes_dir() / f"{name_or_path}.yaml"
    return path


def _extended_file(name: Any, folder: Path) -> Path:
    """The file that a recipe in this folder extends: a shipped recipe by name, or a file beside it by path."""
    if isinstance(name, str) and Path(name).suffix in (".yaml", ".yml"):
        return _beside(folder, name)
    check_known("recipe", name, list_recipes())
    return _recipe_file(name)


def _on_top(inherited: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A recipe's keys on top of those of the one that it extends, whose fingerprint is that of other images."""
    subsets = [part["subset"] for part in (inherited, own) if isinstance(part.get("subset"), dict)]
    subset = {"subset": subsets[0] | subsets[1]} if len(subsets) == 2 else {}
    return {name: value for name, value in inherited.items() if name != "fingerprint"} | own | subset


def _beside(folder: Path, name: str) -> Path:
    """The file that a recipe in this folder calls `name`. Raises UserError if it is not below it, links followed."""
    file = paths.expanded(folder / _leads_down(name))
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
        raise UserError(f"{name!r} is a link that leads out of {folder}; copy the file there")
    return file


def _read(path: Path) -> dict[str, Any]:
    """The keys of a recipe's file, with the contents of list files instead of their paths."""

    def filled(part: Any, key: str, kind: Callable) -> Any:
        if not isinstance(part, dict) or not isinstance(part.get(key), str):
            return part
        try:
            return part | {key: kind(_read_list(_beside(path.parent, part[key])))}
        except UserError as error:
            raise UserError(f"{path}: {key}: {error}") from None

    values = filled(yaml12.read_mapping(path), "classes", dict)
    if "subset" in values:
        values["subset"] = filled(values["subset"], "classes", list)
    if isinstance(values.get("source"), list):
        values["source"] = [filled(source, "labels", list) for source in values["source"]]
    elif "source" in values:
        values["source"] = filled(values["source"], "labels", list)
    return values


def _read_list(path: Path) -> dict[str, str]:
    """Identifier -> readable name, by a list file."""
    classes: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        identifier, _, name = same_name(line).partition("#")[0].strip().partition(" ")
        if identifier in classes:
            raise UserError(f"{path}, line {number}: {identifier!r} is listed twice")
        if identifier:
            classes[identifier] = name.strip() or identifier
    return classes
