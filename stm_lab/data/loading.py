"""From a recipe's name to a data set: read or drawn, cached under its fingerprint, cut down to a balanced subset."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
from datasets import Dataset

from stm_lab import paths
from stm_lab.data.recipe import Recipe, load_recipe
from stm_lab.data.sources import IDENTITIES, READERS
from stm_lab.errors import UserError, check_known


def load(
    recipe: str | os.PathLike | Recipe, split: str = "train", *, data_root: str | os.PathLike | None = None
) -> Dataset:
    """One split of a recipe: a Dataset with columns `id`, `image` (decoded on access), `label` and the recipe's own.

    Args:
        recipe: a name of `list_recipes()`, the path of a YAML file, or a Recipe.
        split: "train" or "validation".
        data_root: the folder of the raw data, for sources that read files; by default `raw/<name>` under STM_LAB_DATA.

    Raises:
        UserError: unknown recipe or split, a faulty recipe, raw data that are missing or are not what the recipe says,
            a cache that cannot be written or read.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    check_known("split", split, recipe.counts, where=f"{recipe.name}: ")
    root = Path(data_root).expanduser() if data_root else None

    def read() -> Dataset:
        return READERS[recipe.source.kind](recipe, split, root)

    with _no_progress_bars():
        if recipe.source.kind == "generator":
            return _cached(f"{recipe.name}-{fingerprint(recipe)}", split, read)
        return read()


def fingerprint(recipe: str | os.PathLike | Recipe, *, data_root: str | os.PathLike | None = None) -> str:
    """What identifies a recipe's data (16 hexadecimal digits): its source's identifiers and file hashes, never pixels.

    Raises UserError as `load` does.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    root = Path(data_root).expanduser() if data_root else None
    identity = [recipe.source.kind, IDENTITIES[recipe.source.kind](recipe, root)]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def take(dataset: Dataset, n: int | None, *, seed: int = 0) -> Dataset:
    """`n` images, as evenly from all classes as can be (None: the data set as it is).

    Which, and in what order, depends on identifiers (column `id`, else the row) and `seed` alone, not on the order of
    the rows. Classes take turns, so the first m of n are `take(dataset, m)`.

    Raises UserError if there are not `n` images, or `n` is below 1.
    """
    if n is None:
        return dataset
    if not 1 <= n <= len(dataset):
        raise UserError(f"cannot take {n} images of {len(dataset)}")
    identifiers = dataset["id"] if "id" in dataset.column_names else range(len(dataset))
    draw = np.array([_hash64(f"{seed} {identifier}") for identifier in identifiers], np.uint64)
    labels = np.asarray(dataset["label"])
    by_class = np.lexsort((draw, labels))
    _, first, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    turn = np.empty(len(dataset), np.int64)
    turn[by_class] = np.arange(len(dataset)) - np.repeat(first, sizes)  # 0 for the first of each class, and so on
    return dataset.select(np.lexsort((draw, turn))[:n])


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


# ---- the cache -------------------------------------------------------------------------------------------------------


def _cached(name: str, split: str, make: Callable[[], Dataset]) -> Dataset:
    """The data set `prepared/<name>/<split>` of the first data root that has it, else made and kept in the first root.

    It appears there under its name by one rename, when it is whole; if another process was quicker, its copy is taken.
    """
    places = [root / "prepared" / name / split for root in paths.data_roots()]
    for place in places:
        if place.is_dir():
            return _open(place)
    place = places[0]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{split}-", dir=place.parent, ignore_cleanup_errors=True) as scratch:
            make().save_to_disk(Path(scratch) / split)
            _move(Path(scratch) / split, place)
    except OSError as error:
        raise UserError(
            f"{place}: cannot be written ({error.strerror or error}); set STM_LAB_DATA to a folder that can"
        ) from error
    return _open(place)


def _move(made: Path, place: Path) -> None:
    try:
        made.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        shutil.rmtree(made)  # somebody else's came first


def _open(place: Path) -> Dataset:
    try:
        return datasets.load_from_disk(place)
    except Exception as error:  # whatever pyarrow, json or datasets say of a damaged folder
        raise UserError(f"{place}: damaged; delete that folder, and it is made again") from error


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
