"""Many runs, one table: which line leads, by how much, and whether the seeds tell the lines apart.

Rows that were made with different code, data or parameters are never averaged: each group of alike rows is a part of
the table by itself, and the table says in what the groups differ.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stm_lab.course.folder import RunFolder
from stm_lab.course.pages import alike, exact, said_of_left_out
from stm_lab.course.results import COUNTED, FILE, UNREADABLE, Run, Runs, find, made_with, of_a_machine, summarised
from stm_lab.stats import paired_difference
from stm_lab.util import jsonfiles
from stm_lab.util.errors import UserError, check_known

if TYPE_CHECKING:
    import pandas as pd

_LOWER_IS_BETTER = re.compile(r"loss|error|seconds|latency|wait|memory|macs|params|parameters")
_NAMED = 3  # contradictions, of as many as there may be

Group = dict[Any, dict[int | None, float]]  # value of `by` -> seed -> number


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
    with a `baseline` those of `results.summary`; `rank_statement`: "leader", or the difference to the leader in words,
    with its 95% interval, paired by seed (one interval a line, not corrected for their number). The highest mean leads,
    or the lowest, where the metric's name has loss, error, seconds, latency, wait, memory, macs or params in it.

    Rows that were not made alike (`results.made_with`) are kept apart: what differs becomes columns, and each group has
    a leader and a baseline of its own. Times, rates and memory are kept apart by machine as well: device, its name and
    torch's threads. A row that stands in several runs counts once; numbers for one seed that contradict each other do
    not count. Runs made by hand in JupyterLab (`interactive`) count. Rows do not tell what the notebook's own cells
    were: of two versions that were run with the same parameters, name one.

    `DataFrame.attrs` has `verdict` (for each group, in their order, a sentence on its leader), `differing` (the columns
    by which groups are told apart), `notes` (sentences on what was kept apart, counted once or not at all, damaged,
    made by hand) and `left_out` ({why: [runs]}).

    Args:
        runs: None is `runs_dir()`; a folder or several, in which run folders are searched for; or files of rows.
        by: a metric such as the mixer, a parameter, or "code", "data", "device", "notebook".
        metric: the name of a number that rows have.
        baseline: a value of `by`.
        notebook: only this one's runs, by name or number.

    Raises:
        UserError: no runs or rows there, none but such as contradict each other, an unknown name.
        Damaged: all rows there, or the status of all runs, are damaged.
    """
    found = _of_notebook(find(runs), notebook)
    counted = [run for run in found if run.state in (*COUNTED, FILE)]
    left_out: dict[str, list[str]] = defaultdict(list)
    for run in found:
        if run.state not in (*COUNTED, FILE):
            left_out[run.state].append(str(run.path))
    column = _column(counted, by, metric, found)
    if of_a_machine(metric):
        counted = [_with_machine(run) for run in counted]
    numbers = _numbers(counted, by, column, metric, left_out)
    if not numbers:
        raise UserError(f"leaderboard: no rows to compare; left out: {'; '.join(said_of_left_out(left_out))}")
    by_hand = sorted({str(number.run.path) for number in numbers if number.run.state == "interactive"})
    notes = [f"Made by hand in JupyterLab, perhaps not to the end: {', '.join(by_hand)}."] if by_hand else []
    notes += [f"Damaged, and left out: {said}." for run in counted for said in run.damage]
    groups = _grouped(numbers, by, metric, notes)
    if baseline is not None:  # from the command line numbers come as text
        names = {str(name): name for group in groups.values() for name in group}
        check_known(f"{by} (baseline)", str(baseline), names, "leaderboard: ")
        baseline = names[str(baseline)]
    table = _table(groups, by, metric, baseline, notes)
    if (spreads := table["spread"].dropna()).size and (spreads == 0).all():
        notes.append(f"Every seed has the same {metric}, so the intervals have no width and say nothing about chance.")
    table.attrs |= {"notes": notes, "left_out": dict(left_out)}
    return table


def _of_notebook(found: list[Run], notebook: str | int | None) -> list[Run]:
    """The runs of one notebook, by name or number, with its rows alone; None: all. Raises UserError for another."""
    if notebook is None:
        return found
    names = {run.notebook or row.get("notebook") for run in found for row in (run.rows or [{}])} - {None}
    numbers = {int(number[0]): name for name in sorted(names, reverse=True) if (number := re.match(r"\d+", name))}
    wanted = str(notebook)
    wanted = numbers.get(int(wanted), wanted) if wanted.isdecimal() else wanted
    check_known("notebook", wanted, names, "leaderboard: ")
    own = [replace(run, rows=[row for row in run.rows if row.get("notebook") == wanted]) for run in found]
    return [run for run in own if run.notebook == wanted or (run.notebook is None and run.rows)]


