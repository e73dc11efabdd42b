"""What a sweep would take, before anything starts: its engine's own rules of placing, played through in minutes."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from stm_lab.course.engines import held_to
from stm_lab.course.room import Room
from stm_lab.course.run import Job, Limits


@dataclass(frozen=True)
class Forecast:
    """What a sweep would do, and how long that would take.

    The plan of a job is "run", "again" (it is done, and --force is given), "go on" (it was interrupted or killed),
    "wait" (another process is at it) or "skip" (it is done).
    """

    plans: list[str]  # of each job
    minutes: list[float]  # of each job, whatever its plan
    measured: int  # how many finished runs the minutes are the median of; 0: they are those of the card
    work: float  # minutes of all that is to do, one after the other
    wall: float  # minutes of all that is to do, as the engine would place it
    at_once: int  # the most runs at a time
    memory_gb: float  # the most that runs at a time take together
    notes: list[str]  # sentences on runs that a limit would stop, and on those made with other code


def forecast(jobs: Sequence[Job], limits: Limits, room: Room) -> Forecast:
    """Play a sweep through. Raises UserError for a job for which there would never be room."""
    plans = [_plan_of(job, limits) for job in jobs]
    took = [job.folder.read_status().get("seconds") for job in jobs if job.is_done()]
    seconds = [each for each in took if isinstance(each, int | float)]
    minutes = [median(seconds) / 60 if seconds else job.resources.minutes for job in jobs]
    is_todo = [plan != "skip" for plan in plans]
    todo = [
        (job, min(each, limits.timeout or each))
        for job, is_it, each in zip(held_to(jobs, limits), is_todo, minutes, strict=True)
        if is_it
    ]
    wall, at_once, memory = _play(todo, room)
    notes = _notes(jobs, is_todo, minutes, limits)
    return Forecast(plans, minutes, len(seconds), sum(each for _, each in todo), wall, at_once, memory, notes)


def _notes(jobs: Sequence[Job], is_todo: Sequence[bool], minutes: Sequence[float], limits: Limits) -> list[str]:
    notes = []
    skipped = [job for job, is_it in zip(jobs, is_todo, strict=True) if not is_it]
    other = sum(bool(job.other_code()) for job in skipped)
    if other:
        notes.append(f"{other} of the {len(skipped)} that are done were made with other code; --force runs all again.")
    gigabytes = [job.resources.memory_gb for job in jobs]
    for option, limit, needs, take in (
        ("memory", limits.memory, gigabytes, "take up to {:g} GB by their card"),
        ("timeout", limits.timeout, minutes, "take about {:.2g} minutes"),
    ):
        over = [need for need, is_it in zip(needs, is_todo, strict=True) if is_it and need > (limit or math.inf)]
        if over:
            what = take.format(max(over))
            notes.append(f"--{option} {limit:g}: {len(over)} of the runs {what}, and would be stopped.")
    return notes


def _plan_of(job: Job, limits: Limits) -> str:
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
    for job, _ in todo:
        room.check(job)
    while waiting or running:
        while waiting and (place := room.take(waiting[0][0])) is not None:
            job, minutes = waiting.pop(0)
            heapq.heappush(running, (now + minutes, len(waiting), job, place))  # the number, so that no jobs compare
        at_once = max(at_once, len(running))
        memory = max(memory, sum(job.resources.memory_gb for _, _, job, _ in running))
        now, _, job, place = heapq.heappop(running)
        room.give_back(job, place)
    return now, at_once, memory
