"""Click a pixel of an image, and see where layers take their output at that place from: by exact mixing weights, by
attention over reduced keys, by sampling points, or by the gradient of a whole network.

A stage with fewer blocks than chosen, or a block with fewer heads or groups, shows its last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab import figures, measure
from stm_lab.explore.pictures import as_shown, checked_pixels, clipped, place_controls, token_at
from stm_lab.explore.shell import Explorer, State
from stm_lab.measure._batches import as_images, evaluating
from stm_lab.measure._sites import MixerLayer, Site, mixer_sites
from stm_lab.measure.mixing import token_weights
from stm_lab.measure.receptive import high_contribution_side, stage_index
from stm_lab.measure.sampling import LayerPoints
from stm_lab.util.errors import UserError, check_known

_AT_MOST = 4  # layers or heads that are drawn side by side
_SIDE_BY_SIDE, _MEAN = "side by side", "mean"
_LARGEST_PATCH = 16  # tokens a side

Layer = TypeVar("Layer", MixerLayer, LayerPoints)


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


def receptive_field(models: Mapping[str, nn.Module], images: Tensor) -> Explorer:
    """The receptive field of the cell nearest to the clicked pixel, with the square that holds half of it.

    models: any timm models with feature maps, by name. images: (N, 3, H, W), uint8 or in [0, 1], as large as the models
    see them.
    Raises UserError for no models or images, and a model without feature maps.
    """
    images = checked_pixels(models, images)
    size = images.shape[-2:]
    most = max(stage_index(model, 0) + len(model.feature_info) for model in models.values())

    @lru_cache
    def cells(name: str, number: int) -> tuple[int, ...]:
        """Sides of the stage's map."""
        model = models[name]
        with evaluating(model, None, 0) as device, torch.inference_mode():
            ((batch, _),) = as_images(images[:1], model).batches(model, device, 1)
            (feature,) = model.forward_intermediates(batch, indices=[number], intermediates_only=True)
        return tuple(feature.shape[-2:])

    @lru_cache(maxsize=512)
    def field(name: str, number: int, image: int, cell: tuple[int, int]) -> measure.ReceptiveField:
        return measure.effective_receptive_field(models[name], images[image : image + 1], stage=number, cell=cell)

    def draw(model: str, stage: int, image: int, row: int, column: int) -> Figure:
        number = stage_index(models[model], stage - 1)
        rows, columns = counts = cells(model, number)
        strides = [-(-pixels // count) for pixels, count in zip(size, counts, strict=True)]
        y, x = cell = clipped(row / strides[0], rows), clipped(column / strides[1], columns)
        found = field(model, number, image, cell)
        side = high_contribution_side(found.contribution, 0.5, found.centre)
        title = f"{model}, stage {stage}, cell ({y}, {x}) of {rows}x{columns}: half of its field "
        title += f"in {side} x {side} pixels, 90% within {found.radius(0.9):.0f} pixels"
        shown = as_shown(images[image])
        return figures.receptive_field_over_image(shown, found.contribution, found.centre, side, title)

    last = len(next(iter(models.values())).feature_info)
    controls = {
        "model": widgets.Dropdown(options=list(models)),
        "stage": widgets.Dropdown(options=range(1, most + 1), value=last),
        **place_controls(len(images), size),
    }

    def select(panel: int, x: float, y: float, _: State) -> State:
        is_image = panel < 2  # the other one is the scale of colours
        return {"row": clipped(y, size[0]), "column": clipped(x, size[1])} if is_image else {}

    return Explorer(draw, controls, select=select)


def by_stage(layers: Iterable[Layer]) -> dict[int, list[Layer]]:
    """Layers by their stage, from 1, in the order of their blocks."""
    found: dict[int, list[Layer]] = {}
    for layer in layers:
        found.setdefault((layer.stage or 0) + 1, []).append(layer)
    return found


def in_stage(name: str, layers: Mapping[int, list[Layer]], stage: int) -> list[Layer]:
    check_known("stage", stage, layers, f"{name}: ")
    return layers[stage]


def most_blocks(layers: Mapping[str, Mapping[int, Sequence]]) -> int:
    return max(len(here) for found in layers.values() for here in found.values())


def layer_controls(layers: Mapping[str, Mapping[int, Sequence]], stage: int) -> dict[str, widgets.Widget]:
    """Lists of the models and of all stages; `stage` is chosen first if there is one."""
    stages = sorted(set().union(*layers.values()))
    return {
        "model": widgets.Dropdown(options=list(layers)),
        "stage": widgets.Dropdown(options=stages, value=stage if stage in stages else stages[0]),
    }


def sites_of(model: nn.Module, image: Tensor, layers: Sequence[MixerLayer]) -> list[Site]:
    """Mixers with the tokens that reach them from an image, (1, 3, H, W)."""
    with evaluating(model, None, 0) as device:
        ((batch, _),) = as_images(image, model).batches(model, device, 1)
        return list(mixer_sites(model, batch, layers).values())


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


def middle(row: int, column: int, size: Sequence[int], cells: Sequence[int]) -> tuple[float, float]:
    """The middle of the token at a pixel, as fractions of the image."""
    y, x = token_at(row, column, size, cells)
    return (y + 0.5) / cells[0], (x + 0.5) / cells[1]


def pixel(x: float, y: float, size: Sequence[int]) -> dict[str, int]:
    """The pixel at a place of an image whose first pixel begins at 0; beside the image the nearest one."""
    return {"row": clipped(int(y), size[0]), "column": clipped(int(x), size[1])}
