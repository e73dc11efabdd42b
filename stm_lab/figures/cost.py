"""What a model costs: parameters, multiply-adds, speed, memory; scores over costs, and Pareto's front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stm_lab.figures.draw import beside, board, log_axis, named_rows, stacked, whole_steps
from stm_lab.figures.style import BLUE, RED, by_name, colours, described, dot, drawing, legend, number, plain

ROLE_COLOURS = {  # of Okabe and Ito's palette; the parts that all mixers share are grey or pale
    "stem": "#999999",
    "mixers": "#D55E00",
    "MLPs": "#56B4E9",
    "downsampling": "#CCCCCC",
    "head": "#009E73",
    "rest": "#F0E442",
}

# ---- shares and speed ------------------------------------------------------------------------------------------------


@drawing
def cost_by_part(rows: Sequence[Mapping]) -> Figure:
    """Parameters and multiply-adds of each part of a model, as shares of the whole, with the numbers.

    rows: dictionaries with model, part, parameters, macs, the last one called total, as `cost` gives them.
    """
    *parts, total = rows
    figure, panels = board(2, 2, (4.75, 0.3 * len(parts)), room=(0, 1.3), sharey=True)
    for axes, key, label in zip(panels, ("parameters", "macs"), ("parameters", "MACs"), strict=True):
        shares = [100 * row[key] / max(total[key], 1) for row in parts]
        bars = axes.barh(range(len(parts)), shares, color=BLUE, height=0.65)
        axes.bar_label(bars, [number(row[key]) for row in parts], padding=4, fontsize=8)
        axes.set(xlabel=f"share of {number(total[key])} {label} (%)", xlim=(0, 1.2 * max(shares)))
        named_rows(axes, [row["part"] for row in parts])
    figure.suptitle(total["model"], fontsize=10)
    said = "; ".join(f"{row['part']} {number(row['parameters'])} and {number(row['macs'])}" for row in rows)
    return described(figure, f"Parameters and MACs of {total['model']} by part: {said}.")


@drawing
def throughput_repeats(model: str, repeats: Sequence[float]) -> Figure:
    """Images a second in each repeat, with their median; the dots are level if nothing else used the machine."""
    figure, (axes,) = board(1, 1, (6, 3))
    axes.plot(range(1, len(repeats) + 1), repeats, "o", color=BLUE, label="repeats")
    axes.axhline(np.median(repeats), color=RED, linewidth=1.5, label=f"median {np.median(repeats):.4g}")
    axes.set(xlabel="repeat", ylabel="images per second", title=model, ylim=(0, 1.15 * max(repeats)))
    whole_steps(axes)
    plain(axes, "y")
    axes.legend(frameon=False)
    return figure


@drawing
def shares_by_role(rows: Sequence[Mapping], key: str, label: str) -> Figure:
    """What stem, mixers, MLPs, downsampling, head and the rest take of a cost: a bar a model, its total beside it.

    rows: dictionaries with model, role and `key`, of one or more models, each with a row whose role (or part) is total.
    A share below 0, of a rest computed as a difference, counts as 0. Raises UserError for rows without the keys.
    """
    costs = {
        model: {row.get("role") or row["part"]: row[key] for row in some}
        for model, some in by_name(rows, "model", key).items()
    }
    return _stacked_costs(costs, ROLE_COLOURS, label, number, {name: of["total"] for name, of in costs.items()})


@drawing
def cost_shares(parts: Mapping[str, Mapping[str, float]], label: str = "multiply-adds (%)") -> Figure:
    """What the parts of an operator take of its cost: a bar each, its total beside it.

    parts: {bar: {part: number}}, the same parts in every bar. Raises UserError for none.
    """
    shade = dict(zip(next(iter(parts.values())), (BLUE, "#E69F00", "#56B4E9", RED), strict=False))
    totals = {name: sum(of.values()) for name, of in parts.items()}
    return _stacked_costs(parts, shade, label, "{:,.0f}".format, totals)


def _stacked_costs(costs: Mapping, shade: Mapping[str, str], label: str, written: object, totals: Mapping) -> Figure:
    figure, (axes,) = board(1, 1, (8.5, 1.4 + 0.42 * len(costs)))
    said = []
    for row, (name, of) in enumerate(costs.items()):
        shares = {part: max(0.0, 100 * of[part] / (totals[name] or 1)) for part in shade if part in of}
        stacked(axes, row, shares, shade)
        beside(axes, (max(100, sum(shares.values())), row), written(totals[name] or 1))
        said.append(f"{name}: " + ", ".join(f"{part} {share:.0f}%" for part, share in shares.items()))
    named_rows(axes, list(costs))
    axes.set(xlabel=label, xlim=(0, 118), xticks=range(0, 101, 20))
    legend(figure, axes)
    return described(figure, f"Shares of {label}. {'; '.join(said)}.")


# ---- scores over costs -----------------------------------------------------------------------------------------------


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Pareto's front: the names that no other name beats at a cost as low or lower, cheapest first.

    points: {name: (cost, score)}; a lower cost is better, and a higher score. Of two equal points both are on it.
    """

    def beaten(name: str) -> bool:
        cost, score = points[name]
        return any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points.values())

    return sorted((name for name in points if not beaten(name)), key=lambda name: points[name])


