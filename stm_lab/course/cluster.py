"""A sweep's runs on a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import platform
import shutil
import socket
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stm_lab import paths
from stm_lab.course.board import Board
from stm_lab.course.cards import load_card
from stm_lab.course.engines import PATIENCE, Limits, Outcome, sort_out, work
from stm_lab.course.folder import RunFolder, data_fingerprint, run_key
from stm_lab.course.run import Job
from stm_lab.course.watch import GIGABYTE
from stm_lab.errors import UserError


class Ray:
    """Runs on a Ray cluster, which places them by the CPUs, GPUs and memory of their cards and retries lost workers.

    Workers need stm_lab installed. If they see the folder of the runs, they write there; if not, Ray brings the run's
    folder back. Which of the two it is, is said at the start.

    Args:
        address: "auto", "ray://host:port", or None: a cluster of this machine alone, started and stopped here.
    """

    def __init__(self, address: str | None = None):
        if importlib.util.find_spec("ray") is None:
            raise UserError("the engine ray needs Ray: pip install 'stm-lab[cluster]'")
        self.address = address

    def perform(
        self, jobs: Sequence[Job], *, title: str, force: bool, timeout: float | None, memory: float | None
    ) -> list[Outcome]:
        """As `Engine` says. Raises KeyboardInterrupt once it has cancelled what runs; UserError without a cluster."""
        limits = Limits(force, timeout, memory)
        outcomes, todo = sort_out(jobs, limits)
        with Board(title, len(jobs)) as board:
            for outcome in outcomes.values():
                board.ended(outcome.job, outcome.state, outcome.message)
            if todo:
                with _cluster(self.address) as ray:
                    outcomes |= self._perform(ray, todo, limits, board)
        return [outcomes[job.folder.path] for job in jobs]

    def _perform(self, ray: Any, todo: list[Job], limits: Limits, board: Board) -> dict[Path, Outcome]:
        for job in todo:
            _check_fits(ray, job)
        outcomes = {}
        remote = ray.remote(max_retries=3)(_work_on_ray)
        with _probe() as probe:

            def submit(job: Job) -> Any:
                needs = {
                    "num_cpus": job.resources.cpus,
                    "num_gpus": job.resources.gpus,
                    "memory": int(job.resources.memory_gb * GIGABYTE),
                }
                return remote.options(**needs, name=job.key).remote(job, limits, probe, _course_of(job))

            running = {}
            for job in todo:
                running[submit(job)] = job
                board.started(job)
            try:
                while running:
                    ready, _ = ray.wait(list(running), num_returns=1, timeout=0.5)
                    board.look()
                    for reference in ready:
                        job = running.pop(reference)
                        outcome = _received(ray, reference, job)
                        if outcome.state == "held":  # another sweep is at it: see later what became of it
                            time.sleep(1)
                            running[submit(job)] = job
                            continue
                        outcomes[job.folder.path] = outcome
                        board.ended(job, outcome.state, outcome.message)
            finally:
                for reference in running:
                    ray.cancel(reference)
                if running:
                    ray.wait(list(running), num_returns=len(running), timeout=PATIENCE)
        return outcomes


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected; our connection ends with the block, and so does a cluster that was started for it."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default; it warns without
    import ray

    if address is not None:
        _check_reachable(address)
    environment = {
        "STM_LAB_RUNS": str(paths.runs_dir()),
        "STM_LAB_DATA": os.pathsep.join(map(str, paths.data_roots())),
        "STM_LAB_NOTEBOOKS": str(paths.notebooks_dir()),
    }
    try:
        ray.init(
            address=address or "local",
            runtime_env={"env_vars": environment},
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise UserError(f"no Ray cluster at {address!r}: {' '.join(str(error).split())[:200]}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise UserError if nobody listens at `address`: Ray would try for minutes, and then end the process."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--address {address!r}: expected auto, ray://host:port or host:port")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"no Ray cluster at {address!r}: {getattr(error, 'strerror', None) or error}") from None


def _check_fits(ray: Any, job: Job) -> None:
    """Raise UserError for a job that the cluster could never place: Ray would wait for ever."""
    there = ray.cluster_resources()
    for what, needed in (
        ("CPU", job.resources.cpus),
        ("GPU", job.resources.gpus),
        ("memory", job.resources.memory_gb * GIGABYTE),
    ):
        if needed > there.get(what, 0.0):
            unit = " bytes" if what == "memory" else ""
            has = f"the cluster has {there.get(what, 0.0):g}"
            raise UserError(f"{job.notebook}, profile {job.profile}: {needed:g}{unit} of {what} by its card, and {has}")


@contextlib.contextmanager
def _probe() -> Iterator[Path]:
    """A file among the runs: a worker that sees it shares the folder with us."""
    folder = paths.runs_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f".probe-{uuid.uuid4().hex}"
        path.touch()
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _work_on_ray(job: Job, limits: Limits, probe: Path, course: Mapping[str, bytes]) -> tuple[str, str, bytes | None]:
    """`work` on some machine; where that does not share our folder, the run's files come with the answer, zipped.

    There, it is done with the notebook and the card that came with the job: `course`, files by name.
    """
    if probe.is_file():
        return (*work(job, limits), None)
    for name in ("STM_LAB_DATA", "STM_LAB_RUNS"):  # of the machine that the sweep was started on
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as scratch:
        here, folder = Path(scratch) / "course" / job.path.name, RunFolder(Path(scratch) / job.key)
        here.parent.mkdir()
        for name, content in course.items():
            (here.parent / name).write_bytes(content)
        os.environ["STM_LAB_NOTEBOOKS"] = str(here.parent)
        try:
            key = run_key(load_card(here), job.values, data_fingerprint(job.values))
        except UserError as error:
            return "failed", f"{platform.node()}: {error}", None
        if key != job.key:
            return "failed", f"{platform.node()}: the data or plugins there are not those of the sweep", None
        state, message = work(replace(job, path=here, folder=folder), limits)
        return state, message, _zipped(folder.path) if folder.path.is_dir() else None


def _course_of(job: Job) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (job.path, job.path.with_name("course.yaml"))}


def _zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != ".lock":
                archive.write(path, path.relative_to(folder))
    return buffer.getvalue()


def _received(ray: Any, reference: Any, job: Job) -> Outcome:
    """The outcome of a run that Ray says is over; its files are put in their place."""
    try:
        state, message, files = ray.get(reference)
    except ray.exceptions.RayError as error:  # its worker was lost more often than Ray retries
        return Outcome(job, "failed", f"lost by Ray: {str(error).strip().splitlines()[-1]}")
    if files is not None:
        try:
            _unpack(files, job.folder, whole=state.startswith("done"))
        except (OSError, UserError) as error:  # a full disk here, or another sweep that does the same run
            return Outcome(job, "failed", f"its results could not be put in their place: {error}")
    return Outcome(job, state, message)


def _unpack(files: bytes, folder: RunFolder, *, whole: bool) -> None:
    """Put a run's files into its folder in place of those there, and `status.json` last: it says that they are there.

    Trainings stay where a run that is not `whole` has them already: finished ones are not to be lost to it.
    """
    incoming = folder.create().path / ".incoming"
    with folder.alone():
        shutil.rmtree(incoming, ignore_errors=True)
        with zipfile.ZipFile(io.BytesIO(files)) as archive:
            archive.extractall(incoming)
        if whole:
            folder.clear()
        for path in sorted(incoming.iterdir(), key=lambda path: path.name == folder.status.name):
            target = folder.path / path.name
            if path.is_dir() and target.is_dir():
                shutil.copytree(path, target, dirs_exist_ok=True)
            else:
                path.replace(target)
        shutil.rmtree(incoming)
