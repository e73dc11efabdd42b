"""The 15 corruptions of ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261), at 5 severities, on tensors.

Written for this project from the published definitions, and tested against numbers of an independent library and closed
formulas. They differ from the files of ImageNet-C:

* frost is drawn, not photographed (see `weather.frost`);
* nothing is rounded to bytes or saved as a JPEG of quality 85, except where the corruption itself consists of bytes
  (glass_blur, jpeg_compression);
* the affine map of elastic_transform is computed, not looked up in steps of 1/32 pixel;
* an image's random numbers are the same at all severities, which therefore differ in strength alone (except in
  shot_noise: a Poisson count takes as many numbers as its mean requires).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stm_lab.data import rng
from stm_lab.measure.corruptions import blur, digital, noise, weather
from stm_lab.measure.corruptions.tables import CORRUPTIONS, GROUPS, SEVERITIES, TABLES, TINY_BELOW
from stm_lab.util.errors import UserError, check_known

__all__ = ["CORRUPTIONS", "GROUPS", "SEVERITIES", "TABLES", "corrupt", "table_for"]

_FUNCTIONS = {
    name: getattr(module, name)
    for module, names in zip((noise, blur, weather, digital), GROUPS.values(), strict=True)
    for name in names
}
MIN_SIDE = 16  # pixels: the widest blur mirrors 10 of them at each edge


def corrupt(
    images: Tensor, name: str, severity: int, *, seed: int = 0, first: int = 0, table: str | None = None
) -> Tensor:
    """Corrupt images (B, 3, H, W), uint8 or in [0, 1]: float32 in [0, 1], on their device.

    An image's random numbers depend on (seed, name, number of the image) alone: not on the batch, the severity or the
    device. Image i of the batch has the number `first` + i.

    name: one of `CORRUPTIONS`. severity: 1 to 5. table: of `TABLES`; default: `table_for` the images' size.
    Raises UserError for an unknown name, severity or table, for no images, and for sides below 16 pixels.
    """
    check_known("corruption", name, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity!r}: expected 1 to 5")
    if images.ndim != 4 or images.shape[1] != 3 or not len(images) or min(images.shape[-2:]) < MIN_SIDE:
        raise UserError(f"images of shape {tuple(images.shape)}; expected (N, 3, H, W), sides of {MIN_SIDE} and more")
    table = table or table_for(images.shape[-2:])
    check_known("table of severities", table, TABLES)
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    seeds = rng.words(seed, CORRUPTIONS.index(name), np.arange(first, first + len(images)), count=1)[:, 0]
    draws = [torch.Generator().manual_seed(word) for word in (seeds >> np.uint64(1)).tolist()]
    return _FUNCTIONS[name](pixels, TABLES[table][name][severity - 1], draws)


def table_for(size: tuple[int, int]) -> str:
    """The published numbers for images of (height, width): those for 64 pixels below 128, else those for 224."""
    return "tiny-imagenet-c" if min(size) < TINY_BELOW else "imagenet-c"
