"""What a sweep would take, before anything starts: its engine's own rules of placing, played through in minutes."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from stm_lab.course.engines import Limits, Room, held_to
from stm_lab.course.run import Job
from stm_lab.util.errors import UserError


@dataclass(frozen=True)
class Forecast:
    """What a sweep would do, and how long that would take.

    Attributes:
        plans: of each job "run", "again" (it is done, and --force is given), "go on" (it was interrupted, or killed),
            "wait" (another process is at it) or "skip" (it is done).
        minutes: of each job as estimated, whatever its plan.
        measured: how many finished runs the minutes are the median of; 0: they are those of the card.
        work: minutes of all that is to do, one after the other.
        wall: minutes of all that is to do, as the engine would place it.
        at_once: the most runs that go on at a time.
        memory_gb: the most that runs at a time take together, as estimated.
        notes: sentences on runs that a limit would stop, and on those made with other code.
    """

    plans: list[str]
    minutes: list[float]
    measured: int
    work: float
    wall: float
    at_once: int
    memory_gb: float
    notes: list[str]


def forecast(jobs: Sequence[Job], limits: Limits, room: Room) -> Forecast:
    """Play a sweep through.

    Raises:
        UserError: a job for which there would never be room.
    """
    plans = [plan_of(job, limits) for job in jobs]
    took = [job.folder.read_status().get("seconds") for job in jobs if job.is_done()]
    seconds = [each for each in took if isinstance(each, int | float)]
    minutes = [median(seconds) / 60 if seconds else job.resources.minutes for job in jobs]
    todo = [
        (job, min(each, limits.timeout or each))
        for job, plan, each in zip(held_to(jobs, limits), plans, minutes, strict=True)
        if plan != "skip"
    ]
    wall, at_once, memory = _play(todo, room)
    work = sum(each for _, each in todo)
    notes = _notes(jobs, plans, minutes, limits)
    return Forecast(plans, minutes, len(seconds), work, wall, at_once, memory, notes)


def plan_of(job: Job, limits: Limits) -> str:
    """What a sweep would do with a job, as of `Forecast.plans`."""
    if job.is_done():
        return "again" if limits.force else "skip"
    if job.folder.is_held():
        return "wait"
    begun = job.folder.read_status().get("state") in ("interrupted", "running")
    return "go on" if begun and not limits.force else "run"


def _play(todo: Sequence[tuple[Job, float]], room: Room) -> tuple[float, int, float]:
    """Minutes to the end of the last run, the most at a time, and the most gigabytes that those take together."""
    waiting, running = list(todo), []
    now, at_once, memory = 0.0, 0, 0.0
    while waiting or running:
        while waiting and (place := room.take(waiting[0][0])) is not None:
            job, minutes = waiting.pop(0)
            heapq.heappush(running, (now + minutes, len(waiting), job, place))  # the number, so that no jobs compare
        if not running:
            raise UserError(f"{waiting[0][0].notebook}: nothing here has room for one of its runs")
        at_once = max(at_once, len(running))
        memory = max(memory, sum(job.resources.memory_gb for _, _, job, _ in running))
        now, _, job, place = heapq.heappop(running)
        room.give_back(job, place)
    return now, at_once, memory


def _notes(jobs: Sequence[Job], plans: Sequence[str], minutes: Sequence[float], limits: Limits) -> list[str]:
    notes = []
    skipped = [job for job, plan in zip(jobs, plans, strict=True) if plan == "skip"]
    other = sum(job.other_code() is not None for job in skipped)
    if other:
        notes.append(f"{other} of the {len(skipped)} that are done were made with other code; --force runs all again.")
    needs = [job.resources.memory_gb for job, plan in zip(jobs, plans, strict=True) if plan != "skip"]
    too_large = [each for each in needs if limits.memory is not None and each > limits.memory]
    if too_large:
        notes.append(
            f"--memory {limits.memory:g}: {len(too_large)} of the runs take up to {max(too_large):g} GB by their card, "
            f"and would be stopped."
        )
    takes = [each for each, plan in zip(minutes, plans, strict=True) if plan != "skip"]
    too_long = [each for each in takes if limits.timeout is not None and each > limits.timeout]
    if too_long:
        notes.append(
            f"--timeout {limits.timeout:g}: {len(too_long)} of the runs take about {max(too_long):.2g} minutes, and "
            f"would be stopped."
        )
    return notes
