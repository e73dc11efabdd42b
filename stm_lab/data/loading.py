"""From a recipe's name to a data set: prepared, read or drawn, known by its fingerprint, cut down to a subset."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Dataset

from stm_lab.data import sources
from stm_lab.data.recipe import Recipe, Source, load_recipe
from stm_lab.util import paths
from stm_lab.util.errors import UserError, check_known
from stm_lab.util.files import told

IDENTIFIERS = 2  # counts up when images come to be known by other identifiers: what was prepared before is not taken
HASHED_UP_TO = 2**30  # bytes of images, above which a fingerprint has their sizes instead of their hashes


def load(
    recipe: str | os.PathLike | Recipe,
    split: str = "train",
    *,
    data_root: str | os.PathLike | None = None,
    image_size: int | None = None,
) -> Dataset:
    """One split of a recipe: a Dataset with columns `id`, `image` (decoded on access), `label` and the recipe's own.

    Photographs come in the natural order of their identifiers, whatever the source. Prepared ones are taken where there
    are some, and then the raw ones need not be there.

    Args:
        recipe: a name of `list_recipes()`, the path of a YAML file, or a Recipe.
        split: "train" or "validation".
        data_root: the folder of the raw data, for sources that read files; by default `raw/<name>` under STM_LAB_DATA,
            for the recipe's name and those that it extends.
        image_size: pixels that are needed; prepared images are taken if their shorter side has as many. Default: the
            recipe's.

    Raises:
        UserError: unknown recipe or split, a faulty recipe, raw data that are missing or are not what the recipe says,
            a cache that cannot be written or read.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    check_known("split", split, recipe.counts, where=f"{recipe.name}: ")
    root = paths.expanded(data_root) if data_root else None
    with without_progress_bars():
        place = find_prepared(recipe, root, image_size or recipe.image_size)
        if place is not None:
            prepared = _open(place / split)
            if fault := without_images(recipe, class_counts(prepared)):
                raise UserError(f"{place / split}: {fault}")
            return prepared.remove_columns([name for name in HASHES if name in prepared.column_names])
        source, folder = sources.locate(recipe, root)
        if source.kind == "generator":
            return _cached(f"{recipe.name}-{fingerprint(recipe)}", split, lambda: raw(recipe, split, source, folder))
        dataset = raw(recipe, split, source, folder)
        return sources.in_memory(recipe, dataset, folder) if source.kind == "webdataset" else dataset


def raw(recipe: Recipe, split: str, source: Source, folder: Path | None) -> Dataset:
    """A split from where `sources.locate` found it, cut down to the recipe's subset.

    Raises UserError if it does not have as many images as the recipe says, or none of a class.
    """
    dataset = selected(recipe, split, source, folder)
    faults = [without_images(recipe, class_counts(dataset))]
    if len(dataset) != recipe.counts[split]:
        total = f"{len(dataset):,} images of the recipe's classes, but {recipe.name} has {recipe.counts[split]:,}"
        faults = [total, *faults]
    if any(faults):
        faults.append(sources.passed_over(recipe, split, source, folder))
        raise UserError(f"{_place(recipe, split, source, folder)}: {'; '.join(filter(None, faults))}")
    return dataset


def class_counts(dataset: Dataset) -> np.ndarray:
    """(classes,): how many images a split has of each class."""
    labels = dataset.select_columns("label").with_format("arrow")[:]["label"].to_numpy()
    return np.bincount(labels, minlength=dataset.features["label"].num_classes)


def without_images(recipe: Recipe, counts: np.ndarray) -> str:
    """Which classes have no image, and how many the others have; "" if each class has one."""
    missing = [name for name, count in zip(recipe.classes, counts, strict=True) if count == 0]
    if not missing:
        return ""
    more = f" and of {len(missing) - 3} more classes" if len(missing) > 3 else ""
    return f"no image of class {', '.join(map(repr, missing[:3]))}{more}; {in_words(recipe, counts)}"


def in_words(recipe: Recipe, counts: np.ndarray) -> str:
    """How many images each class has that has any; in sum if all have as many, or if there are many classes."""
    there = {name: int(count) for name, count in zip(recipe.classes, counts, strict=True) if count}
    if not there:
        return "none of any other"
    fewest, most = min(there.values()), max(there.values())
    if len(there) <= 20 and (fewest < most or len(there) < len(counts)):
        return ", ".join(f"{name} has {count:,}" for name, count in there.items())
    images = f"{fewest:,} to {most:,} images" if fewest < most else f"{most:,} image{'s' if most > 1 else ''}"
    return f"{len(there):,} classes with {images} each"


