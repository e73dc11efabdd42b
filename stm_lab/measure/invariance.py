"""Does a model keep its answer when the picture moves, turns, or changes its size?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stm_lab.measure._batches import (
    Batch,
    Data,
    Images,
    as_images,
    check_classes,
    evaluating,
    model_name,
    rows_of,
    sight,
)
from stm_lab.measure.views import Pictures, published_boxes, published_shift, scaled, turned, window
from stm_lab.pixels import EvaluationView
from stm_lab.util.errors import UserError, check_known

# Where the content goes: (rows down, columns right) for each pixel of strength.
DIRECTIONS = {
    "up": (-1, 0),
    "up-right": (-1, 1),
    "right": (0, 1),
    "down-right": (1, 1),
    "down": (1, 0),
    "down-left": (1, -1),
    "left": (0, -1),
    "up-left": (-1, -1),
}
KINDS = ("translation", "rotation", "rotation_after_crop", "scale")
PROTOCOLS = ("straight", "published")
PUBLISHED_CROP = 0.875  # share of the resized picture that the published standard view shows: 224 of 256
_LONGEST = 2.0  # sides of a picture that are longer, in shorter sides, are cut


@dataclass(frozen=True, eq=False)
class Invariance:
    """How answers hold as the picture moves, turns or changes its size, in percent of the images.

    `consistency`, (S,): the answer is that for the standard view. `accuracy`, (S,): it is the label; None if unknown.
    Both are means over `directions`, of `consistency_by_direction` and `accuracy_by_direction`, (S, D).

    `strengths`, (S,), are pixels along each moved axis (translation), degrees (rotations), or the size of the content
    relative to the standard view (scale); of the published protocol what its axes say: pixels, degrees, crop ratio.
    `true_strengths`, (S,): what was done to the content of a square picture, in the units of the straight protocol.
    """

    model: str
    kind: str
    images: int
    strengths: np.ndarray
    directions: tuple[str, ...]
    consistency_by_direction: np.ndarray
    accuracy_by_direction: np.ndarray | None
    protocol: str
    true_strengths: np.ndarray

    @property
    def consistency(self) -> np.ndarray:
        return self.consistency_by_direction.mean(1)

    @property
    def accuracy(self) -> np.ndarray | None:
        return None if self.accuracy_by_direction is None else self.accuracy_by_direction.mean(1)

    def rows(self) -> list[dict]:
        """One row a strength; accuracy is None where labels are unknown."""
        columns = {"strength": self.strengths, "true_strength": self.true_strengths}
        found = {"consistency": self.consistency, "accuracy": self.accuracy}
        return rows_of(self, "model kind protocol images", **columns, **found)


def invariance(
    model: nn.Module,
    data: Data,
    *,
    kind: str = "translation",
    protocol: str = "straight",
    strengths: Sequence[float] | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    image_size: int | None = None,
    crop_pct: float | None = None,
    seed: int = 0,
) -> Invariance:
    """Show a model other views of every picture, and compare its answers with those for the standard view.

    The standard view is the one that the model is evaluated on (`EvaluationView`): the shorter side is resized to
    int(image_size / crop_pct), and the centre is cropped. The measure is that of the paper (arXiv 2211.05781).

    protocol="straight": the border shows the rest of the picture that the crop left, else its mirror image.

    * translation: the content moves by exactly `strength` pixels along each axis it moves on, in all eight directions.
    * rotation: by an angle, about the middle, in both directions, before the picture is cropped.
    * rotation_after_crop: of the cropped picture; its corners show its mirror image only.
    * scale: the content becomes larger by this factor.

    protocol="published": the published curves' code path with its faults, on their axes; image sizes other than 224 in
    proportion. What comes in is black.

    * translation: in one direction, drawn for each picture and strength out of seven (the eighth never comes). Beyond
      the margin of the crop the content moves by half of what the axis says, with black bars on both sides.
    * rotations: counter-clockwise.
    * scale: the crop ratio, .2, .325 .. 1.95; above 1 a black frame. The published code enlarges the file itself; here
      the picture decoded at int(image_size / crop_pct), bicubically.

    Args:
        data: images (N, 3, H, W), (images, labels), or a Dataset, which is decoded once for all models that see it.
            Images are standard views as they are, unless `image_size` (its centre; the rest is context) or `crop_pct`
            (resized) is given, or the protocol is "published" (resized, so that their shorter side is the view's).
        strengths: see `Invariance`; default: the paper's ranges (64 of 224 pixels, 90 degrees), scales from 1/2 to 2.
        image_size: side of the view; default: the model's own for a Dataset, the shorter side of images.
        crop_pct: share of the picture's shorter side in the view; default: the model's own for a Dataset, and .875 for
            the published protocol.
        device: default the model's own. seed: of the published directions, and for models that draw random numbers.

    Raises:
        UserError: an unknown kind, protocol or device, impossible strengths, data that are no images, a view larger
            than its images, a model without a classifier, labels that are none of its classes, logits not finite.
    """
    check_known("kind of invariance", kind, KINDS)
    check_known("protocol", protocol, PROTOCOLS)
    stock = _stock(data, model, protocol, image_size, crop_pct)
    is_published, number = protocol == "published", len(stock.images.pixels)
    values = _strengths(kind, is_published, strengths, min(stock.size))
    directions = _directions(kind, is_published)
    modes = torch.from_numpy(np.random.default_rng(seed).integers(7, size=(number, len(values))))  # as published
    unchanged = 0 if kind != "scale" else None if is_published else 1  # the strength of no change
    consistent, right = np.zeros((2, len(values), len(directions)), int)
    with evaluating(model, device, seed) as device, torch.inference_mode():
        sees = sight(model, device)
        for batch in stock.images.parts(device, batch_size, f"{model_name(model)}, {kind}"):
            pictures = stock.pictures(batch)
            logits = sees(_standard(pictures, stock.size))
            check_classes(model, logits, batch.labels, "to measure consistency only")
            expected = logits.argmax(1)
            for (i, strength), j in itertools.product(enumerate(values), range(len(directions))):
                answers = expected
                if strength != unchanged:
                    how = kind, is_published, strength, j, modes[batch.places, i]
                    answers = sees(_view(pictures, stock.size, *how)).argmax(1)
                consistent[i, j] += int((answers == expected).sum())
                if batch.labels is not None:
                    right[i, j] += int((answers == batch.labels).sum())
    return Invariance(
        model=model_name(model),
        kind=kind,
        images=number,
        strengths=np.array(values),
        directions=directions,
        consistency_by_direction=consistent * (100 / number),
        accuracy_by_direction=None if stock.images.labels is None else right * (100 / number),
        protocol=protocol,
        true_strengths=np.array([_true(kind, protocol, value, stock) for value in values], dtype=float),
    )


# ---- the views -------------------------------------------------------------------------------------------------------


def _directions(kind: str, is_published: bool) -> tuple[str, ...]:
    if kind == "translation":
        return ("one of seven",) if is_published else tuple(DIRECTIONS)
    if kind == "scale":
        return ("centred",)
    return ("counter-clockwise",) if is_published else ("counter-clockwise", "clockwise")


def _standard(pictures: Pictures, size: tuple[int, int]) -> Tensor:
    return window(pictures, pictures.centred(size), size, mirror=True)


def _view(
    pictures: Pictures,
    size: tuple[int, int],
    kind: str,
    is_published: bool,
    strength: float,
    direction: int,
    modes: Tensor,
) -> Tensor:
    """The pictures (B, 3, *size) changed by `strength`. modes: (B,), of the published translation."""
    if kind == "translation" and is_published:
        start, low, high = published_boxes(pictures.sizes, size[0], strength, modes)
        return window(pictures, start, size, mirror=False, within=(low, high))
    if kind == "translation":
        towards = torch.tensor(list(DIRECTIONS.values())[direction])
        return window(pictures, pictures.centred(size) - strength * towards, size, mirror=True)
    if kind == "scale" and is_published:
        sizes = pictures.sizes.double()
        factor = int(size[0] / strength) / sizes.min(1).values
        # about the middle of the picture; torchvision's centre crop and padding lie at most half a pixel beside it
        return scaled(pictures, size, factor, mirror=False, centre=sizes / 2)
    if kind == "scale":
        return scaled(pictures, size, strength, mirror=True)
    if kind == "rotation_after_crop":
        pictures = Pictures.alike(_standard(pictures, size))
    return turned(pictures, size, -strength if direction else strength, mirror=not is_published)


# ---- the pictures ----------------------------------------------------------------------------------------------------


class Stock(NamedTuple):
    """All pictures, decoded, their sizes (N, 2), and the size of their views.

    view: how images are resized, batch by batch; None for pictures that were decoded so.
    """

    images: Images
    sizes: Tensor
    size: tuple[int, int]
    view: EvaluationView | None

    def pictures(self, batch: Batch) -> Pictures:
        if self.view is None:
            return Pictures(batch.pixels, self.sizes[batch.places])
        return Pictures.alike(self.view.resized(batch.pixels).clamp(0, 1))


def _stock(data: Data, model: nn.Module, protocol: str, image_size: int | None, crop_pct: float | None) -> Stock:
    if crop_pct is not None and not 0 < crop_pct <= 1:
        raise UserError(f"crop_pct is {crop_pct}; expected a share of the picture, above 0 and at most 1")
    crop_pct = PUBLISHED_CROP if protocol == "published" and crop_pct is None else crop_pct
    if hasattr(data, "column_names"):
        return _decoded(data, data._fingerprint, EvaluationView.of(model, image_size, crop_pct))
    images = as_images(data, model)
    size = tuple(images.pixels.shape[-2:])
    sizes, shorter = torch.tensor(size).expand(len(images.pixels), 2), min(size)
    if crop_pct is not None:
        view = EvaluationView.of(model, image_size or shorter, crop_pct)
        return Stock(images, sizes, view.size, view)
    if image_size is not None and image_size > shorter:
        raise UserError(
            f"image_size is {image_size}, but the images' side {shorter}; give crop_pct to have them resized"
        )
    return Stock(images, sizes, size if image_size is None else (image_size, image_size), None)


@lru_cache(maxsize=1)  # models are measured one after the other, on the same images
def _decoded(dataset: object, fingerprint: str, view: EvaluationView) -> Stock:
    """The images of a Dataset, resized but not cropped. A transform changes its fingerprint."""
    from stm_lab.data.views import check_image_size, decoded_images, labels

    check_image_size(min(view.size))
    if not len(dataset):
        raise UserError("data: no images (an empty Dataset)")
    pictures = []
    for image in decoded_images(dataset):
        pixels = torch.from_numpy(np.array(view.resized(image))).permute(2, 0, 1)
        longest = int(_LONGEST * min(pixels.shape[1:]))  # a panorama would make the canvas of all as wide
        for axis in (1, 2):
            cut = max(0, pixels.shape[axis] - longest) // 4 * 2  # as much on both sides: the centre stays where it was
            pixels = pixels.narrow(axis, cut, pixels.shape[axis] - 2 * cut)
        pictures.append(pixels)
    sizes = torch.tensor([picture.shape[1:] for picture in pictures])
    canvas = torch.zeros(len(pictures), 3, *sizes.amax(0).tolist(), dtype=torch.uint8)
    for place, picture in zip(canvas, pictures, strict=True):
        place[:, : picture.shape[1], : picture.shape[2]] = picture
    return Stock(Images(canvas, labels(dataset)), sizes, view.size, None)


# ---- strengths -------------------------------------------------------------------------------------------------------


def _strengths(kind: str, is_published: bool, strengths: Sequence[float] | None, side: int) -> list[float]:
    """Those asked for, or the usual ones, of views whose shorter side is `side`."""
    if kind == "translation":  # usually up to 64 of 224 pixels
        low, high, what = 0, side - 1, f"whole pixels in images of side {side}"
        usual = np.unique(np.linspace(0, side * 2 / 7, 17 if is_published else 9).round()).tolist()
    elif kind == "scale":
        low, high, what = 0.1, 10.0, "crop ratios" if is_published else "factors"
        usual = [(200 + 125 * i) / 1000 for i in range(15)] if is_published else [2 ** (i / 4) for i in range(-4, 5)]
    else:
        low, high, what, usual = 0, 180, "degrees", list(range(0, 91, 5 if is_published else 15))
    values = usual if strengths is None else list(strengths)
    is_whole = kind == "translation"
    if not values or any(not low <= s <= high or (is_whole and s != int(s)) for s in values):
        raise UserError(f"strengths {values}: expected {what}, {low:g} to {high:g}")
    return [int(s) if is_whole else float(s) for s in values]


def _true(kind: str, protocol: str, strength: float, stock: Stock) -> float:
    if protocol == "straight" or kind.startswith("rotation"):
        return strength
    size = stock.size[0]
    side = int(stock.sizes[0].min()) if stock.view is None else stock.view.resized_side
    return published_shift(side, size, strength) if kind == "translation" else int(size / strength) / side
