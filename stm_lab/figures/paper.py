"""The paper's figures, from data: accuracy by mixer and size, over costs, beside detection; and orders of mixers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from stm_lab.figures.style import colours, described, grouped, legend_beside, number, plain, styles
from stm_lab.stats import kendall, pearson, pearson_interval, spearman
from stm_lab.util.errors import UserError

SCALES = ("nano", "micro", "tiny", "small", "base", "large")
_AREA = 9.0  # points^2 for a million parameters
_ABOVE = {"textcoords": "offset points", "ha": "center", "fontsize": 7, "color": "0.25"}


def accuracy_bubbles(rows: Sequence[Mapping], originals: Sequence[Mapping] = ()) -> Figure:
    """Accuracy by mixer, a bubble a network: filled the unified one, a ring the original one of about its size.

    rows: dictionaries with mixer, scale, top1 (percent) and parameters; originals: with mixer, scale (that which stands
    nearest), model, top1 and parameters_m (millions). The area of a bubble is the number of parameters. The smallest
    scale has a panel and an axis of its own where it is more than three points below all others.
    """
    groups = grouped(rows, ("mixer", "scale", "top1", "parameters"), by=("mixer",))
    mixers, scales = [mixer for (mixer,) in groups], [s for s in SCALES if any(row["scale"] == s for row in rows)]
    low = [row["top1"] for row in rows if row["scale"] == scales[0]]
    others = [row["top1"] for row in (*rows, *originals) if row["scale"] != scales[0]]
    panels = [scales[:1], scales[1:]] if others and max(low) + 3 < min(others) else [scales]
    figure = Figure(figsize=(11, 5.2), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(panels), width_ratios=[2 + len(panel) for panel in panels], squeeze=False)[0]
    for panel, some in zip(axes, panels, strict=True):
        _bubbles(
            panel, mixers, some, [r for r in rows if r["scale"] in some], [r for r in originals if r["scale"] in some]
        )
    axes[0].set_ylabel("ImageNet-1k top-1 accuracy (%)")
    _bubble_legend(figure, bool(originals))
    words = []
    for (mixer,), of in groups.items():
        theirs = [f"{one['model']} {one['top1']:.1f}%" for one in originals if one["mixer"] == mixer]
        words.append(f"{mixer}: " + ", ".join([f"{row['scale']} {row['top1']:.1f}%" for row in of] + theirs))
    return described(figure, "Accuracy by mixer and size. " + "; ".join(words))


def _bubbles(axes: Axes, mixers: list[str], scales: list[str], rows: list[Mapping], originals: list[Mapping]) -> None:
    """A column a mixer, in it a place a scale."""
    places = {(m, s): i + (j + 0.5) / len(scales) - 0.5 for i, m in enumerate(mixers) for j, s in enumerate(scales)}
    places = {(m, s): round(m_s + 0.1 * (mixers.index(m) - m_s), 3) for (m, s), m_s in places.items()}
    shade = colours(mixers)
    for one in originals:
        at, size = (places[one["mixer"], one["scale"]], one["top1"]), _AREA * one["parameters_m"]
        axes.scatter(*at, s=size, facecolors="none", edgecolors=shade[one["mixer"]], linewidths=1.6)
    for row in rows:
        at, size = (places[row["mixer"], row["scale"]], row["top1"]), _AREA * row["parameters"] / 1e6
        axes.scatter(*at, s=size, color=shade[row["mixer"]], alpha=0.75)
        beside = [one["top1"] for one in originals if (one["mixer"], one["scale"]) == (row["mixer"], row["scale"])]
        _number(axes, at, row["top1"], above=not beside or row["top1"] >= beside[0])
        for value in beside:
            _number(axes, (at[0], value), value, above=value > row["top1"])
    axes.xaxis.remove_overlapping_locs = False  # the middle scale stands above its mixer's name
    axes.set_xticks(range(len(mixers)), [f"\n{mixer}" for mixer in mixers])
    axes.set_xticks(list(places.values()), [scale if len(scales) == 1 else scale[0] for _, scale in places], minor=True)
    axes.tick_params(axis="x", which="both", length=0)
    axes.tick_params(axis="x", which="minor", labelsize=7, labelcolor="0.4")
    axes.set_xlim(-0.6, len(mixers) - 0.4)
    axes.set_title(", ".join(f"{scale[0]}: {scale}" for scale in scales), fontsize=9)
    axes.margins(y=0.12)
    plain(axes, "y")


def _number(axes: Axes, at: tuple[float, float], value: float, above: bool) -> None:
    aside = {"textcoords": "offset points", "ha": "center", "fontsize": 7, "color": "0.25"}
    axes.annotate(f"{value:.1f}", at, (0, 15 if above else -15), va="bottom" if above else "top", **aside)


def _bubble_legend(figure: Figure, rings: bool) -> None:
    def circle(millions: float, name: str, **style: object) -> Line2D:
        return Line2D([], [], marker="o", linestyle="", markersize=(_AREA * millions) ** 0.5, label=name, **style)

    handles = [circle(millions, f"{millions} M", color="0.6") for millions in (5, 30, 90)]
    if rings:
        handles.append(circle(30, "original", markerfacecolor="none", markeredgecolor="0.3"))
    style = {"frameon": False, "labelspacing": 1.8, "handletextpad": 1.6, "fontsize": 8, "title": "parameters"}
    figure.legend(handles=handles, loc="outside right center", **style)


def accuracy_over_costs(rows: Sequence[Mapping], costs: Mapping[str, str], label: str = "top-1 accuracy (%)") -> Figure:
    """Accuracy over each of several costs, a panel a cost, a line a mixer from its smallest to its largest network.

    rows: dictionaries with mixer, top1 and the costs. costs: {key in the rows: label of its axis}; logarithmic axes.
    """
    groups = grouped(rows, ("mixer", "top1", *costs), by=("mixer",))
    figure = Figure(figsize=(1.4 + 3.6 * len(costs), 4), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axes, (key, name) in zip(panels, costs.items(), strict=True):
        for mixer, style in styles(colours(mixer for (mixer,) in groups)).items():
            of = sorted(groups[mixer,], key=lambda row: row[key])
            axes.plot([row[key] for row in of], [row["top1"] for row in of], "o", **style, linewidth=1.8, label=mixer)
        _log(axes, [row[key] for row in rows])
        axes.set(xlabel=name)
        plain(axes)
    panels[0].set_ylabel(label)
    legend_beside(figure, panels[0])
    words = (
        f"{mixer}: " + ", ".join(f"{row['top1']:.1f}% at {row[next(iter(costs))]:.3g}" for row in of)
        for (mixer,), of in groups.items()
    )
    return described(figure, f"{label} over {', '.join(costs.values())}. With the first: " + "; ".join(words))


def _log(axes: Axes, values: Iterable[float]) -> None:
    low, high = min(values), max(values)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low > 4 else (1, 1.2, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(number)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(low / 1.2, high * 1.2)


def detection_over_classification(rows: Sequence[Mapping], key: str = "box_ap") -> Figure:
    """Detection over classification, a dot a network, its scale beside it, with the correlation and its 95% interval.

    rows: dictionaries with mixer, scale, top1 (percent) and `key` (AP in points). The dashed line is the least squares
    fit through all; at each scale the correlation of its mixers alone stands in the legend.
    """
    groups = grouped(rows, ("mixer", "scale", "top1", key), by=("mixer",))
    figure = Figure(figsize=(7.2, 4.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    colour = colours(mixer for (mixer,) in groups)
    for (mixer,), of in groups.items():
        x, y = [row["top1"] for row in of], [row[key] for row in of]
        axes.plot(x, y, "o", color=colour[mixer], markersize=7, label=mixer)
    x, y = (np.array([row[name] for row in rows], dtype=float) for name in ("top1", key))
    slope, offset = np.polyfit(x, y, 1)
    ends = np.array([x.min(), x.max()])
    axes.plot(ends, offset + slope * ends, color="0.4", linestyle="--", linewidth=1.2, label=f"{slope:.2f} AP a point")
    low, high = pearson_interval(x, y)
    said = f"r = {pearson(x, y):.2f} (95% {low:.2f} to {high:.2f}), rank correlation {spearman(x, y):.2f}"
    axes.set_title(said, fontsize=10)
    for scale in dict.fromkeys(row["scale"] for row in rows):
        of = [row for row in rows if row["scale"] == scale]
        axes.annotate(
            scale, (max(r["top1"] for r in of), max(r[key] for r in of)), (0, 9), textcoords="offset points",
            ha="right", fontsize=8, color="0.35",
        )  # fmt: skip
    axes.set(xlabel="ImageNet-1k top-1 accuracy (%)", ylabel=f"COCO {key.replace('_ap', '')} AP (points)")
    plain(axes)
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    return described(figure, f"{key} over top-1 accuracy of {len(rows)} networks: {said}; {slope:.2f} points a point.")


def orders(scores: Mapping[str, Mapping[str, float]]) -> Figure:
    """The order of the mixers by several lists of scores, a column each, the best on top, lines between them.

    scores: {list's title: {mixer: score}}. Under each title but the first: Kendall's tau with the first, over the
    mixers that both have. Raises UserError for no lists.
    """
    if not scores:
        raise UserError("orders: nothing to order")
    titles = list(scores)
    ranks = {title: sorted(of, key=lambda mixer, of=of: -of[mixer]) for title, of in scores.items()}
    names = list(dict.fromkeys(name for order in ranks.values() for name in order))
    figure = Figure(
        figsize=(2.2 + 1.75 * len(titles), 1.8 + 0.36 * max(map(len, ranks.values()))), dpi=120, layout="constrained"
    )
    axes = figure.subplots()
    for name, style in styles(colours(names)).items():
        at = [(column, ranks[title].index(name)) for column, title in enumerate(titles) if name in ranks[title]]
        axes.plot(*zip(*at, strict=True), **style, marker="o", linewidth=2, markersize=6)
        for column, row in at:
            score = scores[titles[column]][name]
            axes.annotate(
                f"{name} {score:.1f}", (column, row), (0, 7), textcoords="offset points", ha="center", fontsize=7
            )
    labels = [titles[0]] + [f"{title}\n{_agreement(scores[titles[0]], scores[title])}" for title in titles[1:]]
    axes.set_xticks(range(len(titles)), labels, fontsize=8)
    axes.set(xlim=(-0.5, len(titles) - 0.5), ylabel="place")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_yticks(range(max(map(len, ranks.values()))), range(1, 1 + max(map(len, ranks.values()))))
    axes.set_ylim(max(map(len, ranks.values())) - 0.6, -0.8)
    axes.spines[["top", "right"]].set_visible(False)
    words = (
        f"{label.replace(chr(10), ', ')}: {' > '.join(ranks[title])}"
        for label, title in zip(labels, titles, strict=True)
    )
    return described(figure, "Orders, the best first. " + "; ".join(words))


def _agreement(first: Mapping[str, float], second: Mapping[str, float]) -> str:
    both = [name for name in first if name in second]
    if len(both) < 2 or len({first[n] for n in both}) < 2 or len({second[n] for n in both}) < 2:
        return "no order to compare"
    return f"tau {kendall([first[n] for n in both], [second[n] for n in both]):+.2f}, {len(both)} mixers"


def rank_agreement(rows: Sequence[Mapping]) -> Figure:
    """How far other orders agree with a first one: a dot each, from -1 (reversed) to +1 (the same), with its interval.

    rows: dictionaries with name, tau, and low, high (None without an interval). Raises UserError for no rows or a row
    that lacks a key.
    """
    grouped(rows, ("name", "tau", "low", "high"), by=("name",))
    figure = Figure(figsize=(8, 1.3 + 0.42 * len(rows)), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="0.3", linewidth=1)
    said = []
    for line, row in enumerate(rows):
        words = f"{row['name']} {row['tau']:+.2f}"
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [line, line], color="#0072B2", linewidth=2)
            words += f" (95% {row['low']:+.2f} to {row['high']:+.2f})"
        axes.plot(row["tau"], line, "o", color="#0072B2" if row["low"] is not None else "#D55E00", markersize=8)
        axes.annotate(f"{row['tau']:+.2f}", (row["tau"], line), (0, 8), **_ABOVE)
        said.append(words)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=8)
    axes.set(xlim=(-1.08, 1.08), ylim=(len(rows) - 0.5, -0.7), xlabel="Kendall's tau: -1 reversed, +1 the same order")
    plain(axes, "x")
    return described(figure, f"Agreement of orders. {'; '.join(said)}.")


def contrasts(rows: Sequence[Mapping]) -> Figure:
    """Differences between groups of mixers, a panel a claim, a line a source, each with its interval.

    rows: dictionaries with claim, source, difference in points, and low, high (None for a single run, a diamond).
    The axis is linear up to one point to either side and logarithmic beyond: intervals of a few seeds may be a hundred
    times as wide as others. Raises UserError for no rows or a row that lacks a key.
    """
    panels = grouped(rows, ("claim", "source", "difference", "low", "high"), by=("claim",))
    sources = list(dict.fromkeys(row["source"] for row in rows))
    across = min(len(panels), 2)
    down = -(-len(panels) // across)
    size = (3.2 + 3.4 * across, 0.7 + down * (0.7 + 0.34 * len(sources)))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    grid = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    reach = max(abs(row[key]) for row in rows for key in ("difference", "low", "high") if row[key] is not None)
    said = []
    for axes, ((claim,), some) in zip(grid, panels.items(), strict=False):
        axes.axvline(0, color="0.3", linewidth=1)
        for row in some:
            line, single = sources.index(row["source"]), row["low"] is None
            colour = "#D55E00" if single else "#0072B2"
            if not single:
                axes.plot([row["low"], row["high"]], [line, line], color=colour, linewidth=2)
            axes.plot(row["difference"], line, "D" if single else "o", color=colour, markersize=6)
            axes.annotate(f"{row['difference']:+.1f}", (row["difference"], line), (0, 6), **_ABOVE)
            ends = "" if single else f" ({row['low']:+.1f} to {row['high']:+.1f})"
            said.append(f"{claim}, {row['source']}: {row['difference']:+.1f}{ends}")
        axes.set_title(claim, fontsize=9)
        axes.set_xlabel("difference in top-1 (points)", fontsize=9)
        axes.set_xscale("symlog", linthresh=1)
        axes.set(xlim=(-1.4 * max(reach, 1), 1.4 * max(reach, 1)), ylim=(len(sources) - 0.5, -0.8))
        ticks = [tick for tick in (1, 10, 100, 1000) if tick < 1.4 * max(reach, 1)]
        axes.set_xticks([*(-tick for tick in reversed(ticks)), 0, *ticks])
        axes.xaxis.set_major_formatter("{x:+g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yticks(range(len(sources)), sources, fontsize=8)
        plain(axes, "x")
    figure.supxlabel("axes are linear to ±1 and logarithmic beyond; diamonds are single runs", fontsize=8)
    return described(figure, f"Differences between groups of mixers. {'; '.join(said)}.")


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Pareto's front: the names for which no other costs as little and scores as much, cheapest first.

    points: {name: (cost, score)}; a lower cost is better, and a higher score. Of two equal points both are on it.
    """

    def beaten(name: str) -> bool:
        cost, score = points[name]
        return any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points.values())

    return sorted((name for name in points if not beaten(name)), key=lambda name: points[name])


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
    """Score over cost, a dot a network, and Pareto's front: what no other network beats in both.

    points: {name: (cost, score)}. chosen: one of the names, ringed, with `note` in a box. mixers: {name: mixer},
    for the colours; without it the names are mixers. spread: {name: standard deviation of the score over seeds}, drawn
    as a bar to either side, for those that have one. Raises UserError for no points.
    """
    if not points:
        raise UserError("pareto: no points")
    mixers, spread = mixers or {name: name for name in points}, spread or {}
    colour, best = colours(mixers.values()), front(points)
    figure = Figure(figsize=(8, 4.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.step(*zip(*(points[name] for name in best), strict=True), where="post", color="0.45", linewidth=1.3, zorder=1)
    for name, (x, y) in points.items():
        on = name in best
        if name in spread:
            axes.errorbar(x, y, spread[name], color=colour[mixers[name]], linewidth=1.3, capsize=3)
        axes.plot(
            x, y, "o", color=colour[mixers[name]], markersize=9 if on else 6.5, fillstyle="full" if on else "none"
        )
    if log:
        _log(axes, [x for x, _ in points.values()])
    else:
        axes.set_xlim(0, 1.08 * max(x for x, _ in points.values()))
        axes.xaxis.set_major_formatter(number)
    if chosen is not None:
        x, y = points[chosen]
        axes.plot(x, y, "o", color="black", markersize=16, fillstyle="none", markeredgewidth=1.6)
    box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "0.6"}
    if note:
        axes.text(0.985, 0.03, note, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, bbox=box)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    plain(axes)
    handles = [Line2D([], [], marker="o", linestyle="", color=shade, label=name) for name, shade in colour.items()]
    handles.append(Line2D([], [], color="0.45", label="front (filled)" + "\nbars: spread\nover seeds" * bool(spread)))
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    said = f" Chosen: {note or chosen}." if chosen else ""
    listed = ", ".join(
        f"{name} ({points[name][0]:.3g}, {points[name][1]:.1f}" + (f" ± {spread[name]:.1f})" if name in spread else ")")
        for name in best
    )
    return described(figure, f"{labels[1]} over {labels[0]}; on the front: {listed}.{said}".replace("\n", ", "))