@drawing
def pareto(
    points: Mapping[str, tuple[float, float]],
    labels: tuple[str, str],
    *,
    chosen: str | None = None,
    note: str = "",
    mixers: Mapping[str, str] | None = None,
    spread: Mapping[str, float] | None = None,
    log: bool = True,
) -> Figure:
    """Score over cost, a dot a network, and Pareto's front: the networks that no other beats in both.

    points: {name: (cost, score)}. chosen: the name that gets a ring, and `note` in a box. mixers: {name: mixer}, for
    the colours; by default the names are mixers. spread: {name: standard deviation of the score over seeds}, drawn
    as a bar to either side.
    """
    mixers, spread = mixers or {name: name for name in points}, spread or {}
    colour, best = colours(mixers.values()), front(points)
    figure, (axes,) = board(1, 1, (8, 4.6))
    axes.step(*zip(*(points[name] for name in best), strict=True), where="post", color="0.45", linewidth=1.3, zorder=1)
    for name, (x, y) in points.items():
        look = {"markersize": 9} if name in best else {"markersize": 6.5, "fillstyle": "none"}
        if name in spread:
            axes.errorbar(x, y, spread[name], color=colour[mixers[name]], linewidth=1.3, capsize=3)
        axes.plot(x, y, "o", color=colour[mixers[name]], **look)
    costs = [x for x, _ in points.values()]
    if log:
        log_costs(axes, costs)
    else:
        axes.set_xlim(0, 1.08 * max(costs))
        axes.xaxis.set_major_formatter(number)
    if chosen is not None:
        axes.plot(*points[chosen], "o", color="black", markersize=16, fillstyle="none", markeredgewidth=1.6)
    if note:
        box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "0.6"}
        axes.text(0.985, 0.03, note, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, bbox=box)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    plain(axes)
    line = Line2D([], [], color="0.45", label="front (filled)" + "\nbars: spread\nover seeds" * bool(spread))
    legend(figure, [*(dot(shade, name) for name, shade in colour.items()), line])
    said = f" Chosen: {note or chosen}." if chosen else ""
    ends = {name: f" ± {spread[name]:.1f}" if name in spread else "" for name in best}
    listed = ", ".join(f"{name} ({points[name][0]:.3g}, {points[name][1]:.1f}{ends[name]})" for name in best)
    return described(figure, f"{labels[1]} over {labels[0]}; on the front: {listed}.{said}".replace("\n", ", "))


def log_costs(axes: Axes, costs: Sequence[float]) -> None:
    """A logarithmic axis of the costs that are drawn."""
    log_axis(axes, "x")
    axes.set_xlim(min(costs) / 1.2, max(costs) * 1.2)
