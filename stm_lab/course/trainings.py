"""Trainings as rows of the course's kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stm_lab.course import results
from stm_lab.entrypoints import WEIGHTS
from stm_lab.util import jsonfiles, paths
from stm_lab.util.errors import UserError

_METRICS = ("top1", "top1_raw", "weights", "validation_loss", "step", "images_per_second", "data_wait")


def training_rows(source: str | Path) -> list[dict[str, Any]]:
    """One row for each finished training in or below a folder, as `lab.record` writes them.

    `parameters` are its configuration without mixer and seed, `metrics` its mixer and last validation, `seconds` those
    of all epochs. A damaged training is left out, and a warning names it. Raises UserError if there is none, Damaged if
    all are damaged.
    """
    from stm_lab.train.config import load_config
    from stm_lab.train.folder import CONFIG, ENVIRONMENT, METRICS
    from stm_lab.zoo import training_folders  # here, so that reading rows does not load the models

    rows, damage = [], []
    for folder in training_folders(paths.expanded(source)):
        try:
            config = load_config(folder / CONFIG).result_fields()
            epochs = jsonfiles.all_epochs(folder / METRICS, config["epochs"])
        except (UserError, jsonfiles.Damaged) as error:
            damage.append(str(error))
            continue
        environment = jsonfiles.mapping(folder / ENVIRONMENT, ("run",))
        seconds = sum(epoch.get("seconds", 0) for epoch in epochs)
        rows.append(_row(config, epochs[-1], environment.get("run", {}).get("data"), seconds, environment))
    return jsonfiles.or_damaged(rows, damage)


def shipped_rows() -> list[dict[str, Any]]:
    """The rows of the trainings whose weights come with the package: `shapes`, scale nano, seed 0."""
    rows = jsonfiles.lines(WEIGHTS / "rows.jsonl")[0]
    return [_row(row["config"], row["metrics"], row["data"], row["metrics"].get("seconds", 0), {}) for row in rows]


def _row(
    config: Mapping, last: Mapping, fingerprint: str | None, seconds: float, environment: Mapping
) -> dict[str, Any]:
    return {
        "notebook": "train",
        "parameters": {name: value for name, value in config.items() if name not in ("mixer", "seed")},
        "data": fingerprint,
        "revision": environment.get("git_revision"),
        "code": environment.get("code"),
        "device": environment.get("device"),
        "seed": config["seed"],
        "seconds": round(seconds, 3),
        "metrics": {"mixer": config["mixer"], **{name: last[name] for name in _METRICS if name in last}},
    }


def records(source: str | Path | None = None) -> list[dict[str, Any]]:
    """Rows of a file, of a folder of notebooks' runs or of a folder of trainings, as `results.records` gives them.

    None takes those that come with the course: of the package's weights, of trainings, and of the sweeps. Damaged
    pieces are left out, and warnings name them. Raises UserError for a place without rows, Damaged if all are damaged.
    """
    if source is None:
        folder = paths.notebooks_dir() / "sweeps"
        shipped = [folder / name for name in ("rows_of_trainings.jsonl", "rows_of_shapes.jsonl")]
        found = map(results.flat, shipped_rows())
        return [*found, *(row for file in shipped if file.is_file() for row in results.records(file))]
    place = paths.expanded(source)
    if place.is_dir() and not any(place.rglob("status.json")):
        return [results.flat(row) for row in training_rows(place)]
    runs = results.find(place)
    return jsonfiles.or_damaged([row for run in runs for row in run.rows], [one for run in runs for one in run.damage])
