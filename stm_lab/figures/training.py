"""Training: accuracy, loss and learning rate over epochs and steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stm_lab.figures.draw import board, whole_steps
from stm_lab.figures.style import BLUE, CHANCE, RED, drawing, grouped, legend, plain, styles


@drawing
def training_curves(
    rows: Sequence[Mapping], by: str = "mixer", *, chance: float | None = None, images: str | None = None
) -> Figure:
    """Accuracy and loss by epoch: thin lines are seeds, the bold one is their mean.

    rows: dictionaries with seed, epoch, top1 (percent), loss, and `by`, which names the curve: the mixer, or a setting.
    A value that was not measured is None. chance: the accuracy of a guess, in percent. images: those that accuracy was
    measured on, for the axis.
    """
    grouped(rows, (by, "seed", "epoch", "top1", "loss"), by=(by,))
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
    grouped(every, ("mixer", "seed", "epoch", "top1"), by=())
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
    grouped(rows, ("epoch", *(key for keys in parts.values() for key in keys)), by=())
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
