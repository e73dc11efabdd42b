"""Recorded rows: found, in one flat form, which of them are alike, their means, spreads and paired differences."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from stm_lab.course.folder import RunFolder
from stm_lab.stats import paired_difference
from stm_lab.util import jsonfiles, paths
from stm_lab.util.errors import UserError, check_known, nearest
from stm_lab.util.files import told

if TYPE_CHECKING:
    import pandas as pd

OWN_COLUMNS = ("notebook", "data", "revision", "code", "device")  # texts that every row has
COUNTED = ("done", "interactive")  # the states of status.json whose rows are read
UNREADABLE = "unreadable status.json"  # the state of a run whose status is damaged
FILE = "file"  # the state of rows that were given as a file
_SKIPPED = ("checkpoints", "figures")  # folders that hold many files and no runs

Runs = str | os.PathLike | Sequence[str | os.PathLike] | None

_OF_A_MACHINE = re.compile(r"second|latency|throughput|speed|wait|memory|_ms$|_s$")


def rows(source: str | Path) -> pd.DataFrame:
    """The rows of a run, from its folder or its `rows.jsonl`: one line each, metrics as columns under their own names.

    The other columns are `notebook`, `seed`, `data` and `code` (fingerprints), `revision`, `device`, the parameters as
    `parameters.<name>`, and `seconds` since setup, unless a metric has that name. Damaged lines are left out, and a
    warning names them. Raises UserError for a missing file, Damaged if none of its lines is a row.
    """
    import pandas as pd

    return pd.DataFrame(records(source))


def records(source: str | Path) -> list[dict[str, Any]]:
    """The same rows as mappings, each with the columns that it has. Raises errors as `rows` does."""
    return [flat(row) for row in stored(source)]


def stored(source: str | Path) -> list[dict[str, Any]]:
    """The same rows as the file has them, with `parameters` and `metrics`. Raises errors as `rows` does."""
    path = Path(source)
    path = RunFolder(path).rows if path.is_dir() else path
    with told():
        found, damage = read_rows(path)
    return jsonfiles.or_damaged(found, damage)


def read_rows(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows in a file as it has them, and what of it is damaged. Raises OSError if it cannot be read."""
    return jsonfiles.lines(path, _no_row)


def _no_row(value: Mapping[str, Any]) -> str:
    """Why an object is no row; "" if it is one."""
    if damage := jsonfiles.not_objects(value, ("parameters", "metrics"), needed=True):
        return damage
    row = flat(value)
    if not isinstance(row.get("seed"), int | None) or isinstance(row.get("seed"), bool):
        return "seed is not an integer"
    return next((f"{name} is not a string" for name in OWN_COLUMNS if not isinstance(row.get(name), str | None)), "")


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its parameters and metrics beside its own columns."""
    own = {name: value for name, value in row.items() if name not in ("parameters", "metrics")}
    return own | flattened(row["parameters"], "parameters.") | row["metrics"]


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A mapping of mappings as one, its keys dotted; an empty mapping stays a value."""
    found = {}
    for name, value in values.items():
        found |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
    return found


# ---- runs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A run's folder, or a file of rows."""

    path: Path
    state: str  # as of `status.json`, or `FILE`
    notebook: str | None  # its name; None for a file, whose rows may be of several
    rows: list[dict[str, Any]]  # flat; none of runs that do not count
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


# ---- which rows are alike -------------------------------------------------------------------------------------------


def made_with(row: Mapping[str, Any], by: str, metric: str) -> dict[str, Any]:
    """What a flat row was made with, except `by` and the seeds. Two rows may be averaged or compared if it is the same.

    These are notebook, data, code, parameters and, for times, rates and memory, the device. A list such as the
    parameter `mixers` gives way to the row's own element (`mixer`). A parameter without a value counts as not given.
    """
    found = {name: row.get(name) for name in ("notebook", "data", "code", "device")}
    for name in (name for name in row if name.startswith("parameters.")):
        element = name.removeprefix("parameters.").removesuffix("s")
        is_element = isinstance(row[name], list) and element in row
        found[element if is_element else name] = row[element if is_element else name]
    stem = by.removeprefix("parameters.")
    varied = {stem, f"parameters.{stem}", f"parameters.{stem}s", "seed", "parameters.seed", "parameters.seeds"}
    if stem in ("data", "recipe"):  # they go together
        varied |= {"data", "parameters.recipe", "parameters.data_root"}
    if not of_a_machine(metric):
        varied.add("device")
    # A table has NaN where a row has no such parameter.
    return {name: value for name, value in found.items() if name not in varied and value is not None and value == value}


def of_a_machine(metric: str) -> bool:
    """Whether a number is one of the machine as much as of the model: time, rate or memory, by the metric's name."""
    return _OF_A_MACHINE.search(metric) is not None


# ---- means, spreads and differences ---------------------------------------------------------------------------------


def summary(
    rows: pd.DataFrame, *, by: str = "mixer", metric: str = "top1", baseline: str | None = None
) -> pd.DataFrame:
    """One line per value of column `by`, in order of appearance; rows without `metric` are left out.

    Columns: `n` seeds, `mean`, `spread` (standard deviation over seeds, NaN for one). With a `baseline`, also the mean
    `difference` to it, paired by seed, `low` and `high` of its 95% interval (Student's t; one interval per line, not
    corrected for their number), and a `statement`: "above", "below", "within the noise", "identical" (the same number
    for every seed of two or more), or why there is none.

    Raises UserError for an unknown column or baseline, two rows for one seed, rows that were not made alike.
    """
    import pandas as pd

    check_known("column", by, rows.columns, "summary: ")
    check_known("column", metric, rows.columns, "summary: ")
    found = rows[rows[metric].notna() & rows[by].notna()].to_dict("records")
    _check_alike([made_with(row, by, metric) for row in found])
    values: dict[Any, dict[int | None, float]] = {}
    for row in found:
        name, seed = row[by], None if pd.isna(row["seed"]) else int(row["seed"])
        if seed in values.setdefault(name, {}):
            raise UserError(f"summary: two rows with {metric} for {by} = {name!r}, seed {seed}; select one of them")
        values[name][seed] = float(row[metric])
    if baseline is not None:
        check_known(f"{by} (baseline)", baseline, values, "summary: ")
    return pd.DataFrame(summarised(values, by=by, baseline=baseline))


def _check_alike(rows: Sequence[Mapping[str, Any]]) -> None:
    for name in dict.fromkeys(name for row in rows for name in row):
        found = list(dict.fromkeys(json.dumps(row.get(name), default=str) for row in rows))
        if len(found) > 1:
            what = f"{name} fingerprint" if name in ("data", "code") else name
            raise UserError(f"summary: rows differ in {what}: {', '.join(found)}; select one of them")


def summarised(values: Mapping[Any, Mapping[Any, float]], *, by: str, baseline: Any = None) -> list[dict[str, Any]]:
    """The lines of `summary` for `values`: name -> {seed: value}. `baseline` is one of the names."""
    same = {"difference": 0.0, "low": math.nan, "high": math.nan, "statement": "baseline"}
    lines = []
    for name, of_seed in values.items():
        numbers = list(of_seed.values())
        spread = stdev(numbers) if len(numbers) > 1 else math.nan
        line = {by: name, "n": len(numbers), "mean": fmean(numbers), "spread": spread}
        if baseline is not None:
            line |= paired_difference(of_seed, values[baseline]) if name != baseline else same
        lines.append(line)
    return lines
