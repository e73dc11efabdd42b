"""A data recipe: what a set of images is for, what it holds and where it comes from, as a YAML file that is checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from stm_lab import paths, yaml12
from stm_lab.errors import UserError, check_known
from stm_lab.validation import validated


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GeneratorSource(_Part):
    """Images drawn by a program of ours, as many as the recipe's counts say."""

    kind: Literal["generator"]
    name: Literal["shapes"]
    seed: int = Field(0, ge=0, lt=2**63)


class ParquetSource(_Part):
    """Local files `<split>.parquet` with columns `image` and `label`, in `data_root` or in `raw/<recipe's name>`."""

    kind: Literal["parquet"]


# Another kind of source is a class here and a function in sources.py.
Source = Annotated[GeneratorSource | ParquetSource, Field(discriminator="kind")]
KINDS = ("generator", "parquet")
SPLITS = ("train", "validation")


class Recipe(_Part):
    """A data set, declared: the keys of a recipe's file, and the file's name."""

    name: str
    title: str
    question: str  # what the set is good for
    licence: str
    homepage: str | None = None
    image_size: int = Field(ge=32)  # pixels, side of the square images that training sees
    classes: dict[str, str]  # identifier (WordNet's for photographs) -> readable name, in the order of the labels
    counts: dict[str, PositiveInt] = Field(min_length=1)  # images of each split
    source: Source

    @field_validator("classes", mode="before")
    @classmethod
    def _two_classes_or_more(cls, value: Any) -> Any:
        if isinstance(value, list):  # identifiers that read well enough
            if len(set(map(str, value))) < len(value):
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
    def _known_kind(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "kind" in value:
            check_known("kind", value["kind"], KINDS)
        return value


def list_recipes() -> list[str]:
    """The names of the recipes that come with the project, sorted."""
    return sorted(path.stem for path in paths.recipes_dir().glob("*.yaml"))


def load_recipe(name_or_path: str | os.PathLike) -> Recipe:
    """The recipe of that name (see `list_recipes`), or in that YAML file.

    Raises UserError, one line: unknown name (the nearest is named), no such file, not YAML (with the line), an unknown
    or missing key, a value out of range, fewer than two classes, no images.
    """
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and path.suffix not in (".yaml", ".yml") and path.name == name_or_path:
        check_known("recipe", name_or_path, list_recipes())
        path = paths.recipes_dir() / f"{name_or_path}.yaml"
    values = yaml12.read_mapping(path)
    if "name" in values:
        raise UserError(f"{path}: 'name' is the file's name, not a key")
    return validated(Recipe, values | {"name": path.stem}, str(path))
