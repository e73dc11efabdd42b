"""Two runs side by side: their differences and their results. `compare("runs/.../1a2b", "runs/.../3c4d")`."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stm_lab.course.folder import RunFolder
from stm_lab.course.results import flattened, read_rows
from stm_lab.util import jsonfiles, paths, yaml12
from stm_lab.util.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CONFIG, _ENVIRONMENT, _METRICS = "config.yaml", "environment.json", "metrics.jsonl"  # of a training's folder
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True, eq=False)
class Comparison:
    """The differences of two runs; the columns `a` and `b` are the first and the second.

    `metrics` has all numbers of both runs (of a training only those of its last row), in the units that they were
    recorded in: `metric`, the labels of rows (such as `mixer`, `seed`), `a`, `b`, `difference` (b - a).
    """

    a: Path  # absolute
    b: Path
    kind: str  # "notebook" or "training"
    identity: pd.DataFrame  # `what`, `a`, `b`, `same`: notebook, state, code, data and revision, as far as recorded
    parameters: pd.DataFrame  # `parameter`, `a`, `b`: those that differ
    environment: pd.DataFrame  # `what`, `a`, `b`: versions, machine and threads that differ
    metrics: pd.DataFrame
    figure: Figure | None  # the training curves, in one panel each; None if neither has any


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Compare two folders of notebook runs, or two of trainings, finished or not.

    Rows of notebooks are joined by mixer and seed; where these do not tell a run's rows apart, also by the text that
    all rows have (such as `run`), and finally in their order (column `row`).

    Raises:
        UserError: a folder that is no run's, or a run and a training.
        Damaged: every file of a run is damaged. Other damaged pieces are left out, and warnings name them.
    """
    one, other = (_read(paths.expanded(folder).absolute()) for folder in (a, b))
    if one.kind != other.kind:
        notebook, training = (one, other) if one.kind == "notebook" else (other, one)
        raise UserError(
            f"{notebook.path} is a notebook's run, {training.path} a training; compare two of a kind "
            f"(a notebook's trainings are in {notebook.path / 'train'})"
        )
    from stm_lab import figures  # here, because they are slow to import

    identity = _beside("what", one.identity, other.identity)
    parameters = _beside("parameter", one.parameters, other.parameters)
    environment = _beside("what", one.environment, other.environment)
    curves = {f"{letter}: {side.path.name}": side.curves for letter, side in (("a", one), ("b", other))}
    return Comparison(
        a=one.path,
        b=other.path,
        kind=one.kind,
        identity=identity.assign(same=identity["a"] == identity["b"]),
        parameters=parameters[parameters["a"] != parameters["b"]].reset_index(drop=True),
        environment=environment[environment["a"] != environment["b"]].reset_index(drop=True),
        metrics=_joined(one.rows, other.rows),
        figure=figures.compared_curves(curves) if one.curves or other.curves else None,
    )


# ---- one run --------------------------------------------------------------------------------------------------------


class _Side:
    """What can be compared of a run. Mappings are flat, their keys dotted. Raises Damaged if nothing is left of it.

    rows: metrics, with what tells rows apart. curves: rows by epoch for `figures.compared_curves`.
    """

    def __init__(
        self, path: Path, kind: str, identity: dict, parameters: dict, environment: dict, rows: list, curves: list
    ):
        if not (parameters or environment or rows or curves):
            raise jsonfiles.Damaged(f"{path}: all files of this {kind} are damaged")
        self.path, self.kind, self.identity, self.rows, self.curves = path, kind, identity, rows, curves
        self.parameters = flattened({name: value for name, value in parameters.items() if name != "out"})
        told = ("run", "code", "git_revision")  # in the identity
        self.environment = flattened({name: value for name, value in environment.items() if name not in told})


