"""Many runs, one table: who leads, by how much, and whether the seeds tell the lines apart.

Rows that were made with different code, data or parameters are never averaged: each group of equals is a part of the
table by itself, and the table says in what they differ.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stm_lab.course.folder import RunFolder
from stm_lab.course.found import COUNTED, FILE, UNREADABLE, Run, Runs, find, of_notebook
from stm_lab.course.pages import alike, exact, said_of_left_out
from stm_lab.course.results import of_a_machine, paired_difference, summarised
from stm_lab.util import jsonfiles
from stm_lab.util.errors import UserError, check_known

if TYPE_CHECKING:
    import pandas as pd

_LOWER_IS_BETTER = re.compile(r"loss|error|seconds|latency|wait|memory|macs|params|parameters")


def leaderboard(
    runs: Runs = None,
    *,
    by: str = "mixer",
    metric: str = "top1",
    baseline: Any = None,
    notebook: str | int | None = None,
) -> pd.DataFrame:
    """One line per value of `by`, the best first, from the rows of all finished runs.

    Columns: `by`, `n` seeds, `mean`, `spread` (standard deviation over seeds, NaN for one), in the metric's own units;
    with a `baseline` those of `results.summary`; `rank_statement`: "leader", or what the differences to the leader say,
    paired by seed, with their 95% interval (one a line, not corrected for their number): "below the leader (-3.10 ..
    -0.20)", "within the noise of the leader (-2.00 .. +1.00)", "identical to the leader", "one seed", "no seed in
    common"; and the number of common seeds, where one of the two has more. The highest mean leads, or the lowest, where
    the metric's name has loss, error, seconds, latency, wait, memory, macs or params in it.

    Rows of different code, data, notebooks or parameters (but for `by`, its plural, and seeds) are kept apart: what
    differs becomes columns, and each such group has a leader and a baseline of its own. A list parameter whose rows
    name their element (`mixers`, of rows with `mixer`) does not part them. Times, rates and memory are kept apart by
    machine as well: device, its name and torch's threads, as the run's `environment.json` has them. One row that stands
    in several runs counts once. Where runs that were made alike have different numbers for one seed, that seed counts
    for nothing, and is noted: neither number is the right one, and one such pair in a folder of hundreds of runs should
    not keep the others from being compared. Runs made by hand in JupyterLab (`interactive`) count, and are noted:
    nothing says if they came to their end. What a notebook's own cells were is not in its rows; of two versions run
    with the same parameters name one.

    `DataFrame.attrs` has `verdict` (for each group, in their order, a sentence on its leader), `differing` (the columns
    by which groups are told apart), `notes` (sentences on what was kept apart, counted once or not at all, damaged,
    made by hand) and `left_out` ({why: [runs]}).

    Args:
        runs: None is `runs_dir()`; a folder or several, in which run folders are searched for (the summaries of sweeps
            are none); or files of rows, which are taken as they are.
        by: a metric such as the mixer, a parameter, or "code", "data", "device", "notebook".
        metric: the name of a number that rows have.
        baseline: a value of `by`.
        notebook: only this one's runs, by name or number.

    Raises:
        UserError: no such folder, no runs or rows there, none but such as contradict each other, an unknown column,
            metric, baseline or notebook (the nearest is named).
        Damaged: all rows there, or the status of all runs, are damaged.
    """
    found = of_notebook(find(runs), notebook)
    counted = [run for run in found if run.state in (*COUNTED, FILE)]
    left_out: dict[str, list[str]] = defaultdict(list)
    for run in found:
        if run.state not in (*COUNTED, FILE):
            left_out[run.state].append(str(run.path))
    column = _check_columns(counted, by, metric, found)
    if of_a_machine(metric):
        counted = [_with_machine(run) for run in counted]
    kept = _entries(counted, column, metric, left_out)
    if not kept:
        raise UserError(f"leaderboard: no rows to compare; left out: {'; '.join(said_of_left_out(left_out))}")
    notes = [*_by_hand(kept), *(f"Damaged, and left out: {said}." for run in counted for said in run.damage)]
    groups = _grouped(kept, by, metric, notes)
    baseline = _baseline_among(groups, by, baseline)
    table = _table(groups, by, metric, baseline, notes)
    several = table[table["n"] > 1]
    if len(several) and (several["spread"] == 0).all():
        notes.append(f"Every seed has the same {metric}, so their intervals have no width, and say nothing of chance.")
    table.attrs |= {"notes": notes, "left_out": dict(left_out)}
    return table


# ---- what is asked for ----------------------------------------------------------------------------------------------


def _check_columns(counted: list[Run], by: str, metric: str, found: list[Run]) -> str:
    """The rows' column that `by` means: its own, else the parameter's. Raises UserError for unknown names."""
    rows = [row for run in counted for row in run.rows]
    damage = [said for run in counted for said in run.damage]
    damage += [f"{run.path}: {UNREADABLE}" for run in found if run.state == UNREADABLE]
    if not rows and damage:
        raise jsonfiles.Damaged.all_of(damage)
    if not rows:
        states = ", ".join(f"{count} {state}" for state, count in sorted(Counter(run.state for run in found).items()))
        places = sorted({str(run.path.parent) for run in found})
        raise UserError(f"leaderboard: no rows of finished runs in {', '.join(places[:3])} (runs there: {states})")
    own = {"notebook", "data", "revision", "code", "device", "seed"}
    numbers = {name for row in rows for name in row if name not in own and not name.startswith("parameters.")}
    numbers = [name for name in numbers if any(_number(row, name) for row in rows)]
    check_known("metric", metric, numbers, "leaderboard: ")
    columns = {name for row in rows if _number(row, metric) for name in row} - {"seed", "seconds", metric}
    short = {name.removeprefix("parameters.") for name in columns}
    check_known("column", by, columns | short, "leaderboard: ")
    return by if by in columns else f"parameters.{by}"


def _number(row: Mapping[str, Any], name: str) -> bool:
    value = row.get(name)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# ---- from rows to groups of equals ----------------------------------------------------------------------------------


def _with_machine(run: Run) -> Run:
    """The run, whose rows name their device in full: "cpu" is many a machine."""
    place = run.path if run.state != FILE else run.path.parent
    try:
        there = jsonfiles.mapping(RunFolder(place).environment)
        threads = int(there["torch_threads"])
        named = f"{there['device_name']}, {threads} thread{'s' * (threads != 1)}"
    except (ValueError, KeyError, TypeError):  # rows that were taken elsewhere, or a damaged file
        return run
    return replace(run, rows=[{**row, "device": f"{row.get('device')}: {named}"} for row in run.rows])


@dataclass(frozen=True)
class _Entry:
    """One number: of which run, for which value of `by` and seed, and the row it stands in."""

    run: Run
    name: Any
    seed: int | None
    value: float
    row: Mapping[str, Any]


Group = dict[Any, dict[int | None, _Entry]]  # value of `by` -> seed -> number


def _entries(counted: list[Run], column: str, metric: str, left_out: dict[str, list[str]]) -> list[_Entry]:
    """The numbers of all runs. A run without any, or with several for one seed, is left out."""
    kept = []
    for run in counted:
        rows = [row for row in run.rows if _number(row, metric) and column in row]
        entries = [_Entry(run, _name(row[column]), row.get("seed"), float(row[metric]), row) for row in rows]
        twice = _twice(entries)
        if not entries:
            left_out[f"no row with {metric} and {column}"].append(str(run.path))
        elif twice:
            labels = ", ".join(_told_apart_by(*twice, metric)) or "nothing else"
            why = f"several rows with {metric} for one {column} and seed, which differ in {labels}"
            left_out[why].append(str(run.path))
        else:
            kept += entries
    return kept


def _twice(entries: list[_Entry]) -> tuple[_Entry, _Entry] | None:
    """Two numbers of one run for the same thing, if there are."""
    seen: dict[Any, _Entry] = {}
    for entry in entries:
        key = (entry.name, entry.seed, json.dumps(_parameters(entry.row), sort_keys=True))
        if key in seen:
            return seen[key], entry
        seen[key] = entry
    return None


def _parameters(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row was made with, as far as it says so. A list, such as of mixers, gives way to the row's element."""
    made_with = {name: row.get(name) for name in ("notebook", "data", "code", "device")}
    for key in (key for key in row if key.startswith("parameters.")):
        element = key.removeprefix("parameters.").removesuffix("s")
        if isinstance(row[key], list) and element in row:
            made_with[element] = row[element]
        else:
            made_with[key] = row[key]
    return made_with


