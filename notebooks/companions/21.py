"""Notebook 21's own: rows as experiments, that is, what was trained alike, by mixer and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stm_lab import data
from stm_lab.course.results import made_with
from stm_lab.util.errors import UserError


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

    Rows of one experiment were made alike (`made_with`), apart from plugins and code. Of two rows for one mixer
    and seed the later counts; the notes say so, and whether the code differs. Raises UserError if no row has the metric
    and a mixer.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in records:
        if metric in row and "mixer" in row:
            made = made_with(row, "mixer", metric) | _resolved(row)
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
