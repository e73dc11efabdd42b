"""Click a pixel, and see which pixels move what a network has there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab.explore.pictures import as_shown, check_models, place_controls
from stm_lab.explore.shell import Explorer
from stm_lab.measure import ReceptiveField, effective_receptive_field
from stm_lab.measure._batches import as_images, evaluating
from stm_lab.measure.receptive import high_contribution_side, stage_index


def receptive_field(models: Mapping[str, nn.Module], images: Tensor, *, stage: int = -1) -> Explorer:
    """The receptive field of the cell that looks at a pixel, in one image, with the square that holds half of it.

    Choose model, stage and image; click a pixel in either panel, or move the sliders for its row and column. The cell
    is the nearest of that stage's map. One gradient is taken for each new place and kept.

    Args:
        models: any timm models with feature maps, by name.
        images: (N, 3, H, W), uint8 or in [0, 1], at the size at which they are shown to the models.
        stage: the one that is shown first, from the end if negative.

    Raises UserError for no models or images, a model without feature maps, and a stage that it does not have.
    """
    check_models(models)
    first = next(iter(models.values()))
    images = as_images(images, first).pixels
    most = max(stage_index(model, 0) + len(model.feature_info) for model in models.values())
    size = tuple(images.shape[-2:])

    @lru_cache
    def strides(name: str, number: int) -> tuple[tuple[int, int], tuple[float, float]]:
        """Sides of the stage's map, and pixels between its cells."""
        model = models[name]
        with evaluating(model, None, 0) as device, torch.inference_mode():
            ((batch, _),) = as_images(images[:1], model).batches(model, device, 1)
            (feature,) = model.forward_intermediates(batch, indices=[number], intermediates_only=True)
        cells = tuple(feature.shape[-2:])
        return cells, tuple(-(-pixels // count) for pixels, count in zip(size, cells, strict=True))

    @lru_cache(maxsize=512)
    def field(name: str, number: int, image: int, cell: tuple[int, int]) -> ReceptiveField:
        return effective_receptive_field(models[name], images[image : image + 1], stage=number, cell=cell)

    def draw(model: str, stage: int, image: int, row: int, column: int) -> Figure:
        from stm_lab.figures import receptive_field_over_image

        number = stage_index(models[model], stage - 1)
        cells, stride = strides(model, number)
        cell = tuple(
            min(round(at / step), count - 1) for at, step, count in zip((row, column), stride, cells, strict=True)
        )
        found = field(model, number, image, cell)
        side = high_contribution_side(found.contribution, 0.5, found.centre)
        title = (
            f"{model}, stage {stage}, cell ({cell[0]}, {cell[1]}) of {cells[0]}x{cells[1]}: half of its field "
            f"in {side} x {side} pixels, 90% within {found.radius(0.9):.0f} pixels"
        )
        return receptive_field_over_image(as_shown(images[image]), found.contribution, found.centre, side, title)

    controls = {
        "model": widgets.Dropdown(options=list(models), description="model"),
        "stage": widgets.Dropdown(options=range(1, most + 1), value=stage_index(first, stage) + 1, description="stage"),
        **place_controls(len(images), size),
    }

    def select(panel: int, x: float, y: float) -> Mapping[str, int]:
        if panel > 1:  # the scale of colours
            return {}
        return {"row": min(max(round(y), 0), size[0] - 1), "column": min(max(round(x), 0), size[1] - 1)}

    return Explorer(draw, controls, select=select)
