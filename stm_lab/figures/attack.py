"""Attacks: accuracy by epsilon, and one image under attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from torch import Tensor

from stm_lab.figures.draw import line_panels, named_rows, picture
from stm_lab.figures.style import colours, curves_of, described, drawing, grouped
from stm_lab.util.errors import UserError

NAMES = {"fgsm": "FGSM", "pgd": "PGD", "noise": "noise"}
NORM_NAMES = {"linf": "L∞", "l2": "L2"}


@drawing
def accuracy_by_epsilon(rows: Sequence[Mapping], *, chance: float | None = None) -> Figure:
    """Accuracy under attack against epsilon, a panel for each attack and norm, a line for each mixer.

    The line is the mean over seeds, the band their range. The axis of epsilon is linear up to its smallest value above
    0 and logarithmic beyond.
    rows: those of `AdversarialAccuracy` with mixer and seed (attack, norm, epsilon in 1/255, accuracy in percent).
    chance: the accuracy of a guess, in percent.
    """
    groups = grouped(rows, ("mixer", "seed", "attack", "norm", "epsilon", "accuracy"), by=("attack", "norm"))
    panels = {
        f"{NAMES.get(attack, attack)}, {NORM_NAMES.get(norm, norm)}": curves_of(some, "mixer", "epsilon", "accuracy")
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
def image_under_attack(
    image: Tensor,
    adversarial: Tensor,
    answers: Mapping[str, tuple[str, str]],
    shares: Mapping[str, tuple[float, float]],
    *,
    attacked: str,
    label: str,
    title: str,
) -> Figure:
    """One image, what an attack of one network adds to it, the sum, and what each network answers before and after.

    image, adversarial: (3, H, W) in [0, 1]. answers: by network, before and after; shares: what the softmax gives
    `label`, in percent, before and after. attacked: the network whose gradient was followed, marked by an arrow.
    What is added is magnified until its largest change is black or white. Raises UserError for images of different
    shapes, and for networks that do not match.
    """
    if image.shape != adversarial.shape or attacked not in answers or answers.keys() != shares.keys():
        raise UserError(
            f"image_under_attack: {tuple(image.shape)} and {tuple(adversarial.shape)}, {attacked!r} of "
            f"{', '.join(answers) or 'no networks'}, shares of {', '.join(shares) or 'none'}; expected the same"
        )
    added = adversarial - image
    largest = float(added.abs().max())
    factor = 0.5 / largest if largest else 1.0
    shown = (0.5 + factor * added).clamp(0, 1)
    figure = Figure(figsize=(11.6, 3.0), dpi=120)  # placed by hand: a constrained layout takes as long as the drawing
    grid = figure.add_gridspec(1, 3, left=0.01, right=0.56, top=0.8, bottom=0.1, wspace=0.06)
    change = f"added, {factor:.3g} times as strong" if largest else "nothing added"
    for place, name, part in zip(grid, ("image", change, "sum"), (image, shown, adversarial), strict=True):
        picture(figure.add_subplot(place), _pixels(part), name)
    _before_and_after(figure.add_axes((0.68, 0.2, 0.2, 0.6)), answers, shares, attacked, label)
    figure.suptitle(title, x=0.01, y=0.97, ha="left", fontsize=10)
    said = "; ".join(
        f"{name} {first} ({before:.0f}%) becomes {then} ({after:.0f}%)"
        for (name, (first, then)), (before, after) in zip(answers.items(), shares.values(), strict=True)
    )
    return described(figure, f"{title}. In brackets what the softmax gives {label}: {said}.")


def _before_and_after(
    axes: Axes,
    answers: Mapping[str, tuple[str, str]],
    shares: Mapping[str, tuple[float, float]],
    attacked: str,
    label: str,
) -> None:
    """A row a network: a ring before, a dot after, and the answer afterwards at the right."""
    called = []
    for row, (name, colour) in enumerate(colours(shares).items()):
        (before, after), (first, then) = shares[name], answers[name]
        axes.plot([before, after], [row, row], color=colour, linewidth=2)
        axes.plot(before, row, "o", markersize=8, markerfacecolor="white", markeredgecolor=colour)
        axes.plot(after, row, "o", markersize=6, color=colour)
        axes.text(105, row, then, va="center", fontsize=8, fontweight="bold" if then != first else "normal")
        short = name if len(name) <= 18 else f"{name[:17]}…"  # as there is room
        called.append(f"→ {short}" if name == attacked else short)
    named_rows(axes, called, fontsize=8)
    axes.set(xlim=(-3, 103), xlabel=f"softmax of {label} (%)")
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title("○ before, ● after; answer then", fontsize=9)


def _pixels(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) bytes."""
    return (255 * image).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
