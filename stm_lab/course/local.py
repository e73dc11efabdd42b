"""A sweep's runs on this machine: side by side, as many as its cores, memory and GPUs hold."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Iterator, Sequence

import psutil

from stm_lab.course.board import Board
from stm_lab.course.engines import PATIENCE, Limits, Outcome, sort_out, work
from stm_lab.course.run import Job
from stm_lab.course.watch import GIGABYTE, how_it_ended
from stm_lab.util.devices import cores
from stm_lab.util.errors import UserError
from stm_lab.util.processes import end_with_parent, without_main

_Running = dict[multiprocessing.connection.Connection, "_Process"]  # by where its answer comes


class Local:
    """Runs side by side on this machine: as many as its cores, memory and GPUs hold by what their cards ask for.

    Args:
        processes: at most so many at once; None: as the cores allow.
    """

    def __init__(self, processes: int | None = None):
        if processes is not None and processes < 1:
            raise UserError(f"processes = {processes}: must be at least 1")
        self.processes = processes

    @contextlib.contextmanager
    def room(self) -> Iterator[tuple[_Room, str]]:
        """As `Engine` says."""
        yield _Room(self.processes), "on this machine"

    def perform(
        self, jobs: Sequence[Job], *, title: str, force: bool, timeout: float | None, memory: float | None
    ) -> list[Outcome]:
        """As `Engine` says. Raises KeyboardInterrupt, once all that ran has stopped."""
        limits = Limits(force, timeout, memory)
        outcomes, waiting = sort_out(jobs, limits)
        room = _Room(self.processes)
        running: _Running = {}
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


def _start(waiting: list[Job], room: _Room, running: _Running, limits: Limits) -> Iterator[_Process]:
    """Start every job that there is room for, in order; one that another process is at waits."""
    for job in list(waiting):
        if job.folder.is_held():
            continue
        devices = room.take(job)
        if devices is None:
            return
        waiting.remove(job)
        process = _Process(job, limits, devices)
        running[process.answer] = process
        yield process


def _ended(running: _Running, board: Board) -> list[_Process]:
    """The processes that have answered or died, after waiting a little for one."""
    if not running:
        time.sleep(0.5)
        return []
    ready = multiprocessing.connection.wait(list(running), timeout=0.5)
    board.look()
    return [running.pop(answer) for answer in ready]


def _stop(running: _Running) -> None:
    for process in running.values():
        process.terminate()
    deadline = time.monotonic() + PATIENCE
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


def visible_devices(devices: Sequence[int]) -> str:
    """`CUDA_VISIBLE_DEVICES` for a child that gets these of the devices that we see, by our own count."""
    ours = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = ours.split(",") if ours else None  # numbers or UUIDs; a batch system may have given us the third alone
    return ",".join(names[device] if names else str(device) for device in devices)


class _Process:
    """One job in a process, forked from one that has only imported what a run needs and touched no device."""

    def __init__(self, job: Job, limits: Limits, devices: list[int]):
        self.job, self.devices = job, devices
        self.answer, theirs = multiprocessing.Pipe(duplex=False)
        environment = dict(os.environ)  # the server that forks may be older than what was set since
        self._process = _context().Process(target=_main, args=(job, limits, devices, environment, theirs))
        with without_main():
            self._process.start()
        theirs.close()

    def outcome(self) -> Outcome:
        """What the process said; that it failed if it died without a word.

        One that has answered is not waited for: giving its memory back takes longer than starting the next.
        """
        try:
            state, message = self.answer.recv()
        except EOFError:
            self._process.join()
            how = how_it_ended(self._process.exitcode)
            said = f"{self.job.notebook}: the run's process died ({how}; see {self.job.folder.path})"
            state, message = "failed", said
        self.answer.close()
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


def _main(
    job: Job,
    limits: Limits,
    devices: list[int],
    environment: dict[str, str],
    answer: multiprocessing.connection.Connection,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent tells us by SIGTERM
    end_with_parent()
    if devices or job.values.get("device", "auto") == "auto":  # the GPUs that it was given, and no other
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_devices(devices)
    with contextlib.suppress(KeyboardInterrupt):  # terminated: status.json says so
        answer.send(work(job, limits))
