"""Accuracies of networks over seeds, and what differences between them tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from stm_lab.figures.draw import beside, board, dots, named_rows
from stm_lab.figures.style import BLUE, CHANCE, RED, by_name, colours, described, dot, drawing, legend
from stm_lab.stats import half_interval
from stm_lab.util.errors import UserError, check_known


@drawing
def accuracy_dots(rows: Sequence[Mapping], baseline: str = "identity", *, chance: float | None = None) -> Figure:
    """Final accuracy, one dot a seed, and beside it the differences to `baseline`, paired by seed.

    The bar is the mean; the line through the differences is the mean's 95% interval (Student's t over seeds; none for
    one seed). An arrowhead marks an interval that leaves the panel; its limits are printed beside it. The panel of
    differences reaches at least one point to each side of 0.
    rows: dictionaries with mixer, seed and top1 (percent), one for each. chance: the accuracy of a guess, in percent.
    Raises UserError for no rows, a row that lacks a key, and a baseline that is not among the mixers.
    """
    runs = by_name(rows, "mixer", "seed", "top1")
    scores = {mixer: {row["seed"]: row["top1"] for row in run} for mixer, run in runs.items()}
    check_known("baseline", baseline, scores, where="accuracy_dots: ")
    differences = {
        mixer: [top1 - scores[baseline][seed] for seed, top1 in by_seed.items() if seed in scores[baseline]]
        for mixer, by_seed in scores.items()
        if mixer != baseline
    }
    figure, (left, right) = board(
        2, 2, (4.75, 0.42 * len(scores)), room=(0, 1.3), width_ratios=(1.1, 1), sharey=True
    )
    intervals, said = {}, []
    for row, (mixer, colour) in enumerate(colours(scores).items()):
        mean, values = np.mean(list(scores[mixer].values())), differences.get(mixer, [])
        said.append(f"{mixer} {mean:.1f}% ({len(scores[mixer])} seed{'s' * (len(scores[mixer]) > 1)})")
        _rings_and_mean(left, list(scores[mixer].values()), row, colour)
        _rings_and_mean(right, values, row, colour)
        if values:
            said[-1] += f", {np.mean(values):+.1f} to {baseline}"
        if (half := half_interval(values)) is not None:
            low, high = intervals[row, colour] = float(np.mean(values) - half), float(np.mean(values) + half)
            said[-1] += f", 95% from {low:+.1f} to {high:+.1f}"
    if chance is not None:
        left.axvline(chance, **CHANCE)
        top = {"xycoords": ("data", "axes fraction"), "va": "bottom", "ha": "center", "color": "0.35"}
        beside(left, (chance, 1), "chance", (0, 2), **top)
    right.axvline(0, color="0.3", linewidth=1)
    right.text(0, list(scores).index(baseline), " baseline", color="0.35", fontsize=8, va="center")
    low, high = right.get_xlim()
    if low > -1 and high < 1:  # otherwise differences of rounding alone, 1e-14, would look large
        right.update_datalim([(-1, 0), (1, 0)])
        right.autoscale_view(scaley=False)
    _intervals(right, intervals)
    left.set_xlabel("top-1 accuracy (%)")
    right.set_xlabel(f"difference to {baseline}, same seed (points)")
    for axes in (left, right):
        named_rows(axes, list(scores))
    return described(figure, f"Top-1 accuracy, means over seeds. {'; '.join(said)}.")


def _rings_and_mean(axes: Axes, values: Sequence[float], row: int, colour: str) -> None:
    axes.plot(values, [row] * len(values), "o", color=colour, markersize=7, fillstyle="none", markeredgewidth=1.5)
    if values:
        axes.plot(np.mean(values), row, "|", color=colour, markersize=17, markeredgewidth=2.8)


def _intervals(axes: Axes, intervals: Mapping[tuple[int, str], tuple[float, float]]) -> None:
    """A line for each interval, by row and colour; the panel grows by at most half its width to each side for them.

    An interval that is cut at the panel's edge has an arrowhead there, and its limits to the right of the panel.
    """
    low, high = map(float, axes.get_xlim())  # of the dots
    room = (low - (high - low) / 2, high + (high - low) / 2)
    for (row, colour), ends in intervals.items():
        axes.plot(ends, [row] * 2, color=colour, linewidth=1.4)
    low, high = map(float, axes.get_xlim())
    edges = (max(low, room[0]), min(high, room[1]))
    axes.set_xlim(edges)
    for (row, colour), ends in intervals.items():
        cut = [(edges[0], "<")] * (ends[0] < edges[0]) + [(edges[1], ">")] * (ends[1] > edges[1])
        for edge, head in cut:
            axes.plot(edge, row, head, color=colour, markersize=7, clip_on=False)
        if cut:
            limits = "{:+.0f} .. {:+.0f}" if max(map(abs, ends)) >= 10 else "{:+.1f} .. {:+.1f}"
            beside(axes, (1, row), limits.format(*ends), (7, 0), xycoords=("axes fraction", "data"), color="0.25")


@drawing
def accuracy_by_mistake(rows: Sequence[Mapping], *, chance: float | None = None) -> Figure:
    """What is left of trained networks whose operator has one wrong line: a dot a seed, in the order of the rows.

    rows: with mistake (a name; None for the operator as it was trained), seed and top1 in percent. The upright line is
    the mean of those as trained. Beside each mistake stands its cost: the mean over seeds of the difference to the same
    network as trained, and the standard deviation of several seeds' differences.
    Raises UserError for no rows, a row that lacks a key, a mistake and seed that come twice, and a mistake with a seed
    that has no row as trained.
    """
    scores: dict[str | None, dict[object, float]] = {}
    for name, found in by_name(rows, "mistake", "seed", "top1").items():
        scores[name] = {row["seed"]: row["top1"] for row in found}
        if len(scores[name]) < len(found):
            raise UserError(f"accuracy_by_mistake: mistake {name!r} has several rows of one seed")
    whole = scores.pop(None, {})
    if lacking := [f"seed {seed!r} ({name})" for name, found in scores.items() for seed in found if seed not in whole]:
        raise UserError(f"accuracy_by_mistake: no row with mistake None, as trained, of {lacking[0]}")
    mean = float(np.mean(list(whole.values())))
    figure, (axes,) = board(1, 1, (8, 1.4 + 0.42 * len(scores)), dpi=110)
    axes.axvline(mean, color=BLUE, linewidth=2, label="as trained")
    if chance is not None:
        axes.axvline(chance, **CHANCE)
    said = []
    for row, (name, by_seed) in enumerate(scores.items()):
        left = list(by_seed.values())
        axes.plot([np.mean(left), mean], [row, row], color="0.6", linewidth=2, zorder=2)
        dots(axes, left, row, RED, size=8)
        cost = _change([top1 - whole[seed] for seed, top1 in by_seed.items()])
        axes.annotate(cost, (1.01, row), xycoords=("axes fraction", "data"), va="center")
        said.append(f"{name} {np.mean(left):.1f}%, {cost}")
    named_rows(axes, list(scores))
    axes.set(xlabel="top-1 accuracy (%), and what the mistake changes (points)", xlim=(0, 100))
    legend(figure, axes, "upper right", ncols=2)
    return described(figure, f"As trained {mean:.1f}%; with one line wrong: {'; '.join(said)}.")


def _change(differences: Sequence[float]) -> str:
    """Their mean, with their standard deviation if they are several."""
    spread = f" (sd {np.std(differences, ddof=1):.1f}, {len(differences)} seeds)" if len(differences) > 1 else ""
    return f"{np.mean(differences):+.1f}{spread}"


@drawing
def switched_off(rows: Sequence[Mapping], *, chance: float | None = None) -> Figure:
    """What is left of trained networks when their mixers are switched off: two dots a mixer, and a line between them.

    rows: with mixer, on and off (top-1 accuracy in percent); those of one mixer are averaged.
    """
    by_mixer = by_name(rows, "mixer", "on", "off")
    figure, (axes,) = board(1, 1, (7.5, 1.3 + 0.38 * len(by_mixer)), dpi=110)
    for row, (name, colour) in enumerate(colours(by_mixer).items()):
        on, off = (float(np.mean([one[key] for one in by_mixer[name]])) for key in ("on", "off"))
        axes.plot([off, on], [row, row], color=colour, linewidth=2, zorder=2)
        dots(axes, [on], row, colour, size=9)
        dots(axes, [off], row, colour, hollow=True, size=9)
    entries = [dot("0.3", "as trained"), dot("0.3", "mixers\nswitched off", markerfacecolor="white")]
    if chance is not None:
        entries.append(axes.axvline(chance, **CHANCE))
    named_rows(axes, list(by_mixer))
    axes.set(xlabel="top-1 accuracy (%)", xlim=(0, None))
    legend(figure, entries)
    return figure


@drawing
def intervals(
    rows: Sequence[Mapping], label: str, *, columns: int = 2, digits: int = 1, reach: float | None = None
) -> Figure:
    """Values with their intervals, a panel a claim, a row a source.

    rows: dictionaries with claim, source, value, and low, high (None without an interval: a diamond). digits: after the
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
