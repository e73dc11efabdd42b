"""Turn up epsilon, and see what an attack adds to an image, and which networks fall for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab.explore.pictures import check_models
from stm_lab.explore.shell import Explorer
from stm_lab.figures.attack import NORM_NAMES
from stm_lab.measure._batches import as_images, check_classes, evaluating
from stm_lab.measure.attack import AdversarialExamples, adversarial_examples, as_pixels, sight
from stm_lab.util.errors import UserError

EPSILONS = (0, 0.25, 0.5, 1, 2, 4, 8)  # in 1/255, for L-infinity
L2_FACTOR = 32  # the L2 balls on the same slider: radii that take about as many answers at 64x64


def adversarial(
    models: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor | None = None,
    classes: Sequence[str] | None = None,
    *,
    steps: int = 4,
    seed: int = 0,
) -> Explorer:
    """Attack one network on one image, and ask all of them about the result.

    Choose the network that is attacked, the image, the norm, and epsilon. The attack is PGD of so many `steps` from the
    image itself; each one is computed when it is first asked for, and kept.

    Args:
        models: classifiers of the same classes, by name.
        images: (N, 3, H, W), uint8 or in [0, 1], at the size at which they are shown to the models.
        labels: (N,), what is attacked; default: the attacked network's own answers.
        classes: names of the classes, in the order of the labels; default: their numbers.
        steps: of the attack; more are stronger, and slower.
        seed: for models that draw random numbers in eval mode.

    Raises UserError for no models, images that are none, models without a classifier or of different classes, and
    labels or names that do not fit them.
    """
    check_models(models)
    pixels, labels = as_images(images if labels is None else (images, labels), next(iter(models.values())))
    pixels = as_pixels(pixels, torch.device("cpu"))

    @torch.no_grad()
    def seen(name: str, some: Tensor) -> Tensor:
        """Softmax, (B, K), on the CPU."""
        with evaluating(models[name], None, seed) as device:
            logits = sight(models[name], device)(some.to(device))
        check_classes(models[name], logits, labels, "to attack its own answers")
        return logits.float().softmax(1).cpu()

    clean = {name: seen(name, pixels) for name in models}
    known = _names(clean, classes)

    @lru_cache(maxsize=512)
    def attacked(name: str, image: int, norm: str, epsilon: float) -> tuple[AdversarialExamples, dict[str, Tensor]]:
        some = pixels[image : image + 1]
        given = some if labels is None else (some, labels[image : image + 1])
        epsilon = epsilon if norm == "linf" else L2_FACTOR * epsilon
        found = adversarial_examples(
            models[name], given, norm=norm, epsilon=epsilon, steps=steps, random_start=False, seed=seed
        )
        return found, {other: seen(other, found.adversarial)[0] for other in models}

    def draw(model: str, image: int, norm: str, epsilon: float) -> Figure:
        from stm_lab.figures import image_under_attack

        found, after = attacked(model, image, norm, epsilon)
        before = {name: of[image] for name, of in clean.items()}
        label = int(found.labels[0])
        moved = found.perturbation.flatten()
        size = moved.abs().max() if norm == "linf" else moved.norm()
        return image_under_attack(
            found.images[0],
            found.adversarial[0],
            {name: (known[before[name].argmax()], known[after[name].argmax()]) for name in models},
            {name: (100 * float(before[name][label]), 100 * float(after[name][label])) for name in models},
            attacked=model,
            label=known[label],
            title=f"PGD of {steps} steps on {model}, {NORM_NAMES[norm]}, epsilon {found.epsilon:g}/255 "
            f"(used: {255 * float(size):.3g}/255), image {image}: {known[label]}",
        )

    controls = {
        "model": widgets.Dropdown(options=list(models), description="attacked"),
        "image": widgets.IntSlider(0, 0, len(pixels) - 1, description="image"),
        "norm": widgets.Dropdown(options=[(called, norm) for norm, called in NORM_NAMES.items()], description="norm"),
        "epsilon": widgets.SelectionSlider(
            options=[(f"{epsilon:g} (L2: {L2_FACTOR * epsilon:g})", epsilon) for epsilon in EPSILONS],
            value=4,
            description="epsilon in 1/255",
        ),
    }
    return Explorer(draw, controls)


def _names(clean: Mapping[str, Tensor], classes: Sequence[str] | None) -> list[str]:
    """A name for each class; short, because they stand beside dots."""
    counts = {name: answers.shape[1] for name, answers in clean.items()}
    count = next(iter(counts.values()))
    if set(counts.values()) != {count}:
        raise UserError("explorer: " + ", ".join(f"{name} has {n} classes" for name, n in counts.items()))
    if classes is None:
        return [f"class {i}" for i in range(count)]
    if len(classes) != count:
        raise UserError(f"explorer: {len(classes)} names for {count} classes")
    return [str(name).split(",")[0] for name in classes]
