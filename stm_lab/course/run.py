"""Run one notebook from beginning to end, in a folder of its own: `run("00_quickstart", {"seeds": [0, 1]})`.

`plan` checks everything that can be checked before a kernel starts, and gives a `Job`: plain data, which `perform` does
here or, for a sweep, in some other process. What became of it stands in the folder's `status.json`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from stm_lab.course.cards import Card, Resources, check_values, load_card
from stm_lab.course.folder import RunFolder, data_fingerprint, run_folder, run_key
from stm_lab.course.notebooks import check_runnable
from stm_lab.course.watch import Watch, check_limits
from stm_lab.util.environment import code_fingerprint
from stm_lab.util.errors import UserError, WorkFailed
from stm_lab.util.progress import progress


class RunFailed(WorkFailed):
    """A notebook did not come to its end. What it had done is in the folder, the traceback in `status.json`.

    Attributes:
        folder: the run's folder.
        cell: the number of the cell in the executed notebook (`In [cell]`) that failed, or was running when the kernel
            died or was stopped; None if none was begun.
        kind: "cell", "died", "memory", "timeout", "start" or "files".
    """

    def __init__(self, message: str, folder: RunFolder, failure: Mapping[str, Any]):
        super().__init__(message)
        self.folder = folder
        self.cell = failure["cell"]
        self.kind = failure["kind"]


@dataclass(frozen=True)
class Job:
    """One run, completely: what `perform` needs, in any process that has the same notebooks.

    Attributes:
        notebook: its name, as on its card.
        path: of the stored notebook.
        values: every parameter, with its type.
        given: those among them that were asked for, beyond the profile.
        profile: the one that the values were made from.
        key: what the run's folder is named by.
        folder: where it is done, absolute.
        resources: what it is expected to take.
    """

    notebook: str
    path: Path
    values: dict[str, Any]
    given: dict[str, Any]
    profile: str
    key: str
    folder: RunFolder
    resources: Resources

    def is_done(self) -> bool:
        """Whether this very run came to its end, and what it left is still there; its page may be missing."""
        status = self.folder.read_status()
        if status.get("state") != "done" or status.get("key") != self.key:
            return False
        return all(self.folder.has(name) for name in status.get("files", []) if name != self.folder.html.name)

    def lacks_page(self) -> bool:
        """Whether the page of the executed notebook could not be written, or was lost."""
        return self.folder.has(self.folder.notebook.name) and not self.folder.has(self.folder.html.name)

    def other_code(self) -> str | None:
        """The fingerprint of the code that a finished run was made with, if it is not this one."""
        made_with = self.folder.read_status().get("code")
        return made_with if made_with != code_fingerprint() else None


def plan(
    notebook: str | int | Path | Card,
    parameters: Mapping[str, Any] | None = None,
    *,
    profile: str = "quick",
    resources: Resources | None = None,
    fingerprints: dict[tuple[Any, Any], str | None] | None = None,
) -> Job:
    """The run of a notebook with these parameters; nothing is written.

    Args:
        notebook: name, number or path, or its card.
        parameters: values that differ from the profile's.
        profile: "quick" (the defaults), or another of the notebook's card.
        resources: what it is expected to take, where that is not what the card says.
        fingerprints: those of data that are known, by recipe and folder, to be added to: one may take reading a list of
            a million files, and a sweep has many runs.

    Raises:
        UserError: an unknown notebook, profile or parameter, a wrong value, unusable data, no cell for parameters.
    """
    card = notebook if isinstance(notebook, Card) else load_card(notebook)
    values = check_values(card, parameters, profile=profile)
    check_runnable(card)
    known = {} if fingerprints is None else fingerprints
    data = (values.get("recipe"), values.get("data_root"))
    if data not in known:
        known[data] = data_fingerprint(values)
    fingerprint = known[data]
    return Job(
        notebook=card.name,
        path=card.path,
        values=values,
        given={name: values[name] for name in parameters or {}},
        profile=profile,
        key=run_key(card, values, fingerprint),
        folder=run_folder(card, values, fingerprint),
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

    A run that is finished is not done again; one that was interrupted is, and its trainings go on from their
    checkpoints. The folder holds the executed notebook, as far as it came, with its HTML, the cells' output in
    `log.txt`, and in `status.json` what became of it: `running`, `done`, `failed` (with cell, source, traceback) or
    `interrupted`, with seconds, the peak of memory and the `files` that it left whole. (`running` without a process
    is a run that was killed.) If the page of a finished run is missing, as after a full disk, the next call makes it;
    if anything else of it is missing or cut off, the run is done again.

    Args:
        notebook: name, number or path.
        parameters: values that differ from the profile's.
        profile: "quick" (the defaults), or another of the notebook's card.
        force: start afresh, whatever is there.
        timeout: minutes after which the run is stopped; None: never.
        memory: gigabytes (1e9 bytes) of resident memory at which it is stopped; None: never.
        echo: where to show the progress and what the cells print, besides the log.

    Raises:
        UserError: an unknown notebook, profile or parameter, a wrong value, unusable data or folder, a folder that
            holds another run, or this one going on in another process. Nothing started.
        RunFailed: a cell failed, the kernel died or passed a limit.
    """
    job = plan(notebook, parameters, profile=profile)
    if not perform(job, force=force, timeout=timeout, memory=memory, echo=echo):
        other = job.other_code()
        made = f", with other code ({other}, now {code_fingerprint()})" if other else ""
        print(f"{job.folder.path}: done already{made}; --force runs it again", file=echo or sys.stdout)
    return job.folder


