"""Pure functions from numbers to matplotlib figures. No pyplot: nothing global is touched, and no figure lingers.

A mixer has one colour everywhere, of Okabe and Ito's palette that colour-blind readers tell apart; controls are dashed.
Values come as rows (dictionaries, as a run records them) or arrays, and are left as they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from stm_lab.errors import UserError, check_known
from stm_lab.measure.receptive import high_contribution_area, high_contribution_side

MIXER_COLOURS = {
    "halo": "#E69F00",
    "swin": "#0072B2",
    "pvt": "#009E73",
    "pvt_v2": "#56B4E9",
    "convnext": "#D55E00",
    "dcn_v3": "#CC79A7",
    "identity": "#000000",
    "pooling": "#8C8C8C",
}
OTHER_COLOURS = ("#882255", "#999933", "#332288", "#44AA99", "#AA4499", "#661100")  # Tol's muted: told apart as well
CONTROLS = ("identity", "pooling")
GRID = {"color": "0.9", "linewidth": 0.8}
CHANCE = {"color": "0.4", "linestyle": ":", "linewidth": 1.5, "label": "chance"}

# Student's t, 97.5%, for 1 to 10 degrees of freedom; with more the last is kept, up to 14% too wide.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name: a mixer's own, and for others the rest of the cycle in their order."""
    names = list(dict.fromkeys(names))
    others = dict(zip((n for n in names if n not in MIXER_COLOURS), itertools.cycle(OTHER_COLOURS), strict=False))
    return {name: MIXER_COLOURS.get(name) or others[name] for name in names}


def training_curves(
    rows: Sequence[Mapping], by: str = "mixer", *, chance: float | None = None, images: str | None = None
) -> Figure:
    """Accuracy and loss by epoch: thin lines are seeds, the bold one is their mean.

    rows: dictionaries with seed, epoch, top1 (percent) and loss, None where a value was not measured, and with what
    the curves are told apart `by`: the mixer, or the name of a setting.
    chance: the accuracy of a guess, in percent, a dotted line. images: what accuracy was measured on, for the axis.
    Raises UserError for no rows or one that lacks a key.
    """
    runs = _grouped(rows, (by, "seed", "epoch", "top1", "loss"), by=(by, "seed"))
    colour = colours(name for name, _ in runs)
    figure = Figure(figsize=(9.5, 3.6), dpi=120, layout="constrained")
    panels = zip(figure.subplots(1, 2), ("top1", "loss"), (_accuracy_label(images), "training loss"), strict=True)
    for axes, key, label in panels:
        for group, style in _styles(colour).items():
            curves = []
            for run in (run for (name, _), run in runs.items() if name == group):
                curves.append({row["epoch"]: row[key] for row in run if row[key] is not None})
                if len(curves[-1]):
                    axes.plot(*zip(*sorted(curves[-1].items()), strict=True), **style, linewidth=0.8, alpha=0.45)
            epochs = sorted(set.intersection(*map(set, curves)))  # of the epochs that every seed has
            mean = [np.mean([curve[epoch] for curve in curves]) for epoch in epochs]
            axes.plot(epochs, mean, **style, linewidth=2.2, label=group)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
    accuracy = figure.axes[0]
    if chance is not None:
        accuracy.axhline(chance, **CHANCE)
    _legend_beside(figure, accuracy)
    return figure


