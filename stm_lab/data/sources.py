"""One reader for each kind of source a recipe may name, and what identifies the data it would give.

A reader is `read(recipe, split, data_root) -> datasets.Dataset` with columns `id`, `image` and `label` first. An
identity is a JSON value of identifiers and file hashes: what the fingerprint is made of. Nothing here opens a
connection.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from datasets import ClassLabel, Dataset, Image

from stm_lab import paths
from stm_lab.data import shapes
from stm_lab.data.recipe import Recipe
from stm_lab.errors import UserError, check_known, nearest

# ---- drawn by a program of ours --------------------------------------------------------------------------------------

GENERATORS = {"shapes": shapes}


def read_generator(recipe: Recipe, split: str, data_root: Path | None) -> Dataset:
    """Draw a split. There are no raw data, so `data_root` plays no part."""
    generator = GENERATORS[recipe.source.name]
    if list(recipe.classes) != list(generator.CLASSES):
        raise UserError(f"{recipe.name}: classes must be those of the generator: {', '.join(generator.CLASSES)}")
    if recipe.image_size != generator.IMAGE_SIZE:
        raise UserError(f"{recipe.name}: image_size {recipe.image_size}, but the generator's is {generator.IMAGE_SIZE}")
    rows = list(generator.examples(recipe.source.seed, split, 0, recipe.counts[split]))
    return Dataset.from_list(rows, features=generator.FEATURES)


def generator_identity(recipe: Recipe, data_root: Path | None) -> Any:
    version = GENERATORS[recipe.source.name].VERSION
    return [recipe.source.name, version, recipe.source.seed, recipe.counts]


# ---- local parquet files ---------------------------------------------------------------------------------------------


def find_raw(recipe: Recipe, filename: str, data_root: Path | None) -> Path:
    """The path of one of a recipe's raw files: in `data_root` if given, else in `raw/<name>` of each data root."""
    folders = [data_root] if data_root else [root / "raw" / recipe.name for root in paths.data_roots()]
    for folder in folders:
        if (folder / filename).is_file():
            return folder / filename
    raise UserError(
        f"{recipe.name}: no {filename} in {' or '.join(map(str, folders))}; pass the folder that has it as data_root= "
        f"(--data-root), or set STM_LAB_DATA to one that has it under raw/{recipe.name}"
    )


def read_parquet(recipe: Recipe, split: str, data_root: Path | None) -> Dataset:
    """Read `<split>.parquet` into memory: the classes that the recipe names, labelled in the recipe's order."""
    path = find_raw(recipe, f"{split}.parquet", data_root)
    try:
        dataset = Dataset(pa.parquet.read_table(path))
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a parquet file that can be read ({str(error).splitlines()[0]})") from error
    for column in ("image", "label"):
        if column not in dataset.column_names:
            raise UserError(f"{path}: no column {column!r}; {nearest(column, dataset.column_names)}")
    if not isinstance(dataset.features["label"], ClassLabel):
        raise UserError(f"{path}: column 'label' must be a ClassLabel that names the classes' identifiers")

    dataset = _with_classes(dataset, list(recipe.classes), path)
    if len(dataset) != recipe.counts[split]:
        raise UserError(
            f"{path}: {len(dataset):,} images of the recipe's classes, but {recipe.name} has {recipe.counts[split]:,}"
        )
    dataset = dataset.cast_column("image", Image())
    if "id" not in dataset.column_names:
        dataset = dataset.add_column("id", _identifiers(dataset))
    own = [column for column in dataset.column_names if column not in ("id", "image", "label")]
    return dataset.select_columns(["id", "image", "label", *own])


def _with_classes(dataset: Dataset, wanted: list[str], path: Path) -> Dataset:
    held = dataset.features["label"].names
    for name in wanted:
        check_known("class", name, held, where=f"{path}: ")
    if held == wanted:
        return dataset
    relabelled = np.array([wanted.index(name) if name in wanted else -1 for name in held])
    labels = relabelled[np.asarray(dataset.data.column("label"))]
    table = dataset.data.table.drop_columns("label").append_column("label", pa.array(labels))
    features = dataset.features | {"label": ClassLabel(names=wanted)}
    table = table.filter(pa.array(labels >= 0))
    return Dataset(table.replace_schema_metadata(None)).cast(type(dataset.features)(features))


def _identifiers(dataset: Dataset) -> list[str] | range:
    """The images' file names where every image has one of its own, else their row numbers."""
    names = pa.compute.struct_field(dataset.data.column("image"), "path").to_pylist()
    return names if None not in names and len(set(names)) == len(names) else list(range(len(dataset)))


def parquet_identity(recipe: Recipe, data_root: Path | None) -> Any:
    files = {split: find_raw(recipe, f"{split}.parquet", data_root) for split in sorted(recipe.counts)}
    hashes = {split: _sha256(file, file.stat().st_size, file.stat().st_mtime_ns) for split, file in files.items()}
    return [list(recipe.classes), hashes]


@lru_cache
def _sha256(path: Path, size: int, modified: int) -> str:
    """A file's hash; size and time of change are there so that a changed file is hashed again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


READERS = {"generator": read_generator, "parquet": read_parquet}
IDENTITIES = {"generator": generator_identity, "parquet": parquet_identity}
