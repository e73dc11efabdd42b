"""Scores of networks: while they train, over seeds, with a wrong line, and as images change more and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from stm_lab.figures.draw import beside, board, dots, line_panels, lines, named_rows, whole_steps
from stm_lab.figures.style import (
    BLUE,
    CHANCE,
    RED,
    by_name,
    colours,
    curves_of,
    described,
    drawing,
    legend,
    plain,
    styles,
)
from stm_lab.stats import half_interval
from stm_lab.util.errors import UserError, check_known

NAMES = {"fgsm": "FGSM", "pgd": "PGD", "noise": "noise", "linf": "L∞", "l2": "L2"}
AXES = {
    "translation": "shift (pixels along each moved axis)",
    "rotation": "rotation before the crop (degrees)",
    "rotation_after_crop": "rotation after the crop (degrees)",
    "scale": "size of the content (times as large)",
}
SAME = "same answer as for the standard view (%)"
MEASURED = ("corruptions", "severities", "table")  # what results of corruptions that are compared have in common

# ---- training --------------------------------------------------------------------------------------------------------


@drawing
def training_curves(
    rows: Sequence[Mapping], by: str = "mixer", *, chance: float | None = None, images: str | None = None
) -> Figure:
    """Accuracy and loss by epoch: thin lines are seeds, the bold one is their mean.

    rows: dictionaries with seed, epoch, top1 (percent), loss, and `by`, which names the curve: the mixer, or a setting.
    A value that was not measured is None. chance: the accuracy of a guess, in percent. images: those that accuracy was
    measured on, for the axis.
    """
    by_name(rows, by, "seed", "epoch", "top1", "loss")
    figure, panels = board(2, 2, (4.75, 3.6))
    drawn = styles(row[by] for row in rows)
    for axes, key, label in zip(panels, ("top1", "loss"), (_accuracy(images), "training loss"), strict=True):
        _seeds_and_means(axes, rows, by, key, drawn)
        axes.set(xlabel="epoch", ylabel=label)
    if chance is not None:
        panels[0].axhline(chance, **CHANCE)
    legend(figure, panels[0])
    return figure


@drawing
def compared_curves(runs: Mapping[str, Sequence[Mapping]]) -> Figure:
    """Accuracy by epoch, a panel for each of several runs, on the same axes: thin lines are seeds, bold ones means.

    runs: rows by the run's name, dictionaries with mixer (or another name of a curve), seed, epoch and top1 (percent,
    None where it was not measured). A run may have no rows. Raises UserError if no run has rows, or a row lacks a key.
    """
    every = [row for rows in runs.values() for row in rows]
    by_name(every, "mixer", "seed", "epoch", "top1")
    drawn = styles(row["mixer"] for row in every)
    figure, panels = board(len(runs), len(runs), (4.2, 3.8), room=(1.6, 0), sharex=True, sharey=True)
    for axes, (title, rows) in zip(panels, runs.items(), strict=True):
        _seeds_and_means(axes, rows, "mixer", "top1", drawn)
        if not rows:
            axes.text(0.5, 0.5, "no training curves", transform=axes.transAxes, ha="center", color="0.35")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
    panels[0].set_ylabel("top-1 accuracy (%)")
    legend(figure, [Line2D([], [], **style, linewidth=2.2, label=name) for name, style in drawn.items()])
    return figure


def _seeds_and_means(
    axes: Axes, rows: Sequence[Mapping], by: str, key: str, drawn: Mapping[str, Mapping[str, str]]
) -> None:
    """For each name a thin line a seed, and a bold one for their mean at the epochs that all seeds have."""
    for name, style in drawn.items():
        curves: dict[object, dict[float, float]] = {}
        for row in (row for row in rows if row[by] == name):
            curve = curves.setdefault(row["seed"], {})
            if row[key] is not None:
                curve[row["epoch"]] = row[key]
        for curve in curves.values() if len(curves) > 1 else ():
            axes.plot(sorted(curve), [curve[epoch] for epoch in sorted(curve)], **style, linewidth=0.8, alpha=0.45)
        epochs = sorted(set.intersection(*map(set, curves.values()))) if curves else []
        mean = [np.mean([curve[epoch] for curve in curves.values()]) for epoch in epochs]
        if curves:
            axes.plot(epochs, mean, **style, linewidth=2.2, marker="o" if len(epochs) == 1 else None, label=name)
    whole_steps(axes)
    plain(axes)


@drawing
def run_curves(
    rows: Sequence[Mapping], *, epochs: float | None = None, chance: float | None = None, images: str = "validation"
) -> Figure:
    """One run by epoch, finished or not: its losses, its accuracies, and the norm of its gradient.

    rows: those of a `stm_lab.train.Result`. epochs: where the axis ends, so that it stays while the curves grow.
    chance: the accuracy of a guess, in percent. images: those that the run was validated on.
    """
    parts = {
        "cross-entropy": {"loss": "while training", "validation_loss": f"on {images}"},
        _accuracy(images): {"top1": "saved weights", "top1_raw": "last step's weights"},
        "norm of the gradient": {"grad_norm": "mean", "grad_norm_max": "largest"},
    }
    by_name(rows, "epoch", *(key for keys in parts.values() for key in keys))
    figure, panels = board(3, 3, (11 / 3, 3.2))
    for axes, (label, keys) in zip(panels, parts.items(), strict=True):
        for (key, name), colour, line in zip(keys.items(), (BLUE, RED), ("o-", "s--"), strict=True):
            values = [np.nan if row[key] is None else row[key] for row in rows]
            axes.plot([row["epoch"] for row in rows], values, line, color=colour, markersize=4, label=name)
        if chance is not None and "top1" in keys:
            axes.axhline(chance, **CHANCE)
        axes.set(xlabel="epoch", ylabel=label, xlim=(0, epochs and 1.03 * epochs))  # room for the last marker
        whole_steps(axes)
        plain(axes)
        axes.legend(frameon=False, fontsize=8)
    return figure


def _accuracy(images: str | None) -> str:
    return f"top-1 accuracy (%)\non {images}" if images else "top-1 accuracy (%)"


# ---- accuracy over seeds ---------------------------------------------------------------------------------------------


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
    figure, (left, right) = board(2, 2, (4.75, 0.42 * len(scores)), room=(0, 1.3), width_ratios=(1.1, 1), sharey=True)
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


# ---- attacked, moved and corrupted images ----------------------------------------------------------------------------


def alike(where: str, results: Mapping[str, object], *settings: str) -> dict[str, list]:
    """The results of each name as a list, one a seed. Raises UserError if they differ in one of the `settings`."""
    runs = {name: list(own) if isinstance(own, Sequence) else [own] for name, own in results.items()}
    for setting in settings:
        found = {str(getattr(run, setting)) for own in runs.values() for run in own}
        if len(found) > 1:
            raise UserError(f"{where}: results of different {setting}: {', '.join(sorted(found))}")
    return runs


@drawing
def accuracy_by_epsilon(rows: Sequence[Mapping], *, chance: float | None = None) -> Figure:
    """Accuracy under attack against epsilon, a panel for each attack and norm, a line for each mixer.

    The line is the mean over seeds, the band their range. The axis of epsilon is linear up to its smallest value above
    0 and logarithmic beyond.
    rows: those of `AdversarialAccuracy` with mixer and seed (attack, norm, epsilon in 1/255, accuracy in percent).
    chance: the accuracy of a guess, in percent.
    """
    groups = by_name(rows, ("attack", "norm"), "mixer", "seed", "epsilon", "accuracy")
    panels = {
        f"{NAMES.get(attack, attack)}, {NAMES.get(norm, norm)}": curves_of(some, "mixer", "epsilon", "accuracy")
        for (attack, norm), some in groups.items()
    }
    level = None if chance is None else (chance, "chance")
    figure = line_panels(panels, "epsilon (1/255 of the pixel range)", "right answers left (%)", level=level)
    for axes, some in zip(figure.axes, groups.values(), strict=True):
        _epsilon_axis(axes, sorted({row["epsilon"] for row in some}))
    top = max(row["accuracy"] for row in rows)
    figure.axes[0].set_ylim(-0.02 * top, 1.02 * top or 1)
    return figure


def _epsilon_axis(axes: Axes, epsilons: Sequence[float]) -> None:
    positive = [epsilon for epsilon in epsilons if epsilon > 0]
    if len(positive) > 1:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.7, base=2)
    axes.xaxis.set_major_locator(FixedLocator(epsilons))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(0, 1.03 * max(epsilons) or 1)
    axes.tick_params(axis="x", labelsize=8)


@drawing
def consistency_curves(results: Mapping[str, object]) -> Figure:
    """How often the answer stays the same as the picture moves, by mixer.

    results: for each mixer a result of `invariance`, or a list of its seeds', of which the mean is drawn and the range
    shaded. Raises UserError for no results, and for results of several kinds.
    """
    runs = alike("consistency_curves", results, "kind")
    kind = next(iter(runs.values()))[0].kind
    figure = lines({name: by_strength(own) for name, own in runs.items()}, AXES[kind], SAME, size=(6.6, 3.8))
    strength_axis(figure.axes[0], kind)
    return figure


def by_strength(runs: Sequence, quantity: str = "consistency", axis: str = "true_strengths") -> dict[float, np.ndarray]:
    """{strength: values of the runs}. axis: which strengths of a result, by default those of what was really done."""
    values = np.stack([getattr(run, quantity) for run in runs], 1)
    return dict(zip(getattr(runs[0], axis), values, strict=True))


def strength_axis(axes: Axes, kind: str) -> None:
    axes.set_ylim(top=101)
    if kind == "scale":
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.axvline(1, color="0.6", linewidth=0.8)
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 3, 5, 10]))


@drawing
def severity_curves(results: Mapping[str, object]) -> Figure:
    """Error by severity, a panel a corruption; severity 0 is the clean picture.

    results: for each mixer a result of `corruption_errors`, or a list of its seeds', of which the mean is drawn and the
    range shaded. Raises UserError for no results, and for results that were not measured alike.
    """
    runs = alike("severity_curves", results, *MEASURED)
    first = next(iter(runs.values()))[0]
    severities = [0, *first.severities]
    panels = {}
    for i, corruption in enumerate(first.corruptions):
        errors = {name: np.array([[run.clean_error, *run.error[i]] for run in own]) for name, own in runs.items()}
        panels[words(corruption)] = {name: dict(zip(severities, of.T, strict=True)) for name, of in errors.items()}
    size, look = (1.75, 1.85), {"markersize": 2.5, "linewidth": 1.7}
    figure = line_panels(panels, "severity (0: clean)", "error (%)", columns=5, size=size, room=1.5, **look)
    for axes in figure.axes:
        axes.set(xticks=severities, ylim=(0, 100))
        axes.tick_params(labelsize=8)
    said = [
        f"{name}: {np.mean([run.clean_error for run in own]):.0f}% clean, "
        f"{np.mean([run.error[:, -1].mean() for run in own]):.0f}% at severity {severities[-1]}"
        for name, own in runs.items()
    ]
    return described(figure, "Error by severity, mean of the corruptions: " + "; ".join(said) + ".")


def words(name: str) -> str:
    return name.removesuffix("_transform").removesuffix("_compression").replace("_", " ")