def compared_curves(runs: Mapping[str, Sequence[Mapping]]) -> Figure:
    """Accuracy by epoch, a panel for each of several runs, on the same axes: thin lines are seeds, bold ones means.

    runs: by name the rows of each, dictionaries with mixer (or another name of a curve, which has the same colour in
    all panels), seed, epoch and top1 (percent, None where it was not measured). A run may have no rows.
    Raises UserError if no run has rows, or a row lacks a key.
    """
    names = dict.fromkeys(row["mixer"] for rows in runs.values() for row in rows if "mixer" in row)
    styles = _styles(colours(names))
    for place, name in enumerate(name for name in names if name not in MIXER_COLOURS):
        styles[name]["linestyle"] = ("-", "--", ":")[place // len(OTHER_COLOURS) % 3]  # where colours come again
    if not styles:
        _grouped([], (), ())  # raises
    figure = Figure(figsize=(1.6 + 4.2 * len(runs), 3.8), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(runs), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (title, rows) in zip(panels, runs.items(), strict=True):
        grouped = _grouped(rows, ("mixer", "seed", "epoch", "top1"), by=("mixer", "seed")) if rows else {}
        for name, style in styles.items():
            curves = [
                {row["epoch"]: row["top1"] for row in run if row["top1"] is not None}
                for (mixer, _), run in grouped.items()
                if mixer == name
            ]
            _seeds_and_mean(axes, curves, style)
        if not rows:
            axes.text(0.5, 0.5, "no training curves", transform=axes.transAxes, ha="center", color="0.35")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
    panels[0].set_ylabel("top-1 accuracy (%)")
    handles = [Line2D([], [], **style, linewidth=2.2, label=name) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    return figure


def _seeds_and_mean(axes: Axes, curves: Sequence[Mapping[float, float]], style: Mapping) -> None:
    """Curves {epoch: value} of one name: each a thin line, and bold their mean at the epochs that all have."""
    if not curves:
        return
    for curve in curves if len(curves) > 1 else ():
        axes.plot(*zip(*sorted(curve.items()), strict=True), **style, linewidth=0.8, alpha=0.45)
    epochs = sorted(set.intersection(*map(set, curves)))
    mean = [np.mean([curve[epoch] for curve in curves]) for epoch in epochs]
    axes.plot(epochs, mean, **style, linewidth=2.2, marker="o" if len(epochs) == 1 else None)


def run_curves(
    rows: Sequence[Mapping], *, epochs: float | None = None, chance: float | None = None, images: str = "validation"
) -> Figure:
    """One run by epoch, whole or still going on: its losses, its accuracies, and the norm of its gradient.

    rows: those of a `stm_lab.train.Result`. `epochs`: where the axis ends, so that it stays while the curves grow.
    chance: the accuracy of a guess, in percent, a dotted line. images: what the run was validated on.
    Raises UserError for no rows or one that lacks a key.
    """
    panels = {
        "cross-entropy": {"loss": "while training", "validation_loss": f"on {images}"},
        _accuracy_label(images): {"top1": "saved weights", "top1_raw": "last step's weights"},
        "norm of the gradient": {"grad_norm": "mean", "grad_norm_max": "largest"},
    }
    keys = [key for lines in panels.values() for key in lines]
    (rows,) = _grouped(rows, ("epoch", *keys), by=()).values()
    figure = Figure(figsize=(11, 3.2), dpi=120, layout="constrained")
    for axes, (label, lines) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for (key, name), colour, line in zip(lines.items(), ("#0072B2", "#D55E00"), ("o-", "s--"), strict=True):
            values = [row[key] for row in rows]
            axes.plot([row["epoch"] for row in rows], values, line, color=colour, markersize=4, label=name)
        if chance is not None and "top1" in lines:
            axes.axhline(chance, **CHANCE)
        axes.set(xlabel="epoch", ylabel=label, xlim=(0, epochs and 1.03 * epochs))  # room for the last marker
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
        axes.legend(frameon=False, fontsize=8)
    return figure


def learning_rates(schedules: Mapping[str, Sequence[float]]) -> Figure:
    """Learning rates over the whole of a run, long or short: schedules hold that of each step, by name.

    Raises UserError for no schedules.
    """
    if not schedules:
        raise UserError("learning_rates: no schedules")
    figure = Figure(figsize=(7.5, 3.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for (name, rates), line in zip(schedules.items(), itertools.cycle(("-", "--", ":")), strict=False):
        share = 100 * np.arange(len(rates)) / max(len(rates) - 1, 1)
        axes.plot(share, rates, line, color=colours(schedules)[name], linewidth=2.2, label=name)
    axes.set(xlabel="steps done (% of the run)", ylabel="learning rate", xlim=(0, 100))
    axes.set_ylim(bottom=0)
    _plain(axes)
    _legend_beside(figure, axes)
    return figure


def receptive_fields(maps: Mapping[str, np.ndarray]) -> Figure:
    """One panel a mixer: the share of its contribution that each pixel makes, on one logarithmic scale for all.

    maps: (H, W) contributions, not negative, as `effective_receptive_field` gives; each is divided by its sum. The
    white square is the smallest centred one that holds half of it, the title its share of the image.
    Raises UserError for no maps or an empty one.
    """
    if not maps:
        raise UserError("receptive_fields: no maps")
    side = {name: high_contribution_side(contribution, 0.5) for name, contribution in maps.items()}
    shares = {name: contribution / contribution.sum() for name, contribution in maps.items()}
    top = max(share.max() for share in shares.values())
    # Four decades: a pixel below is as dark as one without any.
    norm = LogNorm(top * 1e-4, top, clip=True)

    columns, lines = min(len(maps), 6), math.ceil(len(maps) / 6)
    figure = Figure(figsize=(1.0 + 1.9 * columns, 2.3 * lines), dpi=120, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (name, share) in zip(grid, shares.items(), strict=False):
        height, width = share.shape
        # Pixels without any contribution are raised to the scale's foot: the logarithm of 0 would leave holes.
        image = axes.imshow(np.maximum(share, norm.vmin), norm=norm, cmap="inferno", interpolation="nearest")
        corner = (width // 2 - side[name] / 2, height // 2 - side[name] / 2)
        axes.add_patch(Rectangle(corner, side[name], side[name], fill=False, edgecolor="white", linewidth=1.1))
        axes.set_title(f"{name}\n50% in {100 * high_contribution_area(maps[name], 0.5):.1f}% of area", fontsize=9)
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axes.set_xticks([0, width - 1])
        axes.set_yticks([0, height - 1])
        axes.tick_params(labelsize=7, length=2)
        axes.set_xlabel("input pixel", fontsize=8, labelpad=-7)  # between the two numbers
    for axes in grid[len(maps) :]:
        axes.remove()
    bar = figure.colorbar(image, ax=list(grid[: len(maps)]), shrink=0.75, aspect=22, pad=0.015)
    bar.set_label("share of contribution", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def consistency_curves(curves: Mapping[str, object]) -> Figure:
    """How often the answer stays as the picture moves, by mixer.

    curves: for each mixer a result of `invariance`, or a pair (strengths, values): strengths (S,) in pixels, values in
    percent, (S,), or (runs, S), of which the mean is drawn and, shaded, the range.
    Raises UserError for no curves and for values that do not fit their strengths.
    """
    if not curves:
        raise UserError("consistency_curves: no curves")
    figure = Figure(figsize=(6.6, 3.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, style in _styles(colours(curves)).items():
        strengths, values = _consistency(name, curves[name])
        axes.plot(strengths, values.mean(0), **style, linewidth=2, marker="o", markersize=3.5, label=name)
        if len(values) > 1:
            axes.fill_between(strengths, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0)
    axes.set(xlabel="shift (pixels along each moved axis)", ylabel="same answer as unshifted (%)")
    axes.set_xlim(left=0)
    axes.set_ylim(top=101)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes)
    _legend_beside(figure, axes)
    return figure


def _consistency(name: str, curve: object) -> tuple[np.ndarray, np.ndarray]:
    """Strengths (S,) and values (runs, S)."""
    if hasattr(curve, "consistency"):
        curve = (curve.strengths, curve.consistency)
    strengths, values = (np.asarray(part, dtype=float) for part in curve)
    values = np.atleast_2d(values)
    if strengths.shape != values.shape[1:]:
        raise UserError(f"consistency_curves: {name} has strengths {strengths.shape} for values {values.shape}")
    return strengths, values


def accuracy_dots(rows: Sequence[Mapping], baseline: str = "identity", *, chance: float | None = None) -> Figure:
    """Final accuracy, one dot a seed, and beside it the differences to `baseline`, paired by seed.

    The bar is the mean; the line through the differences is the mean's 95% interval (Student's t over seeds). Two seeds
    leave it so wide that it may run out of the panel: then an arrow head stands where it is cut, and beside the panel
    its ends as numbers. One seed has none.
    rows: dictionaries with mixer, seed and top1 (percent), one for each. chance: the accuracy of a guess, in percent.
    Raises UserError for no rows, a row that lacks a key, and a baseline that is not among the mixers.
    """
    runs = _grouped(rows, ("mixer", "seed", "top1"), by=("mixer",))
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
        half = _interval(list(by_seed.values()))
        if half is not None:
            mean = np.mean(list(by_seed.values()))
            intervals[place[mixer], colours(scores)[mixer]] = (float(mean - half), float(mean + half))
    _intervals(right, intervals)
    right.set_xlabel(f"difference to {baseline}, same seed (points)")
    for axes in (left, right):
        _plain(axes, "x")
    return figure


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


def _interval(values: Sequence[float]) -> float | None:
    """Half the 95% interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    t = T_975[min(len(values) - 1, len(T_975)) - 1]
    return float(t * np.std(values, ddof=1) / np.sqrt(len(values)))


def image_grid(images: Sequence, titles: Sequence[str], columns: int = 8) -> Figure:
    """A contact sheet: small images with their names.

    images: a tensor (N, 3, H, W), uint8 or in [0, 1], or N pictures (H, W, 3), PIL's too; titles: N names.
    Raises UserError for no images and for another number of titles.
    """
    if len(images) == 0 or len(images) != len(titles):
        raise UserError(f"image_grid: {len(images)} images with {len(titles)} titles; expected one each")
    columns = min(columns, len(images))
    lines = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.25 * columns, 1.45 * lines), dpi=120, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, title in zip(grid, images, titles, strict=False):
        pixels = np.asarray(image)
        axes.imshow(pixels.transpose(1, 2, 0) if pixels.shape[0] == 3 else pixels, interpolation="nearest")
        axes.set_title(title, fontsize=8, pad=3)
    return figure


def cost_by_part(rows: Sequence[Mapping]) -> Figure:
    """Parameters and multiply-adds of each part of a model, as shares of the whole, with the numbers.

    rows: dictionaries with model, part, parameters, macs, and a last one called total, as `cost` gives.
    """
    *parts, total = rows
    figure = Figure(figsize=(9.5, 1.3 + 0.3 * len(parts)), dpi=120, layout="constrained")
    panels = zip(figure.subplots(1, 2, sharey=True), ("parameters", "macs"), ("parameters", "MACs"), strict=True)
    number = EngFormatter(places=2, sep=" ")
    for axes, key, label in panels:
        shares = [100 * row[key] / max(total[key], 1) for row in parts]
        bars = axes.barh([row["part"] for row in parts], shares, color="#0072B2", height=0.65)
        axes.bar_label(bars, [number(row[key]) for row in parts], padding=4, fontsize=8)
        axes.set(xlabel=f"share of {number(total[key])} {label} (%)", xlim=(0, 1.2 * max(shares)))
        _plain(axes, "x")
    axes.invert_yaxis()  # shared: the first part on top in both
    figure.suptitle(total["model"], fontsize=10)
    return figure


def throughput_repeats(model: str, repeats: Sequence[float]) -> Figure:
    """Images a second in each repeat, with their median: level if the machine was left alone."""
    figure = Figure(figsize=(6, 3), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(repeats) + 1), repeats, "o", color="#0072B2")
    axes.axhline(np.median(repeats), color="#D55E00", linewidth=1.5, label=f"median {np.median(repeats):.4g}")
    axes.set(xlabel="repeat", ylabel="images per second", title=model)
    axes.set_ylim(0, 1.15 * max(repeats))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes, "y")
    axes.legend(frameon=False)
    return figure


def _accuracy_label(images: str | None) -> str:
    return f"top-1 accuracy (%)\non {images}" if images else "top-1 accuracy (%)"


def _grouped(rows: Sequence[Mapping], keys: Sequence[str], by: Sequence[str]) -> dict[tuple, list[Mapping]]:
    """Rows by the values of `by`, in order of appearance, once it is sure that each has all `keys`."""
    if not rows:
        raise UserError("no rows to draw")
    groups: dict[tuple, list[Mapping]] = {}
    for i, row in enumerate(rows):
        for key in keys:
            if key not in row:
                raise UserError(f"row {i}: no {key!r}, only {', '.join(row)}")
        groups.setdefault(tuple(row[key] for key in by), []).append(row)
    return groups


def _styles(colour: Mapping[str, str]) -> dict[str, dict]:
    return {name: {"color": c, "linestyle": "--" if name in CONTROLS else "-"} for name, c in colour.items()}


def _plain(axes: Axes, grid: str = "both") -> None:
    """No frame but the two axes, and a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, **GRID)
    axes.set_axisbelow(True)


def _legend_beside(figure: Figure, axes: Axes) -> None:
    """A legend to the right of the panels, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    handles = [Line2D([], [], color=h.get_color(), linestyle=h.get_linestyle(), linewidth=2.2) for h in handles]
    figure.legend(handles, labels, loc="outside right center", frameon=False)


def leaders_by_seed(
    scores: Mapping[str, Mapping[int, float]], label: str = "top-1 accuracy (%)", *, highest: bool = True
) -> Figure:
    """Every run, a column a seed, those of one name joined by a line; a ring is round the best of each seed.

    scores: {seed: value} by name. highest: whether that is the highest value. Raises UserError for no scores.
    """
    if not any(scores.values()):
        raise UserError("leaders_by_seed: no scores")
    figure = Figure(figsize=(7.5, 3.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    for (name, style), marker in zip(_styles(colours(scores)).items(), itertools.cycle("os^Dvx"), strict=False):
        seeds = sorted(scores[name])
        axes.plot(seeds, [scores[name][seed] for seed in seeds], **style, marker=marker, linewidth=1.2, label=name)
    seeds = sorted({seed for by_seed in scores.values() for seed in by_seed})
    pick = max if highest else min
    best = [pick(by_seed[seed] for by_seed in scores.values() if seed in by_seed) for seed in seeds]
    axes.plot(seeds, best, "o", color="0.2", markersize=16, fillstyle="none", markeredgewidth=1.2)
    axes.set(xlabel="seed (ring: the winner of this seed)", ylabel=label, xticks=seeds)
    _plain(axes, "y")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    return figure


def interval_by_seeds(differences: Sequence[float], label: str = "difference (points)") -> Figure:
    """The mean difference after 1, 2, 3 ... seeds with its 95% interval (Student's t), and each seed's own.

    differences: in the order in which the seeds came. The axis is that of the dots and of the interval of three seeds:
    that of two runs out of it. Raises UserError for fewer than two.
    """
    if len(differences) < 2:
        raise UserError(f"interval_by_seeds: {len(differences)} differences; an interval takes two")
    figure = Figure(figsize=(7.5, 3.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    counts = range(1, len(differences) + 1)
    means = [float(np.mean(differences[:n])) for n in counts]
    halves = {n: _interval(differences[:n]) for n in counts[1:]}
    for n, half in halves.items():
        is_clear = abs(means[n - 1]) > half
        ends = [means[n - 1] - half, means[n - 1] + half]
        axes.plot([n, n], ends, color="#D55E00" if is_clear else "#0072B2", linewidth=5, alpha=0.45)
    axes.plot(counts, means, "s-", color="#0072B2", label="mean so far, with its 95% interval")
    axes.plot(counts, differences, "o", color="0.25", fillstyle="none", label="this seed's own difference")
    axes.axhline(0, color="0.3", linewidth=1)
    intervals = [abs(means[n - 1]) + half for n, half in halves.items() if n > 2]
    reach = 1.1 * max(*map(abs, differences), *intervals)
    axes.set(xlabel="seeds so far", ylabel=label, xticks=list(counts), ylim=(-reach, reach))
    _plain(axes, "y")
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    return figure


def shares_by_seeds(shares: Mapping[str, Mapping[int, float]]) -> Figure:
    """How often something is said by so many seeds: shares in percent {number of seeds: share}, by what is said."""
    figure = Figure(figsize=(7.5, 3.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    styles = zip(("#0072B2", "#D55E00", "#009E73", "#000000"), ("o-", "s--", "^:", "D-."), strict=True)
    for (name, by_count), (colour, line) in zip(shares.items(), styles, strict=False):
        axes.plot(list(by_count), list(by_count.values()), line, color=colour, linewidth=2, label=name)
    axes.set(xlabel="seeds in a subset", ylabel="subsets (%)", ylim=(-3, 103))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def seeds_needed(needed: Mapping[str, Mapping[float, int]], have: int | None = None, *, unit: str = "points") -> Figure:
    """How many seeds tell a true difference: {difference: seeds} by name, on logarithmic axes.

    have: a number of seeds to mark, of those that are there.
    """
    figure = Figure(figsize=(7.5, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    styles = zip(("#0072B2", "#D55E00"), ("o-", "s--"), strict=True)
    for (name, by_size), (colour, line) in zip(needed.items(), styles, strict=False):
        axes.plot(list(by_size), list(by_size.values()), line, color=colour, linewidth=2, markersize=5, label=name)
    if have is not None:
        axes.axhline(have, color="0.4", linestyle=":", linewidth=1.5, label=f"the {have} seeds that we have")
    axes.set(xscale="log", yscale="log", xlabel=f"true difference ({unit})", ylabel="seeds for each of the two")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    _plain(axes)
    axes.legend(frameon=False, fontsize=8)
    return figure


def paired_scores(ours: Mapping[int, float], theirs: Mapping[int, float], labels: tuple[str, str]) -> Figure:
    """One dot a seed that both have, the one's value over the other's; on the line they are equal."""
    seeds = [seed for seed in ours if seed in theirs]
    values = [ours[seed] for seed in seeds] + [theirs[seed] for seed in seeds]
    margin = 0.1 * (max(values) - min(values) or 1)
    ends = (min(values) - margin, max(values) + margin)
    figure = Figure(figsize=(4.4, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(ends, ends, color="0.4", linewidth=1)
    for seed in seeds:
        axes.plot(theirs[seed], ours[seed], "o", color="#0072B2")
        axes.annotate(str(seed), (theirs[seed], ours[seed]), xytext=(5, 3), textcoords="offset points", fontsize=8)
    aside = {"xytext": (12, 3), "textcoords": "offset points", "rotation": 45, "color": "0.35", "fontsize": 8}
    axes.annotate("equal", (ends[0], ends[0]), **aside)
    axes.set(xlabel=labels[1], ylabel=labels[0], xlim=ends, ylim=ends, aspect="equal")
    _plain(axes)
    return figure


def lucky_leads(leads: Mapping[str, Sequence[float]], seen: Mapping[str, float], label: str) -> Figure:
    """Histograms of the lead that chance alone gives, a panel each, and a line at the one that was seen."""
    figure = Figure(figsize=(9.5, 3.0), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(leads), sharex=True, squeeze=False)[0]
    low = min(np.quantile(values, 0.001) for values in leads.values())
    high = max(*(np.quantile(values, 0.999) for values in leads.values()), *seen.values())
    edges = np.linspace(low, high + 0.05 * (high - low), 40)
    for axes, (name, values) in zip(panels, leads.items(), strict=True):
        axes.hist(values, edges, weights=np.full(len(values), 100 / len(values)), color="#56B4E9")
        if name in seen:
            axes.axvline(seen[name], color="#D55E00", linewidth=2)
            axes.text(seen[name], 0.97, " seen", color="#A03F00", va="top", transform=axes.get_xaxis_transform())
        axes.margins(y=0.2)  # room for the word
        axes.set_title(name, fontsize=10)
        _plain(axes, "y")
    panels[0].set_ylabel("simulated sweeps (%)")
    figure.supxlabel(label, fontsize=10)
    return figure
