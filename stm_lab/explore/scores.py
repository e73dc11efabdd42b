"""Scores of many networks: over a cost of your choice, and seed by seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from stm_lab import figures
from stm_lab.explore.shell import Explorer, State
from stm_lab.figures.cost import front
from stm_lab.figures.style import number
from stm_lab.util.errors import UserError, check_known


def pareto(
    rows: Sequence[Mapping[str, Any]],
    costs: Mapping[str, str],
    label: str = "top-1 accuracy (%)",
) -> Explorer:
    """Score over a cost of your choice, Pareto's front, and the numbers of the clicked network, and what beats it.

    rows: with name, mixer, top1 and the costs; names differ; `spread`, the standard deviation of top1 over seeds, is
    missing or None for a single seed. costs: {key in the rows: label of the axis}; less is better. label: of top1.
    Raises UserError for no rows, a row that lacks a key, and two rows of one name.
    """
    by_name = {row.get("name"): row for row in rows}
    if not rows or len(by_name) != len(rows):
        raise UserError("pareto: rows with names that differ are needed" if rows else "pareto: no rows")
    for row in rows:
        for key in ("name", "mixer", "top1", *costs):
            if key not in row:
                raise UserError(f"pareto: the row of {row.get('name')!r} has no {key!r}")
    mixers = {name: row["mixer"] for name, row in by_name.items()}
    spread = {name: row["spread"] for name, row in by_name.items() if row.get("spread") is not None}

    def points(cost: str) -> dict[str, tuple[float, float]]:
        return {name: (row[cost], row["top1"]) for name, row in by_name.items()}

    def draw(cost: str, network: str, log: bool) -> Figure:
        lines = [network, f"{label.splitlines()[0]}: {by_name[network]['top1']:.1f}"]
        lines[-1] += f" ± {spread[network]:.1f} over seeds" if network in spread else ""
        lines += [f"{text}: {number(by_name[network][key])}" for key, text in costs.items()]
        note = "\n".join([*lines, _standing(network, points(cost))])
        names = (costs[cost], label)
        return figures.pareto(points(cost), names, chosen=network, note=note, mixers=mixers, spread=spread, log=log)

    def select(_: int, x: float, y: float, now: State) -> State:
        places = np.array(list(points(now["cost"]).values()))
        at = np.array([x, y])
        if now["log"]:
            places[:, 0], at[0] = np.log(places[:, 0]), np.log(x)
        away = (places - at) / np.maximum(np.ptp(places, axis=0), 1e-12)
        return {"network": list(by_name)[int(np.linalg.norm(away, axis=1).argmin())]}

    def hints(now: State) -> list[tuple[int, float, float, str]]:
        return [(0, x, y, f"{name}\n{y:.1f}, {number(x)}") for name, (x, y) in points(now["cost"]).items()]

    controls = {
        "cost": widgets.Dropdown(options=[(name, key) for key, name in costs.items()]),
        "network": widgets.Dropdown(options=list(by_name)),
        "log": widgets.Checkbox(True, description="logarithmic cost"),
    }
    return Explorer(draw, controls, select=select, hints=hints)


def _standing(name: str, points: Mapping[str, tuple[float, float]]) -> str:
    """On the front, or what beats it."""
    if name in front(points):
        return "on the front: nothing costs less and scores more"
    x, y = points[name]
    beating = {other: (a, b) for other, (a, b) in points.items() if a <= x and b >= y and other != name}
    best = max(beating, key=lambda other: (beating[other][1], -beating[other][0]))
    a, b = beating[best]
    return f"beaten by {best}: {b - y:+.1f} at {a / x:.2f} times the cost"


def seeds(
    scores: Mapping[str, Mapping[int, float]],
    first: str | None = None,
    second: str | None = None,
    *,
    label: str = "top-1 accuracy (%)",
    highest: bool = True,
) -> Explorer:
    """Two names, how many of the seeds that both have are counted, and with which the count begins.

    scores: {seed: value} by name. first, second: the pair that is shown first; default: the two with the most seeds in
    common. label: what the values are, with their unit. highest: whether the highest wins.
    Raises UserError for scores of which no two have two seeds in common, and for an unknown name.
    """
    common = {
        (one, other): sorted(set(scores[one]) & set(scores[other])) for one, other in itertools.permutations(scores, 2)
    }
    pair = max(common, key=lambda names: len(common[names]), default=None)
    if pair is None or len(common[pair]) < 2:
        raise UserError("seeds: no two names have two seeds in common")
    one, other = first or pair[0], second or pair[1]
    for name in (one, other):
        check_known("name", name, scores, "seeds: ")

    def draw(one: str, other: str, count: int, begin: int) -> Figure:
        if one == other:
            raise UserError(f"{one} and {one}: choose two names that differ")
        shared = common[one, other]
        if not shared:
            raise UserError(f"{one} and {other} have no seed in common")
        at = next((i for i, seed in enumerate(shared) if seed >= begin), 0)
        order = shared[at:] + shared[:at]  # every seed can be the first
        return figures.difference_so_far(
            scores[one], scores[other], (one, other), order, min(count, len(order)), label=label, highest=highest
        )

    everything = sorted(set().union(*scores.values()))
    controls = {
        "one": widgets.Dropdown(options=list(scores), value=one, description="is"),
        "other": widgets.Dropdown(options=list(scores), value=other, description="better than"),
        "count": widgets.IntSlider(1, 1, len(common[pair]), description="seeds counted"),
        "begin": widgets.SelectionSlider(options=everything, value=everything[0], description="beginning with seed"),
    }
    return Explorer(draw, controls)
