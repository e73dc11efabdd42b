"""Notebook 14's own: attack one network on one image, and ask all networks about the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab import figures, measure
from stm_lab.explore.parts import as_floats, checked_pixels, shares
from stm_lab.explore.shell import Explorer
from stm_lab.figures.attack import NORM_NAMES
from stm_lab.measure.attack import DEFAULT_EPSILONS, AdversarialExamples
from stm_lab.util.errors import UserError

_STEPS = 4  # of an attack, which should answer at once
L2_FACTOR = 32  # L2 balls on the slider of epsilon: radii that take about as many answers at 64x64


def adversarial(
    models: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor | None = None,
    classes: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> Explorer:
    """Attack one network on one image by PGD from the image itself, and ask all networks about the result.

    models: classifiers of the same classes, by name. images: (N, 3, H, W), uint8 or in [0, 1], as large as the models
    see them. labels: (N,), what is attacked; default: the attacked network's own answers. classes: their names. seed:
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
        return figures.image_under_attack(
            found.images[0],
            found.adversarial[0],
            {name: (names[before[name].argmax()], names[after[name].argmax()]) for name in models},
            {name: (100 * float(before[name][label]), 100 * float(after[name][label])) for name in models},
            attacked=model,
            label=names[label],
            title=f"PGD of {_STEPS} steps on {model}, {NORM_NAMES[norm]}, epsilon {found.epsilon:g}/255 "
            f"(used: {255 * float(used):.3g}/255), image {image}: {names[label]}",
        )

    epsilons = [(f"{epsilon:g} (L2: {L2_FACTOR * epsilon:g})", epsilon) for epsilon in DEFAULT_EPSILONS["linf"]]
    controls = {
        "model": widgets.Dropdown(options=list(models), description="attacked"),
        "image": widgets.IntSlider(0, 0, len(pixels) - 1),
        "norm": widgets.Dropdown(options=[(called, norm) for norm, called in NORM_NAMES.items()]),
        "epsilon": widgets.SelectionSlider(options=epsilons, value=4, description="epsilon in 1/255"),
    }
    return Explorer(draw, controls)
