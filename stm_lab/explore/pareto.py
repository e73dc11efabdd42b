"""Which network would you take? Accuracy over a cost of your choice, one network at a time looked at closely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from stm_lab import figures
from stm_lab.explore.shell import Explorer
from stm_lab.figures.paper import front
from stm_lab.figures.style import number
from stm_lab.util.errors import UserError


def pareto(
    rows: Sequence[Mapping[str, Any]],
    costs: Mapping[str, str],
    label: str = "top-1 accuracy (%)",
    *,
    score: str = "top1",
) -> Explorer:
    """Score over cost of many networks, Pareto's front, and the numbers of one of them.

    Choose what cost means, and the network by name, by a click on it or, for a quick look, by pointing at it. The box
    says whether something beats it, and by how much.

    Args:
        rows: dictionaries with name, mixer, `score` and the costs; names differ. With `spread`, the standard deviation
            of the score over seeds (None where there is one seed), it is drawn and said.
        costs: {key in the rows: label of the axis}; less is better.
        label: of the score, of which more is better.
        score: its key in the rows.

    Raises:
        UserError: for no rows, a row that lacks a key, and two rows of one name.
    """
    by_name = {row.get("name"): row for row in rows}
    if not rows or len(by_name) != len(rows):
        raise UserError("pareto: rows with names that differ are needed" if rows else "pareto: no rows")
    for row in rows:
        missing = [key for key in ("name", "mixer", score, *costs) if key not in row]
        if missing:
            raise UserError(f"pareto: the row of {row.get('name')!r} has no {missing[0]!r}")
    mixers = {name: row["mixer"] for name, row in by_name.items()}
    spread = {name: row["spread"] for name, row in by_name.items() if row.get("spread") is not None}

    def points(cost: str) -> dict[str, tuple[float, float]]:
        return {name: (row[cost], row[score]) for name, row in by_name.items()}

    def draw(cost: str, network: str, log: bool) -> Figure:
        note = _told(network, points(cost), by_name[network], costs, cost, label)
        names = (costs[cost], label)
        return figures.pareto(points(cost), names, chosen=network, note=note, mixers=mixers, spread=spread, log=log)

    def nearest(_: int, x: float, y: float) -> dict[str, str]:
        cost, is_log = controls["cost"].value, controls["log"].value
        of = points(cost)
        places = np.array([(np.log(a) if is_log else a, b) for a, b in of.values()])
        if is_log and x <= 0:
            return {}
        away = (places - (np.log(x) if is_log else x, y)) / np.maximum(np.ptp(places, axis=0), 1e-12)
        return {"network": list(of)[int(np.argmin(np.hypot(*away.T)))]}

    def hints(cost: str, network: str, log: bool) -> list[tuple[int, float, float, str]]:
        return [(0, x, y, f"{name}\n{y:.1f}, {number(x)}") for name, (x, y) in points(cost).items()]

    controls = {
        "cost": widgets.Dropdown(options=[(name, key) for key, name in costs.items()], description="cost"),
        "network": widgets.Dropdown(options=list(by_name), description="network"),
        "log": widgets.Checkbox(True, description="logarithmic cost"),
    }
    return Explorer(draw, controls, select=nearest, hints=hints)


def _told(name: str, points: Mapping[str, tuple], row: Mapping, costs: Mapping[str, str], cost: str, label: str) -> str:
    """Its numbers, a line each, and its place: on the front, or what beats it."""
    x, y = points[name]
    spread = f" ± {row['spread']:.1f} over seeds" if row.get("spread") is not None else ""
    lines = [name, f"{label.split(chr(10))[0]}: {y:.1f}{spread}"]
    lines += [f"{text}: {number(row[key])}" for key, text in costs.items()]
    if name in front(points):
        return "\n".join([*lines, "on the front: nothing costs less and scores more"])
    beating = {other: (a, b) for other, (a, b) in points.items() if a <= x and b >= y and other != name}
    best = max(beating, key=lambda other: (beating[other][1], -beating[other][0]))
    a, b = beating[best]
    return "\n".join([*lines, f"beaten by {best}: {b - y:+.1f} at {a / x:.2f} times the cost"])
