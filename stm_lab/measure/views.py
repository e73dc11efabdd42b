"""Views of pictures: shifted, turned and scaled, in batches on their device.

Coordinates are in pixels of the decoded picture, rows first, from its upper left corner; the middle of pixel 0 is 0.5.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from stm_lab.util.errors import UserError


class Pictures(NamedTuple):
    """A batch of decoded pictures of different sizes, each in the upper left corner of its canvas.

    pixels: (B, 3, H, W) in [0, 1]; sizes: (B, 2) int64 on the CPU, rows and columns of each picture.
    """

    pixels: Tensor
    sizes: Tensor

    @classmethod
    def alike(cls, pixels: Tensor) -> Pictures:
        """Pictures that fill their canvases."""
        return cls(pixels, torch.tensor(pixels.shape[-2:]).expand(len(pixels), 2))

    def centred(self, size: tuple[int, int]) -> Tensor:
        """Where a centred crop of (rows, columns) starts in each picture, (B, 2); halves round as torchvision's do."""
        return ((self.sizes - torch.tensor(size)) / 2).round().long()


# ---- windows: whole pixels -------------------------------------------------------------------------------------------


def window(
    pictures: Pictures,
    start: Tensor,
    size: tuple[int, int],
    *,
    mirror: bool,
    within: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Cut (B, 3, *size) out of each picture, from row and column `start`, (B, 2), on, which may lie outside it.

    Outside the picture is its mirror image, or black, also outside `within`, the first and the last but one (B, 2).
    """
    low, high = within or (torch.zeros_like(pictures.sizes), pictures.sizes)
    pixels, shown = pictures.pixels, []
    for axis in (0, 1):
        places = start[:, axis, None] + torch.arange(size[axis])  # (B, size)
        shown.append((places >= low[:, axis, None]) & (places < high[:, axis, None]))
        pixels = _taken(pixels, folded(places, pictures.sizes[:, axis, None]), axis - 2)
    if mirror or all(map(torch.all, shown)):
        return pixels
    mask = shown[0][:, None, :, None] & shown[1][:, None, None, :]  # (B, 1, h, w)
    return pixels * mask.to(pixels.device, pixels.dtype)


def _taken(pixels: Tensor, places: Tensor, axis: int) -> Tensor:
    """The places (B, n) of each picture along an axis."""
    places = places.to(pixels.device)
    if (places == places[:1]).all():
        return pixels.index_select(axis, places[0])
    index = places[:, None, :, None] if axis == -2 else places[:, None, None, :]
    shape = list(pixels.shape)
    shape[axis] = places.shape[1]
    return pixels.gather(axis, index.expand(shape))


def folded(places: Tensor, length: Tensor) -> Tensor:
    """Whole places reflected at the ends of 0 .. length - 1, however often: -1 -> 1, length -> length - 2."""
    period = (2 * (length - 1)).clamp(min=1)
    places = places.remainder(period)
    return torch.minimum(places, period - places).minimum(length - 1)


# ---- turned ----------------------------------------------------------------------------------------------------------


def turned(pictures: Pictures, size: tuple[int, int], degrees: float, *, mirror: bool) -> Tensor:
    """The centred cut (B, 3, *size) of the pictures turned counter-clockwise about its middle, clipped to [0, 1]."""
    height, width = size
    margin = math.ceil((math.hypot(height, width) - min(size)) / 2) + 2  # corners come from there, and bicubic's reach
    around = (height + 2 * margin, width + 2 * margin)
    pixels = window(pictures, pictures.centred(size) - margin, around, mirror=mirror)
    quarters, rest = divmod(degrees, 90)
    if rest == 0 and (height - width) % 2 == 0:
        pixels = torch.rot90(pixels, int(quarters), (-2, -1))
        top, left = ((side - part) // 2 for side, part in zip(pixels.shape[-2:], size, strict=True))
        return pixels[..., top : top + height, left : left + width]
    grid = _turned_grid(size, around, math.radians(degrees)).to(pixels.device, pixels.dtype)
    grid = grid.expand(len(pixels), -1, -1, -1)
    return functional.grid_sample(pixels, grid, mode="bicubic", align_corners=False).clamp(0, 1)


def _turned_grid(size: tuple[int, int], around: tuple[int, int], angle: float) -> Tensor:
    """Where each pixel of the cut comes from, (1, h, w, 2) as `grid_sample` has it: columns first, -1 to 1."""
    y, x = (torch.arange(side, dtype=torch.float64) + 0.5 - side / 2 for side in size)
    y, x = y[:, None], x[None]
    column, row = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
    return torch.stack([2 * column / around[1], 2 * row / around[0]], -1)[None]


# ---- scaled ----------------------------------------------------------------------------------------------------------


def scaled(
    pictures: Pictures, size: tuple[int, int], factor: float | Tensor, *, mirror: bool, centre: Tensor | None = None
) -> Tensor:
    """The cut (B, 3, *size) of the pictures scaled by `factor`, one for all or (B,), about `centre`, clipped to [0, 1].

    centre: (B, 2) float64, in the picture, of the cut; default: of the centred cut. Bicubic as Pillow's: the kernel of
    Keys (a = -0.5), widened where content gets smaller.
    """
    if centre is None:
        centre = pictures.centred(size) + torch.tensor(size, dtype=torch.float64) / 2
    factor = torch.as_tensor(factor, dtype=torch.float64).expand(len(pictures.sizes))
    pixels = pictures.pixels
    for axis in (0, 1):
        side = pixels.shape[axis - 2]
        weights = _weights(size[axis], factor, centre[:, axis], pictures.sizes[:, axis], side, mirror)
        weights = weights.to(pixels.device, pixels.dtype)[:, None]  # (B or 1, 1, size, side)
        pixels = weights @ pixels if axis == 0 else pixels @ weights.mT
    return pixels.clamp(0, 1)


def _weights(count: int, factor: Tensor, centre: Tensor, length: Tensor, side: int, mirror: bool) -> Tensor:
    """What every pixel of a line, (side,), gives to each of `count`: (B, count, side), or (1, ...) if all are alike."""
    lines = torch.stack([factor, centre, length.double()], 1)
    if (lines == lines[:1]).all():
        factor, centre, length = factor[:1], centre[:1], length[:1]
    factor, length = factor[:, None, None], length[:, None, None]
    middle = centre[:, None, None] + (torch.arange(count, dtype=torch.float64)[:, None] + 0.5 - count / 2) / factor
    reach = 2 / factor.clamp(max=1)  # (B, 1, 1)
    taps = torch.arange(math.ceil(2 * reach.max().item()) + 2)
    places = (middle - reach).floor().long() + taps  # (B, count, taps)
    weights = keys_cubic((places + 0.5 - middle) * factor.clamp(max=1))
    if not mirror:
        weights = weights * ((places >= 0) & (places < length))
    weights = weights / weights.sum(-1, keepdim=True).where(weights.abs().sum(-1, keepdim=True) > 0, 1)
    if not mirror:
        weights = weights * ((middle >= 0) & (middle <= length))
    table = torch.zeros(len(places), count, side, dtype=torch.float64)
    return table.scatter_add_(2, folded(places, length), weights)


def keys_cubic(x: Tensor) -> Tensor:
    """The cubic convolution kernel with a = -0.5 (Keys 1981), 1 at 0 and 0 at all other whole numbers."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


# ---- the published translation ---------------------------------------------------------------------------------------

# Where the crop goes, (rows down, columns right), by the number that the published code draws; the picture goes the
# other way. It draws with randint(7), so that the last one never comes.
PUBLISHED_MODES = ((1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (-1, -1), (1, -1))


def published_boxes(sizes: Tensor, size: int, strength: int, modes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The published translation's crops: where each starts, and the first and the last but one pixel that it shows.

    sizes: (B, 2) of the pictures; modes: (B,) of `PUBLISHED_MODES`. The crop moves by `strength`, is cut at the border
    of the picture, and what is left of it is padded with black to `size`, half on each side: so the content moves by
    the whole strength only as far as the margin reaches, and by half of what is beyond. All are (B, 2).
    """
    centre = sizes // 2 + strength * torch.tensor(PUBLISHED_MODES)[modes]
    low, high = (centre - size // 2).clamp(min=0), torch.minimum(centre + size // 2, sizes)
    if (high <= low).any():
        raise UserError(f"strength {strength}: the published crop of {size} pixels leaves the picture")
    return low - (size - (high - low)) // 2, low, high


def published_shift(side: int, size: int, strength: float) -> float:
    """How far the content of a square picture really moves, in pixels, where the published axis says `strength`."""
    margin = (side - size) / 2
    return min(strength, margin) + max(0.0, strength - margin) / 2