def _told_apart_by(one: _Entry, other: _Entry, metric: str) -> list[str]:
    known = {metric, "seconds", *(key for key in one.row if _number(one.row, key) and isinstance(one.row[key], float))}
    return sorted(key for key in one.row if key not in known and one.row[key] != other.row.get(key))


def _name(value: Any) -> Any:
    """A value of `by` as a table has it, hashable."""
    if value is None:
        return "none"
    return json.dumps(value) if isinstance(value, list | dict) else value


def _by_hand(kept: list[_Entry]) -> list[str]:
    runs = sorted({str(entry.run.path) for entry in kept if entry.run.state == "interactive"})
    return [f"Made by hand in JupyterLab, perhaps not to the end: {', '.join(runs)}."] if runs else []


def _grouped(kept: list[_Entry], by: str, metric: str, notes: list[str]) -> dict[str, tuple[dict[str, Any], Group]]:
    """Numbers by what they were made with, but for `by` and the seeds."""
    stem = by.removeprefix("parameters.")
    varied = {stem, f"parameters.{stem}", f"parameters.{stem}s", "seed", "parameters.seed", "parameters.seeds"}
    if stem in ("data", "recipe"):  # they go together
        varied |= {"data", "parameters.recipe", "parameters.data_root"}
    if not of_a_machine(metric):
        varied.add("device")
    alike: dict[tuple[str, Any, int | None], list[_Entry]] = defaultdict(list)
    made_with: dict[str, dict[str, Any]] = {}
    for entry in kept:
        parameters = _parameters(entry.row).items()
        own = {key: value for key, value in parameters if key not in varied and value is not None}
        group = json.dumps(own, sort_keys=True)
        made_with[group] = own
        alike[group, entry.name, entry.seed].append(entry)
    groups: dict[str, tuple[dict[str, Any], Group]] = {}
    copies: Counter[tuple[Path, Path]] = Counter()
    contradictions = []
    for (group, name, seed), entries in alike.items():
        if len({entry.value for entry in entries}) > 1:
            contradictions.append(_contradiction(entries, by, metric))
            continue
        copies.update((entries[0].run.path, entry.run.path) for entry in entries[1:])
        groups.setdefault(group, (made_with[group], {}))[1].setdefault(name, {})[seed] = entries[0]
    if not groups:
        raise UserError(f"leaderboard: no rows to compare; {contradictions[0]}; name one of the runs")
    for (one, other), count in copies.items():
        rows = "1 row stands" if count == 1 else f"{count} rows stand"
        notes.append(f"{rows} in {one} and in {other}, with equal {metric}; counted once.")
    if contradictions:
        more = f"; and {len(contradictions) - _NAMED} more" if len(contradictions) > _NAMED else ""
        seeds = "1 seed" if len(contradictions) == 1 else f"{len(contradictions)} seeds"
        notes.append(
            f"Not counted, since runs contradict each other, {seeds}: {'; '.join(contradictions[:_NAMED])}{more}."
        )
    return groups


