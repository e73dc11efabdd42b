"""A sweep's runs on a Ray cluster."""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from stm_lab.course.board import Board
from stm_lab.course.cards import load_card
from stm_lab.course.engines import PATIENCE, PAUSE, Outcome, work
from stm_lab.course.folder import RunFolder, data_fingerprint, run_key
from stm_lab.course.room import Machine, Room
from stm_lab.course.run import Job, Limits
from stm_lab.course.watch import GIGABYTE
from stm_lab.util import paths
from stm_lab.util.devices import cores
from stm_lab.util.errors import UserError, WorkFailed
from stm_lab.util.files import told, write_whole
from stm_lab.util.folders import Held


class Ray:
    """Runs on a Ray cluster, which places them by the CPUs, GPUs and memory of their cards and retries lost workers.

    Workers need stm_lab installed. If they see the folder of the runs, they write there; if not, Ray brings the run's
    files back. Which of the two it is, is said when a machine begins its first run.

    Args:
        address: "auto", "ray://host:port", or None: a cluster of this machine alone, started and stopped here.
    """

    def __init__(self, address: str | None = None):
        if importlib.util.find_spec("ray") is None:
            raise UserError("the engine ray needs Ray: pip install 'stm-lab[cluster]'")
        self.address = address

    @contextmanager
    def room(self) -> Iterator[tuple[Room, str]]:
        """As of the module `engines`."""
        if self.address is None:  # no need to start it
            yield Room([Machine.here(0.7)]), "on a Ray cluster of this machine"  # Ray keeps the rest for results
            return
        with _cluster(self.address) as ray:
            room = _room_of(ray)
        yield room, f"on a Ray cluster of machines with {room}"

    @contextmanager
    def workers(self, jobs: Sequence[Job], limits: Limits, board: Board) -> Iterator[_Tasks]:
        """As of the module `engines`. Raises UserError without a cluster, and for a run that no machine could do."""
        with told():
            paths.runs_dir().mkdir(parents=True, exist_ok=True)
            probe = tempfile.NamedTemporaryFile(dir=paths.runs_dir(), prefix=".probe-")  # noqa: SIM115  (closed below)
        with probe, _cluster(self.address) as ray:
            room = _room_of(ray)
            for job in jobs:
                room.check(job)  # Ray would wait for ever
            tasks = _Tasks(ray, limits, board, Path(probe.name))
            try:
                yield tasks
            finally:
                tasks.stop()


def _room_of(ray: Any) -> Room:
    has = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    kinds = [[node.get(what, 0) for what in ("CPU", "memory", "GPU")] for node in has]
    return Room([Machine(cpus, memory / GIGABYTE, int(gpus)) for cpus, memory, gpus in kinds])


class _Tasks:
    """Workers: tasks of Ray, one a run. They tell in a queue when they begin, which Ray itself does not."""

    def __init__(self, ray: Any, limits: Limits, board: Board, probe: Path):
        from ray.util.queue import Queue

        self._ray, self._board = ray, board
        self._remote = ray.remote(max_retries=3)(_on_worker)
        self._begun = Queue(actor_options={"num_cpus": 0, "max_restarts": -1})
        here = {"STM_LAB_RUNS": str(paths.runs_dir()), "STM_LAB_DATA": os.pathsep.join(map(str, paths.data_roots()))}
        self._args = (limits, probe, here, self._begun)
        self._running: dict[Any, Job] = {}  # by reference; queued by Ray, or on some machine
        self._machines: set[str] = set()  # those that have begun a run

    def start(self, job: Job) -> bool:
        needs, files = job.resources, (job.path, job.path.with_name("course.yaml"))
        memory = int(needs.memory_gb * GIGABYTE)
        remote = self._remote.options(num_cpus=needs.cpus, num_gpus=needs.gpus, memory=memory)
        self._running[remote.remote(job, {path.name: path.read_bytes() for path in files}, *self._args)] = job
        return True  # Ray queues what has to wait

    def look(self) -> tuple[list[Job], list[Outcome]]:
        if not self._running:
            time.sleep(PAUSE)
            return [], []
        ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=PAUSE)
        begun = self._hear()
        ended = []
        for task in ready:
            job = self._running.pop(task)
            try:
                ended.append(_received(job, *self._ray.get(task)))
            except self._ray.exceptions.RayError as error:  # its worker was lost more often than Ray retries
                ended.append(Outcome(job, "failed", f"lost by Ray: {str(error).strip().splitlines()[-1]}"))
        return begun, ended

    def _hear(self) -> list[Job]:
        """The runs that have begun; a machine that is new tells how its results come here."""
        jobs = {job.key: job for job in self._running.values()}
        begun = []
        with suppress(self._ray.exceptions.RayError):  # the queue's machine was lost; it is begun anew elsewhere
            for key, machine, way in self._begun.get_nowait_batch(self._begun.qsize()):
                if machine not in self._machines:
                    self._machines.add(machine)
                    self._board.say(f"{machine}: results {way} {paths.runs_dir()}")
                begun += [jobs[key]] if key in jobs else []
        return begun

    def stop(self) -> None:
        for task in self._running:
            self._ray.cancel(task)
        deadline = time.monotonic() + PATIENCE
        while any(job.folder.is_held() for job in self._running.values()) and time.monotonic() < deadline:
            time.sleep(0.1)  # what runs writes down that it was interrupted


