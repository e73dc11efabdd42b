"""Where images come from: one reader for each kind of source, and which source is taken.

A reader gives a split as a Dataset with columns `id`, `image` and `label` first: all images of the recipe's classes,
labelled in their order. An image is a mapping of `bytes` and `path` as `datasets` stores it; `stored_bytes` reads it.
Only the hub's reader opens a connection.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

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
from stm_lab.util import paths
from stm_lab.util.errors import UserError, check_known, nearest
from stm_lab.util.files import read_bytes, same_name, told

IN_MEMORY_UP_TO = 2**32  # bytes of images, drawn or in shards; of more, those in shards have to be prepared first

# ---- which source ----------------------------------------------------------------------------------------------------


@told()
def locate(recipe: Recipe, data_root: Path | None) -> tuple[Source, Path | None]:
    """The source that is taken, and its folder (None for the hub and for drawn data).

    It is the first of the recipe's whose files lie in `data_root` if given, else in `raw/<name>` of a data root, under
    the recipe's own name or one that it extends; where there is none, and no `data_root`, the hub.

    Raises UserError that says what was looked for, where.
    """
    local = [source for source in recipe.source if source.kind in _PRESENT]
    places = [data_root] if data_root else _raw_folders(recipe)
    for place in places:
        for source in local:
            if any(_PRESENT[source.kind](source, split, place) for split in recipe.counts):
                return source, place
    for source in recipe.source:
        if source.kind == "generator" or (source.kind == "hub" and data_root is None):
            return source, None
    if not local:
        raise UserError(
            f"{recipe.name}: its images come from the hub, none are read from {data_root}; leave out --data-root"
        )
    wanted = " nor ".join(dict.fromkeys(_WANTED[one.kind](one, split) for one in local for split in recipe.counts))
    raise UserError(
        f"{recipe.name}: no {wanted} in {' or '.join(map(str, places))}{_what_is_wrong(local, data_root)}; pass the "
        f"folder that has it as data_root (--data-root, for a notebook -p data_root=DIR), or set STM_LAB_DATA to one "
        f"that has it under raw/{recipe.name}"
    )


def _what_is_wrong(local: list[Source], data_root: Path | None) -> str:
    """That a folder that was given is not there, or else how it would have to look."""
    if data_root is not None and not data_root.is_dir():
        return f", which {'is no folder' if data_root.exists() else 'does not exist'}"
    looks = [f"; {one.layout!r} looks like {folders.LOOKS[one.layout]}" for one in local if one.kind == "folder"]
    return "".join(dict.fromkeys(looks))


def _raw_folders(recipe: Recipe) -> list[Path]:
    return [root / "raw" / name for root in paths.data_roots() for name in (recipe.name, *recipe.bases)]


@told()
def read(recipe: Recipe, split: str, source: Source, folder: Path | None) -> Dataset:
    """All images of a split that the source has of the recipe's classes, in the natural order of their identifiers
    (image_9 before image_10), whatever the order on disk. The source and its folder are those of `locate`.

    Raises UserError, also for folders and files that cannot be read.
    """
    dataset = READERS[source.kind](recipe, split, source, folder)
    if source.kind == "generator":
        return dataset
    order = sorted(range(len(dataset)), key=list(map(_natural, dataset["id"])).__getitem__)
    return dataset if order == list(range(len(order))) else dataset.select(order)


@told()
def passed_over(recipe: Recipe, split: str, source: Source, folder: Path | None) -> str:
    """A few words on what lies among a split's images and is none, by name and number; "" if nothing does.

    Raises UserError as `read` does.
    """
    if source.kind == "folder":
        return folders.passed_over(folders.images(source.layout, split, folder.absolute(), list(recipe.classes))[1])
    if source.kind == "webdataset":
        files = [folder.absolute() / name for name in shards.expanded(source.shards[split])]
        return folders.passed_over(other for file in files for other in shards.images(file, source.labels)[1])
    return ""


def stamp(recipe: Recipe, source: Source, folder: Path) -> tuple:
    """What changes when the images do, as far as is seen without reading them: names, times (ns) and sizes (bytes).

    Of parquet files and shards, those of the files themselves. Where each image is a file, those of the folders alone,
    for there may be a million files: it changes when images come, go, are renamed, or are replaced by a rename, but not
    when one is written over in place.
    """
    if source.kind == "parquet":
        files = [folder / f"{split}.parquet" for split in recipe.counts]
    elif source.kind == "webdataset":
        files = [folder / name for split in recipe.counts for name in shards.expanded(source.shards[split])]
    else:
        files = [Path(directory) for directory, _, _ in os.walk(folder)]
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists())


def _natural(identifier: str) -> tuple[list[str | int], str]:
    """The key of natural order: every other part is a number (decimal digits alone: ² is a letter here). Names that
    differ in leading zeros alone are ordered by themselves."""
    parts = re.split(r"(\d+)", str(identifier))
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], str(identifier)


# ---- an image as it is stored ----------------------------------------------------------------------------------------

_IN_SHARD = re.compile(r"(.*)#(\d+)\+(\d+)")  # path of a shard, the image's offset and size in it


def stored_bytes(image: dict[str, Any]) -> bytes:
    """The encoded image: what the data set holds, else what its file or shard holds. Raises OSError."""
    if image["bytes"] is not None:
        return image["bytes"]
    if match := _IN_SHARD.fullmatch(image["path"]):
        with open(match[1], "rb") as file:
            file.seek(int(match[2]))
            return file.read(int(match[3]))
    return read_bytes(Path(image["path"]))


def stored_size(image: dict[str, Any]) -> int:
    """How many bytes `stored_bytes` would give, without reading them."""
    if image["bytes"] is not None:
        return len(image["bytes"])
    match = _IN_SHARD.fullmatch(image["path"])
    return int(match[3]) if match else os.stat(image["path"]).st_size


def stored_images(dataset: Dataset, chunk: int = 1000) -> Iterator[dict[str, Any]]:
    """The column `image` as it is stored, row by row."""
    stored = dataset.select_columns("image").with_format("arrow")
    for start in range(0, len(dataset), chunk):
        yield from stored[start : start + chunk]["image"].to_pylist()


def why_broken(error: Exception, image: dict[str, Any]) -> str:
    """What is wrong with an image, and its file."""
    what = str(error) or type(error).__name__
    return f"{what}: {image['path']}" if image["path"] else what


def content_hash(encoded: bytes) -> str:
    """32 hexadecimal digits for an encoded image."""
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()


def _listed(recipe: Recipe, ids: list[str], classes: Iterable[str], places: list[str]) -> Dataset:
    """A data set whose images stay where they are; `places` are paths, or shards' paths with offset and size."""
    for name in (*places, *ids):
        if not name.isascii() and name.encode(errors="replace").decode() != name:  # bytes kept as lone surrogates
            raise UserError(f"{os.fsencode(name)!r}: the name is not UTF-8; rename it")
    labels = {name: label for label, name in enumerate(recipe.classes)}
    columns = {"bytes": pa.nulls(len(ids), pa.binary()), "path": pa.array(places, pa.string())}
    images = pa.StructArray.from_arrays(list(columns.values()), list(columns))
    label = pa.array([labels[name] for name in classes], pa.int64())
    table = pa.table({"id": pa.array(ids, pa.string()), "image": images, "label": label})
    return Dataset(table).cast(_features(recipe))


