"""`prepare`: decode and resize a recipe's images once, and keep them; `verify`: say what differs from what was kept.

Images whose shorter side is longer than the size asked for are resized to it (bicubic, antialiased, exactly as
`to_tensors` does), the others are kept byte for byte. Up to 96 pixels resized images are PNG: nothing is lost, and one
that is asked for at that very size is the same to the last bit, prepared or not. Above, PNG would be larger than the
photographs themselves and three times slower to read than JPEG; there it is JPEG of quality 95 with full colour
resolution: 42 dB from the resized image at 256 pixels, 41 at 128 (48 photographs of ImageNet).

The folder `prepared/<name>-<fingerprint>/<size>` holds one folder a split that `datasets.load_from_disk` reads, and the
manifest: recipe, fingerprint, counts, broken images, hashes of the parts. Identifiers and hashes of the images are
columns. It appears by one rename when all is there. Until then its parts gather in a hidden folder beside it, each put
there by a rename; so whatever stops the work, it goes on from the parts that are whole. One process gathers at a time.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import PIL.Image
import pyarrow as pa
from datasets import Dataset, Features, Value

from stm_lab import paths
from stm_lab.data import sources
from stm_lab.data.loading import (
    HASHES,
    MANIFEST,
    PNG_UP_TO,
    declaration,
    load,
    prepared_manifests,
    raw,
    raw_fingerprint,
    resized_format,
    selected,
    without_progress_bars,
)
from stm_lab.data.recipe import Recipe, Source
from stm_lab.data.views import reduced
from stm_lab.errors import UserError
from stm_lab.progress import progress

FORMAT = 1  # counts up with every change of what is written; parts of another format are not gone on with
PART = 1000  # images


class PrepareFailed(RuntimeError):
    """The work was begun and could not be finished; one line says why, and what is kept."""


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_size(recipe: Recipe) -> int:
    """The recipe's image size, and 8/7 of it where crops are cut out at random: 64 -> 64, 224 -> 256."""
    return recipe.image_size if recipe.image_size <= PNG_UP_TO else round(recipe.image_size * 8 / 7)


def prepare(
    recipe: Recipe, *, data_root: Path | None = None, size: int | None = None, workers: int | None = None
) -> Path:
    """Decode and resize all images of a recipe; the folder of the first data root that then has them.

    What some data root has already is not made again. Drawn data are drawn.

    Args:
        recipe: as of `load_recipe`.
        data_root: the folder of the raw data, as for `load`.
        size: pixels of the shorter side, at least 32; default: `default_size`.
        workers: processes; default: one a core. 1: in this process.

    Raises:
        UserError: the raw data cannot be had or are not what the recipe says, or another process prepares them;
            nothing was begun.
        PrepareFailed: more than `max_broken` images of a split are broken (they are named), an image's file cannot be
            read or nothing can be written.
    """
    size = size or default_size(recipe)
    if size < 32:
        raise UserError(f"size {size} is too small; at least 32")
    with without_progress_bars():
        source, folder = sources.locate(recipe, data_root)
        if source.kind == "generator":
            for split in recipe.counts:
                load(recipe, split)
            name = f"{recipe.name}-{raw_fingerprint(recipe, source, folder)}"
            return next(r / "prepared" / name for r in paths.data_roots() if (r / "prepared" / name).is_dir())
        splits = {split: raw(recipe, split, source, folder) for split in recipe.counts}
        found = raw_fingerprint(recipe, source, folder)
    if _declared(recipe, source) - {found}:
        raise UserError(f"{recipe.name}: fingerprint {found}, but the recipe was written for {recipe.fingerprint}")
    for place, manifest in prepared_manifests(recipe).items():
        if (manifest["fingerprint"], manifest["size"]) == (found, size):
            return place
    place = paths.data_roots()[0] / "prepared" / f"{recipe.name}-{found}" / str(size)
    gathering = place.with_name(f".{size}-format{FORMAT}")
    try:
        with _alone(gathering.with_name(f"{gathering.name}.lock"), recipe):
            if not place.is_dir():  # else another process has made it meanwhile
                parts = _make_parts(recipe, splits, size, gathering, workers or cores())
                _check_broken(recipe, parts, gathering)
                _finish(recipe, splits, parts, size, found, gathering)
                gathering.rename(place)
                shutil.rmtree(place / "parts")
    except OSError as error:
        raise PrepareFailed(_cannot_write(gathering, error)) from error
    except BrokenProcessPool as error:
        raise PrepareFailed(
            f"{recipe.name}: a worker process was killed, perhaps for want of memory; the parts that are whole stay; "
            f"prepare again, with fewer --workers"
        ) from error
    return place


