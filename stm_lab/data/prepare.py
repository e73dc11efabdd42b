"""`prepare`: decode and resize a recipe's images once, and keep them. `verify`: say what differs from them.

The folder `prepared/<name>-<fingerprint>/<size>` holds a folder for each split, with Arrow files of up to PART images
(`datasets.load_dataset("arrow", data_files=...)` reads them), and the manifest: recipe, fingerprint, counts, broken
images, hashes of the parts. It appears by one rename when it is complete. Until then the parts are collected in a
hidden folder beside it, and work that was stopped goes on from the parts that are whole.

Images whose shorter side is longer than the size asked for are resized to it (bicubic, antialiased, exactly as
`to_tensors` does), the others are kept byte for byte. Up to 96 pixels, resized images are PNG: nothing is lost. Above,
PNG would be larger than the photographs themselves and three times slower to read; there it is JPEG of quality 95 with
full colour resolution: 42 dB from the resized image at 256 pixels, 41 at 128 (48 photographs of ImageNet).
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import shutil
import signal
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import PIL.Image
import pyarrow as pa
import torch
from datasets import Dataset, Features, Value
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader

from stm_lab.data import sources
from stm_lab.data.found import declaration, locate, without_images
from stm_lab.data.image_files import open_image
from stm_lab.data.loading import (
    HASHES,
    MANIFEST,
    PNG_UP_TO,
    load,
    open_prepared,
    part_name,
    prepared_manifests,
    resized_format,
)
from stm_lab.data.recipe import Recipe
from stm_lab.pixels import EvaluationView
from stm_lab.util import files, jsonfiles, paths
from stm_lab.util.devices import cores
from stm_lab.util.errors import UserError, WorkFailed
from stm_lab.util.processes import end_with_parent
from stm_lab.util.progress import progress

FORMAT = 2  # counts up with every change of what is written; parts of another format are not taken
PART = 1000  # images
_KEPT = "the parts that are whole stay"


class PrepareFailed(WorkFailed):
    """The work was begun and could not be finished; one line says why, and what is kept."""


def prepare(
    recipe: Recipe, *, data_root: Path | None = None, size: int | None = None, workers: int | None = None
) -> Path:
    """Decode and resize all images of a recipe; the folder of the first data root that then has them.

    What some data root has already is not made again. Drawn data are drawn.

    Args:
        data_root: the folder of the raw data, as for `load`.
        size: pixels of the shorter side; default: the recipe's image size, and above 96 pixels 8/7 of it, since crops
            are cut out at random there: 64 -> 64, 224 -> 256.
        workers: processes; default: one a core. 1: in this process.

    Raises:
        UserError: the raw data cannot be read or are not what the recipe says, or another process prepares them.
        PrepareFailed: too many images are broken, a file cannot be read or written, or a process was killed.
    """
    if size is None:
        size = recipe.image_size if recipe.image_size <= PNG_UP_TO else round(recipe.image_size * 8 / 7)
    if size < 1:
        raise UserError(f"size {size} is too small; at least 1")
    found = locate(recipe, data_root)
    if found.source.kind == "generator":
        for split in recipe.counts:
            load(recipe, split)
        name = f"{recipe.name}-{found.fingerprint()}"
        return next(r / "prepared" / name for r in paths.data_roots() if (r / "prepared" / name).is_dir())
    splits = {split: found.images(split) for split in recipe.counts}
    for split in splits:
        if others := found.passed_over(split):
            warnings.warn(f"{recipe.name}: {split}: {others}", stacklevel=2)
    fingerprint = found.fingerprint()
    if found.declared_fingerprint() - {fingerprint}:
        written_for = f"the recipe was written for {recipe.fingerprint}"
        raise UserError(f"{recipe.name}: fingerprint {fingerprint}, but {written_for}")
    for place, manifest in prepared_manifests(recipe).items():
        if (manifest["fingerprint"], manifest["size"]) == (fingerprint, size):
            return place
    place = paths.data_roots()[0] / "prepared" / f"{recipe.name}-{fingerprint}" / str(size)
    _make(recipe, splits, place, workers or cores())
    return place


def _make(recipe: Recipe, splits: dict[str, Dataset], place: Path, workers: int) -> None:
    """Make a prepared folder, `<name>-<fingerprint>/<size>`, unless another process is at it or has just made it."""
    size = int(place.name)
    gathering = place.with_name(f".{size}-format{FORMAT}")
    lock = gathering.with_name(f"{gathering.name}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):  # the system releases it when this process ends
            if not place.is_dir():
                parts = [part for split in splits for part in _parts_of(split, splits[split], gathering)]
                _make_parts(f"{recipe.name} at {size}", parts, splits, size, workers)
                _check_broken(recipe, splits, parts)
                _write_manifest(recipe, parts, size, place.parent.name.rpartition("-")[2], gathering)
                gathering.rename(place)
                shutil.rmtree(place / "parts")
    except Timeout:
        raise UserError(f"another process is preparing {recipe.name} (it holds {lock}); wait for it") from None
    except OSError as error:
        what_now = "make room" if error.errno == errno.ENOSPC else "mend that"
        raise PrepareFailed(
            f"{gathering}: cannot be written ({error.strerror or error}); {_KEPT}; {what_now} and prepare again, or "
            f"set STM_LAB_DATA to another folder"
        ) from error


# ---- parts -----------------------------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """Some rows of a split, and where they go."""

    split: str
    rows: range
    data: Path
    record: Path  # written after the data: where it is, the part is whole


def _parts_of(split: str, dataset: Dataset, folder: Path) -> list[_Part]:
    parts = []
    for number, start in enumerate(range(0, len(dataset), PART)):
        rows = range(start, min(start + PART, len(dataset)))
        data, record = folder / split / part_name(number), folder / "parts" / f"{split}-{number:05d}.json"
        parts.append(_Part(split, rows, data, record))
    return parts


def _make_parts(name: str, parts: list[_Part], splits: dict[str, Dataset], size: int, workers: int) -> None:
    """Make the parts that are missing."""
    for folder in {place.parent for part in parts for place in (part.data, part.record)}:
        folder.mkdir(parents=True, exist_ok=True)
    missing = [part for part in parts if not jsonfiles.mapping(part.record)]
    options = {"batch_size": None, "generator": torch.Generator()}  # its own, so that nobody else's numbers change
    if min(workers, len(missing)) > 1:  # spawned, because forking beside torch's threads may hang
        options |= {"num_workers": min(workers, len(missing)), "multiprocessing_context": "spawn"}
    make = partial(_made, splits=splits, size=size)  # data loaders collate in the worker
    loader = DataLoader(missing, collate_fn=make, worker_init_fn=_begin_worker, **options)
    try:
        with progress(sum(map(len, splits.values())), name, unit="images") as bar:
            bar.update(sum(len(part.rows) for part in parts) - sum(len(part.rows) for part in missing))
            for done in loader:
                if isinstance(done, Exception):
                    raise done
                bar.update(done)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise PrepareFailed(
            f"a worker process was killed, perhaps because memory ran out; {_KEPT}; prepare again with fewer --workers"
        ) from error


def _begin_worker(number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with_parent()


def _made(part: _Part, splits: dict[str, Dataset], size: int) -> int | OSError | PrepareFailed:
    """Make a part; its number of images, or the error, which a data loader would raise as another one."""
    try:
        _make_part(part, splits[part.split], size)
    except (OSError, PrepareFailed) as error:
        return error
    return len(part.rows)


def _make_part(part: _Part, dataset: Dataset, size: int) -> None:
    """Write the data and the record of a part. Raises OSError, and PrepareFailed for what may succeed another time."""
    rows, broken = [], []
    for row in dataset.with_format("arrow")[part.rows].to_pylist():
        where, image = f"{part.split}: image {row['id']}", row["image"]
        try:
            encoded = sources.stored_bytes(image)
        except OSError as error:  # a disk or network that fails says nothing about the image: it is not a broken one
            raise PrepareFailed(
                f"{where}: {image['path']} cannot be read ({error.strerror or error}); {_KEPT}; prepare again when it "
                f"can be"
            ) from error
        try:
            smaller = _reduced(encoded, size)
        except MemoryError:
            raise PrepareFailed(f"{where}: no memory left for it; take fewer --workers") from None
        except Exception as error:
            what = str(error) or type(error).__name__
            broken.append([row["id"], f"{what}: {image['path']}" if image["path"] else what])
            continue
        hashes = {"hash": sources.content_hash(smaller), "raw_hash": sources.content_hash(encoded)}
        rows.append(row | {"image": {"bytes": smaller, "path": None}} | hashes)
    schema = Features(dataset.features | {name: Value("string") for name in HASHES}).arrow_schema
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    content = sink.getvalue()
    files.write_whole(part.data, content, durable=True)
    record = {"count": len(rows), "sha256": hashlib.sha256(content).hexdigest(), "broken": broken}
    files.write_whole(part.record, json.dumps(record).encode(), durable=True)


def _reduced(encoded: bytes, size: int) -> bytes:
    """The encoded image with a shorter side of `size`; as it is if that is no longer already."""
    image = open_image(encoded)
    if min(image.size) <= size:
        return encoded
    sink = io.BytesIO()
    image = EvaluationView(size).resized(image)
    image.save(sink, resized_format(size), quality=95, subsampling=0)  # PNG has neither, and loses nothing
    return sink.getvalue()


# ---- from parts to a data set ----------------------------------------------------------------------------------------


def _check_broken(recipe: Recipe, splits: dict[str, Dataset], parts: list[_Part]) -> None:
    """Raise PrepareFailed if too many images are broken, or all of a class; their parts are made anew the next time."""
    faults = []
    for split, dataset in splits.items():
        broken = {part.record: jsonfiles.read(part.record)["broken"] for part in parts if part.split == split}
        why_of = {name: why for of_part in broken.values() for name, why in of_part}
        kept = [row for row, name in enumerate(dataset["id"]) if name not in why_of] if why_of else range(len(dataset))
        without = without_images(recipe, dataset.select(kept))
        if len(why_of) <= recipe.max_broken and not without:
            continue
        for record in (record for record, of_part in broken.items() if of_part):
            record.unlink()
        named = ", ".join(f"{name} ({why})" for name, why in list(why_of.items())[:5])
        faults.append(f"{len(why_of)} broken images in {split}, such as {named}{without and f'; {without}'}")
    if faults:
        raise PrepareFailed(
            f"{recipe.name}: {'; '.join(faults)}; mend them and prepare again (max_broken in the recipe, "
            f"{recipe.max_broken}, is how many images of a split may be left out)"
        )


def _write_manifest(recipe: Recipe, parts: list[_Part], size: int, fingerprint: str, folder: Path) -> None:
    records = {split: [jsonfiles.read(part.record) for part in parts if part.split == split] for split in recipe.counts}
    manifest = {
        "format": FORMAT,
        "name": recipe.name,
        "declaration": declaration(recipe),
        "fingerprint": fingerprint,
        "size": size,
        "counts": {split: sum(record["count"] for record in made) for split, made in records.items()},
        "broken": {split: [one for record in made for one in record["broken"]] for split, made in records.items()},
        "parts": {split: [record["sha256"] for record in made] for split, made in records.items()},
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "made_with": {"pillow": PIL.__version__, "datasets": datasets.__version__},
    }
    files.write_whole(folder / MANIFEST, json.dumps(manifest, indent=1).encode(), durable=True)
    for scratch in folder.rglob(f"*{files.UNFINISHED}"):  # left by processes that were killed
        scratch.unlink()


# ---- verify ----------------------------------------------------------------------------------------------------------


def verify(recipe: Recipe, *, data_root: Path | None = None) -> tuple[list[str], list[str]]:
    """Compute every hash anew: (what was looked at, what differs), a line each. Nothing is changed.

    Prepared images are compared with their hashes; then raw images, if there are any, with those that the prepared ones
    were made of, and the fingerprint with the recipe's. Drawn images are drawn again.

    Raises UserError if there is nothing to verify (images on the hub only), or the raw data cannot be read.
    """
    manifests = prepared_manifests(recipe)
    looked, differs = [], []
    for place, manifest in manifests.items():
        looked.append(f"{place}: prepared at {manifest['size']} pixels")
        for split, hashes in manifest["parts"].items():
            for number, expected in enumerate(hashes):
                part = place / split / part_name(number)
                if not part.is_file() or files.sha256_of(part) != expected:
                    differs.append(f"{part}: not what was prepared")
    if differs:
        return looked, differs  # what is damaged itself is no measure for the raw images
    try:
        found = locate(recipe, data_root)
    except UserError:
        if not manifests or data_root:
            raise
        return looked, differs
    if found.source.kind == "hub":  # the commit vouches for them; 150 GB are not fetched to compare
        if not manifests:
            raise UserError(
                f"{recipe.name}: nothing here to verify: its images are on the hub, and none are prepared; first: "
                f"stm-lab data prepare {recipe.argument}"
            )
        return looked, differs
    looked.append(f"{found.folder or found.source.kind}: {'as found' if found.folder else 'drawn'}")
    for split in recipe.counts:
        if found.source.kind == "generator":
            pairs = zip(sources.hashes(load(recipe, split)), sources.hashes(found.images(split)), strict=True)
            wrong = [row for row, (kept, drawn) in enumerate(pairs) if kept != drawn]
            differs += [f"{recipe.name}, {split}: image {row} is not the one that is drawn" for row in wrong]
        else:
            looked.append(f"{split}: {found.counted(split)}")
            differs += _check_raw(split, found.selected(split), manifests)
    if not differs:
        actual = found.fingerprint()
        wanted = found.declared_fingerprint() | {manifest["fingerprint"] for manifest in manifests.values()}
        differs += [f"{recipe.name}: fingerprint {actual}, expected {other}" for other in sorted(wanted - {actual})]
    return looked, differs


def _check_raw(split: str, dataset: Dataset, manifests: dict[Path, dict[str, Any]]) -> Iterator[str]:
    """How raw images differ from those that prepared ones were made of; broken ones were left out of these."""
    found: dict[str, str | None] = {}
    for name, image in zip(dataset["id"], sources.stored_images(dataset), strict=True):
        try:
            found[name] = sources.content_hash(sources.stored_bytes(image))
        except OSError as error:
            found[name] = None
            yield f"{split}: image {name} cannot be read ({error.strerror or error})"
    for place, manifest in manifests.items():
        prepared = open_prepared(place, split)
        kept = dict(zip(prepared["id"], prepared["raw_hash"], strict=True))
        known = {**dict.fromkeys(name for name, _ in manifest["broken"][split]), **kept}
        for name in dict.fromkeys([*found, *known]):
            if name not in known:
                yield f"{split}: image {name} was not there when {place} was prepared"
            elif name not in found:
                yield f"{split}: image {name} was there when {place} was prepared, and is not any more"
            elif None not in (known[name], found[name]) and known[name] != found[name]:
                yield f"{split}: image {name} is not the one that was prepared in {place}"
