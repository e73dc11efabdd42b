"""For notebook 21: rows as experiments, values with their intervals, and the interval of Pearson's correlation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy import stats

from stm_lab import data
from stm_lab.course.results import made_with
from stm_lab.figures.draw import beside, board, named_rows
from stm_lab.figures.style import BLUE, RED, by_name, described, drawing
from stm_lab.util.errors import UserError


@dataclass(frozen=True)
class Experiment:
    """Networks that differ only in mixer and seed.

    Attributes:
        title: recipe, image size, length of the training.
        recipe: its name.
        scores: {mixer: {seed: value}}, percent for top1.
        notes: warnings for the comparison.
    """

    title: str
    recipe: str
    scores: Mapping[str, Mapping[int, float]]
    notes: tuple[str, ...] = ()

    def means(self) -> dict[str, float]:
        """Each mixer's mean over the seeds."""
        return {mixer: sum(by_seed.values()) / len(by_seed) for mixer, by_seed in self.scores.items()}


def experiments(records: Sequence[Mapping[str, Any]], metric: str = "top1") -> list[Experiment]:
    """Rows (as `course.results.records` gives them), grouped by data and settings, in order of appearance.

    Rows of one experiment were made alike (`made_with`), apart from plugins and code. If two rows have the same mixer
    and seed, the later one counts; the notes say so, and whether the code differs. Raises UserError if no row has the
    metric and a mixer.
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
    """Fills values that a configuration leaves to its recipe, so that both ways of writing it are equal."""
    sizes = ("image_size", "train_size", "validation_size")
    given = {name: row.get(f"parameters.{name}") for name in sizes if "parameters.image_size" in row}
    try:
        known = data.load_recipe(row["parameters.recipe"])
    except (KeyError, UserError):  # no recipe, or an unknown one
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


@drawing
def intervals(
    rows: Sequence[Mapping], label: str, *, columns: int = 2, digits: int = 1, reach: float | None = None
) -> Figure:
    """Values with their intervals: one panel per claim, one row per source.

    rows: dictionaries with claim, source, value, and low, high (None without an interval: a diamond). digits: after the
    point. reach: the end of the axis on both sides; by default it fits all, and is linear up to ±1 and logarithmic
    beyond, since intervals of a few seeds may be a hundred times as wide as others.
    """
    groups = by_name(rows, "claim", "source", "value", "low", "high")
    sources = list(dict.fromkeys(row["source"] for row in rows))
    figure, panels = board(len(groups), columns, (4.0, 0.7 + 0.38 * len(sources)), room=(3.0, 0.7), sharey=True)
    end = reach or 1.4 * max(1, *(abs(row[key]) for row in rows for key in ("value", "low", "high") if row[key]))
    ticks = [tick for tick in (1, 10, 100, 1000) if tick < end]
    for axes, (claim, some) in zip(panels, groups.items(), strict=True):
        axes.axvline(0, color="0.3", linewidth=1)
        named_rows(axes, sources, fontsize=8)
        for row in some:
            line, single = sources.index(row["source"]), row["low"] is None
            if not single:
                axes.plot([row["low"], row["high"]], [line, line], color=BLUE, linewidth=2)
            axes.plot(row["value"], line, "D" if single else "o", color=RED if single else BLUE, markersize=6)
            look = {"ha": "center", "va": "baseline", "fontsize": 7, "color": "0.25"}
            beside(axes, (row["value"], line), f"{row['value']:+.{digits}f}", (0, 6), **look)
        axes.set_title(claim, fontsize=9)
        axes.set_xlabel(label, fontsize=9)
        if reach is None:
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xticks([*(-tick for tick in reversed(ticks)), 0, *ticks])
            axes.xaxis.set_major_formatter("{x:+g}")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlim=(-end, end), ylim=(len(sources) - 0.5, -0.8))
    said = "a diamond has no interval"
    figure.supxlabel(said if reach else f"axes are linear to ±1 and logarithmic beyond; {said}", fontsize=8)
    words = []
    for row in rows:
        ends = "" if row["low"] is None else f" ({row['low']:+.{digits}f} to {row['high']:+.{digits}f})"
        words.append(", ".join(filter(None, (row["claim"], row["source"]))) + f": {row['value']:+.{digits}f}{ends}")
    return described(figure, f"{label}. {'; '.join(words)}.")


def pearson_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of Pearson's correlation by Fisher's transformation, for at least four pairs.

    Raises UserError for fewer than four.
    """
    if len(x) < 4:
        raise UserError(f"an interval of a correlation needs four pairs of numbers, not {len(x)}")
    low, high = stats.pearsonr(x, y).confidence_interval()
    return float(low), float(high)