def images_per_class(recipe: Recipe, *, data_root: Path | None = None) -> dict[str, str]:
    """How many images of each class a split has, in words, where they are prepared or lie in a folder; else {}.

    For a folder, the words also name what was passed over.

    Raises UserError if the images are not what the recipe says.
    """
    if data_root is None and (manifests := prepared_manifests(recipe)):
        splits = {split: _open(next(iter(manifests)) / split) for split in recipe.counts}
        others = {}
    else:
        try:
            source, folder = sources.locate(recipe, data_root)
        except UserError:
            return {}
        if folder is None:
            return {}
        splits = {split: raw(recipe, split, source, folder) for split in recipe.counts}
        others = {split: sources.passed_over(recipe, split, source, folder) for split in splits}
    counted = {split: in_words(recipe, class_counts(dataset)) for split, dataset in splits.items()}
    return {split: "; ".join(filter(None, (words, others.get(split)))) for split, words in counted.items()}


def selected(recipe: Recipe, split: str, source: Source, folder: Path | None) -> Dataset:
    """The recipe's subset of what is there of a split, however many images that are."""
    dataset = sources.read(recipe, split, source, folder)
    subset = recipe.subset
    if split == "train" and subset.fraction:
        dataset = _in_order(dataset, _turns(dataset, subset.seed)[1][: round(subset.fraction * len(dataset))])
    if split == "train" and subset.per_class:
        turn, _ = _turns(dataset, subset.seed)
        dataset = _in_order(dataset, np.flatnonzero(turn < subset.per_class))
    return dataset


def _in_order(dataset: Dataset, rows: np.ndarray) -> Dataset:
    return dataset.select(np.sort(rows))


def _place(recipe: Recipe, split: str, source: Source, folder: Path | None) -> str:
    if folder is None:
        return f"{recipe.name}: {source.kind}: {split}"
    return str(folder / f"{split}.parquet") if source.kind == "parquet" else f"{folder}: {split}"


# ---- what identifies the data ----------------------------------------------------------------------------------------


def fingerprint(recipe: str | os.PathLike | Recipe, *, data_root: str | os.PathLike | None = None) -> str:
    """What identifies a recipe's data (16 hexadecimal digits). No image is decoded for it.

    Drawn data: the generator, its version, seed and counts. The hub: name, commit, files, classes, subset. Images on
    disk: the classes, and every image's identifier, label and hash, the same in whatever layout they lie; above 1 GiB
    of images their sizes in bytes instead of their hashes, since naming a run must not read 150 GB. Prepared data have
    that of the raw data they were made from, and are asked first unless `data_root` is given. Within a process files
    are hashed again when their folder, or the file that holds them, has changed.

    Raises UserError as `load` does.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    root = paths.expanded(data_root) if data_root else None
    if root is None and (manifests := prepared_manifests(recipe)):
        return _only_fingerprint(recipe, manifests)
    with without_progress_bars():
        return raw_fingerprint(recipe, *sources.locate(recipe, root))


def raw_fingerprint(recipe: Recipe, source: Source, folder: Path | None) -> str:
    """The fingerprint by what `sources.locate` found."""
    if source.kind == "generator":
        version = sources.GENERATORS[source.name].VERSION
        identity = ["generator", [source.name, version, source.seed, recipe.counts]]
    elif source.kind == "hub":
        identity = ["hub", [source.name, source.revision, source.files, declaration(recipe)]]
    else:
        identity = ["images", list(recipe.classes), _digests(recipe, source, folder)]
    return _short_hash(identity)


def declared_fingerprint(recipe: Recipe, source: Source) -> set[str]:
    """The fingerprint that a recipe declares, which is that of images on disk: the hub's has its commit."""
    return set() if source.kind == "hub" else {recipe.fingerprint} - {None}


def declaration(recipe: Recipe) -> str:
    """What a recipe asks for, hashed: classes, subset and counts, but neither words nor where the images come from."""
    subset = recipe.subset.model_dump(exclude={"classes"})
    return _short_hash([IDENTIFIERS, recipe.name, list(recipe.classes), subset, recipe.counts])


def _short_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


_digests_of: dict[tuple, dict[str, str]] = {}  # of this process, so that a run does not hash its data thrice


@told()
def _digests(recipe: Recipe, source: Source, folder: Path) -> dict[str, str]:
    """A digest of each split's identifiers, labels and hashes (or sizes)."""
    key = (declaration(recipe), source.model_dump_json(), folder, sources.stamp(recipe, source, folder))
    if key not in _digests_of:
        splits = {split: raw(recipe, split, source, folder) for split in sorted(recipe.counts)}
        sizes = {split: [*map(sources.stored_size, sources.stored_images(data))] for split, data in splits.items()}
        hashed = sum(map(sum, sizes.values())) <= HASHED_UP_TO
        _digests_of[key] = {
            split: _digest(data, _hashes(data) if hashed else sizes[split]) for split, data in splits.items()
        }
    return _digests_of[key]


def _hashes(dataset: Dataset) -> Iterator[str]:
    return (sources.content_hash(sources.stored_bytes(image)) for image in sources.stored_images(dataset))


