"""A recipe's images before they are prepared: where they are, listed once, counted, and known by a fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from stm_lab.data import sources
from stm_lab.data.recipe import Recipe, Source
from stm_lab.data.sources import Listing
from stm_lab.util import paths
from stm_lab.util.errors import UserError
from stm_lab.util.files import told

IDENTIFIERS = 2  # counts up when images get other identifiers: what was prepared before is then not taken
HASHED_UP_TO = 2**30  # bytes of images; of more, a fingerprint has their sizes instead of their hashes


@told()
def locate(recipe: Recipe, data_root: Path | None) -> Found:
    """The first of the recipe's sources whose files lie in `data_root` if given, else in `raw/<name>` of a data root,
    under the recipe's name or one that it extends; if none is found, and without `data_root`, the hub.

    Raises UserError that says what was looked for, and where.
    """
    local = [source for source in recipe.source if source.kind in sources.LOCAL]
    names = (recipe.name, *recipe.bases)
    places = [data_root] if data_root else [root / "raw" / name for root in paths.data_roots() for name in names]
    for place in places:
        for source in local:
            if any(sources.is_in(source, split, place) for split in recipe.counts):
                return Found(recipe, source, place)
    for source in recipe.source:
        if source.kind == "generator" or (source.kind == "hub" and data_root is None):
            return Found(recipe, source, None)
    if not local:
        raise UserError(f"{recipe.name}: its images are on the hub, and not read from a folder; leave out --data-root")
    wanted = " nor ".join(dict.fromkeys(sources.wanted(one, split) for one in local for split in recipe.counts))
    why = ", which is no folder" if data_root and not data_root.is_dir() else ""
    raise UserError(
        f"{recipe.name}: no {wanted} in {' or '.join(map(str, places))}{why}; pass the folder that has it as data_root "
        f"(--data-root, for a notebook -p data_root=DIR), or set STM_LAB_DATA to one that has it under "
        f"raw/{recipe.name}"
    )


@dataclass(frozen=True)
class Found:
    """A recipe's images where `locate` found them. Each split is listed once."""

    recipe: Recipe
    source: Source
    folder: Path | None  # None: drawn, or on the hub
    _listings: dict[str, Listing] = field(default_factory=dict, repr=False, compare=False)

    def selected(self, split: str) -> Dataset:
        """The recipe's subset of a split's images, however many they are. Raises UserError as `sources.read` does."""
        return self._listing(split)[0]

    def passed_over(self, split: str) -> str:
        """A few words on the files among a split's images that are none, by name and number; "" if there are none."""
        return sources.folders.passed_over(self._listing(split)[1])

    def images(self, split: str) -> Dataset:
        """`selected`. Raises UserError if that is another number of images than the recipe's, or none of a class."""
        recipe, dataset = self.recipe, self.selected(split)
        faults = [without_images(recipe, dataset)]
        if len(dataset) != recipe.counts[split]:
            total = f"{len(dataset):,} images of the recipe's classes, but {recipe.name} has {recipe.counts[split]:,}"
            faults = [total, *faults]
        if any(faults):
            place = f"{recipe.name}: {self.source.kind}" if self.folder is None else self.folder
            name = f"{split}.parquet" if self.source.kind == "parquet" else split
            raise UserError(f"{place}: {name}: {'; '.join(filter(None, [*faults, self.passed_over(split)]))}")
        return dataset

    def counted(self, split: str) -> str:
        """How many images each class has, and what was passed over."""
        return "; ".join(filter(None, (counts_in_words(self.recipe, self.selected(split)), self.passed_over(split))))

    @told()
    def fingerprint(self) -> str:
        """What identifies these images (16 hexadecimal digits); see `loading.fingerprint`."""
        recipe, source = self.recipe, self.source
        if source.kind == "generator":
            version = sources.GENERATORS[source.name].VERSION
            return _short_hash(["generator", [source.name, version, source.seed, recipe.counts]])
        if source.kind == "hub":
            return _short_hash(["hub", [source.name, source.revision, source.files, declaration(recipe)]])
        hashed = sum(sum(sources.sizes(self.images(split))) for split in recipe.counts) <= HASHED_UP_TO
        digests = {split: self._digest(split, hashed) for split in recipe.counts}
        return _short_hash(["images", list(recipe.classes), digests])

    def declared_fingerprint(self) -> set[str]:
        """The one that the recipe declares for images on disk, if it does; those of the hub have their commit."""
        return set() if self.source.kind == "hub" else {self.recipe.fingerprint} - {None}

    def _listing(self, split: str) -> Listing:
        if split not in self._listings:
            dataset, others = sources.read(self.recipe, split, self.source, self.folder)
            self._listings[split] = _subset(dataset, self.recipe) if split == "train" else dataset, others
        return self._listings[split]

    def _digest(self, split: str, hashed: bool) -> str:
        """A digest of a split's identifiers, labels, and hashes or else sizes."""
        dataset, digest = self.images(split), hashlib.sha256()
        contents = sources.hashes(dataset) if hashed else sources.sizes(dataset)
        for identifier, label, content in zip(dataset["id"], dataset["label"], contents, strict=True):
            digest.update(f"{identifier}\t{label}\t{content}\n".encode())
        return digest.hexdigest()


