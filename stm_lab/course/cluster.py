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
from typing import Any, NamedTuple

import psutil

from stm_lab.course.board import Board
from stm_lab.course.cards import load_card
from stm_lab.course.engines import PATIENCE, Limits, Outcome, sort_out, work
from stm_lab.course.folder import RunFolder, data_fingerprint, run_key
from stm_lab.course.run import Job
from stm_lab.course.watch import GIGABYTE
from stm_lab.util import paths
from stm_lab.util.devices import cores
from stm_lab.util.errors import UserError, WorkFailed
from stm_lab.util.folders import Held


class Ray:
    """Runs on a Ray cluster, which places them by the CPUs, GPUs and memory of their cards and retries lost workers.

    Workers need stm_lab installed. If they see the folder of the runs, they write there; if not, Ray brings the run's
    folder back. Which of the two it is, is said when a machine begins its first run, and of each outcome.

    Args:
        address: "auto", "ray://host:port", or None: a cluster of this machine alone, started and stopped here.
    """

    def __init__(self, address: str | None = None):
        if importlib.util.find_spec("ray") is None:
            raise UserError("the engine ray needs Ray: pip install 'stm-lab[cluster]'")
        self.address = address

    @contextlib.contextmanager
    def room(self) -> Iterator[tuple[_Machines, str]]:
        """As `Engine` says; a cluster is asked what it has, and one that would be of this machine alone not started."""
        if self.address is None:
            yield _Machines([_this_machine()]), "on a Ray cluster of this machine"
            return
        with _cluster(self.address) as ray:
            machines = _Machines.of(ray)
        yield machines, f"on a Ray cluster of {machines}"

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
                with _cluster(self.address) as ray, _probe() as probe:
                    outcomes |= _Submitted(ray, limits, board, probe).perform(todo)
        return [outcomes[job.folder.path] for job in jobs]


class _Submitted:
    """The runs of a sweep that Ray has, and what is heard of them."""

    def __init__(self, ray: Any, limits: Limits, board: Board, probe: Path):
        self._ray, self._limits, self._board, self._probe = ray, limits, board, probe
        self._remote = ray.remote(max_retries=3)(_work_on_ray)
        self._desk = ray.remote(num_cpus=0, max_restarts=-1)(_Desk).remote()
        self._running: dict[Any, Job] = {}  # by reference; queued by Ray, or on some machine
        self._machines: set[str] = set()  # those that have begun a run

    def perform(self, todo: Sequence[Job]) -> dict[Path, Outcome]:
        """Their outcomes. A job that another process is at waits until that is over."""
        machines = _Machines.of(self._ray)
        for job in todo:
            machines.check(job)
        outcomes, waiting = {}, list(todo)
        try:
            while waiting or self._running:
                for job in [job for job in waiting if not job.folder.is_held()]:
                    waiting.remove(job)
                    self._submit(job)
                for outcome in self._ended():
                    if outcome.state != "held":
                        outcomes[outcome.job.folder.path] = outcome
                        self._board.ended(outcome.job, outcome.state, outcome.message)
                    elif outcome.job.is_done() and not self._limits.force:
                        outcomes[outcome.job.folder.path] = Outcome(outcome.job, "done already")
                        self._board.ended(outcome.job, "done already", "")
                    else:
                        waiting.append(outcome.job)
                        self._board.put_back(outcome.job)
        finally:
            self._cancel()
        return outcomes

    def _submit(self, job: Job) -> None:
        needs = {
            "num_cpus": job.resources.cpus,
            "num_gpus": job.resources.gpus,
            "memory": int(job.resources.memory_gb * GIGABYTE),
        }
        task = self._remote.options(**needs, name=job.key)
        self._running[task.remote(job, self._limits, self._probe, _course_of(job), self._desk)] = job

    def _ended(self) -> list[Outcome]:
        """The outcomes of runs that came to their end, after waiting a little for one; the board hears what began."""
        if not self._running:
            time.sleep(0.5)
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0.5)
        self._hear()
        self._board.look()
        return [_received(self._ray, reference, self._running.pop(reference)) for reference in ready]

    def _hear(self) -> None:
        """Tell the board which runs have begun, and, of a machine that is new, how its results come here."""
        try:
            news = self._ray.get(self._desk.news.remote(), timeout=5)
        except (self._ray.exceptions.RayError, TimeoutError):  # its machine was lost; it is begun anew elsewhere
            return
        jobs = {job.key: job for job in self._running.values()}
        for key, machine, shares in news:
            if machine not in self._machines:
                self._machines.add(machine)
                folder = paths.runs_dir()
                way = "over the shared folder" if shares else "brought back by Ray, since that machine does not see"
                self._board.say(f"{machine}: results {way} {folder}")
            if key in jobs:
                self._board.started(jobs[key])

    def _cancel(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=PATIENCE)


class _Desk:
    """An actor on the cluster, where workers say what they begin: Ray itself does not tell queued from running."""

    def __init__(self) -> None:
        self._news: list[tuple[str, str, bool]] = []

    def begins(self, key: str, machine: str, shares: bool) -> None:
        self._news.append((key, machine, shares))

    def news(self) -> list[tuple[str, str, bool]]:
        """Key, machine, and whether that sees our folder, of the runs that have begun since it was last asked."""
        news, self._news = self._news, []
        return news


