"""Find the runs of notebooks in folders, each with its rows, for a leaderboard."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stm_lab.course.folder import RunFolder
from stm_lab.course.results import flat, read_rows
from stm_lab.util import jsonfiles, paths
from stm_lab.util.errors import UserError, check_known, nearest

COUNTED = ("done", "interactive")  # the states of status.json whose rows are read
UNREADABLE = "unreadable status.json"  # the state of a run whose status is damaged
FILE = "file"  # the state of rows that were given as a file
_SKIPPED = ("checkpoints", "figures")  # folders that hold many files and no runs

Runs = str | os.PathLike | Sequence[str | os.PathLike] | None


@dataclass(frozen=True)
class Run:
    """A run's folder, or a file of rows."""

    path: Path
    state: str  # as of `status.json`, or `FILE`
    notebook: str | None  # its name; None for a file, whose rows may be of several
    rows: list[dict[str, Any]]  # none of runs that do not count
    damage: tuple[str, ...] = ()  # what of the rows could not be read, a sentence for each reason


def find(runs: Runs) -> list[Run]:
    """Each run once, sorted by path, so that the table does not depend on the order in which they were named.

    Raises UserError for a place that does not exist or holds no runs.
    """
    given = [paths.runs_dir()] if runs is None else [runs] if isinstance(runs, str | os.PathLike) else runs
    found: dict[Path, Run] = {}
    for place in (paths.expanded(one).absolute() for one in given):
        if not place.exists() and runs is not None:
            beside = [entry.name for entry in place.parent.iterdir()] if place.parent.is_dir() else []
            hint = nearest(place.name, beside)
            raise UserError(f"{place}: no such folder or file{f'; {hint}' if hint.startswith('did you mean') else ''}")
        there = [_with_rows(place, FILE, None, place)] if place.is_file() else list(_runs_below(place))
        if not there:
            raise UserError(f"{place}: no runs of notebooks there, that is, no folders with a status.json")
        found |= {run.path.resolve(): run for run in there if run.path.resolve() not in found}
    return sorted(found.values(), key=lambda run: str(run.path))


def _runs_below(place: Path) -> Iterator[Run]:
    for folder, inner, files in os.walk(place):
        inner[:] = [name for name in inner if name not in _SKIPPED and not name.startswith(".")]
        if "status.json" not in files:
            continue
        run = RunFolder(Path(folder))
        try:
            status = jsonfiles.read(run.status)
            state, notebook = str(status.get("state")), status.get("notebook")
        except (OSError, jsonfiles.Damaged):
            state, notebook = UNREADABLE, run.path.parent.name
        if notebook is None:  # some other program's
            continue
        if state in COUNTED:
            yield _with_rows(run.path, state, str(notebook), run.rows)
        else:
            yield Run(run.path, state, str(notebook), [])


def _with_rows(path: Path, state: str, notebook: str | None, file: Path) -> Run:
    try:
        rows, damage = read_rows(file)
    except OSError as error:
        rows, damage = [], [f"{file}: {error.strerror}"]
    return Run(path, state, notebook, [flat(row) for row in rows], tuple(damage))


def of_notebook(found: list[Run], notebook: str | int | None) -> list[Run]:
    """The runs of one notebook, by name or number, with its rows alone; None: all. Raises UserError for another."""
    if notebook is None:
        return found
    names = {run.notebook or row.get("notebook") for run in found for row in (run.rows or [{}])} - {None}
    numbers = {int(number[0]): name for name in sorted(names, reverse=True) if (number := re.match(r"\d+", name))}
    wanted = str(notebook)
    wanted = numbers.get(int(wanted), wanted) if wanted.isdecimal() else wanted
    check_known("notebook", wanted, names, "leaderboard: ")
    own = {run.path: [row for row in run.rows if row.get("notebook") == wanted] for run in found}
    return [
        replace(run, rows=own[run.path])
        for run in found
        if run.notebook == wanted or (run.notebook is None and own[run.path])
    ]