def declaration(recipe: Recipe) -> str:
    """What a recipe asks for, hashed: classes, subset and counts, but neither words nor where the images come from."""
    subset = recipe.subset.model_dump(exclude={"classes"})
    return _short_hash([IDENTIFIERS, recipe.name, list(recipe.classes), subset, recipe.counts])


def _short_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


# ---- counts ----------------------------------------------------------------------------------------------------------


def without_images(recipe: Recipe, dataset: Dataset) -> str:
    """Which classes have no image, and how many the others have; "" if each class has one."""
    missing = [repr(name) for name, count in _class_counts(recipe, dataset).items() if count == 0]
    more = f" and of {len(missing) - 3} more classes" if len(missing) > 3 else ""
    return f"no image of class {', '.join(missing[:3])}{more}; {counts_in_words(recipe, dataset)}" if missing else ""


def counts_in_words(recipe: Recipe, dataset: Dataset) -> str:
    """How many images the classes have that have any: one by one if they are few, else in sum."""
    some = {name: count for name, count in _class_counts(recipe, dataset).items() if count}
    if len(some) > 20:
        limits = sorted({min(some.values()), max(some.values())})
        return f"{len(some):,} classes, images in each: {' to '.join(f'{count:,}' for count in limits)}"
    return ", ".join(f"{name} has {count:,}" for name, count in some.items()) or "none of any other"


def _class_counts(recipe: Recipe, dataset: Dataset) -> dict[str, int]:
    counts = np.bincount(sources.stored_labels(dataset), minlength=len(recipe.classes))
    return dict(zip(recipe.classes, counts.tolist(), strict=True))


# ---- subsets ---------------------------------------------------------------------------------------------------------


def take(dataset: Dataset, n: int | None, *, seed: int = 0) -> Dataset:
    """`n` images, as evenly from all classes as can be (None: the data set as it is).

    Which, and in what order, depends on identifiers (column `id`, else the row) and `seed` only, not on the order of
    the rows. Classes take turns, so the first m of n are `take(dataset, m)`.

    Raises UserError if there are not `n` images, or `n` is below 1.
    """
    if n is None:
        return dataset
    if not 1 <= n <= len(dataset):
        raise UserError(f"cannot take {n} images of {len(dataset)}")
    return dataset.select(_turns(dataset, seed)[1][:n])


def _subset(dataset: Dataset, recipe: Recipe) -> Dataset:
    """The part of the training images that the recipe asks for, in their order."""
    subset = recipe.subset
    if not (subset.fraction or subset.per_class):
        return dataset
    turn, order = _turns(dataset, subset.seed)
    if subset.fraction:
        return dataset.select(np.sort(order[: round(subset.fraction * len(dataset))]))
    return dataset.select(np.flatnonzero(turn < subset.per_class))


def _turns(dataset: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Each row's turn within its class (0 for the first, and so on), and the rows in the order of their turns."""
    identifiers = range(len(dataset))
    if "id" in dataset.column_names:  # by Arrow: a column of the datasets library takes twenty times as long
        identifiers = dataset.select_columns("id").with_format("arrow")[:]["id"].to_pylist()
    hashes = (hashlib.blake2b(f"{seed} {identifier}".encode(), digest_size=8).digest() for identifier in identifiers)
    draw = np.frombuffer(b"".join(hashes), ">u8")
    classes = sources.stored_labels(dataset)
    by_class = np.lexsort((draw, classes))
    _, first, sizes = np.unique(classes[by_class], return_index=True, return_counts=True)
    turn = np.empty(len(dataset), np.int64)
    turn[by_class] = np.arange(len(dataset)) - np.repeat(first, sizes)
    return turn, np.lexsort((draw, turn))
