"""What each token gives to the one that is clicked, by the exact mixing weights of a stage's mixers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab import figures, measure
from stm_lab.explore.parts import (
    as_shown,
    by_stage,
    checked_pixels,
    in_stage,
    layer_controls,
    middle,
    most_blocks,
    pixel,
    place_controls,
    sites_of,
    token_at,
)
from stm_lab.explore.shell import Explorer
from stm_lab.measure._batches import evaluating
from stm_lab.measure._sites import Site
from stm_lab.measure.mixing import token_weights
from stm_lab.util.errors import UserError

_AT_MOST = 4  # blocks or heads that are drawn side by side


def mixing_weights(models: Mapping[str, nn.Module], images: Tensor, *, stage: int = 1) -> Explorer:
    """What each token of an image gives to the clicked one, in the mixers of a stage, drawn over the image.

    The weights are rows of the exact Jacobian (see `measure.mixing_matrix`) of the mixers without the residual branch.
    `panels` are the stage's blocks, or the heads of one of them before its last projection; of many, four are shown.

    models: by name, with mixers as `measure.mixer_layers` finds them. images: (N, 3, H, W), uint8 or in [0, 1], as
    large as the models see them. stage: the first one, from 1.
    Raises UserError for no models or images, and a model without token mixers.
    """
    images = checked_pixels(models, images)
    size = images.shape[-2:]
    layers = {name: by_stage(measure.mixer_layers(model)) for name, model in models.items()}

    @lru_cache(maxsize=64)
    def sites(name: str, image: int, stage: int) -> list[Site]:
        return sites_of(models[name], images[image : image + 1], in_stage(name, layers[name], stage))

    @lru_cache(maxsize=512)
    def weights(name: str, image: int, stage: int, row: int, column: int, block: int | None) -> dict[str, np.ndarray]:
        """By block or, of one block, by head; row and column in pixels."""
        with evaluating(models[name], None, 0):
            return {
                label: token_weights(site, *token_at(row, column, size, site.size), head)[0]
                for label, site, head in _panels(name, sites(name, image, stage), block)
            }

    def draw(model: str, stage: int, panels: int | None, image: int, row: int, column: int) -> Figure:
        maps = weights(model, image, stage, row, column, panels)
        cells = next(iter(maps.values())).shape
        title = f"{model}, stage {stage}: what each of {cells[0]}x{cells[1]} tokens gives to the framed one"
        return figures.mixing_over_image(as_shown(images[image]), maps, middle(row, column, size, cells), title)

    choices = [("the blocks", None)] + [(f"heads of block {one}", one) for one in range(1, most_blocks(layers) + 1)]
    controls = {
        **layer_controls(layers, stage),
        "panels": widgets.Dropdown(options=choices, value=None),
        **place_controls(len(images), size),
    }
    return Explorer(draw, controls, select=lambda panel, x, y, _: pixel(x, y, size))


def _panels(name: str, sites: Sequence[Site], block: int | None) -> list[tuple[str, Site, int | None]]:
    """What is drawn of a stage's mixers: (title, mixer, head)."""
    if block is None:
        return [(f"block {number + 1}", sites[number], None) for number in _some(len(sites))]
    block = min(block, len(sites))
    site = sites[block - 1]
    if not site.heads:
        raise UserError(f"{name}: its mixers have no heads; choose the blocks")
    return [(f"block {block}, head {head + 1}", site, head) for head in _some(site.heads)]


def _some(count: int) -> list[int]:
    """Of so many numbers from 0 all, or the first, the last, and some between."""
    return np.unique(np.linspace(0, count - 1, min(_AT_MOST, count)).round().astype(int)).tolist()
