"""Attacks: answers left by epsilon, the loss on the way and round an image, and the change itself, magnified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from torch import Tensor

from stm_lab.figures.style import CHANCE, colours, described, grouped, legend_beside, plain, styles
from stm_lab.util.errors import UserError

NAMES = {"fgsm": "FGSM", "pgd": "PGD", "noise": "noise"}
NORM_NAMES = {"linf": "L∞", "l2": "L2"}


def accuracy_by_epsilon(rows: Sequence[Mapping], *, chance: float | None = None) -> Figure:
    """Accuracy under attack against epsilon, a panel for each attack and norm, a line for each mixer.

    The line is the mean over seeds, the band their range. Epsilon is on an axis that is linear up to its smallest value
    above 0 and logarithmic from there on.
    rows: those of `AdversarialAccuracy` with mixer and seed (attack, norm, epsilon in 1/255, accuracy in percent).
    chance: the accuracy of a guess, in percent. Raises UserError for no rows or one that lacks a key.
    """
    keys = ("mixer", "seed", "attack", "norm", "epsilon", "accuracy")
    panels = grouped(rows, keys, by=("attack", "norm"))
    figure = Figure(figsize=(1.8 + 3.6 * len(panels), 3.6), dpi=120, layout="constrained")
    drawn = styles(colours(row["mixer"] for row in rows))
    said = []
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, ((attack, norm), some) in zip(axes, panels.items(), strict=True):
        title = f"{NAMES.get(attack, attack)}, {NORM_NAMES.get(norm, norm)}"
        lines = {mixer: curve for mixer in drawn if (curve := _by_epsilon(some, mixer))}
        for mixer, curve in lines.items():
            _mean_and_range(panel, curve, drawn[mixer], mixer)
        if chance is not None:
            panel.axhline(chance, **CHANCE)
        _epsilon_axis(panel, sorted({row["epsilon"] for row in some}))
        panel.set_title(title, fontsize=10)
        plain(panel)
        said.append(f"{title}: " + "; ".join(f"{mixer} {_said(curve)}" for mixer, curve in lines.items()))
    top = max(row["accuracy"] for row in rows)
    axes[0].set(ylabel="right answers left (%)", ylim=(-0.02 * top, 1.02 * top or 1))
    legend_beside(figure, axes[0])
    return described(figure, "Accuracy under attack by epsilon in 1/255, in percent. " + ". ".join(said) + ".")


def _by_epsilon(rows: Sequence[Mapping], mixer: str) -> dict[float, list[float]]:
    """{epsilon: accuracies of the seeds}, ascending."""
    values: dict[float, list[float]] = {}
    for row in rows:
        if row["mixer"] == mixer:
            values.setdefault(row["epsilon"], []).append(row["accuracy"])
    return dict(sorted(values.items()))


def _mean_and_range(axes: Axes, curve: Mapping[float, Sequence[float]], style: Mapping, label: str) -> None:
    epsilons = list(curve)
    axes.plot(epsilons, [np.mean(values) for values in curve.values()], **style, lw=2, marker="o", ms=4, label=label)
    if any(len(values) > 1 for values in curve.values()):
        low, high = ([pick(values) for values in curve.values()] for pick in (min, max))
        axes.fill_between(epsilons, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _epsilon_axis(axes: Axes, epsilons: Sequence[float]) -> None:
    positive = [epsilon for epsilon in epsilons if epsilon > 0]
    if len(positive) > 1:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.7, base=2)
    axes.xaxis.set_major_locator(FixedLocator(epsilons))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(xlabel="epsilon (1/255 of the pixel range)", xlim=(0, 1.03 * max(epsilons) or 1))
    axes.tick_params(axis="x", labelsize=8)


def _said(curve: Mapping[float, Sequence[float]]) -> str:
    return ", ".join(f"{np.mean(values):.0f} at {epsilon:g}" for epsilon, values in curve.items())


def loss_by_steps(curves: Mapping[str, np.ndarray]) -> Figure:
    """The mean loss on an attack's way, from its start on: (steps + 1,) by name, or (R, steps + 1), a line a restart.

    Raises UserError for no curves.
    """
    if not curves:
        raise UserError("loss_by_steps: no curves")
    figure = Figure(figsize=(6.2, 3.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    said = []
    for name, style in styles(colours(curves)).items():
        ways = np.atleast_2d(np.asarray(curves[name], dtype=float))
        for i, way in enumerate(ways):
            axes.plot(way, **style, linewidth=1.8, marker="o", markersize=3.5, label=None if i else name)
        ends = ways.mean(0)
        said.append(f"{name} from {ends[0]:.2f} to {ends[-1]:.2f} in {len(ends) - 1} steps")
    axes.set(xlabel="steps of the attack", ylabel="cross-entropy, mean over images")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    legend_beside(figure, axes)
    return described(figure, "Loss on the way of an attack: " + "; ".join(said) + ".")


def loss_surfaces(surfaces: Mapping[str, object]) -> Figure:
    """A panel for each result of `loss_surface`: the mean loss round the images, on one scale for all.

    To the right along the gradient, upwards along a random direction, both to one epsilon; the dot is the images.
    Raises UserError for no surfaces.
    """
    if not surfaces:
        raise UserError("loss_surfaces: no surfaces")
    figure = Figure(figsize=(1.2 + 2.7 * len(surfaces), 3.0), dpi=120, layout="constrained")
    low, high = (pick(pick(surface.loss.flat) for surface in surfaces.values()) for pick in (min, max))
    levels = np.linspace(low, high if high > low + 1e-6 else low + 1, 12)  # a flat one in one colour
    said = []
    axes = figure.subplots(1, len(surfaces), sharey=True, squeeze=False)[0]
    for panel, (name, surface) in zip(axes, surfaces.items(), strict=True):
        drawn = panel.contourf(surface.offsets, surface.offsets, surface.loss, levels=levels, cmap="cividis")
        panel.plot(0, 0, "o", color="white", markersize=5, markeredgecolor="black")
        panel.set_title(name, fontsize=10)
        panel.set(xlabel="along the gradient (ε)", xticks=(-1, 0, 1), yticks=(-1, 0, 1), aspect="equal")
        middle = len(surface.offsets) // 2
        along, aside = surface.loss[middle, [0, middle, -1]], surface.loss[[0, -1], middle]
        said.append(
            f"{name}: {along[1]:.2f} at the images, {along[0]:.2f} and {along[2]:.2f} an epsilon down and up the "
            f"gradient, {aside.min():.2f} to {aside.max():.2f} an epsilon along a random direction"
        )
    axes[0].set_ylabel("along a random direction (ε)")
    bar = figure.colorbar(drawn, ax=list(axes), shrink=0.9, ticks=MaxNLocator(6))
    bar.set_label("mean cross-entropy")
    epsilon = next(iter(surfaces.values())).epsilon
    return described(figure, f"Loss round the images, epsilon {epsilon:g}/255. " + "; ".join(said) + ".")


def perturbations(
    images: Tensor, adversarial: Tensor, before: Sequence[str], after: Sequence[str], *, magnify: float | None = None
) -> Figure:
    """A column for each image: as it was, what was added, and both together; the titles are the answers.

    images, adversarial: (N, 3, H, W) in [0, 1]. What was added is shown `magnify` times as strong, round grey, which is
    no change; default: so that the largest change is black or white. Raises UserError for inputs that do not match.
    """
    if not len(images) or images.shape != adversarial.shape or not len(images) == len(before) == len(after):
        shapes = f"{tuple(images.shape)}, {tuple(adversarial.shape)}, {len(before)} and {len(after)} answers"
        raise UserError(f"perturbations: {shapes}; expected as many of each, and at least one")
    added = adversarial - images
    largest = float(added.abs().max())
    factor = magnify or (0.5 / largest if largest else 1.0)
    figure = Figure(figsize=(0.5 + 1.7 * len(images), 5.6), dpi=120, layout="constrained")
    grid = figure.subplots(3, len(images), squeeze=False)
    for column, parts in enumerate(zip(images, (0.5 + factor * added).clamp(0, 1), adversarial, strict=True)):
        for axes, part in zip(grid[:, column], parts, strict=True):
            axes.imshow(as_picture(part), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        grid[0, column].set_title(before[column], fontsize=8)
        grid[2, column].set_title(after[column], fontsize=8)
    for axes, label in zip(grid[:, 0], ("image", f"what is added,\n{factor:.3g} times as strong", "sum"), strict=True):
        axes.set_ylabel(label, fontsize=9)
    changes = ", ".join(f"{one} becomes {other}" for one, other in zip(_flat(before), _flat(after), strict=True))
    text = f"Images before and after: {changes}. No value moves by more than {255 * largest:.2g}/255."
    return described(figure, text)


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
    """One image, what an attack of one network adds to it, the sum, and what each network says before and after.

    image, adversarial: (3, H, W) in [0, 1]. answers: by network, before and after; shares: what the softmax gives
    `label`, in percent, before and after. attacked: the network whose gradient was followed, marked by an arrow.
    What is added is shown so strongly that its largest change is black or white. Raises UserError for images of
    different shapes, and for networks that do not match.
    """
    if image.shape != adversarial.shape or attacked not in answers or answers.keys() != shares.keys():
        raise UserError(
            f"image_under_attack: {tuple(image.shape)} and {tuple(adversarial.shape)}, {attacked!r} of "
            f"{', '.join(answers) or 'no networks'}, shares of {', '.join(shares) or 'none'}; expected the same"
        )
    added = adversarial - image
    largest = float(added.abs().max())
    factor = 0.5 / largest if largest else 1.0
    figure = Figure(figsize=(11.6, 3.0), dpi=120)  # placed by hand: a constrained layout takes as long as the drawing
    grid = figure.add_gridspec(1, 3, left=0.01, right=0.56, top=0.8, bottom=0.1, wspace=0.06)
    pictures = {
        "image": image,
        f"added, {factor:.3g} times as strong" if largest else "nothing added": (0.5 + factor * added).clamp(0, 1),
        "sum": adversarial,
    }
    for place, (name, picture) in zip(grid, pictures.items(), strict=True):
        axes = figure.add_subplot(place)
        axes.imshow(as_picture(picture), interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=9)
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
    """A line a network: a ring before, a dot after, and the answer then at the right."""
    colour = colours(shares)
    for i, (name, (before, after)) in enumerate(shares.items()):
        axes.plot([before, after], [i, i], color=colour[name], linewidth=2)
        axes.plot(before, i, "o", markersize=8, markerfacecolor="white", markeredgecolor=colour[name])
        axes.plot(after, i, "o", markersize=6, color=colour[name])
        first, then = answers[name]
        axes.text(105, i, then, va="center", fontsize=8, fontweight="bold" if then != first else "normal")
    axes.set(xlim=(-3, 103), ylim=(len(shares) - 0.5, -0.5), xlabel=f"softmax of {label} (%)")
    called = [name if len(name) <= 18 else f"{name[:17]}…" for name in shares]  # as there is room
    called = [f"→ {short}" if name == attacked else short for name, short in zip(shares, called, strict=True)]
    axes.set_yticks(range(len(shares)), called, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title("○ before, ● after; answer then", fontsize=9)
    plain(axes, "x")


def as_picture(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1], or bytes -> (H, W, 3) bytes."""
    if image.dtype != torch.uint8:
        image = (255 * image).round().to(torch.uint8)
    return image.permute(1, 2, 0).cpu().numpy()


def _flat(titles: Sequence[str]) -> list[str]:
    return [title.replace("\n", " ") for title in titles]