_NAMED = 3  # contradictions, of as many as there may be


def _contradiction(entries: list[_Entry], by: str, metric: str) -> str:
    numbers = ", ".join(f"{entry.value:.6g} in {entry.run.path}" for entry in entries)
    what = f"{by} = {entries[0].name}, seed {entries[0].seed}"
    return f"{what} has {metric} {numbers}, made with the same code, data and parameters"


def _baseline_among(groups: Mapping[str, tuple[dict, Group]], by: str, baseline: Any) -> Any:
    """The value of `by` that is meant: from the command line numbers come as text."""
    if baseline is None:
        return None
    names = {str(name): name for _, group in groups.values() for name in group}
    check_known(f"{by} (baseline)", str(baseline), names, "leaderboard: ")
    return names[str(baseline)]


# ---- from groups to the table ---------------------------------------------------------------------------------------


def _table(
    groups: Mapping[str, tuple[dict[str, Any], Group]], by: str, metric: str, baseline: Any, notes: list[str]
) -> pd.DataFrame:
    import pandas as pd

    made_with = [parts for parts, _ in groups.values()]
    differing = _differing(made_with)
    if differing:
        what = "; ".join(f"{key} ({', '.join(_different(made_with, key))})" for key in differing)
        notes.append(f"Kept apart, not averaged: {len(groups)} groups of rows, which differ in {what}.")
    lines, verdict = [], []
    for parts, group in sorted(groups.values(), key=lambda one: [_sortable(one[0].get(key)) for key in differing]):
        own = {key: _shown(parts.get(key)) for key in differing}
        ranked = _ranked(group, by, metric, baseline)
        verdict.append(_verdict(ranked, group, by, metric))
        lines += [own | line for line in ranked]
    table = pd.DataFrame(lines)
    for key in [*differing, by]:  # files of columns hold one type in each
        if len({type(value) for value in table[key].dropna()}) > 1 and not pd.api.types.is_numeric_dtype(table[key]):
            table[key] = table[key].map(str)
    table.attrs = {"verdict": verdict, "differing": differing}
    return table


