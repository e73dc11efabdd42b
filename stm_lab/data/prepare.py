"""`prepare`: decode and resize a recipe's images once, and keep them; called by `stm-lab data prepare`.

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
from stm_lab.data.found import class_counts, declaration, locate, without_images
from stm_lab.data.image_files import open_image
from stm_lab.data.loading import HASHES, MANIFEST, PNG_UP_TO, load, part_name, prepared_manifests, resized_format
from stm_lab.data.recipe import Recipe
from stm_lab.pixels import EvaluationView
from stm_lab.util import files, jsonfiles, paths
from stm_lab.util.devices import cores
from stm_lab.util.errors import UserError, WorkFailed
from stm_lab.util.processes import end_with_parent
from stm_lab.util.progress import progress

FORMAT = 2  # counts up with every change of what is written; parts of another format are not taken
PART = 1000  # images


class PrepareFailed(WorkFailed):
    """The work was begun and could not be finished; one line says why, and what is kept."""


def default_size(recipe: Recipe) -> int:
    """The recipe's image size, and 8/7 of it where crops are cut out at random: 64 -> 64, 224 -> 256."""
    return recipe.image_size if recipe.image_size <= PNG_UP_TO else round(recipe.image_size * 8 / 7)


def prepare(
    recipe: Recipe, *, data_root: Path | None = None, size: int | None = None, workers: int | None = None
) -> Path:
    """Decode and resize all images of a recipe; the folder of the first data root that then has them.

    What some data root has already is not made again. Drawn data are drawn.

    Args:
        data_root: the folder of the raw data, as for `load`.
        size: pixels of the shorter side, at least 1; default: `default_size`.
        workers: processes; default: one a core. 1: in this process.

    Raises:
        UserError: the raw data cannot be read or are not what the recipe says, or another process prepares them.
        PrepareFailed: more than `max_broken` images of a split are broken, a file cannot be read, nothing can be
            written, or a process was killed.
    """
    size = default_size(recipe) if size is None else size
    if size < 1:
        raise UserError(f"size {size} is too small; at least 1")
    found = locate(recipe, data_root)
    if found.source.kind == "generator":
        for split in recipe.counts:
            load(recipe, split)
        name = f"{recipe.name}-{found.fingerprint()}"
        return next(r / "prepared" / name for r in paths.data_roots() if (r / "prepared" / name).is_dir())
    splits = {split: found.images(split) for split in recipe.counts}
    fingerprint = found.fingerprint()
    for split in recipe.counts:
        if others := found.passed_over(split):
            warnings.warn(f"{recipe.name}: {split}: {others}", stacklevel=2)
    if found.declared_fingerprint() - {fingerprint}:
        written_for = f"the recipe was written for {recipe.fingerprint}"
        raise UserError(f"{recipe.name}: fingerprint {fingerprint}, but {written_for}")
    for place, manifest in prepared_manifests(recipe).items():
        if (manifest["fingerprint"], manifest["size"]) == (fingerprint, size):
            return place
    place = paths.data_roots()[0] / "prepared" / f"{recipe.name}-{fingerprint}" / str(size)
    gathering = place.with_name(f".{size}-format{FORMAT}")
    lock = gathering.with_name(f"{gathering.name}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):  # the system releases it when this process ends
            if not place.is_dir():  # else another process has made it meanwhile
                records = _make_parts(recipe, splits, size, gathering, workers or cores())
                _check_broken(recipe, splits, records, gathering)
                _write_manifest(recipe, records, size, fingerprint, gathering)
                gathering.rename(place)
                shutil.rmtree(place / "parts")
    except Timeout:
        raise UserError(f"another process is preparing {recipe.name} (it holds {lock}); wait for it") from None
    except OSError as error:
        what_now = "make room" if error.errno == errno.ENOSPC else "mend that"
        raise PrepareFailed(
            f"{gathering}: cannot be written ({error.strerror or error}); the parts that are whole stay; {what_now} "
            f"and prepare again, or set STM_LAB_DATA to another folder"
        ) from error
    return place


# ---- parts -----------------------------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """Some rows of a split, and where they go."""

    split: str
    rows: range
    data: Path
    record: Path  # written after the data: where it is, the part is whole


class _Parts(torch.utils.data.Dataset):
    """Parts that have yet to be made: taking one makes it, and gives its number of images.

    An error is given too, not raised: a data loader would raise it with another text and without its number."""

    def __init__(self, parts: list[_Part], splits: dict[str, Dataset], size: int):
        self.parts, self.splits, self.size = parts, splits, size

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> int | OSError | PrepareFailed:
        part = self.parts[index]
        try:
            _make_part(part, self.splits[part.split], self.size)
        except (OSError, PrepareFailed) as error:
            return error
        return len(part.rows)


def _parts_of(split: str, dataset: Dataset, folder: Path) -> list[_Part]:
    parts = []
    for number, start in enumerate(range(0, len(dataset), PART)):
        rows = range(start, min(start + PART, len(dataset)))
        data, record = folder / split / part_name(number), folder / "parts" / f"{split}-{number:05d}.json"
        parts.append(_Part(split, rows, data, record))
    return parts


def _make_parts(
    recipe: Recipe, splits: dict[str, Dataset], size: int, folder: Path, workers: int
) -> dict[str, list[dict[str, Any]]]:
    """Make the parts that are missing; the records of all, split by split, in order."""
    parts = {split: _parts_of(split, dataset, folder) for split, dataset in splits.items()}
    for name in (*splits, "parts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    missing = [part for of_split in parts.values() for part in of_split if not jsonfiles.mapping(part.record)]
    options = {"batch_size": None, "generator": torch.Generator()}  # its own, so that nobody else's numbers change
    if min(workers, len(missing)) > 1:  # spawned, because forking beside torch's threads may hang
        options |= {"num_workers": min(workers, len(missing)), "multiprocessing_context": "spawn"}
    loader = DataLoader(_Parts(missing, splits, size), worker_init_fn=_begin_worker, **options)
    total = sum(map(len, splits.values()))
    try:
        with progress(total, f"{recipe.name} at {size}", unit="images") as bar:
            bar.update(total - sum(len(part.rows) for part in missing))
            for done in loader:
                if isinstance(done, Exception):
                    raise done
                bar.update(done)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise PrepareFailed(
            "a worker process was killed, perhaps because memory ran out; the parts that are whole stay; prepare again "
            "with fewer --workers"
        ) from error
    return {split: [jsonfiles.read(part.record) for part in of_split] for split, of_split in parts.items()}


def _begin_worker(number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with_parent()


def _make_part(part: _Part, dataset: Dataset, size: int) -> None:
    """Write the data and the record of a part. Raises OSError, and PrepareFailed for what may succeed another time."""
    rows, broken = [], []
    for row in dataset.with_format("arrow")[part.rows].to_pylist():
        where, image = f"{part.split}: image {row['id']}", row["image"]
        try:
            encoded = sources.stored_bytes(image)
        except OSError as error:  # a disk or network that fails says nothing about the image: it is not a broken one
            raise PrepareFailed(
                f"{where}: {image['path']} cannot be read ({error.strerror or error}); the parts that are whole stay; "
                f"prepare again when it can be"
            ) from error
        try:
            smaller = _reduced(encoded, size)
        except MemoryError:
            raise PrepareFailed(f"{where}: no memory left for it; take fewer --workers") from None
        except Exception as error:
            broken.append([row["id"], sources.why_broken(error, image)])
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


def _check_broken(
    recipe: Recipe, splits: dict[str, Dataset], records: dict[str, list[dict[str, Any]]], folder: Path
) -> None:
    """Raise PrepareFailed if too many images are broken, or all of a class; their parts are made anew the next time."""
    faults, hint = [], ""
    for split, dataset in splits.items():
        why_of = {name: why for record in records[split] for name, why in record["broken"]}
        kept = [row for row, name in enumerate(dataset["id"]) if name not in why_of] if why_of else range(len(dataset))
        without = without_images(recipe, class_counts(dataset.select(kept)))
        if len(why_of) <= recipe.max_broken and not without:
            continue
        for part, record in zip(_parts_of(split, dataset, folder), records[split], strict=True):
            if record["broken"]:
                part.record.unlink()
        named = ", ".join(f"{name} ({why})" for name, why in list(why_of.items())[:5])
        named += ", ..." if len(why_of) > 5 else ""
        faults.append(f"{len(why_of)} broken images in {split}: {named}{without and f'; without them {without}'}")
        if len(why_of) > recipe.max_broken:
            hint = f", or raise the recipe's max_broken ({recipe.max_broken}) to leave them out"
    if faults:
        raise PrepareFailed(f"{recipe.name}: {'; '.join(faults)}; mend them and prepare again{hint}")


def _write_manifest(
    recipe: Recipe, records: dict[str, list[dict[str, Any]]], size: int, fingerprint: str, folder: Path
) -> None:
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
