"""The engines that do a sweep's runs: `Local` on this machine, `cluster.Ray` on several.

`do_all` gives an engine's workers the runs that are missing, and gathers what became of each. Rows and figures stay in
the run's folder. A run's kernel is a process of its own, so that here a thread is enough to look after each.

An engine has `room()`, a context with the `Room` where it would place runs now and that place in words, and
`workers(jobs, limits)`, a context at whose end everything is stopped. Workers `start(job)`, or
return False if it has to wait for others to end; `look()` waits a little and returns the outcomes of those that ended.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stm_lab.course.room import Place, Room
from stm_lab.course.run import Job, Limits, perform
from stm_lab.util.errors import UserError, WorkFailed
from stm_lab.util.folders import Held
from stm_lab.util.progress import progress

PATIENCE = 15.0  # seconds for a run that is stopped to write down what became of it
PAUSE = 0.5  # seconds that `look` waits for news


@dataclass(frozen=True)
class Outcome:
    """What became of a run: "done" (now), "done already", "failed", or "held" by another process."""

    job: Job
    state: str
    message: str = ""


def do_all(engine: Any, jobs: Sequence[Job], limits: Limits, title: str) -> list[Outcome]:
    """Do what is not done; the outcomes, in the order of `jobs`. One that fails does not stop the others.

    A job that another process is at waits until that is over. Raises KeyboardInterrupt, once all that ran has stopped.
    """
    outcomes, waiting = _sort_out(jobs, limits)
    with progress(len(jobs), title, unit="runs") as bar:
        bar.update(len(outcomes))
        with engine.workers(waiting, limits) if waiting else nullcontext() as workers:
            while len(outcomes) < len(jobs):
                ended = _start(waiting, workers, limits)
                for outcome in [*ended, *workers.look()]:
                    if outcome.state == "held":
                        waiting.append(outcome.job)
                        continue
                    outcomes[outcome.job.folder.path] = outcome
                    if outcome.state == "failed":
                        bar.say(f"failed: {outcome.message}")
                failed = sum(outcome.state == "failed" for outcome in outcomes.values())
                bar.update(len(outcomes) - bar.count, note=f"{failed} failed")
    return [outcomes[job.folder.path] for job in jobs]


def _start(waiting: list[Job], workers: Any, limits: Limits) -> list[Outcome]:
    """Start every job that there is room for, in order; the outcomes of those that another process did meanwhile."""
    outcomes = []
    for job in list(waiting):
        if job.folder.is_held():
            continue
        if job.is_done() and not limits.force:
            outcomes.append(Outcome(job, "done already"))
        elif not workers.start(job):
            break
        waiting.remove(job)
    return outcomes


def _sort_out(jobs: Sequence[Job], limits: Limits) -> tuple[dict[Path, Outcome], list[Job]]:
    """What is done already, and what is to do. A run that lacks nothing but its page gets that at once."""
    done = [] if limits.force else [job for job in jobs if job.is_done()]
    for job in filter(Job.lacks_page, done):
        with suppress(Held):  # then another process makes it
            perform(job, limits)
    outcomes = {job.folder.path: Outcome(job, "done already", job.other_code()) for job in done}
    return outcomes, [job for job in held_to(jobs, limits) if job.folder.path not in outcomes]


def held_to(jobs: Sequence[Job], limits: Limits) -> list[Job]:
    """The jobs as a limit of memory leaves them: no run takes more, whatever its card says."""
    if limits.memory is None:
        return list(jobs)
    most = [{"memory_gb": min(job.resources.memory_gb, limits.memory)} for job in jobs]
    return [replace(job, resources=job.resources.model_copy(update=gb)) for job, gb in zip(jobs, most, strict=True)]


def work(
    job: Job,
    limits: Limits,
    *,
    gpus: str,
    environment: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Do one job in this process. `gpus`: its kernel's `CUDA_VISIBLE_DEVICES`; `environment`, `stop`: as of `perform`.

    Raises KeyboardInterrupt if interrupted.
    """
    cpus = str(job.resources.cpus)
    given = {"STM_LAB_CORES": cpus, "OMP_NUM_THREADS": cpus, "MKL_NUM_THREADS": cpus}
    if gpus or job.values.get("device", "auto") == "auto":
        given["CUDA_VISIBLE_DEVICES"] = gpus
    try:
        now = perform(job, limits, environment={**given, **(environment or {})}, stop=stop)
        return Outcome(job, "done" if now else "done already")
    except Held as error:  # by now it may be done; `do_all` looks again
        return Outcome(job, "held", str(error))
    except (WorkFailed, UserError) as error:
        return Outcome(job, "failed", str(error))
    except Exception as error:  # a fault of ours: the sweep goes on with the others
        return Outcome(job, "failed", f"{type(error).__name__}: {error}")


class Local:
    """Runs side by side on this machine: as many as its cores, memory and GPUs hold by what their cards ask for.

    processes: at most so many at once; None: as the cores allow.
    """

    def __init__(self, processes: int | None = None):
        if processes is not None and processes < 1:
            raise UserError(f"processes = {processes}: must be at least 1")
        self.processes = processes

    @contextmanager
    def room(self) -> Iterator[tuple[Room, str]]:
        """As of this module."""
        yield Room.here(self.processes), "on this machine"

    @contextmanager
    def workers(self, jobs: Sequence[Job], limits: Limits) -> Iterator[_Threads]:
        """As of this module."""
        threads = _Threads(Room.here(self.processes), limits)
        try:
            yield threads
        finally:
            threads.stop()


class _Threads:
    """Workers: a thread for each run."""

    def __init__(self, room: Room, limits: Limits):
        self._room, self._limits = room, limits
        self._running: list[threading.Thread] = []
        self._ended: queue.Queue[tuple[Outcome, Place]] = queue.Queue()
        self._stop = threading.Event()

    def start(self, job: Job) -> bool:
        place = self._room.take(job)
        if place is None:
            return False
        thread = threading.Thread(target=self._work, args=(job, place), daemon=True)
        thread.start()
        self._running = [*filter(threading.Thread.is_alive, self._running), thread]
        return True

    def _work(self, job: Job, place: Place) -> None:
        with suppress(KeyboardInterrupt):  # stopped: status.json says so
            self._ended.put((work(job, self._limits, gpus=visible_devices(place[1]), stop=self._stop), place))

    def look(self) -> list[Outcome]:
        with suppress(queue.Empty):
            outcome, place = self._ended.get(timeout=PAUSE)
            self._room.give_back(outcome.job, place)
            return [outcome]
        return []

    def stop(self) -> None:
        self._stop.set()
        deadline = time.monotonic() + PATIENCE
        for thread in self._running:
            thread.join(max(0.0, deadline - time.monotonic()))


def visible_devices(devices: Sequence[int]) -> str:
    """`CUDA_VISIBLE_DEVICES` for a child that gets these of the devices that we see, by our own count."""
    ours = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = ours.split(",") if ours else None  # numbers or UUIDs; a batch system may have given us the third alone
    return ",".join(names[device] if names else str(device) for device in devices)
