"""A sweep's runs on a Ray cluster."""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

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

    Workers need stm_lab installed. One that sees the folder of a run writes there; of others Ray brings the files back.

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
        if self.address is None:  # no need to start it; Ray keeps the rest of the memory for results
            yield Room([Machine.here(0.7)]), "on a Ray cluster of this machine"
        else:
            with _cluster(self.address) as ray:
                room = _room_of(ray)
            yield room, f"on a Ray cluster of machines with {room}"

    @contextmanager
    def workers(self, jobs: Sequence[Job], limits: Limits) -> Iterator[_Tasks]:
        """As of the module `engines`. Raises UserError without a cluster, and for a run that no machine could do."""
        with ExitStack() as stack:
            probes = {}
            with told():
                for place in {job.folder.path.parent for job in jobs}:
                    place.mkdir(parents=True, exist_ok=True)
                    probe = stack.enter_context(tempfile.NamedTemporaryFile(dir=place, prefix=".probe-"))
                    probes[place] = Path(probe.name)
            ray = stack.enter_context(_cluster(self.address))
            room = _room_of(ray)
            for job in jobs:
                room.check(job)  # Ray would wait for ever
            tasks = _Tasks(ray, limits, probes)
            stack.callback(tasks.stop)
            yield tasks


def _room_of(ray: Any) -> Room:
    has = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    kinds = [[node.get(what, 0) for what in ("CPU", "memory", "GPU")] for node in has]
    return Room([Machine(cpus, memory / GIGABYTE, int(gpus)) for cpus, memory, gpus in kinds])


class _Tasks:
    """Workers: tasks of Ray, one a run.

    probes: by the folder that a run's folder is in, a file that is there as long as the sweep goes on.
    """

    def __init__(self, ray: Any, limits: Limits, probes: Mapping[Path, Path]):
        self._ray, self._limits, self._probes = ray, limits, probes
        self._remote = ray.remote(max_retries=3)(_on_worker)
        data = os.pathsep.join(map(str, paths.data_roots()))
        self._here = {"STM_LAB_RUNS": str(paths.runs_dir()), "STM_LAB_DATA": data}
        self._running: dict[Any, Job] = {}  # by reference; queued by Ray, or on some machine

    def start(self, job: Job) -> bool:
        needs, files = job.resources, (job.path, job.path.with_name("course.yaml"))
        course = {path.name: path.read_bytes() for path in files}
        probe = self._probes[job.folder.path.parent]
        remote = self._remote.options(num_cpus=needs.cpus, num_gpus=needs.gpus, memory=int(needs.memory_gb * GIGABYTE))
        self._running[remote.remote(job, course, self._limits, probe, self._here)] = job
        return True  # Ray queues what has to wait

    def look(self) -> list[Outcome]:
        if not self._running:
            time.sleep(PAUSE)
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=PAUSE)
        ended = []
        for task in ready:
            job = self._running.pop(task)
            try:
                ended.append(_received(job, *self._ray.get(task)))
            except self._ray.exceptions.RayError as error:  # its worker was lost more often than Ray retries
                ended.append(Outcome(job, "failed", f"lost by Ray: {str(error).strip().splitlines()[-1]}"))
        return ended

    def stop(self) -> None:
        for task in self._running:
            self._ray.cancel(task)
        deadline = time.monotonic() + PATIENCE
        while any(job.folder.is_held() for job in self._running.values()) and time.monotonic() < deadline:
            time.sleep(0.1)  # what runs writes down that it was interrupted


def _on_worker(
    job: Job, course: Mapping[str, bytes], limits: Limits, probe: Path, here: Mapping[str, str]
) -> tuple[str, str, dict[str, bytes]]:
    """Do a job on some machine; state, message, and files by name.

    A machine that does not see `probe`, and so the run's folder, does the run in a folder of its own, whatever `out`
    says, with its own data and the notebook and card that came with the job, `course`; its files come with the answer.
    """
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "") if job.resources.gpus else ""  # Ray sets it
    if probe.is_file():
        outcome = work(job, limits, gpus=gpus, environment=here)
        return outcome.state, outcome.message, {}
    with tempfile.TemporaryDirectory() as scratch:
        folder, values = RunFolder(Path(scratch) / job.key), job.values | dict.fromkeys({"out"} & job.values.keys())
        there = replace(job, path=Path(scratch) / job.path.name, folder=folder, values=values)
        for name, content in course.items():
            there.path.with_name(name).write_bytes(content)
        try:
            if run_key(load_card(there.path), values, data_fingerprint(values)) != job.key:
                raise UserError("the data or plugins there are not those of the sweep")
        except UserError as error:
            return "failed", f"{platform.node()}: {error}", {}
        outcome = work(there, limits, gpus=gpus)
        found = [path for path in folder.path.rglob("*") if path.is_file() and path.name != ".lock"]
        files = {path.relative_to(folder.path).as_posix(): path.read_bytes() for path in found}
        return outcome.state, outcome.message, files


def _received(job: Job, state: str, message: str, files: Mapping[str, bytes]) -> Outcome:
    """The outcome of a run that has ended. The files that came with it are put in their place, `status.json` last.

    A run that failed takes away no training, and no run that another sweep has finished meanwhile.
    """
    folder = job.folder
    if not files:
        return Outcome(job, state, message)
    try:
        with folder.create().alone():
            if state == "done":
                folder.clear()
            elif folder.read_status().get("state") == "done":
                return Outcome(job, state, message)
            folder.status.unlink(missing_ok=True)
            for name in sorted(files, key=lambda name: name == folder.status.name):
                (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
                write_whole(folder.path / name, files[name])
    except Held as error:  # another sweep does the same run here
        return Outcome(job, "held", str(error))
    except (OSError, UserError) as error:  # a full disk here
        return Outcome(job, "failed", f"its results could not be put in their place: {error}")
    return Outcome(job, state, message)


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected; our connection ends with the block, and so does a cluster that was started for it."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default; it warns without
    import ray

    if address not in (None, "auto"):  # without an answer Ray would try for minutes, and then end the process
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if not host or not port.isdecimal():
            raise UserError(f"--address {address!r}: expected auto, ray://host:port or host:port")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"no Ray cluster at {address!r}: {getattr(error, 'strerror', None) or error}") from None
    how = {"address": address} if address else {"address": "local", "num_cpus": cores()}
    try:
        try:
            ray.init(**how, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # Ray's own are of many types, a bare Exception where its processes did not come up
            said = " ".join(str(error).split())[:200]
            if address is not None:
                raise UserError(f"no Ray cluster at {address!r}: {said}") from None
            raise WorkFailed(f"Ray did not start on this machine: {said}; try again, or --engine local") from None
        yield ray
    finally:
        ray.shutdown()