def _column(counted: list[Run], by: str, metric: str, found: list[Run]) -> str:
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
    names = {name for row in rows for name in row if _is_number(row, name) and not name.startswith("parameters.")}
    check_known("metric", metric, names - {"seed"}, "leaderboard: ")
    columns = {name for row in rows if _is_number(row, metric) for name in row} - {"seed", "seconds", metric}
    short = {name.removeprefix("parameters.") for name in columns}
    check_known("column", by, columns | short, "leaderboard: ")
    return by if by in columns else f"parameters.{by}"


def _is_number(row: Mapping[str, Any], name: str) -> bool:
    value = row.get(name)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# ---- from rows to groups of alike rows ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Number:
    """One number: in which run, for which value of `by` and seed, and what it was made with, as JSON."""

    run: Run
    name: Any
    seed: int | None
    value: float
    group: str


def _with_machine(run: Run) -> Run:
    """The run, with the device's name and threads in its rows, since "cpu" may be any machine."""
    place = run.path if run.state != FILE else run.path.parent
    try:
        there = jsonfiles.mapping(RunFolder(place).environment)
        threads = int(there["torch_threads"])
        named = f"{there['device_name']}, {threads} thread{'s' * (threads != 1)}"
    except (ValueError, KeyError, TypeError):  # rows that were copied without it, or a damaged file
        return run
    return replace(run, rows=[{**row, "device": f"{row.get('device')}: {named}"} for row in run.rows])


def _numbers(counted: list[Run], by: str, column: str, metric: str, left_out: dict[str, list[str]]) -> list[_Number]:
    """The numbers of all runs. A run without any, or with several for one seed, is left out."""
    kept = []
    for run in counted:
        rows = [row for row in run.rows if _is_number(row, metric) and column in row]
        groups = [json.dumps(made_with(row, by, metric), sort_keys=True) for row in rows]
        labels = _told_apart(rows, column, metric, groups)
        if not rows:
            left_out[f"no row with {metric} and {column}"].append(str(run.path))
        elif labels is not None:
            why = f"several rows with {metric} for one {column} and seed, which differ in {labels}"
            left_out[why].append(str(run.path))
        else:
            for row, group in zip(rows, groups, strict=True):
                name = "none" if row[column] is None else _text_of_list(row[column])
                kept.append(_Number(run, name, row.get("seed"), float(row[metric]), group))
    return kept


def _told_apart(rows: list[Mapping], column: str, metric: str, groups: list[str]) -> str | None:
    """In what two rows of a run with the same group, parameters, `column` and seed differ; None if there are no two."""
    seen: dict[str, Mapping[str, Any]] = {}
    for row, group in zip(rows, groups, strict=True):
        parameters = {name: value for name, value in row.items() if name.startswith("parameters.")}
        key = json.dumps([row[column], row.get("seed"), group, parameters], sort_keys=True)
        one = seen.setdefault(key, row)
        if one is not row:
            measured = {metric, "seconds", *(name for name, value in one.items() if isinstance(value, float))}
            labels = sorted(name for name in one if name not in measured and one[name] != row.get(name))
            return ", ".join(labels) or "nothing else"
    return None