def _declared(recipe: Recipe, source: Source) -> set[str]:
    """The fingerprint that a recipe declares, which is that of images on disk: the hub's has its commit."""
    return set() if source.kind == "hub" else {recipe.fingerprint} - {None}


def _cannot_write(place: Path, error: OSError) -> str:
    what_now = "make room" if error.errno == errno.ENOSPC else "mend that"
    return (
        f"{place}: cannot be written ({error.strerror or error}); the parts that are whole stay; {what_now} and "
        f"prepare again, or set STM_LAB_DATA to another folder"
    )


@contextmanager
def _alone(lock: Path, recipe: Recipe) -> Iterator[None]:
    """Hold a lock file; that of a process that is gone is taken over. Raises UserError if another holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    if lock.exists() and _is_stale(lock):
        lock.unlink(missing_ok=True)
    try:
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        holder = lock.read_text().split()
        raise UserError(
            f"another process (pid {' on '.join(holder) or 'unknown'}) is preparing {recipe.name}; wait for it, or "
            f"delete {lock} if there is none"
        ) from None
    try:
        with open(handle, "w") as file:
            file.write(f"{os.getpid()} {socket.gethostname()}")
        yield
    finally:
        lock.unlink(missing_ok=True)


def _is_stale(lock: Path) -> bool:
    """Whether the process that holds a lock ran on this machine, and is gone; False where that cannot be told."""
    holder, _, machine = lock.read_text().partition(" ")
    if machine != socket.gethostname() or os.name == "nt":  # nothing harmless asks about a process there
        return False
    try:
        os.kill(int(holder), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return int(holder) == os.getpid()  # another of that number, before this machine was started anew


# ---- parts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """A part to be made: some rows of a split, and where it goes."""

    split: str
    number: int
    rows: range
    size: int
    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / self.split / f"part-{self.number:05d}.arrow"

    @property
    def record(self) -> Path:  # written after the data: where it is, the part is whole
        return _record(self.folder, self.split, self.number)


def _record(folder: Path, split: str, number: int) -> Path:
    return folder / "parts" / f"{split}-{number:05d}.json"


def _make_parts(
    recipe: Recipe, splits: dict[str, Dataset], size: int, folder: Path, workers: int
) -> dict[str, list[dict[str, Any]]]:
    """Make the parts that are missing; the records of all, split by split, in order."""
    jobs = {
        split: [
            _Job(split, k, range(start, min(start + PART, len(dataset))), size, folder)
            for k, start in enumerate(range(0, len(dataset), PART))
        ]
        for split, dataset in splits.items()
    }
    for name in (*splits, "parts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    missing = [job for of_split in jobs.values() for job in of_split if not job.record.is_file()]
    total = sum(len(job.rows) for of_split in jobs.values() for job in of_split)
    with progress(total, f"{recipe.name} at {size}", unit="images") as bar:
        bar.update(total - sum(len(job.rows) for job in missing))
        for done in _run(missing, splits, min(workers, len(missing))):
            bar.update(len(done.rows))
    return {split: [json.loads(job.record.read_text()) for job in of_split] for split, of_split in jobs.items()}


def _run(jobs: list[_Job], splits: dict[str, Dataset], workers: int) -> Iterator[_Job]:
    """Do the jobs, in this process or in several; each is given back when it is done."""

    def stored(job: _Job) -> pa.Table:
        return splits[job.split].with_format("arrow")[job.rows].replace_schema_metadata(None)

    if workers <= 1:
        for job in jobs:
            _make_part(job, stored(job), splits[job.split].features)
            yield job
        return
    spawn = multiprocessing.get_context("spawn")  # forking beside torch's threads may hang
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        with _without_interrupts():
            for _ in range(workers):
                pool.submit(os.getpid)  # starts a process, which inherits this
        running: dict[Future, _Job] = {}
        waiting = iter(jobs)
        try:
            while True:
                for job in waiting:
                    running[pool.submit(_make_part, job, stored(job), splits[job.split].features)] = job
                    if len(running) >= workers + 1:  # few at a time: a part's images may travel with it
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    yield running.pop(future)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # parts that are being made are still finished


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C for a moment; a program started meanwhile ignores it for good. Only main threads can do that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _make_part(job: _Job, table: pa.Table, features: Features) -> None:
    """Write the data and the record of a part. Raises OSError, and PrepareFailed for what may yet be read."""
    rows, broken = [], []
    for row in table.to_pylist():
        encoded = _read(row["image"], f"{job.split}: image {row['id']}")
        try:
            smaller = _reduced(encoded, job.size)
        except MemoryError:
            raise PrepareFailed(f"{job.split}: no memory left for image {row['id']}; take fewer --workers") from None
        except Exception as error:  # Pillow's readers raise a dozen types on broken files
            broken.append([row["id"], " ".join(str(error).split())])
            continue
        hashes = {"hash": sources.content_hash(smaller), "raw_hash": sources.content_hash(encoded)}
        rows.append(row | {"image": {"bytes": smaller, "path": None}} | hashes)
    part = pa.Table.from_pylist(rows, schema=_features(features).arrow_schema)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, part.schema) as writer:
        writer.write_table(part)
    content = sink.getvalue()
    _write(job.data, content)
    record = {"count": len(rows), "sha256": hashlib.sha256(content).hexdigest(), "broken": broken}
    _write(job.record, json.dumps(record).encode())


def _read(image: dict[str, Any], where: str) -> bytes:
    """The encoded image. A disk or network that fails says nothing about the image: it is not a broken one."""
    try:
        return sources.stored_bytes(image)
    except OSError as error:
        raise PrepareFailed(
            f"{where}: {image['path']} cannot be read ({error.strerror or error}); the parts that are whole stay; "
            f"prepare again when it can be"
        ) from error


def _features(features: Features) -> Features:
    return Features(features | {name: Value("string") for name in HASHES})


def _reduced(encoded: bytes, size: int) -> bytes:
    """The encoded image with a shorter side of `size`; as it is if that is no longer already."""
    image = datasets.Image().decode_example({"bytes": encoded, "path": None})
    if min(image.size) <= size:
        return encoded
    sink = io.BytesIO()
    image = reduced(image.convert("RGB"), size)
    image.save(sink, resized_format(size), quality=95, subsampling=0)  # PNG has neither, and loses nothing
    return sink.getvalue()


def _write(place: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    scratch = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a crash may leave the name without the content
        scratch.rename(place)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


# ---- from parts to a data set ----------------------------------------------------------------------------------------


def _check_broken(recipe: Recipe, parts: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """Raise PrepareFailed if too many images are broken; the next time their parts are made anew."""
    too_many = []
    for split, records in parts.items():
        broken = [f"{name} ({why})" for record in records for name, why in record["broken"]]
        if len(broken) > recipe.max_broken:
            for number in (k for k, record in enumerate(records) if record["broken"]):
                _record(folder, split, number).unlink()
            named = ", ".join(broken[:5]) + (", ..." if len(broken) > 5 else "")
            too_many.append(f"{len(broken)} broken images in {split}: {named}")
    if too_many:
        raise PrepareFailed(
            f"{recipe.name}: {'; '.join(too_many)}; mend them and prepare again, or raise the recipe's max_broken "
            f"({recipe.max_broken}) to leave them out"
        )


def _finish(
    recipe: Recipe,
    splits: dict[str, Dataset],
    parts: dict[str, list[dict[str, Any]]],
    size: int,
    found: str,
    folder: Path,
) -> None:
    """Make data sets of the parts as `datasets` knows them, and write the manifest."""
    for split, dataset in splits.items():
        empty = Dataset.from_dict({name: [] for name in _features(dataset.features)}, _features(dataset.features))
        with without_progress_bars():
            empty.save_to_disk(folder / split)  # the library's own description, whose one file becomes our parts
        state = json.loads((folder / split / "state.json").read_text())
        for file in state["_data_files"]:
            (folder / split / file["filename"]).unlink()
        state["_data_files"] = [{"filename": f"part-{k:05d}.arrow"} for k in range(len(parts[split]))]
        _write(folder / split / "state.json", json.dumps(state).encode())
    manifest = {
        "format": FORMAT,
        "name": recipe.name,
        "declaration": declaration(recipe),
        "fingerprint": found,
        "size": size,
        "counts": {split: sum(record["count"] for record in records) for split, records in parts.items()},
        "broken": {split: [one for record in records for one in record["broken"]] for split, records in parts.items()},
        "parts": {split: [record["sha256"] for record in records] for split, records in parts.items()},
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "made_with": {"pillow": PIL.__version__, "datasets": datasets.__version__},
    }
    _write(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    for scratch in folder.rglob(".*"):  # left by processes that were killed
        scratch.unlink()


# ---- verify ----------------------------------------------------------------------------------------------------------


def verify(recipe: Recipe, *, data_root: Path | None = None) -> tuple[list[str], list[str]]:
    """Compute every hash anew: (what was looked at, what differs), a line each. Nothing is changed.

    Prepared images are held against their hashes and the manifest; then raw images (where they are there) against
    those that the prepared ones were made of, at every size, and where none of them differs the fingerprint against the
    recipe's; drawn ones are drawn again.

    Raises UserError if there is nothing to verify, or the raw data cannot be read at all.
    """
    manifests = prepared_manifests(recipe)
    looked, differs = [], []
    for place, manifest in manifests.items():
        looked.append(f"{place}: prepared at {manifest['size']} pixels")
        for split in manifest["parts"]:
            differs += _check_prepared(place / split, manifest["parts"][split], manifest["counts"][split])
    if differs:
        return looked, differs  # what is damaged itself is no measure for the raw images
    try:
        source, folder = sources.locate(recipe, data_root)
    except UserError:
        if not manifests or data_root:
            raise
        return looked, differs
    if source.kind == "hub" and manifests:
        return looked, differs  # the commit vouches for them; 150 GB are not fetched to compare
    looked.append(f"{folder or source.kind}: {'drawn' if source.kind == 'generator' else 'as found'}")
    with without_progress_bars():
        for split in recipe.counts:
            if source.kind == "generator":
                differs += _check_drawn(recipe, split, raw(recipe, split, source, folder))
            elif manifests:
                differs += _check_raw(split, selected(recipe, split, source, folder), list(manifests))
        if not differs:
            found = raw_fingerprint(recipe, source, folder)
            wanted = _declared(recipe, source) | {manifest["fingerprint"] for manifest in manifests.values()}
            differs += [f"{recipe.name}: fingerprint {found}, expected {other}" for other in sorted(wanted - {found})]
    return looked, differs


def _check_prepared(folder: Path, hashes: list[str], count: int) -> Iterator[str]:
    seen = 0
    for number, expected in enumerate(hashes):
        file = folder / f"part-{number:05d}.arrow"
        try:
            content = file.read_bytes()
            rows = pa.ipc.open_stream(content).read_all().select(["id", "image", "hash"]).to_pylist()
        except (OSError, pa.ArrowInvalid) as error:
            yield f"{file}: cannot be read ({str(error).splitlines()[0]})"
            continue
        seen += len(rows)
        wrong = [row["id"] for row in rows if sources.content_hash(row["image"]["bytes"]) != row["hash"]]
        yield from (f"{file}: image {name} is not what was prepared" for name in wrong)
        if not wrong and hashlib.sha256(content).hexdigest() != expected:
            yield f"{file}: not what was prepared"
    try:
        seen = min(seen, len(datasets.load_from_disk(folder)))
    except Exception as error:  # whatever pyarrow, json or datasets say of a damaged folder
        yield f"{folder}: cannot be opened ({type(error).__name__}); delete {folder.parent}, and prepare again"
        return
    if seen != count:
        yield f"{folder}: {seen:,} images, prepared were {count:,}"


def _check_raw(split: str, dataset: Dataset, places: list[Path]) -> Iterator[str]:
    """How raw images differ from those that each of the places was made of; broken ones were left out there."""
    found: dict[str, str | None] = {}
    for name, image in zip(dataset["id"], sources.stored_images(dataset), strict=True):
        try:
            found[name] = sources.content_hash(sources.stored_bytes(image))
        except OSError as error:
            found[name] = None
            yield f"{split}: image {name} cannot be read ({error.strerror or error})"
    for place in places:
        prepared = datasets.load_from_disk(place / split).select_columns(["id", "raw_hash"])
        kept = dict(zip(prepared["id"], prepared["raw_hash"], strict=True))
        left_out = {name for name, _ in json.loads((place / MANIFEST).read_text())["broken"][split]}
        for name, content in found.items():
            if name not in kept and name not in left_out:
                yield f"{split}: image {name} was not there when {place} was prepared"
            elif name in kept and content not in (None, kept[name]):
                yield f"{split}: image {name} is not the one that was prepared in {place}"
        gone = [name for name in (*kept, *left_out) if name not in found]
        yield from (f"{split}: image {name} was there when {place} was prepared, and is not any more" for name in gone)


def _check_drawn(recipe: Recipe, split: str, drawn: Dataset) -> Iterator[str]:
    kept = load(recipe, split)
    for row, (one, other) in enumerate(zip(sources.stored_images(kept), sources.stored_images(drawn), strict=True)):
        if one["bytes"] != other["bytes"]:
            yield f"{recipe.name}, {split}: image {row} is not the one that is drawn"
