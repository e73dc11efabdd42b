"""How far does a model look: the effective receptive field of one cell of a feature map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from stm_lab.errors import UserError
from stm_lab.measure._batches import as_images, evaluating, model_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stm_lab.measure._batches import Data

THRESHOLDS = (0.2, 0.3, 0.5, 0.99)  # shares of the contribution at which RepLKNet compares models


def high_contribution_side(contribution: np.ndarray, threshold: float) -> int:
    """Side, in pixels, of the smallest centred square that holds the share `threshold` of a non-negative (H, W) map.

    The square's middle is pixel (H // 2, W // 2), so its side is odd; near the border of an even or a long map it may
    reach beyond the image, where nothing is. Raises UserError for a threshold outside (0, 1] and for a map of zeros.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"threshold is {threshold}; expected a share of the contribution, above 0 and at most 1")
    height, width = contribution.shape
    rows, columns = np.ogrid[:height, :width]
    ring = np.maximum(abs(rows - height // 2), abs(columns - width // 2))  # (H, W) which square a pixel completes
    held = np.cumsum(np.bincount(ring.ravel(), weights=contribution.ravel()))
    if not held[-1] > 0:
        raise UserError("the receptive field is empty: no pixel contributes to this cell")
    return 2 * int(np.searchsorted(held, threshold * held[-1])) + 1


def high_contribution_area(contribution: np.ndarray, threshold: float) -> float:
    """Share of the image, 0 to 1, in the smallest centred square that holds the share `threshold` of the contribution.

    After Ding et al. 2022 (RepLKNet, arXiv 2203.06717). Their script takes it of log10(1 + map), which depends on the
    gradient's scale; this one takes it of the map itself, so figures are not to be mixed. A flat map gives about
    `threshold`. Errors as for `high_contribution_side`.
    """
    half = high_contribution_side(contribution, threshold) // 2
    inside = [min(half, size // 2) + 1 + min(half, size - 1 - size // 2) for size in contribution.shape]
    return inside[0] * inside[1] / contribution.size


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """`map`, (H, W) float64: what each pixel contributes to `cell` (row, column) of the (h, w) map of `stage`.

    The unit is that of the gradient, activation per normalised pixel value: compare shapes, not heights.
    """

    model: str
    stage: int
    stage_size: tuple[int, int]
    cell: tuple[int, int]
    images: int
    map: np.ndarray

    def high_contribution_area(self, threshold: float) -> float:
        """See the function of this name."""
        return high_contribution_area(self.map, threshold)

    def rows(self) -> list[dict]:
        """One row a threshold: side of the square in pixels, its share of the image."""
        return [
            {
                "model": self.model,
                "stage": self.stage,
                "images": self.images,
                "threshold": threshold,
                "side": high_contribution_side(self.map, threshold),
                "area": high_contribution_area(self.map, threshold),
            }
            for threshold in THRESHOLDS
        ]

    def figure(self) -> Figure:
        from stm_lab.figures import receptive_fields

        return receptive_fields({self.model: self.map})


def effective_receptive_field(
    model: nn.Module,
    data: Data,
    *,
    stage: int = -1,
    device: str | torch.device | None = None,
    batch_size: int = 16,
    image_size: int | None = None,
    seed: int = 0,
) -> ReceptiveField:
    """Which pixels move the centre of a stage's feature map, on average over images.

    The gradient of the centre cell, summed over the channels after ReLU, with respect to the normalised image; its
    positive part, summed over the three colours, averaged over the images. The idea is that of Luo et al. 2016 (arXiv
    1701.04128), both ReLUs are those of RepLKNet's protocol (Ding et al. 2022, arXiv 2203.06717).

    The centre is cell (h // 2, w // 2): in an even map the lower right of the middle four. With convolutions of kernel
    3, stride 2 and padding 1, as in the unified backbone, on an even map it looks at pixel (H // 2, W // 2); on an odd
    one it is off the middle (224 pixels: cell 3 of 7 looks at 96). Sides divisible by twice the stride avoid that.

    model: any timm model with `forward_intermediates`; `stage` counts its feature maps as that does, from the end if
    negative. data: images (N, 3, H, W), (images, labels) or a Dataset, which is decoded at `image_size` (default: the
    model's own). device: default the model's own. seed: for models that draw random numbers even in eval mode.
    Raises UserError for a model without feature maps, an unknown stage or device, data that are no images, and a
    gradient that is not finite.
    """
    stage = _stage_index(model, stage)
    images = as_images(data, model, image_size)
    total = torch.zeros(images.pixels.shape[-2:], dtype=torch.float64)
    with evaluating(model, device, seed) as device, torch.enable_grad():
        for batch, _ in images.batches(model, device, batch_size):
            feature, contribution = _contribution(model, batch, stage)
            total += contribution.sum(0).cpu().double()
    if not total.isfinite().all():
        raise UserError(f"{model_name(model)}: the gradient at stage {stage} is not finite; float32 may mend it")
    height, width = feature.shape[-2:]
    return ReceptiveField(
        model=model_name(model),
        stage=stage,
        stage_size=(height, width),
        cell=(height // 2, width // 2),
        images=len(images.pixels),
        map=(total / len(images.pixels)).numpy(),
    )


def _contribution(model: nn.Module, batch: Tensor, stage: int) -> tuple[Tensor, Tensor]:
    """The stage's map (B, C, h, w), and what each pixel contributes to its centre, (B, H, W)."""
    batch = batch.requires_grad_()
    (feature,) = model.forward_intermediates(batch, indices=[stage], intermediates_only=True)
    if feature.ndim != 4:
        raise UserError(f"{model_name(model)}: stage {stage} gives shape {tuple(feature.shape)}, no map (B, C, h, w)")
    height, width = feature.shape[-2:]
    centre = feature[:, :, height // 2, width // 2].relu().sum()
    # Images do not mix in eval mode, so one backward pass gives every image its own gradient. The weights get none.
    (gradient,) = torch.autograd.grad(centre, batch)
    return feature.detach(), gradient.float().relu().sum(1)


def _stage_index(model: nn.Module, stage: int) -> int:
    """The stage's place counted from the front."""
    if not hasattr(model, "forward_intermediates") or not hasattr(model, "feature_info"):
        raise UserError(f"{model_name(model)} gives no feature maps: it lacks timm's forward_intermediates")
    stages = len(model.feature_info)
    if not -stages <= stage < stages:
        raise UserError(f"{model_name(model)} has no stage {stage}; known: 0 to {stages - 1}, or -1 for the last")
    return stage % stages
