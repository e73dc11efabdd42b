"""Slide, turn and scale an image, and watch what several networks make of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from stm_lab.explore.pictures import as_shown, check_models, picture
from stm_lab.explore.shell import Explorer
from stm_lab.measure._batches import as_images, evaluating, model_name
from stm_lab.measure.receptive import stage_index
from stm_lab.measure.views import rescale, rotate, translate
from stm_lab.pixels import EvaluationView, Normalize
from stm_lab.util.errors import UserError, check_known

_SIZES = (0.5, 2.0)  # the least and the most that the content is scaled by


class _Seen(NamedTuple):
    """One network's view of one picture: `shares` (classes,), and the features (C, h, w) of each stage."""

    shares: Tensor
    features: list[Tensor]


def views(
    models: Mapping[str, nn.Module],
    images: Tensor | np.ndarray | str | os.PathLike,
    *,
    classes: Mapping[str, Sequence[str] | None] | None = None,
    stage: int = -1,
    image_size: int | None = None,
) -> Explorer:
    """Move an image under several networks at once: their answers, their confidence, and one stage's features.

    The image is turned, then scaled, about its middle, then shifted; what comes in is its mirror image, as in the
    straight protocol of `measure.invariance`. Features are drawn as one number a cell: where it lies on the axis along
    which the cells of the standard view differ most (their first principal component). A click in either picture takes
    what is there to the middle of the view; sliders do all of it, too.

    Args:
        models: classifiers of timm's kind, ours or not, by name.
        images: (N, 3, H, W), uint8 or in [0, 1], at the size at which the models see them; or one's own, the path of a
            photograph or an array (H, W, 3), of which the first model's evaluation view is shown.
        classes: for each model's name the names of its classes, in the order of its labels. Others are numbered.
        stage: whose features are shown first, from the end if negative.
        image_size: side of one's own image; default: the first model's own.

    Raises UserError for no models or images, a file that is no image, a model without feature maps or classifier, and a
    stage that it does not have.
    """
    check_models(models)
    first = next(iter(models.values()))
    if not isinstance(images, Tensor):
        images = picture(images, EvaluationView.of(first, image_size))
    pixels = as_images(images, first).pixels
    pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
    height, width = pixels.shape[-2:]
    for name in classes or {}:
        check_known("model", name, models, "classes: ")
    names = {name: (classes or {}).get(name) for name in models}
    most = min(stage_index(model, -1) for model in models.values()) + 1
    # answers are kept: a control set back, or another one moved, asks only for what is new
    seen = lru_cache(maxsize=512)(lambda name, *state: _seen(models[name], _moved(pixels, *state), most))

    def draw(image: int, right: int, down: int, turn: float, size: float, stage: int) -> Figure:
        from stm_lab.figures import views_compared

        state = (image, down, right, turn, size)
        both = ((image, 0, 0, 0.0, 1.0), state)
        answers = [_compared(name, names[name], *(seen(name, *one) for one in both), stage - 1) for name in models]
        shown = [as_shown(_moved(pixels, *one)[0]) for one in both]
        return views_compared(shown, answers, _words(right, down, turn, size), f"features of stage {stage}")

    controls = {
        "image": widgets.IntSlider(0, 0, len(pixels) - 1, description="image"),
        "right": widgets.IntSlider(width // 8, -(width // 2), width // 2, description="right (pixels)"),
        "down": widgets.IntSlider(0, -(height // 2), height // 2, description="down (pixels)"),
        "turn": widgets.FloatSlider(0, min=-180, max=180, step=5, description="turn (degrees)", readout_format=".0f"),
        "size": widgets.FloatSlider(1, min=_SIZES[0], max=_SIZES[1], step=0.05, description="size (times)"),
        "stage": widgets.Dropdown(
            options=range(1, most + 1), value=min(stage_index(first, stage) + 1, most), description="stage"
        ),
    }

    def select(panel: int, x: float, y: float) -> Mapping[str, float]:
        if panel > 1:
            return {}
        before = {name: controls[name].value for name in ("right", "down")}
        if panel == 0:  # the standard view: where is this pixel by now?
            x, y = _place(x, y, (height, width), controls["turn"].value, controls["size"].value)
            x, y = x + before["right"], y + before["down"]
        wanted = {"right": before["right"] + (width - 1) / 2 - x, "down": before["down"] + (height - 1) / 2 - y}
        return {name: min(max(round(by), controls[name].min), controls[name].max) for name, by in wanted.items()}

    return Explorer(draw, controls, select=select)


def _moved(pixels: Tensor, image: int, down: int, right: int, turn: float, size: float) -> Tensor:
    """One image, (1, 3, H, W), turned counter-clockwise, scaled, shifted; by nothing, it is the image to the bit."""
    view = pixels[image : image + 1]
    view = rotate(view, turn) if turn else view
    view = rescale(view, size) if size != 1 else view
    return translate(view, down, right)


def _place(x: float, y: float, size: tuple[int, int], turn: float, factor: float) -> tuple[float, float]:
    """Where a pixel of the image lies once it is turned (degrees) and scaled about the middle."""
    middle_y, middle_x = ((side - 1) / 2 for side in size)
    angle, across, down = np.deg2rad(turn), x - middle_x, y - middle_y
    # counter-clockwise, with rows that count downwards
    turned_x = across * np.cos(angle) + down * np.sin(angle)
    turned_y = down * np.cos(angle) - across * np.sin(angle)
    return middle_x + factor * turned_x, middle_y + factor * turned_y


def _seen(model: nn.Module, view: Tensor, stages: int) -> _Seen:
    with evaluating(model, None, 0) as device, torch.inference_mode():
        last, features = model.forward_intermediates(Normalize(model, device)(view), indices=list(range(stages)))
        logits = model.forward_head(last)
    if logits.ndim != 2 or model.num_classes == 0:
        raise UserError(f"{model_name(model)} has no classifier: it gives {tuple(logits.shape[1:])} numbers an image")
    return _Seen(logits[0].float().softmax(0).cpu(), [feature[0].float().cpu() for feature in features])


def _compared(name: str, classes: Sequence[str] | None, before: _Seen, after: _Seen, stage: int) -> object:
    from stm_lab.figures.views import Answers

    labels = [int(seen.shares.argmax()) for seen in (before, after)]
    features = [seen.features[stage] for seen in (before, after)]
    return Answers(
        name=name,
        classes=tuple(f"class {label}" if classes is None else classes[label] for label in labels),
        confidences=tuple(100 * float(seen.shares[label]) for seen, label in zip((before, after), labels, strict=True)),
        kept=100 * float(after.shares[labels[0]]),
        maps=_maps(*features),
        cosine=float(functional.cosine_similarity(*(feature.mean((1, 2)) for feature in features), dim=0)),
    )


def _maps(before: Tensor, after: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Where each cell (C, h, w) of both views lies on the axis along which those of the first differ most, (h, w).

    Not its norm: after a stage's norm layer that is nearly the same in every cell.
    """
    mean = before.mean((1, 2))
    cells = before.flatten(1).T - mean
    axis = torch.linalg.svd(cells, full_matrices=False).Vh[0]
    axis = axis * axis[axis.abs().argmax()].sign()  # either sign would do; this one is always the same
    return tuple(torch.tensordot(axis, features - mean[:, None, None], 1).numpy() for features in (before, after))


def _words(right: int, down: int, turn: float, size: float) -> str:
    shifts = [(abs(right), "right" if right > 0 else "left"), (abs(down), "down" if down > 0 else "up")]
    parts = [
        f"{by} pixels to the {way}" if way in ("right", "left") else f"{by} pixels {way}" for by, way in shifts if by
    ]
    if turn:
        parts.insert(0, f"turned by {abs(turn):.0f} degrees {'counter-' if turn > 0 else ''}clockwise")
    if size != 1:
        parts.append(f"{size:.2f} times as large")
    return "Moved: " + (", ".join(parts) or "not at all")
