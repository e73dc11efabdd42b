"""What is free where runs are done: engines place runs by it, and forecasts play it through."""

from __future__ import annotations

import math
from collections.abc import Sequence

import psutil

from stm_lab.course.cards import Resources
from stm_lab.course.run import Job
from stm_lab.course.watch import GIGABYTE
from stm_lab.util.devices import cores
from stm_lab.util.errors import UserError


class Machine:
    """What a machine has free: CPUs, gigabytes of memory, and of each GPU a share from 0 to 1."""

    def __init__(self, cpus: float, memory_gb: float, gpus: int):
        self.cpus, self.memory_gb, self.gpus, self.runs = cpus, memory_gb, [1.0] * gpus, 0

    @classmethod
    def here(cls, share: float) -> Machine:
        """This machine, with a share of the memory that is free."""
        import torch  # here, because it is slow to import

        return cls(cores(), share * psutil.virtual_memory().available / GIGABYTE, torch.cuda.device_count())

    def place(self, needs: Resources) -> list[int] | None:
        """The GPUs that a run would get, none if it needs none; None if there is no room for it."""
        number = math.ceil(needs.gpus)
        gpus = [gpu for gpu, left in enumerate(self.gpus) if left >= min(needs.gpus, 1.0) - 1e-9][:number]
        fits = needs.cpus <= self.cpus and needs.memory_gb <= self.memory_gb + 1e-9 and len(gpus) == number
        return gpus if fits else None

    def book(self, needs: Resources, gpus: Sequence[int], sign: int = 1) -> None:
        """Take room for a run, or with sign -1 give it back."""
        self.runs += sign
        self.cpus -= sign * needs.cpus
        self.memory_gb -= sign * needs.memory_gb
        for gpu in gpus:
            self.gpus[gpu] -= sign * min(needs.gpus, 1.0)

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs, {len(self.gpus)} GPUs and {self.memory_gb:.1f} GB"


Place = tuple[Machine, list[int]]  # and the numbers of the GPUs


class Room:
    """Machines; a run is on one of them.

    Args:
        machines: as they are before the first run.
        at_most: so many runs at a time.
        lenient: a run that is too large is done alone, and on the CPU if GPUs are missing; else it is refused.
    """

    def __init__(self, machines: Sequence[Machine], *, at_most: float = math.inf, lenient: bool = False):
        self._machines, self._at_most, self._lenient = machines, at_most, lenient
        self._all = "; ".join(sorted(set(map(str, machines)))) or "nothing"

    @classmethod
    def here(cls, processes: int | None = None) -> Room:
        """This machine, for at most so many runs at a time."""
        return cls([Machine.here(0.9)], at_most=processes or math.inf, lenient=True)

    def __str__(self) -> str:
        return self._all

    def check(self, job: Job) -> None:
        """Raise UserError for a job that no machine could do, none of which runs anything yet."""
        needs = job.resources
        if not self._lenient and all(machine.place(needs) is None for machine in self._machines):
            raise UserError(
                f"{job.notebook}, profile {job.profile}: a run takes {needs.cpus} CPUs, {needs.gpus:g} GPUs and "
                f"{needs.memory_gb:g} GB by its card, and no machine has all of that; they have {self}"
            )

    def take(self, job: Job) -> Place | None:
        """A place for a job; None if it has to wait."""
        if sum(machine.runs for machine in self._machines) >= self._at_most:
            return None
        for machine in self._machines:
            needs = self._fitted(job, machine)
            gpus = machine.place(needs)
            if gpus is None and self._lenient and not machine.runs:
                gpus = list(range(math.ceil(needs.gpus)))
            if gpus is not None:
                machine.book(needs, gpus)
                return machine, gpus
        return None

    def give_back(self, job: Job, place: Place) -> None:
        """Free the place that a job had."""
        machine, gpus = place
        machine.book(self._fitted(job, machine), gpus, -1)

    def _fitted(self, job: Job, machine: Machine) -> Resources:
        needs = job.resources
        if not self._lenient or needs.gpus <= len(machine.gpus):
            return needs
        return needs.model_copy(update={"gpus": len(machine.gpus)})