def _features(recipe: Recipe) -> Features:
    return Features({"id": Value("string"), "image": Image(), "label": ClassLabel(names=list(recipe.classes))})


# ---- drawn by a program of ours --------------------------------------------------------------------------------------

# name in recipes -> module with VERSION, IMAGE_SIZE, FEATURES (the columns) and examples(seed, split, start, stop)
GENERATORS = {"shapes": shapes, "shape-pairs": shape_pairs}


def _read_generator(recipe: Recipe, split: str, source: Source, folder: None) -> Dataset:
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
    return Dataset.from_list(rows, features=generator.FEATURES)


# ---- folders of files, shards ----------------------------------------------------------------------------------------


def _read_folder(recipe: Recipe, split: str, source: Source, folder: Path) -> Dataset:
    found, _ = folders.images(source.layout, split, folder.absolute(), list(recipe.classes))
    ids, classes, files = map(list, zip(*found, strict=True)) if found else ([], [], [])
    return _listed(recipe, ids, classes, files)


def _read_shards(recipe: Recipe, split: str, source: Source, folder: Path) -> Dataset:
    ids, classes, places, known = [], [], [], set()
    for name in shards.expanded(source.shards[split]):
        shard = folder.absolute() / name
        for identifier, label, offset, size in shards.images(shard, source.labels)[0]:
            if identifier in known:
                raise UserError(f"{shard}: {identifier!r} is in another shard as well")
            known.add(identifier)
            if label in recipe.classes:
                ids.append(identifier)
                classes.append(label)
                places.append(f"{shard}#{offset}+{size}")
    return _listed(recipe, ids, classes, places)


