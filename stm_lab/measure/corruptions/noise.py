"""Noise: Gaussian, shot noise, impulses. images (B, 3, H, W) in [0, 1]; a generator an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor


def gaussian_noise(images: Tensor, deviation: float, draws: Sequence[Generator]) -> Tensor:
    return (images + deviation * drawn(torch.randn, images.shape[1:], draws).to(images.device)).clamp(0, 1)


def shot_noise(images: Tensor, photons: float, draws: Sequence[Generator]) -> Tensor:
    """Every value becomes a Poisson count, with the mean `photons` for white."""
    counts = [torch.poisson(image, generator=g) for image, g in zip((images * photons).cpu(), draws, strict=True)]
    return (torch.stack(counts).to(images.device) / photons).clamp(0, 1)


def impulse_noise(images: Tensor, share: float, draws: Sequence[Generator]) -> Tensor:
    """Salt and pepper, in equal parts, in each colour independently."""
    hit, kind = drawn(torch.rand, (2, *images.shape[1:]), draws).to(images.device).unbind(1)
    return torch.where(hit < share, (kind < 0.5).to(images.dtype), images)


def drawn(draw: Callable[..., Tensor], shape: Sequence[int], draws: Sequence[Generator]) -> Tensor:
    """(B, *shape) float32, each image's numbers from its own generator."""
    return torch.stack([draw(tuple(shape), generator=generator) for generator in draws])
