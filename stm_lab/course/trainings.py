"""Trainings as rows of the course's kind, and rows as experiments: what was trained alike, by mixer and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stm_lab import data, paper
from stm_lab.course import results
from stm_lab.course.found import find
from stm_lab.entrypoints import WEIGHTS
from stm_lab.util import jsonfiles, paths
from stm_lab.util.errors import UserError

if TYPE_CHECKING:
    from stm_lab.zoo import LoadedModel

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
    if not rows:
        raise jsonfiles.Damaged.all_of(damage)
    jsonfiles.tell(damage)
    return rows


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
    runs = find(place)
    rows, damage = [row for run in runs for row in run.rows], [said for run in runs for said in run.damage]
    if damage and not rows:
        raise jsonfiles.Damaged.all_of(damage)
    jsonfiles.tell(damage)
    return rows


@dataclass(frozen=True)
class Experiment:
    """Networks that were trained alike, except for mixer and seed.

    Attributes:
        title: recipe, image size, length of the training.
        recipe: its name.
        scores: {mixer: {seed: value}}, percent for top1.
        notes: what a reader should know before comparing them.
    """

    title: str
    recipe: str
    scores: Mapping[str, Mapping[int, float]]
    notes: tuple[str, ...] = ()

    def means(self) -> dict[str, float]:
        """The mean over the seeds of each mixer."""
        return {mixer: sum(by_seed.values()) / len(by_seed) for mixer, by_seed in self.scores.items()}


def experiments(records: Sequence[Mapping[str, Any]], metric: str = "top1") -> list[Experiment]:
    """Rows (as `course.results.records` gives them) by what they were trained on and how, in order of appearance.

    Rows of one experiment were made alike (`results.made_with`), apart from plugins and code. Of two rows for one mixer
    and seed the later counts; the notes say so, and whether the code differs. Raises UserError if no row has the metric
    and a mixer.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in records:
        if metric in row and "mixer" in row:
            made = results.made_with(row, "mixer", metric) | _resolved(row)
            made = {name: value for name, value in made.items() if name not in ("code", "parameters.plugins")}
            groups.setdefault(json.dumps(made, sort_keys=True), []).append(row)
    if not groups:
        raise UserError(f"rows: none of {len(records)} has {metric!r} and a mixer")
    return [_experiment(json.loads(made), rows, metric) for made, rows in groups.items()]


def _resolved(row: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's own values where a configuration has none: one training may be written in both ways."""
    sizes = ("image_size", "train_size", "validation_size")
    given = {name: row.get(f"parameters.{name}") for name in sizes if "parameters.image_size" in row}
    try:
        known = data.load_recipe(row["parameters.recipe"])
    except (KeyError, UserError):  # no recipe, or one that is not here
        return {}
    own = dict(zip(sizes, (known.image_size, known.counts["train"], known.counts["validation"]), strict=True))
    found = {name: own[name] if value is None else value for name, value in given.items()}
    return {
        f"parameters.{name}": value if name == "image_size" else min(value, own[name]) for name, value in found.items()
    }


def _experiment(made: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], metric: str) -> Experiment:
    scores: dict[str, dict[int, float]] = {}
    for row in rows:
        scores.setdefault(row["mixer"], {})[row["seed"]] = float(row[metric])
    notes = []
    if (codes := len({row.get("code") for row in rows})) > 1:
        notes.append(f"rows of {codes} states of the code")
    if repeated := len(rows) - sum(map(len, scores.values())):
        notes.append(f"{repeated} rows for a mixer and seed that a later row replaces")
    recipe = Path(str(made.get("parameters.recipe", "?"))).stem
    said = (("image_size", "{} px"), ("epochs", "{:g} epochs"), ("train_size", "{:,} images"))
    parts = [form.format(made[f"parameters.{name}"]) for name, form in said if made.get(f"parameters.{name}")]
    return Experiment(", ".join([recipe, *parts]), recipe, scores, tuple(notes))


def known_accuracy(subject: LoadedModel, weights: str | Path, scale: str = "nano") -> tuple[float, str] | None:
    """The recorded top-1 in percent of a model's weights, and the data set; None if there is no record.

    weights, scale: as given to `zoo.load`. The record of a training is its last validation, of the package's weights
    their row, of the paper's weights its table.
    """
    if subject.folder is not None:
        try:
            (row,) = training_rows(subject.folder)
        except jsonfiles.Damaged as error:
            jsonfiles.tell([str(error)])
            return None
        return row["metrics"]["top1"], Path(row["parameters"]["recipe"]).stem
    if str(weights) != "pretrained":
        return None
    shipped = {row["metrics"]["mixer"]: row["metrics"]["top1"] for row in shipped_rows()}
    if scale == "nano":
        return (shipped[subject.name], "shapes") if subject.name in shipped else None
    found = [one.top1 for one in paper.published() if (one.mixer, one.scale) == (subject.name, scale)]
    return (found[0], "imagenet-1k") if found else None
