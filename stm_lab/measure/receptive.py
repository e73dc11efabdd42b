"""How far does a model look: the effective receptive field of one cell of a feature map."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stm_lab.measure._batches import Data, as_images, evaluating, model_name, rows_of
from stm_lab.util.errors import UserError, check_known

THRESHOLDS = (0.2, 0.3, 0.5, 0.99)  # shares of the contribution at which RepLKNet compares models
PROTOCOLS = {  # what each takes of the gradient
    "positive": torch.relu,
    "replknet": torch.relu,
    "signed": lambda gradient: gradient,
    "absolute": torch.abs,
    "squared": torch.square,
}
BATCH_PIXELS = 2**20  # of one batch at most, unless it is one image: 1024x1024 go one by one
CHECKPOINT_PIXELS = 2**19  # of an image, from which on activations are computed twice instead of kept


def high_contribution_side(contribution: np.ndarray, threshold: float, centre: tuple[int, int] | None = None) -> int:
    """Side, in pixels, of the smallest square round `centre` that holds the share `threshold` of a non-negative (H, W)
    map; it may reach beyond the image. Default centre: pixel (H // 2, W // 2).

    Raises UserError for a threshold outside (0, 1] and for a map of zeros.
    """
    ring = np.maximum(*(abs(offset) for offset in _offsets(contribution.shape, centre)))  # which square completes it
    held = np.bincount(ring.ravel(), weights=contribution.ravel())
    return 2 * _first_with(held, threshold) + 1


def high_contribution_area(contribution: np.ndarray, threshold: float, centre: tuple[int, int] | None = None) -> float:
    """Share of the image, 0 to 1, in the smallest centred square that holds the share `threshold` of the contribution.

    After Ding et al. 2022 (RepLKNet, arXiv 2203.06717), but of the map itself, where their script takes log10(1 + map)
    (`replknet_rectangle`). A flat map gives about `threshold`. Errors as for `high_contribution_side`.
    """
    half = high_contribution_side(contribution, threshold, centre) // 2
    middle = centre or _middle(contribution.shape)
    inside = [min(half, at) + 1 + min(half, size - 1 - at) for at, size in zip(middle, contribution.shape, strict=True)]
    return inside[0] * inside[1] / contribution.size


def replknet_rectangle(contribution: np.ndarray, threshold: float) -> tuple[int, float] | None:
    """Side in pixels and share of the image, as RepLKNet's published `analyze_erf.py` finds them for an averaged map.

    Of log10(1 + map), divided by its maximum, which depends on the gradient's scale: the smallest square of side 3, 5,
    7 ... round pixel (H // 2, W // 2) with strictly more than `threshold` of the sum; None where the script, which
    stops before the whole image, finds none. A side beyond the border, where the script's slices would run backwards,
    is cut. Errors as for `high_contribution_side`.
    """
    logged = replknet_scores(contribution)
    _check(logged.sum(), threshold)
    (height, width), total = logged.shape, logged.sum()
    row, column = _middle(logged.shape)
    for half in range(1, height // 2):
        left = max(column - half, 0)
        if logged[row - half : row + half + 1, left : column + half + 1].sum() / total > threshold:
            side = 2 * half + 1
            return side, side / height * side / width
    return None


def replknet_scores(contribution: np.ndarray) -> np.ndarray:
    """log10(1 + map), divided by its maximum, of which RepLKNet's script draws figures and takes areas."""
    logged = np.log10(contribution + 1)
    _check(logged.max())
    return logged / logged.max()


class RadialProfile(NamedTuple):
    """Contribution by `distance` from the centre, in whole pixels; arrays are (R,).

    mean: of the pixels whose distance is rounded to this one. held: share of the whole, 0 to 1, up to and with them.
    """

    distance: np.ndarray
    mean: np.ndarray
    held: np.ndarray


def radial_profile(contribution: np.ndarray, centre: tuple[int, int] | None = None) -> RadialProfile:
    """What pixels contribute by their Euclidean distance from `centre`, default pixel (H // 2, W // 2).

    Raises UserError for a map of zeros.
    """
    ring = np.rint(np.hypot(*_offsets(contribution.shape, centre))).astype(int)  # (H, W)
    count = np.bincount(ring.ravel())
    total = np.bincount(ring.ravel(), weights=contribution.ravel())
    _check(total.sum())
    there = np.flatnonzero(count)
    return RadialProfile(there, total[there] / count[there], np.cumsum(total)[there] / total.sum())


def contribution_radius(contribution: np.ndarray, threshold: float, centre: tuple[int, int] | None = None) -> float:
    """Radius in pixels of the smallest disc round `centre` that holds the share `threshold` of the contribution.

    Errors as for `high_contribution_side`.
    """
    distance = np.hypot(*_offsets(contribution.shape, centre)).ravel()
    order = np.argsort(distance, kind="stable")
    return float(distance[order][_first_with(contribution.ravel()[order], threshold)])


def _first_with(contributions: np.ndarray, threshold: float) -> int:
    """The index up to which the entries together first hold the share `threshold`."""
    held = np.cumsum(contributions)
    _check(held[-1], threshold)
    return int(np.searchsorted(held, threshold * held[-1]))


def _middle(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0] // 2, shape[1] // 2


def _offsets(shape: tuple[int, ...], centre: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns from the centre, both (H, W)."""
    row, column = centre or _middle(shape)
    rows, columns = np.indices(shape)
    return rows - row, columns - column


def _check(total: float, threshold: float = 1.0) -> None:
    if not 0 < threshold <= 1:
        raise UserError(f"threshold is {threshold}; expected a share of the contribution, above 0 and at most 1")
    if not total > 0:
        raise UserError("the receptive field is empty: no pixel contributes to this cell")


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """`map`, (H, W) float64: what each pixel contributes to `cell` (row, column) of the (h, w) map of `stage`.

    The unit is that of the gradient, activation per normalised pixel value (its square for `protocol` "squared"):
    compare shapes, not heights. `centre` is the pixel (row, column) that squares and radii are taken round. `images`
    were averaged; "replknet" `skipped` others because their gradient was NaN.
    """

    model: str
    stage: int
    stage_size: tuple[int, int]
    cell: tuple[int, int]
    images: int
    map: np.ndarray
    protocol: str = "positive"
    centre: tuple[int, int] | None = None
    skipped: int = 0

    @property
    def contribution(self) -> np.ndarray:
        """(H, W), not negative, of which areas and radii are taken: the map; |map| for "signed"; for "replknet" the
        logarithm of its script."""
        return replknet_scores(self.map) if self.protocol == "replknet" else abs(self.map)

    def high_contribution_area(self, threshold: float) -> float | None:
        """See the function of this name; for protocol "replknet" see `replknet_rectangle`."""
        return self._square(threshold)[1]

    def radius(self, threshold: float) -> float:
        """See `contribution_radius`; in pixels."""
        return contribution_radius(self.contribution, threshold, self.centre)

    def radial_profile(self) -> RadialProfile:
        """See the function of this name."""
        return radial_profile(self.contribution, self.centre)

    def _square(self, threshold: float) -> tuple[int | None, float | None]:
        if self.protocol == "replknet":
            return replknet_rectangle(self.map, threshold) or (None, None)
        given = self.contribution, threshold, self.centre
        return high_contribution_side(*given), high_contribution_area(*given)

    def rows(self) -> list[dict]:
        """One row a threshold: side of the square in pixels and its share of the image (None where RepLKNet's script
        finds none), and the radius in pixels."""
        rows = []
        for threshold in THRESHOLDS:
            side, area = self._square(threshold)
            found = {"threshold": threshold, "side": side, "area": area, "radius": self.radius(threshold)}
            rows += rows_of(self, "model stage protocol images", **found)
        return rows


def effective_receptive_field(
    model: nn.Module,
    data: Data,
    *,
    stage: int = -1,
    cell: tuple[int, int] | None = None,
    protocol: str = "positive",
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    checkpointing: bool | None = None,
    seed: int = 0,
) -> ReceptiveField:
    """Measure which pixels change the centre of a stage's feature map, on average over images.

    The gradient g of one cell, summed over the channels after ReLU, with respect to the normalised image (Luo et al.
    2016, arXiv 1701.04128). Without the ReLU a sum over channels, after a LayerNorm whose weights are equal, is a
    constant. The `protocol` says what is summed over the colours and averaged over the images:

    * "positive": ReLU(g), areas taken of the map itself.
    * "replknet": the same map; areas of its logarithm, as the published script of Ding et al. 2022 (RepLKNet, arXiv
      2203.06717) takes them, which leaves out images whose gradient is NaN. Its figures are for 50 images of 1024x1024.
    * "signed": g itself. Over images it cancels: what remains is where the model looks alike in all of them.
    * "absolute": |g|. "squared": g squared, which weighs strong pixels more.

    Memory is that of one batch: at most 16 images and 2**20 pixels, unless `batch_size` is given. From 2**19 pixels an
    image on (or by `checkpointing`), blocks keep only their input and are computed twice, if the model can. Neither
    changes the result beyond rounding.

    model: any timm model with `forward_intermediates`; `stage` counts its feature maps, from the end if negative.
    cell: (row, column), default (h // 2, w // 2), which in the unified backbone looks at pixel (H // 2, W // 2) if the
    map is even, and beside it if it is odd; another is measured round the pixel that it looks at in such a network.
    data: images (N, 3, H, W), (images, labels) or a Dataset, which is decoded at `image_size` (default: the model's
    own). device: default the model's own. seed: for models that draw random numbers in eval mode.
    Raises UserError for a model without feature maps, an unknown stage, cell, protocol or device, data that are no
    images, and a gradient that is not finite.
    """
    check_known("protocol", protocol, PROTOCOLS)
    stage = stage_index(model, stage)
    images = as_images(data, model, image_size)
    size = tuple(images.pixels.shape[-2:])
    pixels = size[0] * size[1]
    is_large = pixels >= CHECKPOINT_PIXELS
    batch_size = min(16, max(1, BATCH_PIXELS // pixels)) if batch_size is None else batch_size
    checkpointing = is_large if checkpointing is None else checkpointing
    total, used = torch.zeros(size, dtype=torch.float64), 0
    told = f"receptive field of {model_name(model)}" if is_large else ""
    with evaluating(model, device, seed) as device, torch.enable_grad():
        network = copy.deepcopy(model).requires_grad_(False)  # so less is kept for the backward pass
        if checkpointing and hasattr(network, "set_grad_checkpointing"):
            network.set_grad_checkpointing(True)
        for batch, _ in images.batches(model, device, batch_size, told):
            gradient, at, map_size = _gradient(network, batch, stage, cell)
            contribution = PROTOCOLS[protocol](gradient).sum(1)  # (B, H, W)
            if protocol == "replknet":
                contribution = contribution[~contribution.isnan().flatten(1).any(1)]
            total += contribution.cpu().double().sum(0)
            used += len(contribution)
    if not used or not total.isfinite().all():
        raise UserError(f"{model_name(model)}: the gradient at stage {stage} is not finite; float32 may help")
    return ReceptiveField(
        model=model_name(model),
        stage=stage,
        stage_size=map_size,
        cell=at,
        images=used,
        map=(total / used).numpy(),
        protocol=protocol,
        centre=_middle(size) if cell is None else _seen_pixel(model, stage, at, map_size, size),
        skipped=len(images.pixels) - used,
    )


def _gradient(
    model: nn.Module, batch: Tensor, stage: int, cell: tuple[int, int] | None
) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
    """The gradient of the stage's cell, (B, 3, H, W), that cell, and the (h, w) of its map."""
    batch = batch.requires_grad_()
    (feature,) = model.forward_intermediates(batch, indices=[stage], intermediates_only=True)
    if feature.ndim != 4:
        raise UserError(f"{model_name(model)}: stage {stage} gives shape {tuple(feature.shape)}, no map (B, C, h, w)")
    size = tuple(feature.shape[-2:])
    row, column = _middle(size) if cell is None else cell
    if not (0 <= row < size[0] and 0 <= column < size[1]):
        raise UserError(f"cell {cell}: the map of stage {stage} has rows 0 to {size[0] - 1}, columns to {size[1] - 1}")
    # Images do not mix in eval mode, so one backward pass gives every image its own gradient.
    (gradient,) = torch.autograd.grad(feature[:, :, row, column].relu().sum(), batch)
    return gradient.float() if gradient.dtype != torch.float64 else gradient, (int(row), int(column)), size


def _seen_pixel(
    model: nn.Module, stage: int, cell: tuple[int, int], map_size: tuple[int, int], image_size: tuple[int, int]
) -> tuple[int, int]:
    """The pixel (row, column) that a cell of a stage's map looks at, if convolutions of kernel 3, stride 2 and
    padding 1 made the map: cell times stride, which is that of `feature_info` or, without one, of the sizes."""
    stride = model.feature_info[stage].get("reduction")
    return tuple(
        min(i * (stride or -(-size // cells)), size - 1)
        for i, cells, size in zip(cell, map_size, image_size, strict=True)
    )


def stage_index(model: nn.Module, stage: int) -> int:
    """The stage's place counted from the front."""
    if not hasattr(model, "forward_intermediates") or not hasattr(model, "feature_info"):
        raise UserError(f"{model_name(model)} gives no feature maps: it lacks timm's forward_intermediates")
    stages = len(model.feature_info)
    if not -stages <= stage < stages:
        raise UserError(f"{model_name(model)} has no stage {stage}; known: 0 to {stages - 1}, or -1 for the last")
    return stage % stages
