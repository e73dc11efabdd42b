"""Trainings as rows of the course's kind, and rows as experiments: what was trained alike, by mixer and seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stm_lab import data, paper
from stm_lab.course import results
from stm_lab.course.found import find
from stm_lab.registry import WEIGHTS
from stm_lab.util import files, jsonfiles, paths
from stm_lab.util.errors import UserError

if TYPE_CHECKING:
    from stm_lab.train.zoo import LoadedModel

NOTEBOOK = "train"  # what stands in place of a notebook's name in the row of a training
_VARIED = ("mixer", "mixers", "seed", "seeds", "plugins")  # what an experiment compares, or how it came by it
_METRICS = ("top1", "top1_raw", "weights", "validation_loss", "step", "images_per_second", "data_wait")


def training_rows(source: str | Path) -> list[dict[str, Any]]:
    """One row for each finished training in or below a folder, as `lab.record` writes them.

    `parameters` are its configuration without mixer and seed, `metrics` its mixer and last validation, `seconds` those
    of all epochs. A damaged training is left out, and a warning names it. Raises UserError if there is none, Damaged if
    all are damaged.
    """
    from stm_lab.train.config import load_config
    from stm_lab.train.folder import CONFIG, ENVIRONMENT, METRICS
    from stm_lab.train.zoo import training_folders  # here, so that reading rows does not load the models

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
        "notebook": NOTEBOOK,
        "parameters": {name: value for name, value in config.items() if name not in ("mixer", "seed")},
        "data": fingerprint,
        "revision": environment.get("git_revision"),
        "code": environment.get("code"),
        "device": environment.get("device"),
        "seed": config["seed"],
        "seconds": round(seconds, 3),
        "metrics": {"mixer": config["mixer"], **{name: last[name] for name in _METRICS if name in last}},
    }


def write_rows(rows: Iterable[Mapping[str, Any]], file: str | Path) -> Path:
    """Write rows to a file, a JSON line each; `stm_lab.course.rows` and the leaderboard read it."""
    files.replace_bytes(Path(file), "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    return Path(file)


def records(source: str | Path | None = None) -> list[dict[str, Any]]:
    """Rows from wherever they are, as `course.results.records` gives them.

    source: a file of rows, a folder of notebooks' runs, a folder of trainings; None takes those that come with the
    course: of the package's weights, of `notebooks/sweeps/rows_of_trainings.jsonl` if it is there, and of the sweeps.
    Damaged pieces are left out, and warnings name them. Raises UserError for a place with nothing of the kind, Damaged
    for one where all is damaged.
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
    """Networks that were trained alike but for mixer and seed.

    Attributes:
        title: recipe, size of the images, length of the training.
        recipe: its name.
        scores: {mixer: {seed: value}}, percent for top1.
        notes: what somebody who compares them should know.
    """

    title: str
    recipe: str
    scores: Mapping[str, Mapping[int, float]]
    notes: tuple[str, ...] = ()

    def means(self) -> dict[str, float]:
        """The mean over the seeds of each mixer."""
        return {mixer: sum(by_seed.values()) / len(by_seed) for mixer, by_seed in self.scores.items()}


@dataclass
class _Group:
    title: str
    recipe: str
    scores: dict[str, dict[int, float]] = field(default_factory=dict)
    codes: set = field(default_factory=set)
    repeated: int = 0


def experiments(records: Sequence[Mapping[str, Any]], metric: str = "top1") -> list[Experiment]:
    """Rows (as `course.results.records` gives them) by what they were trained on and how, in order of appearance.

    Two rows are of one experiment if their data and all their parameters but mixers, seeds and plugins are the same. Of
    two rows for one mixer and seed the later counts; that, and rows of different code, is said in the notes.
    Raises UserError if no row has the metric and a mixer.
    """
    groups: dict[str, _Group] = {}
    for row in records:
        if metric not in row or "mixer" not in row:
            continue
        parameters = {name.removeprefix("parameters."): row[name] for name in row if name.startswith("parameters.")}
        made = {name: value for name, value in parameters.items() if name not in _VARIED} | _resolved(parameters)
        key = json.dumps([row.get("data"), row.get("notebook"), sorted(made.items())], default=str)
        group = groups.setdefault(key, _Group(_title(made), Path(str(made.get("recipe"))).stem))
        by_seed = group.scores.setdefault(row["mixer"], {})
        group.repeated += row["seed"] in by_seed
        by_seed[row["seed"]] = float(row[metric])
        group.codes.add(row.get("code"))
    if not groups:
        raise UserError(f"rows: none of {len(records)} has {metric!r} and a mixer")
    return [Experiment(g.title, g.recipe, g.scores, tuple(_notes(g))) for g in groups.values()]


def _resolved(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's own values, where a configuration says None for them: one training may be written in both ways."""
    recipe = parameters.get("recipe")
    if recipe is None or "image_size" not in parameters:
        return {}
    try:
        known = data.load_recipe(recipe)
    except UserError:  # a recipe of somebody else's
        return {}
    counts = {"train_size": known.counts["train"], "validation_size": known.counts["validation"]}
    own = {"image_size": known.image_size, **counts}
    return {
        name: value
        if parameters.get(name) is None
        else min(parameters[name], value)
        if name in counts
        else parameters[name]
        for name, value in own.items()
    }


def _title(made: Mapping[str, Any]) -> str:
    parts = [Path(str(made.get("recipe", "?"))).stem]
    parts += [f"{made['image_size']} px"] if made.get("image_size") else []
    parts += [f"{made['epochs']:g} epochs"] if made.get("epochs") else []
    parts += [f"{made['train_size']:,} images"] if made.get("train_size") else []
    return ", ".join(parts)


def _notes(group: _Group) -> list[str]:
    notes = []
    if len(group.codes) > 1:
        notes.append(f"rows of {len(group.codes)} states of the code")
    if group.repeated:
        notes.append(f"{group.repeated} rows for a mixer and seed that a later row replaces")
    return notes


def known_accuracy(subject: LoadedModel, weights: str | Path, scale: str = "nano") -> tuple[float, str] | None:
    """Top-1 in percent of a model's weights, and on what, as it was written down; None where nobody did.

    weights, scale: what `zoo.load` was asked for. Of a training's folder it is the last validation; of the package's
    weights their row; of the paper's weights its table.
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
