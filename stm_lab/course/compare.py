"""Two runs side by side: in what they differ, and what came of it. `compare("runs/.../1a2b", "runs/.../3c4d")`."""

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
from stm_lab.course.results import flat, read_rows
from stm_lab.util import jsonfiles, paths, yaml12
from stm_lab.util.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CONFIG, _ENVIRONMENT, _METRICS = "config.yaml", "environment.json", "metrics.jsonl"  # of a training's folder
_WEIGHTS = "model.safetensors"
_NO_METRICS = ("notebook", "data", "revision", "code", "device", "seed", "seconds")  # of rows, beside parameters


@dataclass(frozen=True, eq=False)
class Comparison:
    """What two runs have of their own; the columns `a` and `b` are the first and the second.

    Attributes:
        a, b: their folders, absolute.
        kind: "notebook" or "training".
        identity: `what`, `a`, `b`, `same`: notebook, state, code, data and revision, as far as the folders tell.
        parameters: `parameter`, `a`, `b`: those that differ; of a notebook's run or a training's configuration.
        environment: `what`, `a`, `b`: versions, machine and threads that differ.
        metrics: `metric`, what rows are told apart by (such as `mixer`, `seed`), `a`, `b`, `difference` (b - a): all
            numbers of either's rows, in the units that they were recorded in. Of a training its last row's.
        figure: the training curves, in panels beside each other; None if neither has any.
    """

    a: Path
    b: Path
    kind: str
    identity: pd.DataFrame
    parameters: pd.DataFrame
    environment: pd.DataFrame
    metrics: pd.DataFrame
    figure: Figure | None


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Two folders of notebook runs, or two of trainings, finished or not.

    Rows of notebooks are joined by mixer and seed; where that does not tell a run's rows apart, also by what they all
    say in words (such as `run`), and in the end the first is set beside the first, and so on (column `row`).

    Raises:
        UserError: a folder that is no run's, or one of either kind.
        Damaged: every file of a run is damaged. Else damaged pieces are left out, and warnings name them.
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
    curves = {f"{letter}: {side.path.name}": side.curves for letter, side in (("a", one), ("b", other))}
    return Comparison(
        a=one.path,
        b=other.path,
        kind=one.kind,
        identity=identity.assign(same=identity["a"] == identity["b"]),
        parameters=_differing("parameter", one.parameters, other.parameters),
        environment=_differing("what", one.environment, other.environment),
        metrics=_joined(one.rows, other.rows),
        figure=figures.compared_curves(curves) if one.curves or other.curves else None,
    )


# ---- one run --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Side:
    """What there is to compare of a run. Mappings are flat, their keys dotted.

    Attributes:
        rows: mappings of metrics, and of what tells rows apart.
        curves: rows by epoch for `figures.compared_curves`.
    """

    path: Path
    kind: str
    identity: dict[str, Any]
    parameters: dict[str, Any]
    environment: dict[str, Any]
    rows: list[dict[str, Any]]
    curves: list[dict[str, Any]]


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
    status = folder.read_status()
    environment = jsonfiles.mapping(folder.environment)
    rows = [flat(row) for row in _rows(folder.rows, read_rows)]
    parameters = dict(status.get("parameters", {}))
    parameters.pop("out", None)  # where a run lies is no difference
    identity = {
        "notebook": status.get("notebook"),
        "state": status.get("state"),
        "code": environment.get("code"),
        "data": rows[0].get("data") if rows else None,
        "revision": environment.get("git_revision"),
    }
    metrics = [
        {name: value for name, value in row.items() if name not in _NO_METRICS and not name.startswith("parameters.")}
        | {"seed": row.get("seed")}
        for row in rows
    ]
    curves = _curves(sorted((folder.path / "train").glob(f"*/{_METRICS}")))
    if not (status or environment or rows or curves):
        raise jsonfiles.Damaged(f"{folder.path}: all files of this run are damaged")
    return _Side(folder.path, "notebook", identity, _flat(parameters), _versions(environment), metrics, curves)


def _training(path: Path) -> _Side:
    parameters, environment = _config(path), jsonfiles.mapping(path / _ENVIRONMENT, ("run",))
    parameters.pop("out", None)
    run = environment.get("run", {})
    identity = {
        "state": "finished" if (path / _WEIGHTS).is_file() else "not finished",
        **{name: run.get(name) for name in ("data", "pixels", "plugins", "weights")},
        "revision": environment.get("git_revision"),
    }
    rows = _rows(path / _METRICS, jsonfiles.epochs)
    if not (parameters or environment or rows):
        raise jsonfiles.Damaged(f"{path}: all files of this training are damaged")
    return _Side(
        path, "training", identity, _flat(parameters), _versions(environment), rows[-1:], _curves([path / _METRICS])
    )


