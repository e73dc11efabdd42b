"""Does a model keep its answer when the picture moves?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from stm_lab.errors import UserError, check_known
from stm_lab.measure._batches import as_images, evaluating, model_name
from stm_lab.pixels import mirrored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stm_lab.measure._batches import Data

# Where the picture goes: (rows down, columns right) for each pixel of strength.
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
KINDS = ("translation",)


@dataclass(frozen=True, eq=False)
class Invariance:
    """How answers hold as the picture moves by `strengths`, (S,) whole pixels, in percent of the images.

    `consistency`, (S,): the answer is that for the standard view. `accuracy`, (S,): it is the label; None if unknown.
    Both are means over `directions`, of `consistency_by_direction` and `accuracy_by_direction`, (S, D).
    """

    model: str
    kind: str
    images: int
    strengths: np.ndarray
    directions: tuple[str, ...]
    consistency_by_direction: np.ndarray
    accuracy_by_direction: np.ndarray | None

    @property
    def consistency(self) -> np.ndarray:
        return self.consistency_by_direction.mean(1)

    @property
    def accuracy(self) -> np.ndarray | None:
        return None if self.accuracy_by_direction is None else self.accuracy_by_direction.mean(1)

    def rows(self) -> list[dict]:
        """One row a strength; accuracy is None where labels are unknown."""
        accuracy = [None] * len(self.strengths) if self.accuracy is None else self.accuracy.tolist()
        return [
            {
                "model": self.model,
                "kind": self.kind,
                "images": self.images,
                "strength": strength,
                "consistency": consistent,
                "accuracy": right,
            }
            for strength, consistent, right in zip(
                self.strengths.tolist(), self.consistency.tolist(), accuracy, strict=True
            )
        ]

    def figure(self) -> Figure:
        from stm_lab.figures import consistency_curves

        return consistency_curves({self.model: self})


def invariance(
    model: nn.Module,
    data: Data,
    *,
    kind: str = "translation",
    strengths: Sequence[int] | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    image_size: int | None = None,
    seed: int = 0,
) -> Invariance:
    """Move every picture and compare the model's answers with those for the picture as it is.

    translation: a strength of s moves the content by exactly s pixels along each axis it moves on, in all eight
    directions: a diagonal moves by s down (or up) and by s right (or left), s * sqrt(2) as the crow flies. At the
    border the picture's mirror image comes in: no black bars, but no real context either. The measure is that of the
    paper (arXiv 2211.05781), its published code's bent axis and missing direction apart.

    strengths: whole pixels, at least 0 and below the side; default nine from 0 to 2/7 of the shorter side, the paper's
    range (64 of 224). data: images (N, 3, H, W), (images, labels), or a Dataset, which is decoded at `image_size`
    (default: the model's own). device: default the model's own. seed: for models that draw random numbers in eval mode.
    Raises UserError for an unknown kind or device, strengths that are none, data that are no images, a model without
    a classifier, and labels that it has no class for.
    """
    check_known("kind of invariance", kind, KINDS)
    images = as_images(data, model, image_size)
    shifts = _strengths(strengths, images.pixels.shape[-2:])
    with evaluating(model, device, seed) as device, torch.inference_mode():
        consistent = torch.zeros(len(shifts), len(DIRECTIONS), dtype=torch.int64, device=device)
        right = torch.zeros_like(consistent)
        for batch, labels in images.batches(model, device, batch_size):
            logits = model(batch)
            _check_classes(model, logits, images.labels)
            standard = logits.argmax(1)  # (B,)
            for i, strength in enumerate(shifts):
                for j, (down, across) in enumerate(DIRECTIONS.values()):
                    answers = standard  # for no shift, whichever the direction
                    if strength:
                        answers = model(translate(batch, strength * down, strength * across)).argmax(1)
                    consistent[i, j] += (answers == standard).sum()
                    if labels is not None:
                        right[i, j] += (answers == labels).sum()
    percent = 100 / len(images.pixels)
    return Invariance(
        model=model_name(model),
        kind=kind,
        images=len(images.pixels),
        strengths=np.array(shifts),
        directions=tuple(DIRECTIONS),
        consistency_by_direction=consistent.cpu().numpy() * percent,
        accuracy_by_direction=None if images.labels is None else right.cpu().numpy() * percent,
    )


def translate(images: Tensor, down: int, right: int) -> Tensor:
    """Move the content of (..., H, W) by whole pixels, |down| < H and |right| < W; the border mirrors the picture."""
    rows, columns = (
        mirrored(torch.arange(size, device=images.device) - shift, size)
        for size, shift in zip(images.shape[-2:], (down, right), strict=True)
    )
    return images.index_select(-2, rows).index_select(-1, columns)


def _strengths(strengths: Sequence[int] | None, size: tuple[int, int]) -> list[int]:
    side = min(size)
    if strengths is None:
        return np.unique(np.linspace(0, side * 2 / 7, 9).round().astype(int)).tolist()
    wrong = [s for s in strengths if s != int(s) or not 0 <= s < side]
    if wrong or not len(strengths):
        raise UserError(f"strengths {list(strengths)}: expected whole pixels, 0 to {side - 1} in images of side {side}")
    return [int(s) for s in strengths]


def _check_classes(model: nn.Module, logits: Tensor, labels: Tensor | None) -> None:
    if logits.ndim != 2 or getattr(model, "num_classes", None) == 0:
        raise UserError(f"{model_name(model)} has no classifier: it gives {tuple(logits.shape[1:])} numbers an image")
    if labels is not None and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise UserError(
            f"data: labels from {labels.min()} to {labels.max()} for the {logits.shape[1]} classes of "
            f"{model_name(model)}; give the images alone to measure consistency only"
        )