def perform(
    job: Job,
    *,
    force: bool = False,
    timeout: float | None = None,
    memory: float | None = None,
    threads: int | None = None,
    echo: TextIO | None = None,
) -> bool:
    """Do a planned run, unless it is done; arguments and errors as of `run`, `threads` as of `execute`.

    Of a run that is done the page is made if it is missing, as after a full disk.

    Returns whether it was done now; False if it was done already.
    """
    check_limits(timeout, memory)
    folder = job.folder.create()
    with folder.alone():
        if job.is_done() and not force:
            if job.lacks_page():
                _make_page(folder)
            return False
        strange = folder.strangers() if job.values.get("out") else []
        if strange:
            raise UserError(
                f"out = {str(folder.path)!r} holds {strange[0]}, and nothing says of which run; choose another folder"
            )
        there = folder.read_status().get("key", job.key)
        if there != job.key and not force:
            raise UserError(f"out = {str(folder.path)!r} holds another run ({there}); choose another, or --force")
        if force:
            folder.clear()
            folder.create()
        failure = _Record(job, echo).follow(timeout, memory, threads)
    if failure:
        place = "" if failure["cell"] is None else f"cell [{failure['cell']}]: "
        raise RunFailed(f"{job.notebook}: {place}{failure['error']} (see {folder.path})", folder, failure)
    return True


def _make_page(folder: RunFolder) -> None:
    from stm_lab.course.execute import write_html  # here, because it is slow to import

    write_html(folder)
    try:
        folder.write_json(folder.status, folder.read_status() | {"files": folder.files()})
    except OSError as error:
        raise WorkFailed(f"{folder.status}: {error.strerror}") from error


class _Record:
    """A run as it goes: keeps `status.json` up to date, and shows how far it is."""

    def __init__(self, job: Job, echo: TextIO | None):
        self.job = job
        self.echo = echo
        self._bar: progress | None = None
        self._line = ""
        self.status: dict[str, Any] = {
            "state": "running",
            "notebook": job.notebook,
            "profile": job.profile,
            "parameters": job.values,
            "key": job.key,
            "code": code_fingerprint(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def follow(self, timeout: float | None, memory: float | None, threads: int | None) -> dict[str, Any] | None:
        """Execute, and write down what became of it; what went wrong, as `execute` tells it."""
        from stm_lab.course.execute import execute  # here, because it is slow to import, and notebooks import this

        self._write()
        watch = Watch(seconds=timeout and 60 * timeout, memory=memory)  # the clock starts now
        started = time.perf_counter()
        outcome: dict[str, Any] = {"state": "interrupted"}  # if nothing better is heard of
        try:
            failure = execute(
                self.job.path,
                self.job.folder,
                self.job.values,
                watch=watch,
                threads=threads,
                on_cell=self._on_cell,
                on_text=self._on_text,
                on_look=self._on_look,
            )
            outcome = {"state": "failed", "failure": failure} if failure else {"state": "done"}
            if self._bar is not None and not failure:
                self._bar.update(self._bar.total - self._bar.count)
        finally:
            seconds = round(time.perf_counter() - started, 3)
            self.status |= {**outcome, "seconds": seconds, "peak_memory_gb": round(watch.peak, 3)}
            self.status["files"] = self.job.folder.files()
            self._write()
            if self._bar is not None:
                self._bar.close()
        return failure

    def _write(self) -> None:
        try:
            self.job.folder.write_json(self.job.folder.status, self.status)
        except OSError as error:
            raise WorkFailed(f"{self.job.folder.status}: {error.strerror}") from error

    def _on_cell(self, number: int, cells: int, source: str) -> None:
        self.status |= {"cell": number, "cells": cells}
        self.job.folder.write_json(self.job.folder.status, self.status)
        if self.echo is None:
            return
        if self._bar is None:
            self._bar = progress(cells, self.job.notebook, unit="cells", stream=self.echo)
        self._bar.update(number - 1 - self._bar.count, note=_first_line(source))

    def _on_text(self, text: str) -> None:
        """Lines that the cells print, above the bar."""
        if self._bar is None:
            return
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._bar.say(line.rpartition("\r")[2])

    def _on_look(self) -> None:
        if self._bar is not None:
            self._bar.update(0)  # a plain line, if one is due


def _first_line(source: str) -> str:
    """The first line of a cell that does something, shortened."""
    lines = [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    line = (lines or [""])[0].strip()
    return line if len(line) <= 60 else f"{line[:57]}..."