def _curves(files: list[Path]) -> list[dict[str, Any]]:
    """Rows by epoch of trainings, from their metrics. They are called after their mixers, or where that leaves two
    with the same seed, after their folders."""
    configs = {file: _config(file.parent) for file in files}
    by_mixer = {(config.get("mixer"), config.get("seed")) for config in configs.values()}
    rows = []
    for file, config in configs.items():
        name = config.get("mixer") if len(by_mixer) == len(configs) else file.parent.name
        rows += [{"mixer": name, "seed": config.get("seed"), **row} for row in _rows(file, jsonfiles.epochs)]
    return rows


def _versions(environment: Mapping[str, Any]) -> dict[str, Any]:
    own = {"run", "code", "git_revision"}  # those are of the identity
    return _flat({name: value for name, value in environment.items() if name not in own})


def _config(training: Path) -> dict[str, Any]:
    """A training's configuration; empty if it is damaged or missing."""
    try:
        return yaml12.read_mapping(training / _CONFIG)
    except UserError as error:
        jsonfiles.tell([str(error)])
        return {}


def _rows(path: Path, read: Callable[[Path], tuple[list[dict[str, Any]], list[str]]]) -> list[dict[str, Any]]:
    """The rows in a file; none where there is no file, since a run that broke off may not have it."""
    try:
        rows, damage = read(path)
    except OSError as error:
        rows, damage = [], [] if isinstance(error, FileNotFoundError) else [f"{path}: {error.strerror}"]
    jsonfiles.tell(damage)
    return rows


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


# ---- two runs -------------------------------------------------------------------------------------------------------


def _beside(what: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> pd.DataFrame:
    """Both values of every key, as text; "" where there is none."""
    lines = [(key, _text(one, key), _text(other, key)) for key in dict.fromkeys([*one, *other])]
    return pd.DataFrame(lines, columns=[what, "a", "b"], dtype=str)


def _text(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return ""
    return values[key] if isinstance(values[key], str) else json.dumps(values[key])


def _differing(what: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> pd.DataFrame:
    table = _beside(what, one, other)
    return table[table["a"] != table["b"]].reset_index(drop=True)


def _joined(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> pd.DataFrame:
    """All numbers of both, those of one metric together, in the order of their appearance."""
    labels = [name for name in ("mixer", "seed") if any(row.get(name) is not None for row in (*one, *other))]
    if _ambiguous(one, labels) or _ambiguous(other, labels):
        words = dict.fromkeys(name for row in (*one, *other) for name, value in row.items() if isinstance(value, str))
        everywhere = (name for name in words if all(isinstance(row.get(name), str) for row in (*one, *other)))
        labels = list(dict.fromkeys([*labels, *everywhere]))
    ours, theirs = _numbers(one, labels), _numbers(other, labels)
    metrics = list(dict.fromkeys(key[0] for key in (*ours, *theirs)))
    keys = sorted(dict.fromkeys([*ours, *theirs]), key=lambda key: metrics.index(key[0]))  # stable
    lines = [(*key, ours.get(key, math.nan), theirs.get(key, math.nan)) for key in keys]
    table = pd.DataFrame(lines, columns=["metric", *labels, "row", "a", "b"], dtype=object)  # a seed may be missing
    table = table.astype({"a": float, "b": float})
    table["difference"] = table["b"] - table["a"]
    return table.drop(columns="row") if (table["row"] == 1).all() else table


def _ambiguous(rows: list[dict[str, Any]], labels: list[str]) -> bool:
    return any(key[-1] > 1 for key in _numbers(rows, labels))


def _numbers(rows: list[dict[str, Any]], labels: list[str]) -> dict[tuple, float]:
    """Each number of the rows by (metric, labels' values ..., how manieth it is of these)."""
    numbers: dict[tuple, float] = {}
    seen: Counter[tuple] = Counter()
    for row in rows:
        for name, value in row.items():
            if name not in labels and isinstance(value, int | float) and not isinstance(value, bool):
                key = (name, *(row.get(label) for label in labels))
                seen[key] += 1
                numbers[*key, seen[key]] = float(value)
    return numbers
