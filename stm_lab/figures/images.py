"""The images themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from stm_lab.figures.style import described
from stm_lab.util.errors import UserError


def image_grid(images: Sequence, titles: Sequence[str], columns: int = 8) -> Figure:
    """A contact sheet: small images with their names.

    images: a tensor (N, 3, H, W), uint8 or in [0, 1], or N pictures (H, W, 3), PIL's too; titles: N names.
    Raises UserError for no images and for another number of titles.
    """
    if len(images) == 0 or len(images) != len(titles):
        raise UserError(f"image_grid: {len(images)} images with {len(titles)} titles; expected one each")
    columns = min(columns, len(images))
    lines = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.25 * columns, 1.45 * lines), dpi=120, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, title in zip(grid, images, titles, strict=False):
        pixels = np.asarray(image)
        axes.imshow(pixels.transpose(1, 2, 0) if pixels.shape[0] == 3 else pixels, interpolation="nearest")
        axes.set_title(title, fontsize=8, pad=3)
    named = ", ".join(title.replace("\n", " ") for title in titles)
    return described(figure, f"{len(images)} images, row by row: {named}.")
