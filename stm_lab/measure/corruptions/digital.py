"""Digital: low contrast, elastic, large pixels, bad JPEGs. images (B, 3, H, W) in [0, 1]; a generator an image."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import PIL.Image
import torch
from torch import Generator, Tensor
from torch.nn import functional

from stm_lab.measure.corruptions.blur import gaussian_filter
from stm_lab.measure.corruptions.noise import drawn


def contrast(images: Tensor, kept: float, _: Sequence[Generator]) -> Tensor:
    mean = images.mean((2, 3), keepdim=True)  # of each colour
    return ((images - mean) * kept + mean).clamp(0, 1)


def elastic_transform(images: Tensor, parameters: tuple[float, float, float], draws: Sequence[Generator]) -> Tensor:
    """An affine map that moves three points at random, then each pixel by a smooth random field."""
    strength, sigma, reach = parameters
    height, width = images.shape[-2:]
    corners = reach * (2 * drawn(torch.rand, (3, 2), draws).double() - 1)
    field = 2 * drawn(torch.rand, (2, height, width), draws).double() - 1
    # as in the published script, the affine map's border mirrors without the outermost pixel, the field's with it
    images = _sampled(images, affine_places(height, width, corners), "reflect")
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    shift = strength * gaussian_filter(field, sigma, 3, "symmetric")  # (B, 2, H, W): right, down
    return _sampled(images, torch.stack([x, y]) + shift, "symmetric").clamp(0, 1)


def affine_places(height: int, width: int, moves: Tensor) -> Tensor:
    """The sources of pixels, (B, 2, H, W) as (x, y), when three points of the middle move by `moves`, (B, 3, 2)."""
    middle, reach = torch.tensor([height // 2, width // 2]), min(height, width) // 3
    points = middle + reach * torch.tensor([[1, 1], [1, -1], [-1, -1]])  # (3, 2), read as (x, y), as in the script
    before = torch.cat([points.double(), torch.ones(3, 1)], 1)  # (3, 3)
    after = torch.cat([points + moves, torch.ones(len(moves), 3, 1)], 2)  # (B, 3, 3)
    back = torch.linalg.solve(after, before.expand_as(after))  # after @ back = before
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    here = torch.stack([x, y, torch.ones_like(x)], -1).double()  # (H, W, 3)
    return torch.einsum("hwi,bij->bjhw", here, back)[:, :2]


def _sampled(images: Tensor, places: Tensor, border: str) -> Tensor:
    """The images at (x, y), (B, 2, H, W), bilinear. Outside, "reflect" mirrors without the outermost pixel, "symmetric"
    with it."""
    size = torch.tensor([images.shape[-1], images.shape[-2]], dtype=torch.float64)[:, None, None]
    has_ends = border == "reflect"
    grid = 2 * places / (size - 1) - 1 if has_ends else (2 * places + 1) / size - 1
    grid = grid.permute(0, 2, 3, 1).to(images)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=has_ends)


def pixelate(images: Tensor, share: float, _: Sequence[Generator]) -> Tensor:
    """Reduce to a share of the sides and enlarge again; each pixel is the mean of those whose middle lies within it."""
    height, width = images.shape[-2:]
    small = (int(height * share), int(width * share))
    for target in (small, (height, width)):
        down, across = (
            box_matrix(side, wanted).to(images) for side, wanted in zip(images.shape[-2:], target, strict=True)
        )
        images = down @ images @ across.mT
    return images


def box_matrix(side: int, wanted: int) -> Tensor:
    """The weight of each pixel of a line of `side` in one of `wanted`, as Pillow's BOX, (wanted, side) float64."""
    # the distance between the middles of two pixels, times 2 * side * wanted: whole numbers, so that ties fall to one
    # side only
    away = (2 * torch.arange(side) + 1) * wanted - (2 * torch.arange(wanted)[:, None] + 1) * side
    reach = max(side, wanted)
    inside = ((away > -reach) & (away <= reach)).double()
    return inside / inside.sum(1, keepdim=True)


def jpeg_compression(images: Tensor, quality: int, _: Sequence[Generator]) -> Tensor:
    """Write and read as a JPEG of that quality, by Pillow, one by one on the CPU."""
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    read = []
    for picture in pixels:
        file = io.BytesIO()
        PIL.Image.fromarray(picture).save(file, "JPEG", quality=quality)
        read.append(np.asarray(PIL.Image.open(file)))
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).to(images) / 255
