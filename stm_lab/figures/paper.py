"""The paper's figures, from data: accuracy by mixer and size, over costs, beside detection; and orders of mixers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from stm_lab.figures.cost import log_costs
from stm_lab.figures.draw import beside, board, named_rows
from stm_lab.figures.style import BLUE, RED, by_name, colours, described, dot, drawing, legend, plain, styles
from stm_lab.stats import kendall, pearson, pearson_interval, spearman

SCALES = ("nano", "micro", "tiny", "small", "base", "large")
_AREA = 9.0  # points^2 for a million parameters
_ABOVE = {"ha": "center", "va": "baseline", "fontsize": 7, "color": "0.25"}


@drawing
def accuracy_bubbles(rows: Sequence[Mapping], originals: Sequence[Mapping] = ()) -> Figure:
    """Accuracy by mixer, a bubble a network: filled for the unified one, a ring for the original of about its size.

    rows: dictionaries with mixer, scale, top1 (percent) and parameters; originals: with mixer, scale (the nearest one),
    model, top1 and parameters_m (millions). The area of a bubble is the number of parameters. The smallest scale has a
    panel and an axis of its own if it is more than three points below all others.
    """
    groups = by_name(rows, "mixer", "scale", "top1", "parameters")
    scales = [scale for scale in SCALES if any(row["scale"] == scale for row in rows)]
    low = [row["top1"] for row in rows if row["scale"] == scales[0]]
    others = [row["top1"] for row in (*rows, *originals) if row["scale"] != scales[0]]
    parts = [scales[:1], scales[1:]] if others and max(low) + 3 < min(others) else [scales]
    widths = [2 + len(part) for part in parts]
    figure, panels = board(len(parts), 2, (11 / len(parts), 5.2), width_ratios=widths)
    for axes, some in zip(panels, parts, strict=True):
        shown = [[row for row in each if row["scale"] in some] for each in (rows, originals)]
        _bubbles(axes, list(groups), some, *shown)
    panels[0].set_ylabel("ImageNet-1k top-1 accuracy (%)")
    entries = [dot("0.6", f"{millions} M", markersize=(_AREA * millions) ** 0.5) for millions in (5, 30, 90)]
    if originals:
        entries.append(dot("0.3", "original", markersize=(_AREA * 30) ** 0.5, markerfacecolor="none"))
    legend(figure, entries, labelspacing=1.8, handletextpad=1.6, fontsize=8, title="parameters")
    words = []
    for mixer, of in groups.items():
        theirs = [f"{one['model']} {one['top1']:.1f}%" for one in originals if one["mixer"] == mixer]
        words.append(f"{mixer}: " + ", ".join([f"{row['scale']} {row['top1']:.1f}%" for row in of] + theirs))
    return described(figure, "Accuracy by mixer and size. " + "; ".join(words) + ".")


def _bubbles(axes: Axes, mixers: list[str], scales: list[str], rows: list[Mapping], originals: list[Mapping]) -> None:
    """A column a mixer, in it a place for each scale."""
    step = 0.9 / len(scales)
    places = {(m, s): i + (j + 0.5) * step - 0.45 for i, m in enumerate(mixers) for j, s in enumerate(scales)}
    shade, rings = colours(mixers), {(one["mixer"], one["scale"]): one["top1"] for one in originals}
    for one in originals:
        at, size = (places[one["mixer"], one["scale"]], one["top1"]), _AREA * one["parameters_m"]
        axes.scatter(*at, s=size, facecolors="none", edgecolors=shade[one["mixer"]], linewidths=1.6)
    for row in rows:
        key = row["mixer"], row["scale"]
        at, size = (places[key], row["top1"]), _AREA * row["parameters"] / 1e6
        axes.scatter(*at, s=size, color=shade[row["mixer"]], alpha=0.75)
        ring = rings.get(key)
        _bubble_number(axes, at, above=ring is None or row["top1"] >= ring)
        if ring is not None:
            _bubble_number(axes, (at[0], ring), above=ring > row["top1"])
    axes.xaxis.remove_overlapping_locs = False  # the middle scale stands above its mixer's name
    axes.set_xticks(range(len(mixers)), [f"\n{mixer}" for mixer in mixers])
    axes.set_xticks(list(places.values()), [scale if len(scales) == 1 else scale[0] for _, scale in places], minor=True)
    axes.tick_params(axis="x", which="both", length=0)
    axes.tick_params(axis="x", which="minor", labelsize=7, labelcolor="0.4")
    axes.set_xlim(-0.6, len(mixers) - 0.4)
    axes.set_title(", ".join(f"{scale[0]}: {scale}" for scale in scales), fontsize=9)
    axes.margins(y=0.12)
    plain(axes, "y")


def _bubble_number(axes: Axes, at: tuple[float, float], above: bool) -> None:
    beside(axes, at, f"{at[1]:.1f}", (0, 15 if above else -15), **{**_ABOVE, "va": "bottom" if above else "top"})


@drawing
def accuracy_over_costs(rows: Sequence[Mapping], costs: Mapping[str, str], label: str = "top-1 accuracy (%)") -> Figure:
    """Accuracy over each of several costs, a panel a cost, a line a mixer from its smallest to its largest network.

    rows: dictionaries with mixer, top1 and the costs. costs: {key in the rows: label of its axis}; logarithmic axes.
    """
    groups = by_name(rows, "mixer", "top1", *costs)
    figure, panels = board(len(costs), len(costs), (3.6, 4), room=(1.4, 0), sharey=True)
    for axes, (key, name) in zip(panels, costs.items(), strict=True):
        for mixer, style in styles(groups).items():
            of = sorted(groups[mixer], key=lambda row: row[key])
            axes.plot([row[key] for row in of], [row["top1"] for row in of], "o", **style, linewidth=1.8, label=mixer)
        log_costs(axes, [row[key] for row in rows])
        axes.set_xlabel(name)
        plain(axes)
    panels[0].set_ylabel(label)
    legend(figure, panels[0])
    return figure


@drawing
def detection_over_classification(rows: Sequence[Mapping], key: str = "box_ap") -> Figure:
    """Detection over classification, a dot a network, its scale beside it, with the correlation and its 95% interval.

    rows: dictionaries with mixer, scale, top1 (percent) and `key` (AP in points). The dashed line is the least squares
    fit through all.
    """
    groups = by_name(rows, "mixer", "scale", "top1", key)
    figure, (axes,) = board(1, 1, (7.2, 4.8))
    for mixer, colour in colours(groups).items():
        x, y = ([row[name] for row in groups[mixer]] for name in ("top1", key))
        axes.plot(x, y, "o", color=colour, markersize=7, label=mixer)
    x, y = (np.array([row[name] for row in rows], dtype=float) for name in ("top1", key))
    slope, offset = np.polyfit(x, y, 1)
    ends = np.array([x.min(), x.max()])
    axes.plot(ends, offset + slope * ends, color="0.4", linestyle="--", linewidth=1.2, label=f"{slope:.2f} AP a point")
    low, high = pearson_interval(x, y)
    said = f"r = {pearson(x, y):.2f} (95% {low:.2f} to {high:.2f}), rank correlation {spearman(x, y):.2f}"
    axes.set_title(said, fontsize=10)
    for scale, of in by_name(rows, "scale").items():
        corner = max(row["top1"] for row in of), max(row[key] for row in of)
        beside(axes, corner, scale, (0, 9), ha="right", va="baseline", color="0.35")
    axes.set(xlabel="ImageNet-1k top-1 accuracy (%)", ylabel=f"COCO {key.replace('_ap', '')} AP (points)")
    plain(axes)
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    return described(figure, f"{key} over top-1 accuracy of {len(rows)} networks: {said}; {slope:.2f} points a point.")


@drawing
def orders(scores: Mapping[str, Mapping[str, float]]) -> Figure:
    """The order of the mixers by several lists of scores, a column each, the best on top, lines between them.

    scores: {list's title: {mixer: score}}. Under each title but the first: Kendall's tau with the first, over the
    mixers that both have. Raises UserError for no lists.
    """
    titles = list(scores)
    ranks = {title: sorted(of, key=of.get, reverse=True) for title, of in scores.items()}
    places = max(map(len, ranks.values()))
    figure, (axes,) = board(1, 1, (2.2 + 1.75 * len(titles), 1.8 + 0.36 * places))
    for name, style in styles(name for order in ranks.values() for name in order).items():
        at = [(column, ranks[title].index(name)) for column, title in enumerate(titles) if name in ranks[title]]
        axes.plot(*zip(*at, strict=True), **style, marker="o", linewidth=2, markersize=6)
        for column, row in at:
            said = f"{name} {scores[titles[column]][name]:.1f}"
            beside(axes, (column, row), said, (0, 7), ha="center", va="baseline", fontsize=7)
    labels = [titles[0]] + [f"{title}\n{_agreement(scores[titles[0]], scores[title])}" for title in titles[1:]]
    axes.set_xticks(range(len(titles)), labels, fontsize=8)
    axes.set_yticks(range(places), range(1, 1 + places))
    axes.set(xlim=(-0.5, len(titles) - 0.5), ylim=(places - 0.6, -0.8), ylabel="place")
    axes.spines[["top", "right"]].set_visible(False)
    words = [f"{label}: {' > '.join(ranks[title])}" for label, title in zip(labels, titles, strict=True)]
    return described(figure, "Orders, the best first. " + "; ".join(words).replace("\n", ", ") + ".")


def _agreement(first: Mapping[str, float], second: Mapping[str, float]) -> str:
    both = [name for name in first if name in second]
    if len(both) < 2 or any(len({of[name] for name in both}) < 2 for of in (first, second)):
        return "no order to compare"
    return f"tau {kendall([first[n] for n in both], [second[n] for n in both]):+.2f}, {len(both)} mixers"


@drawing
def intervals(
    rows: Sequence[Mapping], label: str, *, columns: int = 2, digits: int = 1, reach: float | None = None
) -> Figure:
    """Values with their intervals, a panel a claim, a row a source.

    rows: dictionaries with claim, source, value, and low, high (None for a single run, a diamond). digits: after the
    point. reach: where the axis ends to either side; by default it holds all, and is linear up to 1 to either side and
    logarithmic beyond, since intervals of a few seeds may be a hundred times as wide as others.
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
            beside(axes, (row["value"], line), f"{row['value']:+.{digits}f}", (0, 6), **_ABOVE)
        axes.set_title(claim, fontsize=9)
        axes.set_xlabel(label, fontsize=9)
        if reach is None:
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xticks([*(-tick for tick in reversed(ticks)), 0, *ticks])
            axes.xaxis.set_major_formatter("{x:+g}")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlim=(-end, end), ylim=(len(sources) - 0.5, -0.8))
    said = "diamonds are single runs"
    figure.supxlabel(said if reach else f"axes are linear to ±1 and logarithmic beyond; {said}", fontsize=8)
    words = []
    for row in rows:
        ends = "" if row["low"] is None else f" ({row['low']:+.{digits}f} to {row['high']:+.{digits}f})"
        words.append(", ".join(filter(None, (row["claim"], row["source"]))) + f": {row['value']:+.{digits}f}{ends}")
    return described(figure, f"{label}. {'; '.join(words)}.")
