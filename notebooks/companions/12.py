"""Notebook 12's own: move an image under several networks at once."""

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

from stm_lab import figures
from stm_lab.explore.parts import as_floats, as_shown, checked_pixels
from stm_lab.explore.shell import Explorer, State
from stm_lab.figures.invariance import Answers
from stm_lab.measure._batches import check_classes, evaluating
from stm_lab.measure.receptive import stage_index
from stm_lab.measure.views import Pictures, folded, scaled, turned
from stm_lab.pixels import Normalize
from stm_lab.util.errors import check_known


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
    pixels = as_floats(checked_pixels(models, images))
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


# ---- an image that fills its canvas: shifted, turned, scaled ---------------------------------------------------------


def translate(images: Tensor, down: int, right: int) -> Tensor:
    """Move the content of (..., H, W) by whole pixels, |down| < H and |right| < W; the border mirrors the picture."""
    rows, columns = (
        folded(torch.arange(size) - shift, torch.tensor(size)).to(images.device)
        for size, shift in zip(images.shape[-2:], (down, right), strict=True)
    )
    return images.index_select(-2, rows).index_select(-1, columns)


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Turn (B, 3, H, W) in [0, 1] counter-clockwise about the middle; the border shows the mirror image.

    Multiples of 90 degrees are exact; other angles are interpolated bicubically.
    """
    return turned(Pictures.alike(images), images.shape[-2:], degrees, mirror=True)


def rescale(images: Tensor, factor: float) -> Tensor:
    """Scale the content of (B, 3, H, W) in [0, 1] about the middle: 2 is twice as large. Bicubic, without aliasing; the
    border shows the mirror image."""
    return scaled(Pictures.alike(images), images.shape[-2:], factor, mirror=True)
