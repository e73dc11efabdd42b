"""Change an image, and see what several networks make of it: attacked, corrupted, or moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab import figures, measure
from stm_lab.explore.pictures import as_shown, checked_pixels, clipped
from stm_lab.explore.shell import Explorer, State
from stm_lab.figures.attack import NORM_NAMES
from stm_lab.figures.invariance import Answers
from stm_lab.measure._batches import as_pixels, check_classes, evaluating, sight
from stm_lab.measure.attack import DEFAULT_EPSILONS, AdversarialExamples
from stm_lab.measure.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stm_lab.measure.receptive import stage_index
from stm_lab.measure.views import rescale, rotate, translate
from stm_lab.pixels import Normalize
from stm_lab.util.errors import UserError, check_known

_CPU = torch.device("cpu")
_STEPS = 4  # of an attack, which should answer at once
L2_FACTOR = 32  # L2 balls on the slider of epsilon: radii that take about as many answers at 64x64


# ---- attacked -------------------------------------------------------------------------------------------------------


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
    pixels = as_pixels(checked_pixels(models, images, labels), _CPU)

    def shares(name: str, some: Tensor) -> Tensor:
        return _shares(models[name], some, seed, labels)

    clean = {name: shares(name, pixels) for name in models}
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
        return found, {other: shares(other, found.adversarial)[0] for other in models}

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


# ---- corrupted ------------------------------------------------------------------------------------------------------


def corruption(
    models: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor | None = None,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> Explorer:
    """Prediction and confidence of every model for one image, by corruption and severity.

    The corruptions are those that `corruption_errors` makes of these images with this seed.

    models: classifiers, by name. images: (N, 3, H, W), uint8 or in [0, 1], as large as the models see them. labels:
    (N,) the right classes, -1 where they are unknown; default: all are. classes: their names, for the models with as
    many. seed: of the corruptions, and for models that draw random numbers in eval mode.
    Raises UserError for no models or images, and another number of labels; where it is drawn, for a model without a
    classifier or without a class for the label.
    """
    pixels = checked_pixels(models, images, labels)

    @lru_cache(maxsize=256)
    def views(name: str, image: int) -> Tensor:
        """(6, 3, H, W): the picture by severity, from 0."""
        one = pixels[image : image + 1]
        worse = [corrupt(one, name, severity, seed=seed, first=image) for severity in SEVERITIES]
        return torch.cat([as_pixels(one, _CPU), *worse])

    @lru_cache(maxsize=2048)
    def answers(model: str, name: str, image: int) -> np.ndarray:
        """(6, classes)"""
        return _shares(models[model], views(name, image), seed).numpy()

    def draw(corruption: str, severity: int, image: int) -> Figure:
        of_models = {model: answers(model, corruption, image) for model in models}
        truth = None if labels is None or labels[image] < 0 else int(labels[image])
        counts = [of.shape[1] for of in of_models.values()] + ([] if classes is None else [len(classes)])
        if truth is not None and truth >= min(counts):
            raise UserError(f"image {image}: label {truth}, which is not a class of every model, or has no name")
        shown = views(corruption, image)
        return figures.corruption_answers(
            shown, of_models, severity, corruption=corruption, classes=classes, truth=truth
        )

    def select(panel: int, x: float, y: float, _: State) -> State:
        return {"severity": clipped(x, len(SEVERITIES) + 1)} if panel == 3 else {}

    controls = {
        "corruption": widgets.Dropdown(options=[(name.replace("_", " "), name) for name in CORRUPTIONS]),
        "severity": widgets.IntSlider(3, 0, len(SEVERITIES)),
        "image": widgets.IntSlider(0, 0, len(pixels) - 1),
    }
    return Explorer(draw, controls, select=select)


# ---- moved ----------------------------------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """One network's view of one picture: `shares` (classes,), and the features (C, h, w) of each stage."""

    shares: Tensor
    features: list[Tensor]


