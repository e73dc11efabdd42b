"""Run one notebook from beginning to end, in a folder of its own: `run("00_quickstart", {"seeds": [0, 1]})`.

`plan` checks everything that can be checked before a kernel starts, and gives a `Job`: plain data, which `perform` does
in this process or, for a sweep on a cluster, in another. `status.json` in the run's folder tells what became of it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from stm_lab.course.cards import Card, Resources, check_values, load_card
from stm_lab.course.folder import RunFolder, data_fingerprint, run_folder, run_key
from stm_lab.course.notebooks import check_runnable
from stm_lab.util.environment import code_fingerprint
from stm_lab.util.errors import UserError, WorkFailed


class RunFailed(WorkFailed):
    """A notebook did not run to its end. Its folder has what it had done, `status.json` the traceback.

    Attributes:
        folder: the run's folder.
        cell: the number of the cell in the executed notebook (`In [cell]`) that failed, or was running when the kernel
            died or was stopped; None if none was begun.
        kind: "cell", "died", "memory", "timeout", "start" or "files".
    """

    def __init__(self, message: str, folder: RunFolder, failure: Mapping[str, Any]):
        super().__init__(message)
        self.folder, self.cell, self.kind = folder, failure["cell"], failure["kind"]


@dataclass(frozen=True)
class Limits:
    """How runs are done. Raises UserError for a limit that no run could keep."""

    force: bool = False  # start afresh, whatever is there
    timeout: float | None = None  # minutes after which a run is stopped
    memory: float | None = None  # gigabytes (1e9 bytes) of resident memory at which it is stopped

    def __post_init__(self) -> None:
        for name, value, unit in (("timeout", self.timeout, "minutes"), ("memory", self.memory, "GB")):
            if value is not None and not value > 0:
                raise UserError(f"{name} = {value:g}: expected more than 0 {unit}")


@dataclass(frozen=True)
class Job:
    """One run: all that `perform` needs, in any process that has the same notebooks."""

    notebook: str  # its name, as on its card
    path: Path  # of the stored notebook
    values: dict[str, Any]  # every parameter, with its type
    given: dict[str, Any]  # the values that were asked for, beyond the profile
    profile: str
    key: str  # what the run's folder is named by
    folder: RunFolder  # where it is done, absolute
    resources: Resources  # what it is expected to take

    def is_done(self) -> bool:
        """Whether this very run came to its end, and its files are whole; its page may be missing."""
        status = self.folder.read_status()
        if status.get("state") != "done" or status.get("key") != self.key:
            return False
        return all(self.folder.has(name) for name in status.get("files", []) if name != self.folder.html.name)

    def lacks_page(self) -> bool:
        """Whether the page of the executed notebook could not be written, or was lost."""
        return self.folder.has(self.folder.notebook.name) and not self.folder.has(self.folder.html.name)

    def check_place(self, force: bool) -> None:
        """Raise UserError if the folder that `out` names holds another run, or files of which nothing says whose."""
        strange = self.folder.strangers() if self.values.get("out") else []
        place = f"out = {str(self.folder.path)!r} holds"
        if strange:
            raise UserError(f"{place} {strange[0]}, and nothing says of which run; choose another folder")
        there = self.folder.read_status().get("key", self.key)
        if there != self.key and not force:
            raise UserError(f"{place} another run ({there}); choose another, or --force")

    def other_code(self) -> str:
        """Tells of a finished run that it was made with other code than this; "" if it was not."""
        made_with, now = self.folder.read_status().get("code"), code_fingerprint()
        return f"with other code ({made_with}, now {now})" if made_with and made_with != now else ""


def describe(job: Job) -> str:
    """The values of a run that differ from its profile's, in a line."""
    return ", ".join(f"{name}={value}" for name, value in job.given.items())


