"""Weather: snow, frost, fog, brightness. images (B, 3, H, W) in [0, 1]; a generator an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from stm_lab.measure.corruptions.blur import enlarged, trails
from stm_lab.measure.corruptions.noise import drawn

GREY = (0.299, 0.587, 0.114)

# Of the frost: the mean colours that it is drawn between, its deviation and the exponent of its power spectrum, after
# the five photographs that the published script draws from: means from (.31, .59, .65) to (.79, .81, .84), deviations
# .07 to .17, exponents -1.1 to -2.0.
FROST_COLOURS = ((0.37, 0.53, 0.59), (0.79, 0.81, 0.84))
FROST_DEVIATION = 0.11
FROST_EXPONENT = -1.6


def snow(images: Tensor, parameters: tuple[float, ...], draws: Sequence[Generator]) -> Tensor:
    """Flakes with trails that fall from above, in two layers, one turned by 180 degrees; everything is whitened."""
    mean, deviation, size, threshold, radius, sigma, kept = parameters
    angles = [-135 + 90 * torch.rand((), generator=generator).item() for generator in draws]
    flakes = mean + deviation * drawn(torch.randn, (1, *images.shape[-2:]), draws).to(images.device)
    flakes = enlarged(flakes, size)
    flakes = trails(torch.where(flakes < threshold, 0, flakes).clamp(0, 1), radius, sigma, angles)
    grey = torch.tensordot(images, images.new_tensor(GREY), ([1], [0]))[:, None]
    whiter = kept * images + (1 - kept) * torch.maximum(images, 1.5 * grey + 0.5)
    return (whiter + flakes + flakes.rot90(2, (-2, -1))).clamp(0, 1)


def frost(images: Tensor, parameters: tuple[float, float], draws: Sequence[Generator]) -> Tensor:
    """A weighted sum of the image and of frost.

    ImageNet-C has photographs of frost, which may not be redistributed; here `frost_textures` draws them. The weights
    are the published ones, so the strength is similar, but the structure is not: do not compare this corruption's
    numbers with those of ImageNet-C.
    """
    of_image, of_frost = parameters
    return (of_image * images + of_frost * frost_textures(images.shape[-2:], draws).to(images)).clamp(0, 1)


def frost_textures(size: tuple[int, int], draws: Sequence[Generator]) -> Tensor:
    """Bluish white crystals, (B, 3, *size) in [0, 1]: clouds, and needles where two other clouds change sign."""
    height, width = size
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    frequency = torch.hypot(rows, columns)
    amplitude = torch.where(frequency > 0, frequency.clamp(min=1e-6) ** (FROST_EXPONENT / 2), 0)
    noise = torch.fft.rfft2(drawn(torch.randn, (3, height, width), draws))
    clouds = _standardised(torch.fft.irfft2(noise * amplitude, s=(height, width)))  # (B, 3, H, W)
    needles = _standardised((-4 * clouds[:, 1:].abs()).exp().sum(1))
    structure = _standardised(clouds[:, 0] + 0.7 * needles)[:, None]
    dark, light = torch.tensor(FROST_COLOURS)
    mix = drawn(torch.rand, (1, 1, 1), draws)
    return (dark[:, None, None] * (1 - mix) + light[:, None, None] * mix + FROST_DEVIATION * structure).clamp(0, 1)


def _standardised(field: Tensor) -> Tensor:
    return (field - field.mean((-2, -1), keepdim=True)) / field.std((-2, -1), keepdim=True)


def fog(images: Tensor, parameters: tuple[float, float], draws: Sequence[Generator]) -> Tensor:
    """Plasma is added, and the brightest pixel scaled back to its value."""
    thickness, decay = parameters
    height, width = images.shape[-2:]
    mist = plasma(max(height, width), decay, draws)[:, None, :height, :width].to(images)
    brightest = images.amax((1, 2, 3), keepdim=True)
    return ((images + thickness * mist) * brightest / (brightest + thickness)).clamp(0, 1)


def plasma(side: int, decay: float, draws: Sequence[Generator]) -> Tensor:
    """Fractal clouds, (B, S, S) float64 from 0 to 1, S the power of two from `side` on, by diamonds and squares.

    The torus is filled from coarse to fine: the middle of each square is the mean of its corners, the middle of each
    edge that of its four neighbours, each plus a wobble. In the published script the wobble is uniform with amplitude
    w * w, and w is divided by `decay` from step to step, so the amplitude falls by the square of `decay`.
    """
    size = 1 << (side - 1).bit_length()
    field = torch.zeros(len(draws), size, size, dtype=torch.float64)
    step, wobble = size, 100.0
    while step > 1:
        half, cells = step // 2, size // step
        noise = wobble**2 * (2 * drawn(torch.rand, (3, cells, cells), draws).double() - 1)
        corners = field[:, ::step, ::step].clone()
        below, beside = corners.roll(-1, 1), corners.roll(-1, 2)
        middles = (corners + below + beside + below.roll(-1, 2)) / 4 + noise[:, 0]
        field[:, half::step, half::step] = middles
        field[:, ::step, half::step] = (corners + beside + middles + middles.roll(1, 1)) / 4 + noise[:, 1]
        field[:, half::step, ::step] = (corners + below + middles + middles.roll(1, 2)) / 4 + noise[:, 2]
        step, wobble = half, wobble / decay
    field -= field.amin((1, 2), keepdim=True)
    return field / field.amax((1, 2), keepdim=True)


def brightness(images: Tensor, added: float, _: Sequence[Generator]) -> Tensor:
    """Add to the value of (hue, saturation, value): all three colours times a factor; black becomes grey."""
    value = images.amax(1, keepdim=True)
    brighter = (value + added).clamp(max=1)
    return torch.where(value > 0, images * (brighter / value.clamp(min=1e-6)), brighter).clamp(0, 1)
