"""The parts of a prepared split: up to PART images each, decoded and resized by several processes; made by `prepare`.

Images whose shorter side is longer than the size asked for are resized to it (bicubic, antialiased, exactly as
`to_tensors` does), the others are kept byte for byte. Up to 96 pixels resized images are PNG: nothing is lost, and one
that is asked for at that very size is the same to the last bit, prepared or not. Above, PNG would be larger than the
photographs themselves and three times slower to read than JPEG; there it is JPEG of quality 95 with full colour
resolution: 42 dB from the resized image at 256 pixels, 41 at 128 (48 photographs of ImageNet).

A part is an Arrow file, whose columns have the identifiers and hashes of its images, and its record, written after it:
where that is, the part is whole, and is not made again. `verify` knows the files by their name here.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Value

from stm_lab.data import sources
from stm_lab.data.image_files import open_image
from stm_lab.data.loading import HASHES, resized_format
from stm_lab.data.recipe import Recipe
from stm_lab.pixels import EvaluationView
from stm_lab.util import files, jsonfiles
from stm_lab.util.errors import WorkFailed
from stm_lab.util.processes import end_with_parent
from stm_lab.util.progress import progress

PART = 1000  # images


class PrepareFailed(WorkFailed):
    """The work was begun and could not be finished; one line says why, and what is kept."""


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
        return self.folder / self.split / file_name(self.number)

    @property
    def record(self) -> Path:  # written after the data: where it is, the part is whole
        return record_of(self.folder, self.split, self.number)


def file_name(number: int) -> str:
    """The file of a part's images, in the folder of their split."""
    return f"part-{number:05d}.arrow"


def record_of(folder: Path, split: str, number: int) -> Path:
    """The file of a part's record: how many images it has, its hash, and which were broken."""
    return folder / "parts" / f"{split}-{number:05d}.json"


def make(
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
    missing = [job for of_split in jobs.values() for job in of_split if not jsonfiles.mapping(job.record)]
    total = sum(len(job.rows) for of_split in jobs.values() for job in of_split)
    with progress(total, f"{recipe.name} at {size}", unit="images") as bar:
        bar.update(total - sum(len(job.rows) for job in missing))
        for done in _run(missing, splits, min(workers, len(missing))):
            bar.update(len(done.rows))
    return {split: [jsonfiles.read(job.record) for job in of_split] for split, of_split in jobs.items()}


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
    with ProcessPoolExecutor(workers, spawn, initializer=end_with_parent) as pool:
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
        except Exception as error:
            broken.append([row["id"], sources.why_broken(error, row["image"])])
            continue
        hashes = {"hash": sources.content_hash(smaller), "raw_hash": sources.content_hash(encoded)}
        rows.append(row | {"image": {"bytes": smaller, "path": None}} | hashes)
    part = pa.Table.from_pylist(rows, schema=features_of(features).arrow_schema)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, part.schema) as writer:
        writer.write_table(part)
    content = sink.getvalue()
    files.write_whole(job.data, content, durable=True)
    record = {"count": len(rows), "sha256": hashlib.sha256(content).hexdigest(), "broken": broken}
    files.write_whole(job.record, json.dumps(record).encode(), durable=True)


def _read(image: dict[str, Any], where: str) -> bytes:
    """The encoded image. A disk or network that fails says nothing about the image: it is not a broken one."""
    try:
        return sources.stored_bytes(image)
    except OSError as error:
        raise PrepareFailed(
            f"{where}: {image['path']} cannot be read ({error.strerror or error}); the parts that are whole stay; "
            f"prepare again when it can be"
        ) from error


def features_of(features: Features) -> Features:
    """The columns of a part, by those of the raw images."""
    return Features(features | {name: Value("string") for name in HASHES})


def _reduced(encoded: bytes, size: int) -> bytes:
    """The encoded image with a shorter side of `size`; as it is if that is no longer already."""
    image = open_image(encoded)
    if min(image.size) <= size:
        return encoded
    sink = io.BytesIO()
    image = EvaluationView(size).resized(image)
    image.save(sink, resized_format(size), quality=95, subsampling=0)  # PNG has neither, and loses nothing
    return sink.getvalue()
