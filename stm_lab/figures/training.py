"""Training: accuracy, loss and learning rate over epochs and steps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from stm_lab.figures.style import (
    CHANCE,
    accuracy_label,
    colours,
    described,
    grouped,
    legend_beside,
    plain,
    styles,
)
from stm_lab.util.errors import UserError


def training_curves(
    rows: Sequence[Mapping], by: str = "mixer", *, chance: float | None = None, images: str | None = None
) -> Figure:
    """Accuracy and loss by epoch: thin lines are seeds, the bold one is their mean.

    rows: dictionaries with seed, epoch, top1 (percent) and loss, None where a value was not measured, and with what
    the curves are told apart `by`: the mixer, or the name of a setting.
    chance: the accuracy of a guess, in percent, a dotted line. images: what accuracy was measured on, for the axis.
    Raises UserError for no rows or one that lacks a key.
    """
    runs = grouped(rows, (by, "seed", "epoch", "top1", "loss"), by=(by, "seed"))
    colour = colours(name for name, _ in runs)
    said: dict[str, list[str]] = {name: [] for name in colour}
    figure = Figure(figsize=(9.5, 3.6), dpi=120, layout="constrained")
    panels = zip(figure.subplots(1, 2), ("top1", "loss"), (accuracy_label(images), "training loss"), strict=True)
    for axes, key, label in panels:
        for group, style in styles(colour).items():
            curves = []
            for run in (run for (name, _), run in runs.items() if name == group):
                curves.append({row["epoch"]: row[key] for row in run if row[key] is not None})
                if len(curves[-1]):
                    axes.plot(*zip(*sorted(curves[-1].items()), strict=True), **style, linewidth=0.8, alpha=0.45)
            epochs = sorted(set.intersection(*map(set, curves)))  # of the epochs that every seed has
            mean = [np.mean([curve[epoch] for curve in curves]) for epoch in epochs]
            axes.plot(epochs, mean, **style, linewidth=2.2, label=group)
            if epochs:
                said[group].append(f"{label.splitlines()[0]} {mean[-1]:.3g} at epoch {epochs[-1]:g}")
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
    accuracy = figure.axes[0]
    if chance is not None:
        accuracy.axhline(chance, **CHANCE)
    legend_beside(figure, accuracy)
    ends = "; ".join(f"{name}: {', '.join(parts) or 'not measured'}" for name, parts in said.items())
    return described(figure, f"Accuracy and loss by epoch, means over seeds. {ends}.")


def compared_curves(runs: Mapping[str, Sequence[Mapping]]) -> Figure:
    """Accuracy by epoch, a panel for each of several runs, on the same axes: thin lines are seeds, bold ones means.

    runs: by name the rows of each, dictionaries with mixer (or another name of a curve, which has the same colour in
    all panels), seed, epoch and top1 (percent, None where it was not measured). A run may have no rows.
    Raises UserError if no run has rows, or a row lacks a key.
    """
    names = dict.fromkeys(row["mixer"] for rows in runs.values() for row in rows if "mixer" in row)
    drawn = styles(colours(names))
    if not drawn:
        grouped([], (), ())  # raises
    figure = Figure(figsize=(1.6 + 4.2 * len(runs), 3.8), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(runs), sharex=True, sharey=True, squeeze=False)[0]
    said = []
    for axes, (title, rows) in zip(panels, runs.items(), strict=True):
        grouped_rows = grouped(rows, ("mixer", "seed", "epoch", "top1"), by=("mixer", "seed")) if rows else {}
        ends = []
        for name, style in drawn.items():
            curves = [
                {row["epoch"]: row["top1"] for row in run if row["top1"] is not None}
                for (mixer, _), run in grouped_rows.items()
                if mixer == name
            ]
            last = _seeds_and_mean(axes, curves, style)
            ends += [] if last is None else [f"{name} {last[1]:.1f}% at epoch {last[0]:g}"]
        said.append(f"{title}: {', '.join(ends) or 'no training curves'}")
        if not rows:
            axes.text(0.5, 0.5, "no training curves", transform=axes.transAxes, ha="center", color="0.35")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
    panels[0].set_ylabel("top-1 accuracy (%)")
    handles = [Line2D([], [], **style, linewidth=2.2, label=name) for name, style in drawn.items()]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    return described(figure, f"Top-1 accuracy by epoch, means over seeds. {'; '.join(said)}.")


def _seeds_and_mean(axes: Axes, curves: Sequence[Mapping[float, float]], style: Mapping) -> tuple[float, float] | None:
    """Curves {epoch: value} of one name: each a thin line, and bold their mean at the epochs that all have.

    Returns the last of these epochs and the mean there, None where there is none.
    """
    if not curves:
        return None
    for curve in curves if len(curves) > 1 else ():
        axes.plot(*zip(*sorted(curve.items()), strict=True), **style, linewidth=0.8, alpha=0.45)
    epochs = sorted(set.intersection(*map(set, curves)))
    mean = [np.mean([curve[epoch] for curve in curves]) for epoch in epochs]
    axes.plot(epochs, mean, **style, linewidth=2.2, marker="o" if len(epochs) == 1 else None)
    return (epochs[-1], float(mean[-1])) if epochs else None


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
        accuracy_label(images): {"top1": "saved weights", "top1_raw": "last step's weights"},
        "norm of the gradient": {"grad_norm": "mean", "grad_norm_max": "largest"},
    }
    keys = [key for lines in panels.values() for key in lines]
    (rows,) = grouped(rows, ("epoch", *keys), by=()).values()
    figure = Figure(figsize=(11, 3.2), dpi=120, layout="constrained")
    for axes, (label, lines) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for (key, name), colour, line in zip(lines.items(), ("#0072B2", "#D55E00"), ("o-", "s--"), strict=True):
            values = [row[key] for row in rows]
            axes.plot([row["epoch"] for row in rows], values, line, color=colour, markersize=4, label=name)
        if chance is not None and "top1" in lines:
            axes.axhline(chance, **CHANCE)
        axes.set(xlabel="epoch", ylabel=label, xlim=(0, epochs and 1.03 * epochs))  # room for the last marker
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
        axes.legend(frameon=False, fontsize=8)
    last = rows[-1]
    ends = "; ".join(
        f"{label.splitlines()[0]}: " + ", ".join(f"{name} {_number(last[key])}" for key, name in lines.items())
        for label, lines in panels.items()
    )
    return described(figure, f"A run by epoch. At epoch {last['epoch']:g}, {ends}.")


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"


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
    plain(axes)
    legend_beside(figure, axes)
    said = "; ".join(
        f"{name}: {rates[0]:.2g} at first, {max(rates):.2g} at most, {rates[-1]:.2g} at last, {len(rates)} steps"
        for name, rates in schedules.items()
    )
    return described(figure, f"Learning rates. {said}.")