def _on_worker(
    job: Job, course: Mapping[str, bytes], limits: Limits, probe: Path, here: Mapping[str, str], begun: Any
) -> tuple[str, str, dict[str, bytes]]:
    """Do a job on some machine; state, message, and files by name.

    A machine that does not see `probe`, and so our runs, does the run in a folder of its own, with its own data and the
    notebook and card that came with the job, `course`; the run's files come with the answer.
    """
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "") if job.resources.gpus else ""  # Ray sets it
    shares = probe.is_file()
    way = "over the shared folder" if shares else "brought back by Ray, since that machine does not see"
    with suppress(Exception):  # a queue that is lost stops no run
        begun.put((job.key, platform.node(), way))
    if shares:
        outcome = work(job, limits, gpus=gpus, environment=here)
        return outcome.state, outcome.message, {}
    with tempfile.TemporaryDirectory() as scratch:
        there = replace(job, path=Path(scratch) / job.path.name, folder=RunFolder(Path(scratch) / job.key))
        for name, content in course.items():
            there.path.with_name(name).write_bytes(content)
        try:
            key = run_key(load_card(there.path), job.values, data_fingerprint(job.values))
        except UserError as error:
            return "failed", f"{platform.node()}: {error}", {}
        if key != job.key:
            return "failed", f"{platform.node()}: the data or plugins there are not those of the sweep", {}
        outcome = work(there, limits, gpus=gpus)
        found = [path for path in there.folder.path.rglob("*") if path.is_file() and path.name != ".lock"]
        files = {path.relative_to(there.folder.path).as_posix(): path.read_bytes() for path in found}
        return outcome.state, outcome.message, files


def _received(job: Job, state: str, message: str, files: Mapping[str, bytes]) -> Outcome:
    """The outcome of a run that has ended. The files that came with it are put in their place, `status.json` last.

    A run that failed takes away no training, and no run that another sweep has finished meanwhile.
    """
    whole, folder = state == "done", job.folder
    if not files:
        return Outcome(job, state, message)
    try:
        with folder.create().alone():
            if not whole and folder.read_status().get("state") == "done":
                return Outcome(job, state, message)
            if whole:
                folder.clear()
            folder.status.unlink(missing_ok=True)
            for name in sorted(files, key=lambda name: name == folder.status.name):
                (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
                write_whole(folder.path / name, files[name])
    except Held as error:  # another sweep does the same run here
        return Outcome(job, "held", str(error))
    except (OSError, UserError) as error:  # a full disk here
        return Outcome(job, "failed", f"its results could not be put in their place: {error}")
    return Outcome(job, state, message)


# ---- the cluster -----------------------------------------------------------------------------------------------------


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected; our connection ends with the block, and so does a cluster that was started for it."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default; it warns without
    import ray

    _check_reachable(address)
    how = {"address": address} if address else {"address": "local", "num_cpus": cores()}
    try:
        ray.init(**how, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray's own are of many types, a bare Exception where its processes did not come up
        ray.shutdown()  # of what had come up
        said = " ".join(str(error).split())[:200]
        if address is not None:
            raise UserError(f"no Ray cluster at {address!r}: {said}") from None
        raise WorkFailed(f"Ray did not start on this machine: {said}; try again, or --engine local") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Raise UserError if nobody listens at `address`: Ray would try for minutes, and then end the process."""
    if address in (None, "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--address {address!r}: expected auto, ray://host:port or host:port")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"no Ray cluster at {address!r}: {getattr(error, 'strerror', None) or error}") from None
