"""Receptive fields, as maps over the input."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stm_lab.errors import UserError
from stm_lab.measure.receptive import high_contribution_area, high_contribution_side


def receptive_fields(maps: Mapping[str, np.ndarray]) -> Figure:
    """One panel a mixer: the share of its contribution that each pixel makes, on one logarithmic scale for all.

    maps: (H, W) contributions, not negative, as `effective_receptive_field` gives; each is divided by its sum. The
    white square is the smallest centred one that holds half of it, the title its share of the image.
    Raises UserError for no maps or an empty one.
    """
    if not maps:
        raise UserError("receptive_fields: no maps")
    side = {name: high_contribution_side(contribution, 0.5) for name, contribution in maps.items()}
    shares = {name: contribution / contribution.sum() for name, contribution in maps.items()}
    top = max(share.max() for share in shares.values())
    # Four decades: a pixel below is as dark as one without any.
    norm = LogNorm(top * 1e-4, top, clip=True)

    columns, lines = min(len(maps), 6), math.ceil(len(maps) / 6)
    figure = Figure(figsize=(1.0 + 1.9 * columns, 2.3 * lines), dpi=120, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (name, share) in zip(grid, shares.items(), strict=False):
        height, width = share.shape
        # Pixels without any contribution are raised to the scale's foot: the logarithm of 0 would leave holes.
        image = axes.imshow(np.maximum(share, norm.vmin), norm=norm, cmap="inferno", interpolation="nearest")
        corner = (width // 2 - side[name] / 2, height // 2 - side[name] / 2)
        axes.add_patch(Rectangle(corner, side[name], side[name], fill=False, edgecolor="white", linewidth=1.1))
        axes.set_title(f"{name}\n50% in {100 * high_contribution_area(maps[name], 0.5):.1f}% of area", fontsize=9)
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axes.set_xticks([0, width - 1])
        axes.set_yticks([0, height - 1])
        axes.tick_params(labelsize=7, length=2)
        axes.set_xlabel("input pixel", fontsize=8, labelpad=-7)  # between the two numbers
    for axes in grid[len(maps) :]:
        axes.remove()
    bar = figure.colorbar(image, ax=list(grid[: len(maps)]), shrink=0.75, aspect=22, pad=0.015)
    bar.set_label("share of contribution", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure
