"""Where a sweep's runs are done: on this machine's cores (`Local`), or on a cluster (`Ray`).

Both give each run a process of its own that calls `work`, and learn what became of it from its answer; where the
process died without one, the run failed. Rows and figures stay in the run's folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import multiprocessing
import multiprocessing.connection
import os
import platform
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import psutil

from stm_lab import paths
from stm_lab.course.board import Board
from stm_lab.course.cards import load_card
from stm_lab.course.folder import RunFolder, data_fingerprint, run_key
from stm_lab.course.run import Job, RunFailed, perform
from stm_lab.course.watch import GIGABYTE
from stm_lab.devices import cores
from stm_lab.errors import UserError

_PATIENCE = 15.0  # seconds for a run that is stopped to write down what became of it


@dataclass(frozen=True)
class Limits:
    """What each run is held to."""

    force: bool = False
    timeout: float | None = None  # minutes
    memory: float | None = None  # gigabytes


@dataclass(frozen=True)
class Outcome:
    """What became of a run: "done" (now), "done already", "failed", or "held" by another process."""

    job: Job
    state: str
    message: str = ""


class Engine(Protocol):
    """Does jobs, wherever that is."""

    def perform(
        self, jobs: Sequence[Job], *, title: str, force: bool, timeout: float | None, memory: float | None
    ) -> list[Outcome]:
        """Do what is not done; the outcomes, in the order of `jobs`. One that fails does not stop the others."""
        ...


def work(job: Job, limits: Limits) -> tuple[str, str]:
    """Do one job in this process; the state of its outcome, and a message. Raises KeyboardInterrupt if terminated."""
    try:
        now = perform(job, force=limits.force, timeout=limits.timeout, memory=limits.memory, threads=job.resources.cpus)
        return ("done", "") if now else ("done already", "")
    except RunFailed as error:
        return "failed", str(error)
    except UserError as error:
        return ("held" if job.folder.is_held() else "failed"), str(error)
    except Exception as error:  # a fault of ours, or a disk that is full: the sweep goes on with the others
        return "failed", f"{type(error).__name__}: {error}"


def _sort_out(jobs: Sequence[Job], limits: Limits) -> tuple[dict[Path, Outcome], list[Job]]:
    """What is done already, and what is to do."""
    outcomes = {}
    if not limits.force:
        outcomes = {job.folder.path: Outcome(job, "done already") for job in jobs if job.is_done()}
    return outcomes, [job for job in jobs if job.folder.path not in outcomes]


# ---- this machine ---------------------------------------------------------------------------------------------------


class Local:
    """Runs side by side on this machine: as many as its cores, memory and GPUs hold by what their cards ask for.

    Args:
        processes: at most so many at once; None: as the cores allow.
    """

    def __init__(self, processes: int | None = None):
        if processes is not None and processes < 1:
            raise UserError(f"processes = {processes}: must be at least 1")
        self.processes = processes

    def perform(
        self, jobs: Sequence[Job], *, title: str, force: bool, timeout: float | None, memory: float | None
    ) -> list[Outcome]:
        """As `Engine` says. Raises KeyboardInterrupt, once all that ran has stopped."""
        limits = Limits(force, timeout, memory)
        outcomes, waiting = _sort_out(jobs, limits)
        room = _Room(self.processes)
        running: dict[int, _Process] = {}  # by sentinel
        with Board(title, len(jobs)) as board:
            for outcome in outcomes.values():
                board.ended(outcome.job, outcome.state, outcome.message)
            try:
                while waiting or running:
                    for process in _start(waiting, room, running, limits):
                        board.started(process.job)
                    for process in _ended(running, board):
                        room.give_back(process.job, process.devices)
                        outcome = process.outcome()
                        if outcome.state == "held":  # another sweep is at it: see later what became of it
                            waiting.append(process.job)
                            board.put_back(process.job)
                        else:
                            outcomes[process.job.folder.path] = outcome
                            board.ended(process.job, outcome.state, outcome.message)
            finally:
                _stop(running)
        return [outcomes[job.folder.path] for job in jobs]


def _start(waiting: list[Job], room: _Room, running: dict[int, _Process], limits: Limits) -> Iterator[_Process]:
    """Start every job that there is room for, in order; one that another process is at waits."""
    for job in list(waiting):
        if job.folder.is_held():
            continue
        devices = room.take(job)
        if devices is None:
            return
        waiting.remove(job)
        process = _Process(job, limits, devices)
        running[process.sentinel] = process
        yield process


def _ended(running: dict[int, _Process], board: Board) -> list[_Process]:
    """The processes that came to their end, after waiting a little for one."""
    if not running:
        time.sleep(0.5)
        return []
    ready = multiprocessing.connection.wait(list(running), timeout=0.5)
    board.look()
    return [running.pop(sentinel) for sentinel in ready]


def _stop(running: dict[int, _Process]) -> None:
    for process in running.values():
        process.terminate()
    deadline = time.monotonic() + _PATIENCE
    for process in running.values():
        process.end(max(0.0, deadline - time.monotonic()))
    running.clear()


class _Room:
    """Cores, memory and GPUs that are free. A run that is too large for the machine is done alone."""

    def __init__(self, processes: int | None):
        self.processes = processes
        self.cores = cores()
        self.memory = 0.9 * psutil.virtual_memory().available / GIGABYTE
        self.devices = dict.fromkeys(range(_count_gpus()), 1.0)  # share of each that is free
        self.taken: list[Job] = []

    def take(self, job: Job) -> list[int] | None:
        """The GPUs for a job, none if it needs none; None if it has to wait."""
        full = self.processes is not None and len(self.taken) >= self.processes
        tight = (
            sum(other.resources.cpus for other in self.taken) + job.resources.cpus > self.cores
            or sum(other.resources.memory_gb for other in self.taken) + job.resources.memory_gb > self.memory
        )
        if self.taken and (full or tight):
            return None
        devices = self._devices_for(job)
        if devices is not None:
            self.taken.append(job)
        return devices

    def _devices_for(self, job: Job) -> list[int] | None:
        number = min(math.ceil(job.resources.gpus), len(self.devices))  # without any, it runs on the CPU
        share = min(job.resources.gpus, 1.0)
        free = [device for device, left in self.devices.items() if left >= share - 1e-9][:number]
        if len(free) < number:
            return None
        for device in free:
            self.devices[device] -= share
        return free

    def give_back(self, job: Job, devices: list[int]) -> None:
        self.taken.remove(job)
        for device in devices:
            self.devices[device] += min(job.resources.gpus, 1.0)


def _count_gpus() -> int:
    """CUDA's, without touching them: a process that has may not be forked."""
    import torch

    return torch.cuda.device_count()


