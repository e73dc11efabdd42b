"""Where images come from: a reader for each kind of source, and the images as they are stored.

A reader lists a split as a Dataset with columns `id`, `image` and `label` first: all images of the recipe's classes,
labelled in their order. An image is a mapping of `bytes` and `path`, as `datasets` stores it; `stored_bytes` reads it.
Only the hub's reader opens a connection.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from datasets import ClassLabel, Dataset, Features, Image, Value
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from datasets.features.features import require_decoding
from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

from stm_lab.data import folders, shape_pairs, shapes, shards
from stm_lab.data.recipe import HubSource, Recipe, Source
from stm_lab.util.errors import UserError, check_known, nearest
from stm_lab.util.files import read_bytes, same_name, told

IN_MEMORY_UP_TO = 2**32  # bytes of images, drawn or in shards; of more, those in shards have to be prepared first

# ---- what a source has -----------------------------------------------------------------------------------------------

Listing = tuple[Dataset, list[str]]  # the images, and the paths that were passed over because they are no images


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Switch off the progress bars of `datasets` for a while."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@told()
@without_progress_bars()
def read(recipe: Recipe, split: str, source: Source, folder: Path | None) -> Listing:
    """All images of the recipe's classes that a source has of a split, in the natural order of their identifiers
    (image_9 before image_10), whatever the order on disk.

    Raises UserError, also for folders and files that cannot be read.
    """
    dataset, others = READERS[source.kind](recipe, split, source, folder)
    if source.kind != "generator":
        order = sorted(range(len(dataset)), key=list(map(_natural, dataset["id"])).__getitem__)
        dataset = dataset if order == list(range(len(order))) else dataset.select(order)
    return dataset, others


def _natural(identifier: str) -> tuple[list[str | int], str]:
    """The key of natural order: every second part is a number (decimal digits only: ² counts as a letter). Names that
    differ in leading zeros only are ordered as text."""
    parts = re.split(r"(\d+)", str(identifier))
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], str(identifier)


LOCAL = ("folder", "parquet", "webdataset")  # kinds of sources whose images lie in a folder of the user's


def _files(source: Source, split: str) -> list[str]:
    """The names of the files that hold a split, in parquet files or shards."""
    return [f"{split}.parquet"] if source.kind == "parquet" else shards.expanded(source.shards[split])


def is_in(source: Source, split: str, folder: Path) -> bool:
    """Whether a folder has a split of a local source, as far as names tell."""
    if source.kind == "folder":
        return folders.split_folder(split, folder) is not None
    return (folder / _files(source, split)[0]).is_file()


def wanted(source: Source, split: str) -> str:
    """What has to be in the folder of a local source, in a few words."""
    if source.kind != "folder":
        return _files(source, split)[0]
    return f"images in the layout {source.layout!r} ({folders.LOOKS[source.layout]})"


# ---- an image as it is stored ----------------------------------------------------------------------------------------

_IN_SHARD = re.compile(r"(.*)#(\d+)\+(\d+)")  # path of a shard, the image's offset and size in it


def image_column(dataset: Dataset) -> Dataset:
    """Only the column `image`, as it is stored; `stored_images` is faster with it when it is called often."""
    if dataset.column_names == ["image"] and dataset.format["type"] == "arrow":
        return dataset
    return dataset.select_columns("image").with_format("arrow")


def stored_images(dataset: Dataset, rows: Sequence[int] | None = None, chunk: int = 1000) -> Iterator[dict[str, Any]]:
    """The column `image` as it is stored, row by row (`rows`: of these, in that order)."""
    stored = image_column(dataset)
    rows = range(len(dataset)) if rows is None else rows
    for start in range(0, len(rows), chunk):
        for image in stored[rows[start : start + chunk]]["image"].to_pylist():
            yield image or {"bytes": None, "path": None}


def stored_labels(dataset: Dataset) -> np.ndarray:
    """The column `label`, (N,) int64; no image is decoded."""
    return dataset.select_columns("label").with_format("arrow")[:]["label"].to_numpy()


def stored_bytes(image: dict[str, Any]) -> bytes:
    """The encoded image: what the data set holds, else what its file or shard holds. Raises OSError."""
    if image["bytes"] is not None or not image["path"]:
        return image["bytes"] or b""
    if match := _IN_SHARD.fullmatch(image["path"]):
        with open(match[1], "rb") as file:
            file.seek(int(match[2]))
            return file.read(int(match[3]))
    return read_bytes(Path(image["path"]))


def _stored_size(image: dict[str, Any]) -> int:
    if image["bytes"] is not None:
        return len(image["bytes"])
    match = _IN_SHARD.fullmatch(image["path"])
    return int(match[3]) if match else os.stat(image["path"]).st_size


def content_hash(encoded: bytes) -> str:
    """32 hexadecimal digits for an encoded image."""
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()


def hashes(dataset: Dataset) -> Iterator[str]:
    """`content_hash` of each image. Raises OSError."""
    return (content_hash(stored_bytes(image)) for image in stored_images(dataset))


def sizes(dataset: Dataset) -> Iterator[int]:
    """How many bytes `stored_bytes` would give for each image, without reading them. Raises OSError."""
    return map(_stored_size, stored_images(dataset))


def _listed(recipe: Recipe, images: list[folders.Image]) -> Dataset:
    """A data set whose images of the recipe's classes stay in their files: (identifier, class, path or place) of each.

    Raises UserError for an identifier that two images have, and for a name that is not UTF-8.
    """
    labels = {name: label for label, name in enumerate(recipe.classes)}
    places: dict[str, str] = {}
    for name, _, place in images:
        if name in places:
            raise UserError(f"{place}: another image is called {name!r}, see {places[name]}")
        places[name] = place
        text = f"{place} {name}"
        if not text.isascii() and text.encode(errors="replace").decode() != text:  # bytes kept as lone surrogates
            raise UserError(f"{os.fsencode(place)!r}: the name is not UTF-8; rename it")
    images = [image for image in images if image[1] in labels]
    columns = {
        "id": [name for name, _, _ in images],
        "image": [{"bytes": None, "path": place} for _, _, place in images],
        "label": [labels[label] for _, label, _ in images],
    }
    features = Features({"id": Value("string"), "image": Image(), "label": ClassLabel(names=list(recipe.classes))})
    return Dataset(pa.table(columns, schema=features.arrow_schema))


# ---- drawn by a program of ours --------------------------------------------------------------------------------------

# name in recipes -> module with VERSION, IMAGE_SIZE, FEATURES (the columns) and examples(seed, split, start, stop)
GENERATORS = {"shapes": shapes, "shape-pairs": shape_pairs}


def _read_generator(recipe: Recipe, split: str, source: Source, folder: None) -> Listing:
    generator = GENERATORS[source.name]
    classes = generator.FEATURES["label"].names
    if list(recipe.classes) != classes:
        raise UserError(f"{recipe.name}: classes must be those of the generator: {', '.join(classes)}")
    if recipe.image_size != generator.IMAGE_SIZE:
        raise UserError(f"{recipe.name}: image_size {recipe.image_size}, but the generator's is {generator.IMAGE_SIZE}")
    count = recipe.counts[split]
    first = next(iter(generator.examples(source.seed, split, 0, 1)))
    if (size := count * len(first["image"]["bytes"])) > IN_MEMORY_UP_TO:
        most = IN_MEMORY_UP_TO * count // size
        raise UserError(f"{recipe.name}: {count:,} images of {split} are too many to draw in memory; at most {most:,}")
    rows = list(generator.examples(source.seed, split, 0, count))
    return Dataset.from_list(rows, features=generator.FEATURES), []


# ---- folders of files, shards ----------------------------------------------------------------------------------------


def _read_folder(recipe: Recipe, split: str, source: Source, folder: Path) -> Listing:
    images, others = folders.images(source.layout, split, folder.absolute(), list(recipe.classes))
    return _listed(recipe, images), others


def _read_shards(recipe: Recipe, split: str, source: Source, folder: Path) -> Listing:
    images, others = [], []
    for name in _files(source, split):
        found, passed_over = shards.images(folder.absolute() / name, source.labels)
        images += found
        others += passed_over
    return _listed(recipe, images), others


@told()
def in_memory(recipe: Recipe, dataset: Dataset, folder: Path) -> Dataset:
    """A data set of images in shards with their bytes, which `datasets` cannot read from their place in a file."""
    size = sum(sizes(dataset))
    if size > IN_MEMORY_UP_TO:
        raise UserError(
            f"{recipe.name}: {size / 2**30:.0f} GiB in shards do not fit in memory; first: "
            f"stm-lab data prepare {recipe.argument} --data-root {shlex.quote(str(folder))}"
        )
    images = [{"bytes": stored_bytes(image), "path": None} for image in stored_images(dataset)]
    columns = {"id": dataset["id"][:], "image": images, "label": dataset["label"][:]}
    return Dataset.from_dict(columns, features=dataset.features)


# ---- parquet files, here or on the hub -------------------------------------------------------------------------------


def _read_parquet(recipe: Recipe, split: str, source: Source, folder: Path) -> Listing:
    path = folder / f"{split}.parquet"
    if not path.is_file():
        raise UserError(f"{folder}: no {path.name}")
    try:
        dataset = Dataset(pa.parquet.read_table(path))
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a parquet file that can be read ({str(error).splitlines()[0]})") from error
    return _images_of_classes(dataset, recipe, None, str(path)), []


def _read_hub(recipe: Recipe, split: str, source: HubSource, folder: None) -> Listing:
    where = f"{source.name} on the hub"
    try:
        local = snapshot_download(
            source.name, repo_type="dataset", revision=source.revision, allow_patterns=sorted(source.files.values())
        )
        files = sorted(map(str, Path(local).glob(source.files[split])))
        if not files:
            raise UserError(f"{recipe.name}: {where} has no {source.files[split]} at {source.revision[:12]}")
        dataset = Dataset.from_parquet(files)  # mapped into memory, from the cache of `datasets`
    except (OSError, DatasetNotFoundError, *_DAMAGED) as error:
        why = _not_from_the_hub(source, error)
        raise UserError(f"{recipe.name}: {why}") from None  # the error's own text may quote what was sent, and a token
    return _images_of_classes(dataset, recipe, source.labels, where), []


_DAMAGED = (DatasetGenerationError, pa.ArrowInvalid)  # what `datasets` raises for files that it cannot read


def _not_from_the_hub(source: HubSource, error: Exception) -> str:
    """Why the images were not fetched, and the way out."""
    if errno.ENOSPC in (getattr(cause, "errno", None) for cause in (error, error.__cause__, error.__context__)):
        return f"no space left on the disk for {source.name}; make room, or set HF_HOME to another disk"
    if isinstance(error, _DAMAGED):
        return f"the files of {source.name} cannot be read; delete them from {HF_HUB_CACHE}, and they are fetched again"
    refused = isinstance(error, HfHubHTTPError) and getattr(error.response, "status_code", None) in (401, 403)
    if isinstance(error, GatedRepoError) or (source.gated and refused):
        return (
            f"the images are given to those who accept the terms: do so at https://huggingface.co/datasets/"
            f"{source.name}, then set HF_TOKEN to a token of yours (huggingface.co/settings/tokens), or pass a folder "
            f"that has them as data_root (--data-root)"
        )
    return (
        f"{source.name} cannot be fetched from the hub ({type(error).__name__}); pass a folder that has the images as "
        f"data_root (--data-root), or take recipe 'shapes', which needs no network"
    )


def _images_of_classes(dataset: Dataset, recipe: Recipe, labels: Sequence[str] | None, where: str) -> Dataset:
    """Columns `id`, `image`, `label` and the file's own: the classes that the recipe names, in the recipe's order.

    Raises UserError unless each image has its bytes: paths in files are not followed, for they may lead anywhere.
    """
    for column in ("image", "label"):
        if column not in dataset.column_names:
            raise UserError(f"{where}: no column {column!r}; {nearest(column, dataset.column_names)}")
    try:
        dataset = dataset.cast_column("image", Image())
    except (pa.ArrowException, TypeError, ValueError):
        raise UserError(f"{where}: column 'image' holds no images, but {dataset.features['image']}") from None
    images = image_column(dataset)[:]["image"]
    if missing := pa.compute.struct_field(images, "bytes").null_count:
        raise UserError(f"{where}: {missing:,} of {len(dataset):,} images have no bytes; paths are not followed")
    if labels is None:
        if not isinstance(dataset.features["label"], ClassLabel):
            raise UserError(f"{where}: column 'label' must be a ClassLabel that names the classes' identifiers")
        labels = dataset.features["label"].names
    labels = list(map(same_name, labels))
    for name in recipe.classes:
        check_known("class", name, labels, where=f"{where}: ")
    wanted = list(recipe.classes)
    new = np.array([wanted.index(name) if name in wanted else -1 for name in labels])
    old = stored_labels(dataset)
    if len(old) and not 0 <= old.min() <= old.max() < len(labels):
        raise UserError(f"{where}: label {old.min() if old.min() < 0 else old.max()} of {len(labels)} classes")
    names = dataset["id"][:] if "id" in dataset.column_names else pa.compute.struct_field(images, "path").to_pylist()
    # columns first, rows second: adding a column to a selection of rows would copy every image
    # a column that is decoded on access, such as another one of images, may hold paths to any file
    decoded = [name for name, feature in dataset.features.items() if require_decoding(feature)]
    own = [name for name in dataset.column_names if name not in ("id", "image", "label", *decoded)]
    dataset = dataset.select_columns(["image", *own]).add_column("id", _identifiers(names, recipe, where))
    dataset = dataset.add_column("label", new[old], feature=ClassLabel(names=wanted))
    dataset = dataset.select_columns(["id", "image", "label", *own])
    kept = np.flatnonzero(new[old] >= 0)
    return dataset if len(kept) == len(dataset) else dataset.select(kept)


def _identifiers(names: list, recipe: Recipe, where: str) -> list[str]:
    """Identifiers by the images' names, if every image has one of its own, else the row numbers.

    Raises UserError if there are only row numbers and the recipe cuts by identifiers.
    """
    known = [folders.identifier(str(name)) for name in names if name is not None]
    if len(set(known)) == len(names):
        return known
    if recipe.subset.fraction or recipe.subset.per_class:
        raise UserError(
            f"{where}: the images have no names of their own to choose a subset by, and row numbers differ from source "
            f"to source; take a subset of classes, or images from a folder"
        )
    return list(map(str, range(len(names))))


# A reader for each kind of source
READERS = {
    "generator": _read_generator,
    "folder": _read_folder,
    "webdataset": _read_shards,
    "parquet": _read_parquet,
    "hub": _read_hub,
}