def plan(
    notebook: str | int | Path | Card,
    parameters: Mapping[str, Any] | None = None,
    *,
    profile: str = "quick",
    resources: Resources | None = None,
    fingerprints: dict[tuple[Any, Any], str | None] | None = None,
) -> Job:
    """The run of a notebook with these parameters; nothing is written. Raises UserError for all that is wrong with it.

    Args:
        notebook, parameters, profile: as of `run`; or a notebook's card.
        resources: what it is expected to take, if that is not what the card says.
        fingerprints: of data by recipe and folder, to be added to: one may take a list of a million files, and a sweep
            has many runs.
    """
    card = notebook if isinstance(notebook, Card) else load_card(notebook)
    values = check_values(card, parameters, profile=profile)
    check_runnable(card)
    known = {} if fingerprints is None else fingerprints
    data = (values.get("recipe"), values.get("data_root"))
    if data not in known:
        known[data] = data_fingerprint(values)
    key = run_key(card, values, known[data])
    return Job(
        notebook=card.name,
        path=card.path,
        values=values,
        given={name: values[name] for name in parameters or {}},
        profile=profile,
        key=key,
        folder=run_folder(card, values, key),
        resources=resources or card.resources_of(profile),
    )


def run(
    notebook: str | int | Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    profile: str = "quick",
    force: bool = False,
    timeout: float | None = None,
    memory: float | None = None,
    echo: TextIO | None = None,
) -> RunFolder:
    """Execute a notebook of the course, by papermill, with this interpreter as its kernel; returns the run's folder.

    A finished run is not done again, unless a file other than its page is missing or cut off. An interrupted run goes
    on, and its trainings from their checkpoints. The folder holds the executed notebook, as far as it came, with its
    HTML, the cells' output in `log.txt`, and in `status.json` the state: `running` (without a process: killed), `done`,
    `failed` (with cell, source, traceback) or `interrupted`, seconds, and peak memory.

    Args:
        notebook: name, number or path.
        parameters: values that differ from the profile's.
        profile: "quick" (the defaults), or another of the notebook's card.
        force, timeout, memory: as of `Limits`.
        echo: where to show the progress and what the cells print, besides the log.

    Raises:
        UserError: wrong input, a folder that holds another run, or this one going on in another process.
        RunFailed: a cell failed, the kernel died or passed a limit.
    """
    job = plan(notebook, parameters, profile=profile)
    if not perform(job, Limits(force, timeout, memory), echo=echo):
        how = ", ".join(filter(None, ("done already", job.other_code())))
        print(f"{job.folder.path}: {how}; --force runs it again", file=echo or sys.stdout)
    return job.folder


def perform(
    job: Job,
    limits: Limits = Limits(),
    *,
    environment: Mapping[str, str] | None = None,
    echo: TextIO | None = None,
    stop: threading.Event | None = None,
) -> bool:
    """Do a planned run unless it is done; make its page if only that is missing. Whether it was done now.

    environment: variables of its kernel, besides ours. stop: interrupts the run, as Ctrl-C does, when another thread
    sets it. Raises errors as `run` does.
    """
    folder = job.folder.create()
    with folder.alone():
        if job.is_done() and not limits.force:
            if job.lacks_page():
                _make_page(folder)
            return False
        job.check_place(limits.force)
        if limits.force:
            folder.clear()
            folder.create()
        from stm_lab.course.execute import execute  # here, because it is slow to import, and notebooks import this

        failure = execute(job, limits, environment=environment or {}, echo=echo, stop=stop)
    if failure:
        place = "" if failure["cell"] is None else f"cell [{failure['cell']}]: "
        raise RunFailed(f"{job.notebook}: {place}{failure['error']} (see {folder.path})", folder, failure)
    return True


def _make_page(folder: RunFolder) -> None:
    from stm_lab.course.execute import write_html  # here, because it is slow to import

    write_html(folder)
    try:
        folder.write_json(folder.status, {**folder.read_status(), "files": folder.files()})
    except OSError as error:
        raise WorkFailed(f"{folder.status}: {error.strerror}") from error