@told()
def in_memory(recipe: Recipe, dataset: Dataset, folder: Path) -> Dataset:
    """A data set of images in shards with their bytes, which `datasets` cannot read from there."""
    size = sum(map(stored_size, stored_images(dataset)))
    if size > IN_MEMORY_UP_TO:
        raise UserError(
            f"{recipe.name}: {size / 2**30:.0f} GiB in shards are too much to hold in memory; first: "
            f"stm-lab data prepare {recipe.argument} --data-root {shlex.quote(str(folder))}"
        )
    images = [{"bytes": stored_bytes(image), "path": None} for image in stored_images(dataset)]
    columns = {"id": dataset["id"][:], "image": images, "label": dataset["label"][:]}
    return Dataset.from_dict(columns, features=dataset.features)


# ---- parquet files, here or on the hub -------------------------------------------------------------------------------


def _read_parquet(recipe: Recipe, split: str, source: Source, folder: Path) -> Dataset:
    path = folder / f"{split}.parquet"
    try:
        dataset = Dataset(pa.parquet.read_table(path))
    except FileNotFoundError:
        raise UserError(f"{folder}: no {path.name} there") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a parquet file that can be read ({str(error).splitlines()[0]})") from error
    return _images_of_classes(dataset, recipe, None, str(path))


_DAMAGED = (DatasetGenerationError, pa.ArrowInvalid)  # what `datasets` raises on files that it cannot read


def _read_hub(recipe: Recipe, split: str, source: HubSource, folder: None) -> Dataset:
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
        raise UserError(_not_from_the_hub(recipe, source, error)) from None  # their texts may quote what was sent
    return _images_of_classes(dataset, recipe, source.labels, where)


def _not_from_the_hub(recipe: Recipe, source: HubSource, error: Exception) -> str:
    if _causes_have(error, errno.ENOSPC):
        return f"{recipe.name}: no space left on the disk for {source.name}; make room, or set HF_HOME to another disk"
    if isinstance(error, _DAMAGED):
        return (
            f"{recipe.name}: the files of {source.name} cannot be read ({type(error.__cause__ or error).__name__}); "
            f"delete them from the hub's cache ({HF_HUB_CACHE}), and they are fetched again"
        )
    refused = isinstance(error, HfHubHTTPError) and getattr(error.response, "status_code", None) in (401, 403)
    if isinstance(error, GatedRepoError) or (source.gated and refused):
        return (
            f"{recipe.name}: the images are given to those who accept the terms: do so at "
            f"https://huggingface.co/datasets/{source.name}, then set HF_TOKEN to a token of yours "
            f"(huggingface.co/settings/tokens), or pass a folder that has them as data_root (--data-root)"
        )
    return (
        f"{recipe.name}: {source.name} cannot be had from the hub ({type(error).__name__}); pass a folder that has the "
        f"images as data_root (--data-root), or take recipe 'shapes', which needs no network"
    )


def _causes_have(error: BaseException | None, number: int) -> bool:
    """Whether an error, or one that it came of, has this errno."""
    while error is not None and getattr(error, "errno", None) != number:
        error = error.__cause__ or error.__context__
    return error is not None