def _differing(made_with: list[dict[str, Any]]) -> list[str]:
    """Keys in which groups differ: notebook, data, code first, parameters in their order."""
    ordered = sorted(made_with, key=lambda parts: json.dumps(parts, sort_keys=True))
    keys = dict.fromkeys(key for parts in ordered for key in parts)
    return [key for key in keys if len(_different(made_with, key)) > 1]


def _different(made_with: list[dict[str, Any]], key: str) -> list[str]:
    values = {json.dumps(parts.get(key)): parts.get(key) for parts in made_with}
    return ["not set" if value is None else exact(_shown(value)) for value in sorted(values.values(), key=_sortable)]


def _sortable(value: Any) -> tuple:
    if isinstance(value, int | float):
        return (1, value, "")
    return (0, 0, "") if value is None else (2, 0, json.dumps(value, sort_keys=True))


def _shown(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _ranked(group: Group, by: str, metric: str, baseline: Any) -> list[dict[str, Any]]:
    values = {name: {seed: entry.value for seed, entry in of_seed.items()} for name, of_seed in group.items()}
    lines = summarised(values, by=by, baseline=baseline if baseline in values else None)
    sign = 1 if _LOWER_IS_BETTER.search(metric) else -1
    lines.sort(key=lambda line: (sign * line["mean"], str(line[by])))
    leader = values[lines[0][by]]
    for place, line in enumerate(lines):
        if baseline is not None and baseline not in values:
            line |= {"difference": math.nan, "low": math.nan, "high": math.nan, "statement": f"no {baseline}"}
        line["rank_statement"] = _against(values[line[by]], leader) if place else "leader"
    return lines


def _against(ours: Mapping[Any, float], leader: Mapping[Any, float]) -> str:
    found = paired_difference(ours, leader)
    said = found["statement"]
    if said == "identical":
        return "identical to the leader"
    words = {
        "below": "below the leader",
        "above": "above the leader",  # a low number leads, or the seeds in common say other than all
        "within the noise": "within the noise of the leader",
    }
    if said not in words:
        return said
    low, high = alike((found["low"], found["high"]), sign="+")
    return f"{words[said]} ({low} .. {high}{_common(ours, leader)})"


def _common(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> str:
    """How many seeds a comparison rests on, where that is not all of them: means of other seeds may say otherwise."""
    pairs = len(ours.keys() & theirs.keys())
    return f", {pairs} common seeds" if pairs < max(len(ours), len(theirs)) else ""


def _verdict(ranked: list[dict[str, Any]], group: Group, by: str, metric: str) -> str:
    """Whether the first is told apart from the second."""
    first = ranked[0]
    seeds = "1 seed" if first["n"] == 1 else f"{first['n']} seeds"
    leads = f"{first[by]} leads with a {metric} of {first['mean']:.4g} ({seeds})"
    if len(ranked) == 1:
        return f"{leads}, alone."
    second = ranked[1]
    ours, theirs = ({seed: entry.value for seed, entry in group[line[by]].items()} for line in (first, second))
    ahead = paired_difference(ours, theirs)
    if math.isnan(ahead["low"]):
        return f"{leads}, {second[by]} is next; {ahead['statement']} to compare them by, so it may be luck."
    if ahead["statement"] == "identical":
        return f"{leads}, identical to the next, {second[by]}, for every seed that both have."
    difference, low, high = alike((ahead["difference"], ahead["low"], ahead["high"]), sign="+")
    interval = f"{difference}, 95% interval {low} .. {high}, paired by seed{_common(ours, theirs)}"
    told = "not told apart from" if ahead["statement"] == "within the noise" else "told apart from"
    return f"{leads}, {told} the next, {second[by]} ({interval})."