def _digest(dataset: Dataset, contents: Iterable[str | int]) -> str:
    digest = hashlib.sha256()
    for identifier, label, content in zip(dataset["id"], dataset["label"], contents, strict=True):
        digest.update(f"{identifier}\t{label}\t{content}\n".encode())
    return digest.hexdigest()


# ---- prepared data ---------------------------------------------------------------------------------------------------

MANIFEST = "manifest.json"
PNG_UP_TO = 96  # pixels of the shorter side
HASHES = ("hash", "raw_hash")  # columns of prepared data: of the image as it is there, and as it was found


def prepared_manifests(recipe: Recipe) -> dict[Path, dict[str, Any]]:
    """The folders that `prepare` has made of this recipe's images, in any data root: folder -> its manifest."""
    found = {}
    for root in paths.data_roots():
        for file in sorted((root / "prepared").glob(f"{glob.escape(recipe.name)}-*/[0-9]*/{MANIFEST}")):
            try:
                manifest = json.loads(file.read_text())
                if manifest["declaration"] == declaration(recipe):
                    found[file.parent] = manifest
            except (OSError, ValueError, KeyError) as error:
                raise UserError(f"{file}: damaged; delete the folder {file.parent}, and prepare it again") from error
    return found


def find_prepared(recipe: Recipe, data_root: Path | None, image_size: int) -> Path | None:
    """The prepared folder with the smallest images whose shorter side has `image_size` pixels or more; None if there
    is none, or if it was made of other images than those in `data_root`."""
    manifests = prepared_manifests(recipe)
    large_enough = {place: manifest for place, manifest in manifests.items() if manifest["size"] >= image_size}
    if not large_enough:
        return None
    if data_root is None:
        wanted = _only_fingerprint(recipe, manifests)
    else:
        wanted = raw_fingerprint(recipe, *sources.locate(recipe, data_root))
    fitting = [place for place, manifest in large_enough.items() if manifest["fingerprint"] == wanted]
    return min(fitting, key=lambda place: manifests[place]["size"], default=None)


def pixels_of(
    recipe: str | os.PathLike | Recipe, *, data_root: str | os.PathLike | None = None, image_size: int | None = None
) -> str:
    """Which pixels `load` gives, with the same arguments: "raw" (also drawn ones), or "prepared-256-jpeg".

    The fingerprint does not tell: prepared images have that of the raw ones they were made of.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    root = paths.expanded(data_root) if data_root else None
    with without_progress_bars():
        place = find_prepared(recipe, root, image_size or recipe.image_size)
    return f"prepared-{place.name}-{resized_format(int(place.name)).lower()}" if place else "raw"


def resized_format(size: int) -> str:
    """The format of images that `prepare` resizes to a shorter side of `size`."""
    return "PNG" if size <= PNG_UP_TO else "JPEG"


def _only_fingerprint(recipe: Recipe, manifests: dict[Path, dict[str, Any]]) -> str:
    fingerprints = {manifest["fingerprint"] for manifest in manifests.values()}
    if len(fingerprints) > 1:
        raise UserError(
            f"{recipe.name}: prepared from different images in {' and '.join(map(str, manifests))}; "
            f"pass --data-root to say which images, or delete the others"
        )
    return fingerprints.pop()


def state(recipe: Recipe, *, data_root: Path | None = None) -> str:
    """Where a recipe's images are, in a few words: drawn, prepared, raw in a folder, on the hub, or not here."""
    sizes = sorted({manifest["size"] for manifest in prepared_manifests(recipe).values()})
    if sizes:
        return f"prepared at {', '.join(map(str, sizes))}"
    try:
        source, folder = sources.locate(recipe, data_root)
    except UserError:
        return "needs --data-root"
    if folder is not None:
        return f"raw in {folder}"
    return "drawn" if source.kind == "generator" else "needs download" + (", gated" if source.gated else "")


def command(recipe: Recipe) -> str:
    """What to type to have a recipe's images prepared."""
    source = recipe.source[-1]
    folder = "" if source.kind in ("generator", "hub") else " --data-root FOLDER"
    return f"stm-lab data prepare {recipe.argument}{folder}"


# ---- subsets ---------------------------------------------------------------------------------------------------------


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
    return dataset.select(_turns(dataset, seed)[1][:n])


def _turns(dataset: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Each row's turn within its class (0 for the first, and so on), and the rows in the order of their turns."""
    identifiers = dataset["id"] if "id" in dataset.column_names else range(len(dataset))
    draw = np.array([_hash64(f"{seed} {identifier}") for identifier in identifiers], np.uint64)
    labels = np.asarray(dataset["label"])
    by_class = np.lexsort((draw, labels))
    _, first, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    turn = np.empty(len(dataset), np.int64)
    turn[by_class] = np.arange(len(dataset)) - np.repeat(first, sizes)
    return turn, np.lexsort((draw, turn))


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
def without_progress_bars() -> Iterator[None]:
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
