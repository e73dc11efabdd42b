"""Scores of many networks: over a cost of your choice, and seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from stm_lab import figures
from stm_lab.explore.shell import Explorer, State
from stm_lab.figures.cost import front
from stm_lab.figures.style import number
from stm_lab.util.errors import UserError


def pareto(rows: Sequence[Mapping[str, Any]], costs: Mapping[str, str], label: str = "top-1 accuracy (%)") -> Explorer:
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