class _Process:
    """One job in a process, forked from one that has only imported what a run needs and touched no device."""

    def __init__(self, job: Job, limits: Limits, devices: list[int]):
        self.job, self.devices = job, devices
        self._answer, theirs = multiprocessing.Pipe(duplex=False)
        self._process = _context().Process(target=_main, args=(job, limits, devices, theirs))
        self._process.start()
        theirs.close()

    @property
    def sentinel(self) -> int:
        return self._process.sentinel

    def outcome(self) -> Outcome:
        """What the process said before it ended; that it failed if it said nothing."""
        self._process.join()
        try:
            state, message = self._answer.recv()
        except EOFError:
            said = f"the run's process died (status {self._process.exitcode}), see {self.job.folder.path}"
            state, message = "failed", said
        self._answer.close()
        self._process.close()
        return Outcome(self.job, state, message)

    def terminate(self) -> None:
        self._process.terminate()

    def end(self, seconds: float) -> None:
        """Wait so long, then kill it; its kernel ends with it."""
        self._process.join(seconds)
        self._process.kill()
        self._process.join()


def _context() -> multiprocessing.context.BaseContext:
    """Processes that cost milliseconds where the system can fork; where it cannot, they import everything anew."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stm_lab.course.warm"])
    return context


def _main(job: Job, limits: Limits, devices: list[int], answer: multiprocessing.connection.Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent tells us by SIGTERM
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))
    with contextlib.suppress(KeyboardInterrupt):  # terminated: status.json says so
        answer.send(work(job, limits))


def _end_with_parent() -> None:
    """A sweep that is killed cannot stop its runs; a kernel watches over its parent in the same way."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


# ---- a cluster ------------------------------------------------------------------------------------------------------


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
        outcomes, todo = _sort_out(jobs, limits)
        with Board(title, len(jobs)) as board, _cluster(self.address) as ray:
            for outcome in outcomes.values():
                board.ended(outcome.job, outcome.state, outcome.message)
            if todo:
                outcomes |= self._perform(ray, todo, limits, board)
        return [outcomes[job.folder.path] for job in jobs]

    def _perform(self, ray: Any, todo: list[Job], limits: Limits, board: Board) -> dict[Path, Outcome]:
        for job in todo:
            _check_fits(ray, job)
        outcomes = {}
        remote = ray.remote(max_retries=3)(_work_on_ray)
        with _probe() as probe:
            running = {}
            for job in todo:
                needs = {
                    "num_cpus": job.resources.cpus,
                    "num_gpus": job.resources.gpus,
                    "memory": int(job.resources.memory_gb * GIGABYTE),
                }
                running[remote.options(**needs, name=job.key).remote(job, limits, probe)] = job
                board.started(job)
            try:
                while running:
                    ready, _ = ray.wait(list(running), num_returns=1, timeout=0.5)
                    board.look()
                    for reference in ready:
                        job = running.pop(reference)
                        outcome = _received(ray, reference, job)
                        outcomes[job.folder.path] = outcome
                        board.ended(job, outcome.state, outcome.message)
            finally:
                for reference in running:
                    ray.cancel(reference)
                if running:
                    ray.wait(list(running), num_returns=len(running), timeout=_PATIENCE)
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


def _work_on_ray(job: Job, limits: Limits, probe: Path) -> tuple[str, str, bytes | None]:
    """`work` on some machine; where that does not share our folder, the run's files come with the answer, zipped."""
    if probe.is_file():
        return (*work(job, limits), None)
    for name in ("STM_LAB_NOTEBOOKS", "STM_LAB_DATA", "STM_LAB_RUNS"):  # of the machine that the sweep was started on
        os.environ.pop(name, None)
    card = load_card(job.notebook)
    if run_key(card, job.values, data_fingerprint(job.values)) != job.key:
        return "failed", f"{platform.node()}: {job.notebook}, its plugins or its data are not those of the sweep", None
    job = replace(job, path=card.path)
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch) / job.key)
        state, message = work(replace(job, folder=folder), limits)
        return state, message, _zipped(folder.path) if folder.path.is_dir() else None


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
        return Outcome(job, "failed", f"lost by Ray: {str(error).strip().splitlines()[0]}")
    if files is not None:
        _unpack(files, job.folder)
    return Outcome(job, state, message)


def _unpack(files: bytes, folder: RunFolder) -> None:
    """Put a run's files into its folder, which is whole before or after, never in between."""
    incoming = folder.path.with_name(f".{folder.path.name}.incoming")
    shutil.rmtree(incoming, ignore_errors=True)
    with zipfile.ZipFile(io.BytesIO(files)) as archive:
        archive.extractall(incoming)
    shutil.rmtree(folder.path, ignore_errors=True)
    incoming.rename(folder.path)
