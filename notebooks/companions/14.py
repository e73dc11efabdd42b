"""For notebook 14: the epsilon that half of the answers withstand, the loss on a plane through images, and an attacked
image classified by all networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from stm_lab import measure
from stm_lab.explore.parts import as_floats, checked_pixels, shares
from stm_lab.explore.shell import Explorer
from stm_lab.figures.draw import board, colour_bar, named_rows, picture
from stm_lab.figures.scores import NAMES
from stm_lab.figures.style import colours, described, drawing
from stm_lab.measure._batches import Data, See, as_images
from stm_lab.measure._steps import NORMS, direction, losses_of, random_points, under_attack, uphill
from stm_lab.measure.attack import DEFAULT_EPSILONS, AdversarialAccuracy, AdversarialExamples
from stm_lab.util.errors import UserError, check_known


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
    """One image, the change that an attack on one network adds, the sum, and all networks' answers before and after.

    image, adversarial: (3, H, W) in [0, 1]. answers: by network, before and after; shares: the softmax of `label`,
    in percent, before and after. attacked: the network whose gradient was followed, marked by an arrow.
    The change is magnified until its largest value is black or white. Raises UserError for images of different
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
    change = f"added, magnified {factor:.3g} times" if largest else "nothing added"
    for place, name, part in zip(grid, ("image", change, "sum"), (image, shown, adversarial), strict=True):
        picture(figure.add_subplot(place), _pixels(part), name)
    _before_and_after(figure.add_axes((0.68, 0.2, 0.2, 0.6)), answers, shares, attacked, label)
    figure.suptitle(title, x=0.01, y=0.97, ha="left", fontsize=10)
    said = "; ".join(
        f"{name} {first} ({before:.0f}%) becomes {then} ({after:.0f}%)"
        for (name, (first, then)), (before, after) in zip(answers.items(), shares.values(), strict=True)
    )
    return described(figure, f"{title}. In brackets the softmax of {label}: {said}.")


def _before_and_after(
    axes: Axes,
    answers: Mapping[str, tuple[str, str]],
    shares: Mapping[str, tuple[float, float]],
    attacked: str,
    label: str,
) -> None:
    """One row per network: a ring before, a dot after, and the answer after the attack at the right."""
    called = []
    for row, (name, colour) in enumerate(colours(shares).items()):
        (before, after), (first, then) = shares[name], answers[name]
        axes.plot([before, after], [row, row], color=colour, linewidth=2)
        axes.plot(before, row, "o", markersize=8, markerfacecolor="white", markeredgecolor=colour)
        axes.plot(after, row, "o", markersize=6, color=colour)
        axes.text(105, row, then, va="center", fontsize=8, fontweight="bold" if then != first else "normal")
        short = name if len(name) <= 18 else f"{name[:17]}…"  # to fit
        called.append(f"→ {short}" if name == attacked else short)
    named_rows(axes, called, fontsize=8)
    axes.set(xlim=(-3, 103), xlabel=f"softmax of {label} (%)")
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title("○ before, ● after; answer after", fontsize=9)