class _Machines:
    """The machines of a cluster and what is free on each, which is what Ray places runs by: a run is on one of them.

    Args:
        machines: of each what it has: CPU, GPU, and memory in bytes.
    """

    def __init__(self, machines: Sequence[Mapping[str, float]]):
        self.have = [dict(machine) for machine in machines]
        self._free = [dict(machine) for machine in machines]

    @classmethod
    def of(cls, ray: Any) -> _Machines:
        """Those of the cluster that `ray` is connected to."""
        return cls([node["Resources"] for node in ray.nodes() if node["Alive"]])

    def __str__(self) -> str:
        cpus, gpus = (sum(machine.get(what, 0.0) for machine in self.have) for what in ("CPU", "GPU"))
        return f"{len(self.have)} machine{'s' * (len(self.have) != 1)} ({cpus:g} CPUs, {gpus:g} GPUs)"

    def check(self, job: Job) -> None:
        """Raise UserError for a job that no machine could ever do: Ray would wait for ever."""
        needs = _needs_of(job)
        if any(_fits(needs, machine) for machine in self.have):
            return
        at_least = f"{needs['CPU']:g} CPUs, {needs['GPU']:g} GPUs and {needs['memory'] / GIGABYTE:g} GB by its card"
        raise UserError(
            f"{job.notebook}, profile {job.profile}: a run takes {at_least}, and no machine of the cluster has all of "
            f"that; they have {'; '.join(sorted(set(map(_said, self.have)))) or 'nothing'}"
        )

    def take(self, job: Job) -> int | None:
        """As of `Room`. Raises UserError where no machine could ever do the job."""
        self.check(job)
        needs = _needs_of(job)
        place = next((place for place, free in enumerate(self._free) if _fits(needs, free)), None)
        if place is not None:
            for what, number in needs.items():
                self._free[place][what] = self._free[place].get(what, 0.0) - number
        return place

    def give_back(self, job: Job, place: int) -> None:
        for what, number in _needs_of(job).items():
            self._free[place][what] += number


def _needs_of(job: Job) -> dict[str, float]:
    resources = job.resources
    return {"CPU": resources.cpus, "GPU": resources.gpus, "memory": resources.memory_gb * GIGABYTE}


def _fits(needs: Mapping[str, float], free: Mapping[str, float]) -> bool:
    return all(number <= free.get(what, 0.0) + 1e-6 for what, number in needs.items())


def _said(machine: Mapping[str, float]) -> str:
    cpus, gpus, memory = (machine.get(what, 0.0) for what in ("CPU", "GPU", "memory"))
    return f"{cpus:g} CPUs, {gpus:g} GPUs and {memory / GIGABYTE:.1f} GB"


def _this_machine() -> dict[str, float]:
    """What a cluster of this machine alone has, about: Ray keeps three tenths of the memory for results."""
    import torch  # here, because it is slow to import

    memory = 0.7 * psutil.virtual_memory().available
    return {"CPU": cores(), "GPU": torch.cuda.device_count(), "memory": memory}


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
            num_cpus=None if address else cores(),
            runtime_env={"env_vars": environment},
            log_to_driver=False,
            logging_level="ERROR",
        )
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


class _Answer(NamedTuple):
    """Of a worker: state and message as of `work`, whether it sees our folder, and if not the run's files, zipped."""

    state: str
    message: str
    shares: bool
    files: bytes | None = None


def _work_on_ray(job: Job, limits: Limits, probe: Path, course: Mapping[str, bytes], desk: Any) -> _Answer:
    """`work` on some machine; where that does not share our folder, the run's files come with the answer, zipped.

    There, it is done with the notebook and the card that came with the job: `course`, files by name.
    """
    shares = probe.is_file()
    desk.begins.remote(job.key, platform.node(), shares)
    if shares:
        return _Answer(*work(job, limits), shares)
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
            return _Answer("failed", f"{platform.node()}: {error}", shares)
        if key != job.key:
            said = f"{platform.node()}: the data or plugins there are not those of the sweep"
            return _Answer("failed", said, shares)
        done = work(replace(job, path=here, folder=folder), limits)
        return _Answer(*done, shares, _zipped(folder.path) if folder.path.is_dir() else None)


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
        answer = ray.get(reference)
    except ray.exceptions.RayError as error:  # its worker was lost more often than Ray retries
        return Outcome(job, "failed", f"lost by Ray: {str(error).strip().splitlines()[-1]}")
    if answer.files is None:
        return Outcome(job, answer.state, answer.message, "over the shared folder" if answer.shares else "")
    try:
        _unpack(answer.files, job.folder, whole=answer.state.startswith("done"))
    except Held as error:  # another sweep does the same run here
        return Outcome(job, "held", str(error))
    except (OSError, UserError) as error:  # a full disk here
        return Outcome(job, "failed", f"its results could not be put in their place: {error}")
    return Outcome(job, answer.state, answer.message, "brought back by Ray")


def _unpack(files: bytes, folder: RunFolder, *, whole: bool) -> None:
    """Put a run's files into its folder in place of those there, and `status.json` last: it says that they are there.

    What is finished is not lost to a run that is not `whole`: trainings stay, and so does a run that another sweep has
    finished meanwhile.

    Raises Held if another process is at this run; UserError or OSError if they cannot be written.
    """
    incoming = folder.create().path / ".incoming"
    with folder.alone():
        if not whole and folder.read_status().get("state") == "done":
            return
        shutil.rmtree(incoming, ignore_errors=True)
        try:
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
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
