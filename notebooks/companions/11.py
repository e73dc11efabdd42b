"""Notebook 11's own: click a pixel of an image, and see the receptive field of a network's cell there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab import figures, measure
from stm_lab.explore.parts import as_shown, checked_pixels, clipped, place_controls
from stm_lab.explore.shell import Explorer, State
from stm_lab.measure._batches import as_images, evaluating
from stm_lab.measure.receptive import high_contribution_side, stage_index


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