def _images_of_classes(dataset: Dataset, recipe: Recipe, labels: tuple[str, ...] | None, where: str) -> Dataset:
    """Columns `id`, `image`, `label` and the file's own: the classes that the recipe names, in the recipe's order."""
    for column in ("image", "label"):
        if column not in dataset.column_names:
            raise UserError(f"{where}: no column {column!r}; {nearest(column, dataset.column_names)}")
    dataset = _with_bytes(dataset, where)
    if labels is None:
        if not isinstance(dataset.features["label"], ClassLabel):
            raise UserError(f"{where}: column 'label' must be a ClassLabel that names the classes' identifiers")
        labels = dataset.features["label"].names
    labels = list(map(same_name, labels))
    for name in recipe.classes:
        check_known("class", name, labels, where=f"{where}: ")
    wanted = list(recipe.classes)
    new = np.array([wanted.index(name) if name in wanted else -1 for name in labels])
    old = dataset.with_format("arrow")[:]["label"].to_numpy()
    if len(old) and not 0 <= old.min() <= old.max() < len(labels):
        raise UserError(f"{where}: label {old.min() if old.min() < 0 else old.max()} of {len(labels)} classes")
    # columns first, rows then: adding to a selection would copy every image of it
    identifiers = _identifiers(dataset, recipe, where)
    dataset = dataset.remove_columns([name for name in ("id", "label") if name in dataset.column_names])
    dataset = dataset.add_column("id", identifiers)
    dataset = dataset.add_column("label", new[old], feature=ClassLabel(names=wanted))
    kept = np.flatnonzero(new[old] >= 0)
    dataset = dataset if len(kept) == len(dataset) else dataset.select(kept)
    # a column that is decoded on access, such as another of images, may hold paths to any file
    decoded = [name for name, feature in dataset.features.items() if require_decoding(feature)]
    own = [column for column in dataset.column_names if column not in ("id", "image", "label", *decoded)]
    return dataset.select_columns(["id", "image", "label", *own])


def _with_bytes(dataset: Dataset, where: str) -> Dataset:
    """The data set with its images as such. Raises UserError unless each has its bytes: no path in a file is followed,
    for it may lead anywhere."""
    try:
        dataset = dataset.cast_column("image", Image())
    except (pa.ArrowException, TypeError, ValueError):
        raise UserError(f"{where}: column 'image' holds no images, but {dataset.features['image']}") from None
    column = dataset.select_columns("image").with_format("arrow")[:]["image"]
    if missing := pa.compute.struct_field(column, "bytes").null_count:
        raise UserError(f"{where}: {missing:,} of {len(dataset):,} images have no bytes there; paths are not followed")
    return dataset


def _identifiers(dataset: Dataset, recipe: Recipe, where: str) -> list[str]:
    """From column `id` or the images' file names where every image has one of its own, else the row numbers.

    Raises UserError if there are only row numbers and the recipe cuts by identifiers.
    """
    if "id" in dataset.column_names:
        names = dataset["id"][:]
    else:
        column = dataset.select_columns("image").with_format("arrow")[:]["image"]
        names = pa.compute.struct_field(column, "path").to_pylist()
    names = [name if name is None else folders.identifier(str(name)) for name in names]
    if None not in names and len(set(names)) == len(names):
        return names
    if recipe.subset.fraction or recipe.subset.per_class:
        raise UserError(
            f"{where}: the images have no names of their own, and row numbers are others in every source: nothing to "
            f"choose a subset by; take a subset of classes, or images from a folder"
        )
    return list(map(str, range(len(dataset))))


# ---- the table -------------------------------------------------------------------------------------------------------

READERS = {
    "generator": _read_generator,
    "folder": _read_folder,
    "webdataset": _read_shards,
    "parquet": _read_parquet,
    "hub": _read_hub,
}

# Sources on disk: whether a folder has a split of theirs, and what to tell whoever lacks it.
_PRESENT: dict[str, Callable[[Source, str, Path], bool]] = {
    "parquet": lambda source, split, place: (place / f"{split}.parquet").is_file(),
    "folder": lambda source, split, place: folders.present(source.layout, split, place),
    "webdataset": lambda source, split, place: (place / shards.expanded(source.shards[split])[0]).is_file(),
}
_WANTED: dict[str, Callable[[Source, str], str]] = {
    "parquet": lambda source, split: f"{split}.parquet",
    "folder": lambda source, split: f"{split} images in the layout {source.layout!r}",
    "webdataset": lambda source, split: shards.expanded(source.shards[split])[0],
}
