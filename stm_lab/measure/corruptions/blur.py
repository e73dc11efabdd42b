"""Blur: defocus, frosted glass, motion, zoom. images (B, 3, H, W) in [0, 1]; a generator an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional


def defocus_blur(images: Tensor, parameters: tuple[float, float], _: Sequence[Generator]) -> Tensor:
    kernel = disk(*parameters).to(images.device, images.dtype)
    reach = len(kernel) // 2
    padded = functional.pad(images, [reach] * 4, mode="reflect").flatten(0, 1)[:, None]  # (3B, 1, H, W)
    return functional.conv2d(padded, kernel[None, None]).view_as(images).clamp(0, 1)


def disk(radius: float, edge: float) -> Tensor:
    """The kernel of a defocused point, (k, k), float64; `edge` is the sigma of a blur that smooths its border.

    Its sum is 1, but 1.013 for radius 8 and 1.011 for 10, where the published blur mirrors the disk at the end of the
    kernel: those two severities of ImageNet-C are a little brighter, and so are these.
    """
    reach, taps = (8, 3) if radius <= 8 else (int(radius), 5)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    sharp = torch.from_numpy((x**2 + y**2 <= radius**2).astype(float))
    line = torch.exp(-((torch.arange(taps, dtype=torch.float64) - taps // 2) ** 2) / (2 * edge**2))
    line /= line.sum()
    padded = functional.pad((sharp / sharp.sum())[None, None], [taps // 2] * 4, mode="reflect")
    return functional.conv2d(padded, torch.outer(line, line)[None, None])[0, 0]


def glass_blur(images: Tensor, parameters: tuple[float, int, int], draws: Sequence[Generator]) -> Tensor:
    """Blurred, pixels shuffled among neighbours, blurred again.

    The script that made ImageNet-C does not swap two pixels, as the paper says, but copies one over the other (an
    assignment between views of one array); this does the same, to be as strong.
    """
    sigma, distance, rounds = parameters
    height, width = images.shape[-2:]
    # The script truncates to bytes. A thousandth more, so that a flat place does not depend on rounding, which differs
    # from device to device and from batch to batch.
    blurred = (gaussian_filter(images, sigma, 4, "edge") * 255 + 1e-3).floor() / 255
    places = torch.from_numpy(copied_places(height, width, distance, rounds, draws)).to(images.device)
    moved = blurred.flatten(2).gather(2, places[:, None].expand(-1, images.shape[1], -1)).view_as(images)
    return gaussian_filter(moved, sigma, 4, "edge").clamp(0, 1)


def copied_places(height: int, width: int, distance: int, rounds: int, draws: Sequence[Generator]) -> np.ndarray:
    """The source of every pixel, (B, H * W): one by one from the lower right corner, each a copy of a neighbour."""
    rows, columns = np.arange(height - distance, distance, -1), np.arange(width - distance, distance, -1)
    shape = (rounds, len(rows), len(columns), 2)
    steps = torch.stack([torch.randint(-distance, distance, shape, generator=g) for g in draws], -1).numpy()
    here = (rows[:, None] * width + columns).ravel()
    places = np.repeat(np.arange(height * width)[:, None], len(draws), 1)  # (H * W, B)
    images = np.arange(len(draws))
    for step in steps:
        there = here[:, None] + step[:, :, 0].reshape(len(here), -1) * width + step[:, :, 1].reshape(len(here), -1)
        for to, source in zip(here, there, strict=True):
            places[to] = places[source, images]
    return places.T.copy()


def motion_blur(images: Tensor, parameters: tuple[int, float], draws: Sequence[Generator]) -> Tensor:
    """A trail in a direction of -45 to 45 degrees."""
    angles = [-45 + 90 * torch.rand((), generator=generator).item() for generator in draws]
    return trails(images, *parameters, angles).clamp(0, 1)


def trails(images: Tensor, radius: int, sigma: float, angles: Sequence[float]) -> Tensor:
    """Blur each image (B, C, H, W) along its own line: half a Gaussian of 2 * radius + 1 whole pixels, in degrees
    clockwise from the right, as ImageMagick's motion blur; the border's pixels are repeated beyond it."""
    weights = trail_weights(radius, sigma)
    height, width = images.shape[-2:]
    reach = len(weights)
    padded = functional.pad(images, [reach] * 4, mode="replicate")
    blurred = torch.zeros_like(images)
    for target, source, angle in zip(blurred, padded, map(math.radians, angles), strict=True):
        for i, weight in enumerate(weights.tolist()):
            top = reach + math.ceil(i * math.sin(angle) - 0.5)
            left = reach + math.ceil(i * math.cos(angle) - 0.5)
            target += weight * source[:, top : top + height, left : left + width]
    return blurred


def trail_weights(radius: int, sigma: float) -> Tensor:
    weights = torch.exp(-(torch.arange(2 * radius + 1, dtype=torch.float64) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def zoom_blur(images: Tensor, parameters: tuple[float, float, float], _: Sequence[Generator]) -> Tensor:
    """The mean of the image and of enlargements of it."""
    factors = np.arange(*parameters)
    return (sum((enlarged(images, factor) for factor in factors), images) / (len(factors) + 1)).clamp(0, 1)


def enlarged(images: Tensor, factor: float) -> Tensor:
    """The middle of (B, C, H, W), `factor` times as large, bilinear between the middles of its outermost pixels."""
    height, width = images.shape[-2:]
    for axis, side in ((2, height), (3, width)):
        kept = math.ceil(side / factor)
        images = images.narrow(axis, (side - kept) // 2, kept)
    size = [round(side * factor) for side in images.shape[-2:]]
    images = functional.interpolate(images, size, mode="bilinear", align_corners=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return images[..., top : top + height, left : left + width]


# ---- the Gaussian filter ---------------------------------------------------------------------------------------------


def gaussian_filter(images: Tensor, sigma: float, truncate: float, border: str) -> Tensor:
    """Blur (..., H, W) along both axes by a Gaussian that ends at `truncate` sigmas.

    border: "edge" repeats the outermost pixel, "symmetric" mirrors with it: `nearest` and `reflect` of scipy.
    """
    down, across = (gaussian_matrix(side, sigma, truncate, border).to(images) for side in images.shape[-2:])
    return down @ images @ across.mT


def gaussian_matrix(side: int, sigma: float, truncate: float, border: str) -> Tensor:
    """The weight of every pixel of a line in each blurred one, (side, side) float64."""
    reach = int(truncate * sigma + 0.5)
    if reach == 0:
        return torch.eye(side, dtype=torch.float64)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-(offsets.double() ** 2) / (2 * sigma**2))
    places = torch.arange(side)[:, None] + offsets
    if border == "edge":
        places = places.clamp(0, side - 1)
    else:
        places = places.remainder(2 * side)
        places = torch.minimum(places, 2 * side - 1 - places)
    table = torch.zeros(side, side, dtype=torch.float64)
    return table.scatter_add_(1, places, (weights / weights.sum()).expand(side, -1))
