"""Recorded rows: in one flat form, which of them are alike, and their means, spreads and paired differences."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from stm_lab.course.folder import RunFolder
from stm_lab.stats import paired_difference
from stm_lab.util import jsonfiles
from stm_lab.util.errors import UserError, check_known

if TYPE_CHECKING:
    import pandas as pd

_OF_A_MACHINE = re.compile(r"second|latency|throughput|speed|wait|memory|_ms$|_s$")


def rows(source: str | Path) -> pd.DataFrame:
    """The rows of a run, from its folder or its `rows.jsonl`: one line each, metrics as columns under their own names.

    The other columns are `notebook`, `seed`, `data` and `code` (fingerprints), `revision`, `device`, the parameters as
    `parameters.<name>`, and `seconds` since setup, unless a metric has that name. Damaged lines are left out, and a
    warning names them.

    Raises:
        UserError: no such file.
        Damaged: none of its lines is a row.
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
    try:
        found, damage = read_rows(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if damage and not found:
        raise jsonfiles.Damaged.all_of(damage)
    jsonfiles.tell(damage)
    return found


def read_rows(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows in a file as it has them, and what of it is damaged. Raises OSError if it cannot be read."""
    return jsonfiles.lines(path, _no_row)


_TEXTS = ("notebook", "data", "revision", "code", "device")


def _no_row(value: Mapping[str, Any]) -> str:
    """Why an object is no row; "" if it is one."""
    damage = jsonfiles.not_objects(value, ("parameters", "metrics"), needed=True)
    if damage:
        return damage
    row = flat(value)
    texts = (name for name in _TEXTS if not isinstance(row.get(name), str | None))
    seed = row.get("seed")
    if not isinstance(seed, int | None) or isinstance(seed, bool):
        return "seed is not an integer"
    return next((f"{name} is not a string" for name in texts), "")


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

    Raises:
        UserError: an unknown column or baseline; two rows for one seed; rows that were not made alike (`made_with`).
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