def _pixels(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) bytes."""
    return (255 * image).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


# ---- one number per curve --------------------------------------------------------------------------------------------


def half_epsilon(result: AdversarialAccuracy) -> float | None:
    """The epsilon that half of the clean right answers withstand, in 1/255: one number for a curve.

    Between two measured epsilons the curve is a straight line. None where more than half withstand the largest, or
    where no answer was right. It is relative, so it compares networks of unequal clean accuracy.
    """
    half = result.clean_accuracy / 2
    if not half or result.accuracy[-1] > half:
        return None
    epsilons = np.concatenate([[0.0], result.epsilons])
    accuracy = np.concatenate([[result.clean_accuracy], result.accuracy])
    last = int(np.argmax(accuracy <= half))  # the first at or below; the one before is above
    way = (accuracy[last - 1] - half) / (accuracy[last - 1] - accuracy[last])
    return float(epsilons[last - 1] + way * (epsilons[last] - epsilons[last - 1]))


# ---- the loss around images -----------------------------------------------------------------------------------------


class LossSurface(NamedTuple):
    """`loss`, (n, n): mean cross-entropy over the images, moved by `offsets`, (n,) in epsilons, along a random corner
    (rows) and along the gradient's sign (columns; "l2": a random direction, and the gradient's). `epsilon` in 1/255."""

    epsilon: float
    offsets: np.ndarray
    loss: np.ndarray


def loss_surface(
    model: nn.Module,
    data: Data,
    *,
    norm: str = "linf",
    epsilon: float = 1,
    points: int = 7,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> LossSurface:
    """Sample the loss on the plane through each image that its gradient and a random direction span.

    With a masked gradient the loss is flat or jagged along it, or rises no faster than along the random direction.
    Values are cut to [0, 1]. points: on each side of the square from -epsilon to epsilon, odd, so that the image itself
    is one. The other arguments and errors are those of `measure.attack_checks`.
    """
    check_known("norm", norm, NORMS)
    if points < 3 or points % 2 == 0:
        raise UserError(f"points = {points}: expected an odd number, 3 at least")
    if not 0 < epsilon < math.inf:
        raise UserError(f"epsilon = {epsilon}: expected a number above 0, in 1/255 of the pixel range")
    images = as_images(data, model)
    offsets = np.linspace(-1, 1, points)
    total = torch.zeros(points, points, dtype=torch.float64)
    with under_attack(model, images, device, batch_size, seed) as (sees, batches):
        for places, pixels, labels, _ in batches:
            gradient, _ = uphill(sees, pixels, labels)
            along = epsilon / 255 * direction(gradient, norm)
            aside = epsilon / 255 * random_points(places, pixels, norm, 0, seed, edge=True)
            total += _plane(sees, pixels, labels, along, aside, offsets)
    return LossSurface(float(epsilon), offsets, (total / len(images.pixels)).numpy())


@torch.no_grad()
def _plane(sees: See, pixels: Tensor, labels: Tensor, along: Tensor, aside: Tensor, offsets: np.ndarray) -> Tensor:
    """Summed losses (n, n), float64, on the CPU."""
    sums = [
        losses_of(sees((pixels + float(a) * along + float(b) * aside).clamp(0, 1)), labels).sum()
        for b in offsets
        for a in offsets
    ]
    return torch.stack(sums).double().cpu().reshape(len(offsets), len(offsets))


@drawing
def loss_surfaces(surfaces: Mapping[str, LossSurface]) -> Figure:
    """A panel for each result of `loss_surface`: the mean loss around the images (the dot), on one scale for all.

    Images move right along the gradient and up along a random direction, both by up to one epsilon.
    """
    figure, panels = board(len(surfaces), len(surfaces), (2.7, 3.0), room=(1.2, 0), sharey=True)
    low, high = (pick(pick(surface.loss.flat) for surface in surfaces.values()) for pick in (min, max))
    levels = np.linspace(low, high if high > low + 1e-6 else low + 1, 12)  # one colour for a flat surface
    said = []
    for axes, (name, surface) in zip(panels, surfaces.items(), strict=True):
        drawn = axes.contourf(surface.offsets, surface.offsets, surface.loss, levels=levels, cmap="cividis")
        axes.plot(0, 0, "o", color="white", markersize=5, markeredgecolor="black")
        axes.set_title(name, fontsize=10)
        axes.set(xlabel="along the gradient (ε)", xticks=(-1, 0, 1), yticks=(-1, 0, 1), aspect="equal")
        middle = len(surface.offsets) // 2
        along, aside = surface.loss[middle, [0, middle, -1]], surface.loss[[0, -1], middle]
        said.append(
            f"{name}: {along[1]:.2f} at the images, {along[0]:.2f} and {along[2]:.2f} an epsilon down and up the "
            f"gradient, {aside.min():.2f} to {aside.max():.2f} an epsilon along a random direction"
        )
    panels[0].set_ylabel("along a random direction (ε)")
    colour_bar(figure, drawn, panels, "mean cross-entropy", shrink=0.9, ticks=MaxNLocator(6))
    epsilon = next(iter(surfaces.values())).epsilon
    return described(figure, f"Loss around the images, epsilon {epsilon:g}/255. " + "; ".join(said) + ".")


# ---- the explorer ----------------------------------------------------------------------------------------------------

_STEPS = 4  # of an attack; few, so that it answers at once
L2_FACTOR = 32  # L2 balls on the slider of epsilon: radii that take about as many answers at 64x64


def adversarial(
    models: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor | None = None,
    classes: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> Explorer:
    """Attack one network on one image by PGD that starts at the image, and classify the result with all networks.

    models: classifiers of the same classes, by name. images: (N, 3, H, W), uint8 or in [0, 1], at the models'
    size. labels: (N,), the answers to attack; default: the attacked network's own. classes: their names. seed:
    for models that draw random numbers in eval mode.
    Raises UserError for no models or images, models without a classifier or of different classes, and labels or names
    that do not fit them.
    """
    pixels = as_floats(checked_pixels(models, images, labels))

    clean = {name: shares(model, pixels, seed, labels) for name, model in models.items()}
    counts = {name: of.shape[1] for name, of in clean.items()}
    count = max(counts.values())
    names = [f"class {i}" for i in range(count)] if classes is None else [str(name).split(",")[0] for name in classes]
    if {*counts.values(), len(names)} != {count}:
        told = ", ".join(f"{name} has {count} classes" for name, count in counts.items())
        raise UserError(f"explorer: {told}, with {len(names)} names")

    @lru_cache(maxsize=512)
    def attacked(name: str, image: int, norm: str, epsilon: float) -> tuple[AdversarialExamples, dict[str, Tensor]]:
        one = slice(image, image + 1)
        found = measure.adversarial_examples(
            models[name],
            pixels[one] if labels is None else (pixels[one], labels[one]),
            norm=norm,
            epsilon=epsilon if norm == "linf" else L2_FACTOR * epsilon,
            steps=_STEPS,
            random_start=False,
            seed=seed,
        )
        return found, {other: shares(model, found.adversarial, seed, labels)[0] for other, model in models.items()}

    def draw(model: str, image: int, norm: str, epsilon: float) -> Figure:
        found, after = attacked(model, image, norm, epsilon)
        before = {name: of[image] for name, of in clean.items()}
        label = int(found.labels[0])
        moved = found.perturbation.flatten()
        used = moved.abs().max() if norm == "linf" else moved.norm()
        return image_under_attack(
            found.images[0],
            found.adversarial[0],
            {name: (names[before[name].argmax()], names[after[name].argmax()]) for name in models},
            {name: (100 * float(before[name][label]), 100 * float(after[name][label])) for name in models},
            attacked=model,
            label=names[label],
            title=f"PGD of {_STEPS} steps on {model}, {NAMES[norm]}, epsilon {found.epsilon:g}/255 "
            f"(used: {255 * float(used):.3g}/255), image {image}: {names[label]}",
        )

    epsilons = [(f"{epsilon:g} (L2: {L2_FACTOR * epsilon:g})", epsilon) for epsilon in DEFAULT_EPSILONS["linf"]]
    controls = {
        "model": widgets.Dropdown(options=list(models), description="attacked"),
        "image": widgets.IntSlider(0, 0, len(pixels) - 1),
        "norm": widgets.Dropdown(options=[(NAMES[norm], norm) for norm in NORMS]),
        "epsilon": widgets.SelectionSlider(options=epsilons, value=4, description="epsilon in 1/255"),
    }
    return Explorer(draw, controls)