def views(
    models: Mapping[str, nn.Module],
    images: Tensor,
    *,
    classes: Mapping[str, Sequence[str]] | None = None,
    stage: int | None = None,
) -> Explorer:
    """Move an image under several networks at once: their answers, their confidence, and one stage's features.

    The image is turned, then scaled, about its middle, then shifted; its mirror image fills the border, as in the
    straight protocol of `measure.invariance`. Features are drawn as one number a cell: where it lies on the axis along
    which the cells of the standard view differ most (their first principal component). A click moves a place to the
    middle of the view.

    models: classifiers with feature maps, by name. images: (N, 3, H, W), uint8 or in [0, 1], as large as the models see
    them. classes: names of each model's classes; others are numbered. stage: the first one, from 1; default: the last.
    Raises UserError for no models or images, and a model without feature maps, classifier or that stage.
    """
    pixels = as_pixels(checked_pixels(models, images), _CPU)
    height, width = pixels.shape[-2:]
    names = dict(classes or {})
    for name in names:
        check_known("model", name, models, "classes: ")
    most = min(stage_index(model, -1) for model in models.values()) + 1
    check_known("stage", stage or most, range(1, most + 1))

    @lru_cache(maxsize=512)
    def seen(name: str, image: int, *move: float) -> _Seen:
        return _seen(models[name], _moved(pixels[image : image + 1], *move), most)

    def draw(image: int, right: int, down: int, turn: float, size: float, stage: int) -> Figure:
        moves = ((0, 0, 0.0, 1.0), (right, down, turn, size))
        answers = [
            _compared(name, names.get(name), *(seen(name, image, *move) for move in moves), stage - 1)
            for name in models
        ]
        shown = [as_shown(_moved(pixels[image : image + 1], *move)[0]) for move in moves]
        return figures.views_compared(shown, answers, _words(*moves[1]), f"features of stage {stage}")

    def select(panel: int, x: float, y: float, now: State) -> State:
        if panel > 1:
            return {}  # features
        away = complex(x, y) - complex(width - 1, height - 1) / 2  # from the middle; y counts downwards
        shift = complex(now["right"], now["down"]) - away
        if panel == 0:  # the standard view, before it is turned and scaled
            shift = -now["size"] * away * np.exp(-1j * np.deg2rad(now["turn"]))
        furthest = width // 2, height // 2
        right, down = np.clip((shift.real, shift.imag), np.negative(furthest), furthest)
        return {"right": round(right), "down": round(down)}

    controls = {
        "image": widgets.IntSlider(0, 0, len(pixels) - 1),
        "right": widgets.IntSlider(width // 8, -(width // 2), width // 2, description="right (pixels)"),
        "down": widgets.IntSlider(0, -(height // 2), height // 2, description="down (pixels)"),
        "turn": widgets.FloatSlider(0, min=-180, max=180, step=5, description="turn (degrees)", readout_format=".0f"),
        "size": widgets.FloatSlider(1, min=0.5, max=2, step=0.05, description="size (times)"),
        "stage": widgets.Dropdown(options=range(1, most + 1), value=stage or most),
    }
    return Explorer(draw, controls, select=select)


def _moved(view: Tensor, right: int, down: int, turn: float, size: float) -> Tensor:
    """(1, 3, H, W), turned counter-clockwise, scaled, shifted; moved by nothing, it is the image to the bit."""
    view = rotate(view, turn) if turn else view
    view = rescale(view, size) if size != 1 else view
    return translate(view, down, right)


def _seen(model: nn.Module, view: Tensor, stages: int) -> _Seen:
    with evaluating(model, None, 0) as device, torch.inference_mode():
        last, features = model.forward_intermediates(Normalize(model, device)(view), indices=list(range(stages)))
        logits = model.forward_head(last)
    check_classes(model, logits, None)
    return _Seen(logits[0].float().softmax(0).cpu(), [feature[0].float().cpu() for feature in features])


def _compared(name: str, classes: Sequence[str] | None, before: _Seen, after: _Seen, stage: int) -> Answers:
    labels = [int(seen.shares.argmax()) for seen in (before, after)]
    features = [seen.features[stage] for seen in (before, after)]
    return Answers(
        name=name,
        classes=tuple(f"class {label}" if classes is None else classes[label] for label in labels),
        confidences=tuple(100 * float(seen.shares[label]) for seen, label in zip((before, after), labels, strict=True)),
        kept=100 * float(after.shares[labels[0]]),
        maps=_maps(*features),
        cosine=float(F.cosine_similarity(*(feature.mean((1, 2)) for feature in features), dim=0)),
    )


def _maps(before: Tensor, after: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Where each cell (C, h, w) of both views lies on the axis along which those of the first differ most, (h, w).

    Not its norm: after a stage's norm layer that is nearly the same in every cell.
    """
    mean = before.mean((1, 2))
    cells = before.flatten(1).T - mean
    axis = torch.linalg.svd(cells, full_matrices=False).Vh[0]
    axis = axis * axis[axis.abs().argmax()].sign()  # of the two directions always the same
    return tuple(torch.tensordot(axis, features - mean[:, None, None], 1).numpy() for features in (before, after))


def _words(right: int, down: int, turn: float, size: float) -> str:
    parts = {
        f"turned by {abs(turn):.0f} degrees {'counter-' if turn > 0 else ''}clockwise": turn,
        f"{abs(right)} pixels to the {'right' if right > 0 else 'left'}": right,
        f"{abs(down)} pixels {'down' if down > 0 else 'up'}": down,
        f"{size:.2f} times as large": size != 1,
    }
    return "Moved: " + (", ".join(text for text, is_said in parts.items() if is_said) or "not at all")


# ---- of several -----------------------------------------------------------------------------------------------------


def _shares(model: nn.Module, images: Tensor, seed: int, labels: Tensor | None = None) -> Tensor:
    """Softmax of what a model says of images in [0, 1], (B, K), on the CPU.

    Raises UserError for a model without a classifier, or without classes for the `labels`.
    """
    with evaluating(model, None, seed) as device, torch.inference_mode():
        logits = sight(model, device)(images)
    check_classes(model, logits, labels, "to attack its own answers")
    return logits.float().softmax(1).cpu()
