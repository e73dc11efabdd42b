"""What a sweep shows while it goes: a live table on a terminal, else a plain line per interval and one per failure."""

from __future__ import annotations

import sys
import time

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stm_lab.course.run import Job
from stm_lab.util.progress import is_watched, progress

_LAST = 8  # finished runs that are shown


class Board:
    """Counts the runs of a sweep, `total` of them, and shows those that go on."""

    def __init__(self, title: str, total: int):
        self.title, self.total = title, total
        self.running: dict[str, tuple[Job, float]] = {}  # by key, with the time of their start
        self.finished: list[tuple[Job, str, str]] = []
        self._started = time.monotonic()
        self._live: Live | None = None
        self._bar: progress | None = None
        if is_watched(sys.stderr):
            self._live = Live(console=Console(stderr=True), get_renderable=self.render, refresh_per_second=2)
        else:
            self._bar = progress(total, title, unit="runs", watched=False)

    def __enter__(self) -> Board:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        (self._live.stop if self._live is not None else self._bar.close)()

    def say(self, text: str) -> None:
        """Show a line of its own."""
        if self._live is not None:
            self._live.console.print(Text(text))
        else:
            self._bar.say(text)

    def started(self, job: Job) -> None:
        self.running[job.key] = (job, time.monotonic())

    def put_back(self, job: Job) -> None:
        """It has to wait after all."""
        self.running.pop(job.key, None)

    def ended(self, job: Job, state: str, message: str) -> None:
        self.running.pop(job.key, None)
        self.finished.append((job, state, message))
        if self._bar is not None and state == "failed":
            self._bar.say(f"failed: {message}")
        self.look(1)

    def look(self, more: int = 0) -> None:
        """Count so many more, and show a plain line if one is due."""
        if self._bar is not None:
            self._bar.update(more, note=self._note())

    def _note(self) -> str:
        failed = sum(state == "failed" for _, state, _ in self.finished)
        waiting = self.total - len(self.finished) - len(self.running)
        return f"{len(self.running)} running, {waiting} waiting, {failed} failed"

    def render(self) -> Group:
        """The live table."""
        table = Table("run", "what", "state", "cell", "seconds", "GB", title=self.title, title_justify="left")
        for job, state, message in self.finished[-_LAST:]:
            status = job.folder.read_status()
            numbers = (str(status.get(name, "")) for name in ("seconds", "peak_memory_gb"))
            colour = "red" if state == "failed" else "green"
            table.add_row(job.key, describe(job), Text(state, colour), message[:60], *numbers)
        for job, started in self.running.values():
            status = job.folder.read_status()
            cell = f"{status.get('cell', 0)}/{status.get('cells', '?')}"
            table.add_row(job.key, describe(job), "running", cell, f"{time.monotonic() - started:.0f}")
        minutes = (time.monotonic() - self._started) / 60
        return Group(table, f"{len(self.finished)} of {self.total} done, {self._note()}, {minutes:.1f} min")


def describe(job: Job) -> str:
    """The values of a run that differ from its profile's, in a line."""
    return ", ".join(f"{name}={value}" for name, value in job.given.items())