def _read(path: Path) -> _Side:
    if RunFolder(path).status.is_file():
        return _notebook_run(RunFolder(path))
    if sum((path / name).exists() for name in (_CONFIG, _METRICS, _ENVIRONMENT, _WEIGHTS)) > 1:
        return _training(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    inside = sorted(str(file.parent) for pattern in ("*/status.json", f"*/{_METRICS}") for file in path.glob(pattern))
    hint = f"; runs in it: {', '.join(inside[:3])}{', ...' * (len(inside) > 3)}" if inside else ""
    raise UserError(f"{path}: no run's folder, which has status.json, or {_CONFIG} and {_METRICS}{hint}")


def _notebook_run(folder: RunFolder) -> _Side:
    status, environment = folder.read_status(), jsonfiles.mapping(folder.environment)
    rows = _rows(folder.rows, read_rows)
    identity = {
        "notebook": status.get("notebook"),
        "state": status.get("state"),
        "code": environment.get("code"),
        "data": rows[0].get("data") if rows else None,
        "revision": environment.get("git_revision"),
    }
    metrics = [row["metrics"] | {"seed": row.get("seed")} for row in rows]
    curves = _curves(sorted((folder.path / "train").glob(f"*/{_METRICS}")))
    return _Side(folder.path, "notebook", identity, status.get("parameters", {}), environment, metrics, curves)


def _training(path: Path) -> _Side:
    environment = jsonfiles.mapping(path / _ENVIRONMENT, ("run",))
    run = environment.get("run", {})
    identity = {
        "state": "finished" if (path / _WEIGHTS).is_file() else "not finished",
        **{name: run.get(name) for name in ("data", "pixels", "plugins", "weights")},
        "revision": environment.get("git_revision"),
    }
    rows = _rows(path / _METRICS, jsonfiles.epochs)[-1:]
    return _Side(path, "training", identity, _config(path), environment, rows, _curves([path / _METRICS]))


def _curves(files: list[Path]) -> list[dict[str, Any]]:
    """Rows by epoch of trainings, named by their mixers, or by their folders if two have the same mixer and seed."""
    configs = {file: _config(file.parent) for file in files}
    by_mixer = {(config.get("mixer"), config.get("seed")) for config in configs.values()}
    rows = []
    for file, config in configs.items():
        name = config.get("mixer") if len(by_mixer) == len(configs) else file.parent.name
        rows += [{"mixer": name, "seed": config.get("seed"), **row} for row in _rows(file, jsonfiles.epochs)]
    return rows


def _config(training: Path) -> dict[str, Any]:
    """A training's configuration; empty if it is damaged or missing."""
    try:
        return yaml12.read_mapping(training / _CONFIG)
    except UserError as error:
        jsonfiles.tell([str(error)])
        return {}


def _rows(path: Path, read: Callable[[Path], tuple[list[dict[str, Any]], list[str]]]) -> list[dict[str, Any]]:
    """The rows in a file; none if there is no file, since an interrupted run may lack it."""
    try:
        rows, damage = read(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        rows, damage = [], [f"{path}: {error.strerror}"]
    jsonfiles.tell(damage)
    return rows


# ---- two runs -------------------------------------------------------------------------------------------------------


def _beside(what: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> pd.DataFrame:
    """Both values of every key, as text; "" where there is none."""
    ours, theirs = (
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in side.items()}
        for side in (one, other)
    )
    lines = [(key, ours.get(key, ""), theirs.get(key, "")) for key in dict.fromkeys([*one, *other])]
    return pd.DataFrame(lines, columns=[what, "a", "b"], dtype=str)


def _joined(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> pd.DataFrame:
    """All numbers of both, those of one metric together, in the order of their appearance."""
    both = [*one, *other]
    labels = [name for name in ("mixer", "seed") if any(row.get(name) is not None for row in both)]
    if any(key[-1] > 1 for rows in (one, other) for key in _numbers(rows, labels)):  # they do not tell rows apart
        names = dict.fromkeys(name for row in both for name in row)
        words = [name for name in names if all(isinstance(row.get(name), str) for row in both)]
        labels = list(dict.fromkeys([*labels, *words]))
    ours, theirs = _numbers(one, labels), _numbers(other, labels)
    metrics = list(dict.fromkeys(key[0] for key in (*ours, *theirs)))
    keys = sorted(dict.fromkeys([*ours, *theirs]), key=lambda key: metrics.index(key[0]))  # stable
    lines = [(*key, ours.get(key, math.nan), theirs.get(key, math.nan)) for key in keys]
    table = pd.DataFrame(lines, columns=["metric", *labels, "row", "a", "b"], dtype=object)  # a seed may be missing
    table = table.astype({"a": float, "b": float})
    table["difference"] = table["b"] - table["a"]
    return table.drop(columns="row") if (table["row"] == 1).all() else table


def _numbers(rows: list[dict[str, Any]], labels: list[str]) -> dict[tuple, float]:
    """Each number of the rows by (metric, values of the labels ..., its count among those with the same)."""
    numbers: dict[tuple, float] = {}
    seen: Counter[tuple] = Counter()
    for row in rows:
        for name, value in row.items():
            if name not in labels and isinstance(value, int | float) and not isinstance(value, bool):
                key = (name, *(row.get(label) for label in labels))
                seen[key] += 1
                numbers[*key, seen[key]] = float(value)
    return numbers
