"""What every engine of a sweep does alike: a run is done by `work`, and comes to an `Outcome`.

`local` does the runs of a sweep on this machine's cores, `cluster` on Ray. Both give each run a process of its own and
learn what became of it from the answer of `work`; where the process died without one, the run failed. Rows and figures
stay in the run's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from stm_lab.course.run import Job, perform
from stm_lab.course.watch import check_limits
from stm_lab.util.environment import code_fingerprint
from stm_lab.util.errors import UserError, WorkFailed
from stm_lab.util.folders import Held

PATIENCE = 15.0  # seconds for a run that is stopped to write down what became of it


@dataclass(frozen=True)
class Limits:
    """What each run is held to."""

    force: bool = False
    timeout: float | None = None  # minutes
    memory: float | None = None  # gigabytes

    def __post_init__(self) -> None:
        check_limits(self.timeout, self.memory)


@dataclass(frozen=True)
class Outcome:
    """What became of a run: "done" (now), "done already", "failed", or "held" by another process.

    `way` says how its results came here, where that may be in more than one way.
    """

    job: Job
    state: str
    message: str = ""
    way: str = ""


class Room(Protocol):
    """What is free where runs are done."""

    def take(self, job: Job) -> Any | None:
        """A place for a job; None if it has to wait."""
        ...

    def give_back(self, job: Job, place: Any) -> None: ...


class Engine(Protocol):
    """Does jobs, wherever that is."""

    def room(self) -> AbstractContextManager[tuple[Room, str]]:
        """What the engine would place runs by now, and where that is, in words. Raises UserError if it has none."""
        ...

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
    except Held as error:  # by now it may be done; whoever asked looks again
        return "held", str(error)
    except (WorkFailed, UserError) as error:
        return "failed", str(error)
    except Exception as error:  # a fault of ours: the sweep goes on with the others
        return "failed", f"{type(error).__name__}: {error}"


def held_to(jobs: Sequence[Job], limits: Limits) -> list[Job]:
    """The jobs as a limit of memory leaves them: no run takes more, whatever its card says."""
    if limits.memory is None:
        return list(jobs)
    most = [min(job.resources.memory_gb, limits.memory) for job in jobs]
    return [
        replace(job, resources=job.resources.model_copy(update={"memory_gb": gb}))
        for job, gb in zip(jobs, most, strict=True)
    ]


def sort_out(jobs: Sequence[Job], limits: Limits) -> tuple[dict[Path, Outcome], list[Job]]:
    """What is done already, and what is to do. A run that lacks nothing but its page gets that at once."""
    outcomes, jobs = {}, held_to(jobs, limits)
    if not limits.force:
        done = [job for job in jobs if job.is_done()]
        for job in filter(Job.lacks_page, done):
            with suppress(Held):  # then another process makes it
                perform(job)
        outcomes = {job.folder.path: Outcome(job, "done already", _other_code(job)) for job in done}
    return outcomes, [job for job in jobs if job.folder.path not in outcomes]


def _other_code(job: Job) -> str:
    other = job.other_code()
    return f"with other code ({other}, now {code_fingerprint()})" if other else ""