def _text_of_list(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _grouped(numbers: list[_Number], by: str, metric: str, notes: list[str]) -> dict[str, Group]:
    """Numbers by what they were made with, as JSON. What stands in several runs counts once, or not at all."""
    of_one: dict[tuple[str, Any, int | None], list[_Number]] = defaultdict(list)
    for number in numbers:
        of_one[number.group, number.name, number.seed].append(number)
    groups: dict[str, Group] = {}
    copies: Counter[tuple[Path, Path]] = Counter()
    contradictions = []
    for (group, name, seed), same in of_one.items():
        if len({number.value for number in same}) > 1:
            places = ", ".join(f"{number.value:.6g} in {number.run.path}" for number in same)
            contradictions.append(f"{by} = {name}, seed {seed} has {metric} {places}, made alike")
            continue
        copies.update((same[0].run.path, number.run.path) for number in same[1:])
        groups.setdefault(group, {}).setdefault(name, {})[seed] = same[0].value
    if not groups:
        raise UserError(f"leaderboard: no rows to compare; {contradictions[0]}; name one of the runs")
    for (one, other), count in copies.items():
        rows = "1 row stands" if count == 1 else f"{count} rows stand"
        notes.append(f"{rows} in {one} and in {other}, with equal {metric}; counted once.")
    if contradictions:
        more = f"; and {len(contradictions) - _NAMED} more" if len(contradictions) > _NAMED else ""
        seeds = _count_of_seeds(len(contradictions))
        named = "; ".join(contradictions[:_NAMED])
        notes.append(f"Not counted, since runs contradict each other, {seeds}: {named}{more}.")
    return groups


def _count_of_seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


# ---- from groups to the table ---------------------------------------------------------------------------------------


def _table(groups: Mapping[str, Group], by: str, metric: str, baseline: Any, notes: list[str]) -> pd.DataFrame:
    import pandas as pd

    made = [(json.loads(group), numbers) for group, numbers in sorted(groups.items())]
    keys = dict.fromkeys(key for parts, _ in made for key in parts)
    values = {key: _different(parts.get(key) for parts, _ in made) for key in keys}
    differing = {key: found for key, found in values.items() if len(found) > 1}
    if differing:
        texts = {key: (exact(_text_of_list(value)) or "not set" for value in found) for key, found in differing.items()}
        what = "; ".join(f"{key} ({', '.join(found)})" for key, found in texts.items())
        notes.append(f"Kept apart, not averaged: {len(groups)} groups of rows, which differ in {what}.")
    lines, verdict = [], []
    for parts, group in sorted(
        made, key=lambda one: [found.index(one[0].get(key)) for key, found in differing.items()]
    ):
        own = {key: _text_of_list(parts.get(key)) for key in differing}
        ranked = _ranked(group, by, metric, baseline)
        verdict.append(_verdict(ranked, group, by, metric))
        lines += [own | line for line in ranked]
    table = pd.DataFrame(lines)
    for key in [*differing, by]:  # files of columns hold one type in each
        if len({type(value) for value in table[key].dropna()}) > 1 and not pd.api.types.is_numeric_dtype(table[key]):
            table[key] = table[key].map(str)
    table.attrs = {"verdict": verdict, "differing": list(differing)}
    return table


def _different(values: Iterable[Any]) -> list[Any]:
    """The different ones of some values: none first, then numbers, then what else there is."""
    found = {json.dumps(value, sort_keys=True): value for value in values}
    numbers = [value for value in found.values() if isinstance(value, int | float)]
    others = sorted(text for text, value in found.items() if value is not None and value not in numbers)
    return [*([None] if "null" in found else []), *sorted(numbers), *(found[text] for text in others)]


def _ranked(group: Group, by: str, metric: str, baseline: Any) -> list[dict[str, Any]]:
    lines = summarised(group, by=by, baseline=baseline if baseline in group else None)
    sign = 1 if _LOWER_IS_BETTER.search(metric) else -1
    lines.sort(key=lambda line: (sign * line["mean"], str(line[by])))
    leader = group[lines[0][by]]
    for place, line in enumerate(lines):
        if baseline is not None and baseline not in group:
            line |= {"difference": math.nan, "low": math.nan, "high": math.nan, "statement": f"no {baseline}"}
        line["rank_statement"] = _against(group[line[by]], leader) if place else "leader"
    return lines


def _against(ours: Mapping[Any, float], leader: Mapping[Any, float]) -> str:
    found = paired_difference(ours, leader)
    said = found["statement"]
    if said == "identical":
        return "identical to the leader"
    if math.isnan(found["low"]):  # one seed, or none in common
        return said
    low, high = alike((found["low"], found["high"]), sign="+")
    of = " of" if said == "within the noise" else ""
    return f"{said}{of} the leader ({low} .. {high}{_common(ours, leader)})"


def _common(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> str:
    """How many seeds a comparison rests on, where that is not all of them: means of other seeds may say otherwise."""
    pairs = len(ours.keys() & theirs.keys())
    return f", {pairs} common seeds" if pairs < max(len(ours), len(theirs)) else ""


def _verdict(ranked: list[dict[str, Any]], group: Group, by: str, metric: str) -> str:
    """Whether the first is told apart from the second."""
    first, *others = ranked
    leads = f"{first[by]} leads with a {metric} of {first['mean']:.4g} ({_count_of_seeds(first['n'])})"
    if not others:
        return f"{leads}, alone."
    ours, theirs = group[first[by]], group[others[0][by]]
    second, ahead = others[0][by], paired_difference(ours, theirs)
    if math.isnan(ahead["low"]):
        return f"{leads}, {second} is next; {ahead['statement']} to compare them by, so it may be luck."
    if ahead["statement"] == "identical":
        return f"{leads}, identical to the next, {second}, for every seed that both have."
    difference, low, high = alike((ahead["difference"], ahead["low"], ahead["high"]), sign="+")
    interval = f"{difference}, 95% interval {low} .. {high}, paired by seed{_common(ours, theirs)}"
    told = "not told apart from" if ahead["statement"] == "within the noise" else "told apart from"
    return f"{leads}, {told} the next, {second} ({interval})."
