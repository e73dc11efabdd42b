"""Accuracies of networks over seeds, and the differences between them: of one mixer to another, of broken to whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stm_lab.figures.style import CHANCE, colours, described, grouped, plain
from stm_lab.stats import half_interval
from stm_lab.util.errors import UserError, check_known


def accuracy_dots(rows: Sequence[Mapping], baseline: str = "identity", *, chance: float | None = None) -> Figure:
    """Final accuracy, one dot a seed, and beside it the differences to `baseline`, paired by seed.

    The bar is the mean; the line through the differences is the mean's 95% interval (Student's t over seeds). Two seeds
    leave it so wide that it may run out of the panel: then an arrow head stands where it is cut, and beside the panel
    its ends as numbers. One seed has none. The panel of differences reaches at least a point to each side of 0.
    rows: dictionaries with mixer, seed and top1 (percent), one for each. chance: the accuracy of a guess, in percent.
    Raises UserError for no rows, a row that lacks a key, and a baseline that is not among the mixers.
    """
    runs = grouped(rows, ("mixer", "seed", "top1"), by=("mixer",))
    scores = {mixer: {row["seed"]: row["top1"] for row in run} for (mixer,), run in runs.items()}
    check_known("baseline", baseline, scores, where="accuracy_dots: ")
    differences = {
        mixer: {seed: top1 - scores[baseline][seed] for seed, top1 in by_seed.items() if seed in scores[baseline]}
        for mixer, by_seed in scores.items()
        if mixer != baseline
    }
    figure = Figure(figsize=(9.5, 1.3 + 0.42 * len(scores)), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1), sharey=True)
    place = {mixer: -i for i, mixer in enumerate(scores)}
    for mixer, colour in colours(scores).items():
        _dots(left, list(scores[mixer].values()), place[mixer], colour)
        _dots(right, list(differences.get(mixer, {}).values()), place[mixer], colour)

    left.set(xlabel="top-1 accuracy (%)", yticks=list(place.values()), yticklabels=list(place))
    left.set_ylim(-len(scores) + 0.4, 0.6)
    if chance is not None:
        left.axvline(chance, **CHANCE)
        above = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "bottom", "ha": "center"}
        left.annotate("chance", (chance, 1), (0, 2), **above, color="0.35", fontsize=8)
    right.axvline(0, color="0.3", linewidth=1)
    right.text(0, place[baseline], " baseline", color="0.35", fontsize=8, va="center")
    intervals = {}
    for mixer, by_seed in differences.items():
        half = half_interval(list(by_seed.values()))
        if half is not None:
            mean = np.mean(list(by_seed.values()))
            intervals[place[mixer], colours(scores)[mixer]] = (float(mean - half), float(mean + half))
    low, high = right.get_xlim()
    if low > -1 and high < 1:  # or differences of nothing but rounding, 1e-14, would look like large ones
        right.update_datalim([(-1, 0), (1, 0)])
        right.autoscale_view(scaley=False)
    _intervals(right, intervals)
    right.set_xlabel(f"difference to {baseline}, same seed (points)")
    for axes in (left, right):
        plain(axes, "x")
    said = []
    for mixer, by_seed in scores.items():
        mean, many = np.mean(list(by_seed.values())), "s" * (len(by_seed) > 1)
        said.append(f"{mixer} {mean:.1f}% ({len(by_seed)} seed{many})")
        if differences.get(mixer):
            said[-1] += f", {np.mean(list(differences[mixer].values())):+.1f} to {baseline}"
        if (ends := intervals.get((place[mixer], colours(scores)[mixer]))) is not None:
            said[-1] += ", 95% from {:+.1f} to {:+.1f}".format(*ends)
    return described(figure, f"Top-1 accuracy, means over seeds. {'; '.join(said)}.")


def accuracy_by_mistake(rows: Sequence[Mapping], *, chance: float | None = None) -> Figure:
    """What is left of trained networks whose operator has one line wrong: a dot a seed, in the order of the rows.

    rows: with mistake (a name; None for the operator as it was trained), seed and top1 in percent. The line down is the
    mean of those as trained. Beside each mistake stands what it costs, the mean over seeds of the difference to the
    same network as trained; and, where there are several seeds, how much these differences spread.
    Raises UserError for no rows, one that lacks a key, a mistake and seed that come twice, and a mistake with a seed
    that has no row as trained.
    """
    scores: dict[str | None, dict[object, float]] = {}
    for (name, seed), found in grouped(rows, ("mistake", "seed", "top1"), ("mistake", "seed")).items():
        if len(found) > 1:
            raise UserError(f"accuracy_by_mistake: {len(found)} rows of mistake {name!r} and seed {seed!r}")
        scores.setdefault(name, {})[seed] = found[0]["top1"]
    whole = scores.pop(None, {})
    if lacking := [f"seed {seed!r} ({name})" for name, found in scores.items() for seed in found if seed not in whole]:
        raise UserError(f"accuracy_by_mistake: no row with mistake None, as trained, of {lacking[0]}")
    mean = float(np.mean(list(whole.values())))
    figure = Figure(figsize=(8, 1.4 + 0.42 * len(scores)), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.axvline(mean, color="#0072B2", linewidth=2, label="as trained")
    if chance is not None:
        axes.axvline(chance, **CHANCE)
    said = []
    for line, (name, by_seed) in enumerate(scores.items()):
        left = list(by_seed.values())
        axes.plot([np.mean(left), mean], [line, line], color="0.6", linewidth=2, zorder=2)
        axes.plot(left, [line] * len(left), "o", color="#D55E00", markersize=8, zorder=3)
        cost = _change([top1 - whole[seed] for seed, top1 in by_seed.items()])
        axes.annotate(cost, (1.01, line), xycoords=("axes fraction", "data"), va="center")
        said.append(f"{name} {np.mean(left):.1f}%, {cost}")
    axes.set(yticks=range(len(scores)), yticklabels=list(scores), ylim=(len(scores) - 0.5, -0.5))
    axes.set(xlabel="top-1 accuracy (%), and what the mistake changes (points)", xlim=(0, 100))
    plain(axes, "x")
    figure.legend(loc="outside upper right", frameon=False, ncols=2)
    return described(figure, f"As trained {mean:.1f}%; with one line wrong: {'; '.join(said)}.")


def _change(differences: Sequence[float]) -> str:
    """Their mean, with their standard deviation where there are several."""
    spread = f" (sd {np.std(differences, ddof=1):.1f}, {len(differences)} seeds)" if len(differences) > 1 else ""
    return f"{np.mean(differences):+.1f}{spread}"


def _intervals(axes: Axes, intervals: Mapping[tuple[float, str], tuple[float, float]]) -> None:
    """A line for each interval, by place and colour; the panel grows by half on each side for them, not further.

    Where one is cut at the panel's edge stands an arrow head, and right of the panel the two ends as text.
    """
    low, high = map(float, axes.get_xlim())  # of the dots
    room = (low - (high - low) / 2, high + (high - low) / 2)
    for (place, colour), ends in intervals.items():
        axes.plot(ends, [place] * 2, color=colour, linewidth=1.4)
    low, high = map(float, axes.get_xlim())
    edges = (max(low, room[0]), min(high, room[1]))
    axes.set_xlim(edges)
    for (place, colour), ends in intervals.items():
        cut = [(edges[0], "<")] * (ends[0] < edges[0]) + [(edges[1], ">")] * (ends[1] > edges[1])
        for edge, head in cut:
            axes.plot(edge, place, head, color=colour, markersize=7, clip_on=False)
        if cut:
            numbers = "{:+.0f} .. {:+.0f}" if max(map(abs, ends)) >= 10 else "{:+.1f} .. {:+.1f}"
            beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
            axes.annotate(numbers.format(*ends), (1, place), (7, 0), **beside, color="0.25", fontsize=8)


def _dots(axes: Axes, values: Sequence[float], place: float, colour: str) -> None:
    """One ring a value, and a bar at their mean."""
    axes.plot(values, [place] * len(values), "o", color=colour, markersize=7, fillstyle="none", markeredgewidth=1.5)
    if values:
        axes.plot(np.mean(values), place, "|", color=colour, markersize=17, markeredgewidth=2.8)
