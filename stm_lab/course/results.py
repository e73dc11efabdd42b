"""From recorded rows to a table: mean, spread over seeds, and paired differences with their intervals."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
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


def of_a_machine(metric: str) -> bool:
    """Whether a number is one of the machine as much as of the model: time, rate or memory, by the metric's name."""
    return _OF_A_MACHINE.search(metric) is not None


def rows(source: str | Path) -> pd.DataFrame:
    """The rows of a run, from its folder or its `rows.jsonl`: one line each, metrics as columns under their own names.

    Beside them stand `notebook`, `seed`, `data` and `code` (fingerprints), `revision`, `device`, the parameters as
    `parameters.<name>`, and `seconds` since setup, unless a metric is called so.

    Damaged lines are left out, and a warning names them.

    Raises:
        UserError: no such file.
        Damaged: none of its lines is a row.
    """
    import pandas as pd

    return pd.DataFrame(records(source))


def records(source: str | Path) -> list[dict[str, Any]]:
    """The same rows as mappings, in which what a row does not have is not there. Raises errors as `rows` does."""
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
    return {**own, **{f"parameters.{name}": value for name, value in row["parameters"].items()}, **row["metrics"]}


def summary(
    rows: pd.DataFrame, *, by: str = "mixer", metric: str = "top1", baseline: str | None = None
) -> pd.DataFrame:
    """One line per value of column `by`, in order of appearance; rows without `metric` are left out.

    Columns: `n` seeds, `mean`, `spread` (standard deviation over seeds, NaN for one). With a `baseline`, also the mean
    `difference` to it, paired by seed, `low` and `high` of its 95% interval (Student's t; one interval per line, not
    corrected for their number), and a `statement`: "above", "below", "within the noise", "identical" (the same number
    for every seed of two or more), or why there is none.

    Raises:
        UserError: an unknown column or baseline; two rows for one seed; rows of different data, code or parameters,
            or of a time, rate or memory on different devices.
    """
    import pandas as pd

    check_known("column", by, rows.columns, "summary: ")
    check_known("column", metric, rows.columns, "summary: ")
    rows = rows[rows[metric].notna() & rows[by].notna()]
    _check_comparable(rows, by, metric)
    values = {}  # by -> {seed: metric}
    for name, seed, value in zip(rows[by], rows["seed"], rows[metric], strict=True):
        seed = None if pd.isna(seed) else int(seed)
        if seed in values.setdefault(name, {}):
            raise UserError(f"summary: two rows with {metric} for {by} = {name!r}, seed {seed}; select one of them")
        values[name][seed] = float(value)
    if baseline is not None:
        check_known(f"{by} (baseline)", baseline, values, "summary: ")
    return pd.DataFrame(summarised(values, by=by, baseline=baseline))


def summarised(values: Mapping[Any, Mapping[Any, float]], *, by: str, baseline: Any = None) -> list[dict[str, Any]]:
    """The lines of `summary` for `values`: name -> {seed: value}. `baseline` is one of the names."""
    lines = []
    for name, of_seed in values.items():
        numbers = list(of_seed.values())
        line = {by: name, "n": len(numbers), "mean": fmean(numbers)}
        line["spread"] = stdev(numbers) if len(numbers) > 1 else math.nan
        if baseline is not None:
            line |= paired_difference(of_seed, values[baseline]) if name != baseline else _SAME
        lines.append(line)
    return lines


_SAME = {"difference": 0.0, "low": math.nan, "high": math.nan, "statement": "baseline"}


def _check_comparable(rows: pd.DataFrame, by: str, metric: str) -> None:
    """Refuse rows that differ in what they were made with, but for the seeds and the parameter that `by` is about."""
    varied = {by, f"parameters.{by}", f"parameters.{by}s", "parameters.seed", "parameters.seeds"}
    if by in ("data", "parameters.recipe"):  # they go together
        varied |= {"data", "parameters.recipe"}
    timed = ["device"] if of_a_machine(metric) else []
    made_with = ["data", "code", *timed, *(column for column in rows.columns if column.startswith("parameters."))]
    for column in made_with:
        if column in varied or column not in rows:
            continue
        found = list(dict.fromkeys(json.dumps(value, default=str) for value in rows[column]))
        if len(found) > 1:
            what = f"{column} fingerprint" if column in ("data", "code") else column
            raise UserError(f"summary: rows differ in {what}: {', '.join(found)}; select one of them")
