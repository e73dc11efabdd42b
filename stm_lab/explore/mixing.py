"""Click a token, and see where each layer takes it from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab.explore.pictures import as_shown, check_models, pixel_at, place_controls, token_at
from stm_lab.explore.shell import Explorer
from stm_lab.measure import mixer_layers
from stm_lab.measure._batches import as_images, evaluating
from stm_lab.measure._sites import MixerLayer, Site, mixer_sites
from stm_lab.measure.mixing import token_weights
from stm_lab.util.errors import UserError

_AT_MOST = 4  # layers or heads that are drawn side by side


def mixing_weights(models: Mapping[str, nn.Module], images: Tensor, *, stage: int = 1) -> Explorer:
    """What each token of an image gives to one output token, in the mixers of a stage, drawn over the image.

    Choose model, stage and image; click a token in any panel, or move the sliders for its row and column in pixels. The
    weights are rows of the exact Jacobian (see `measure.mixing_matrix`), of the mixers alone, without the residual
    branch: one backward pass a channel, side by side; what was seen is kept. `panels` are the stage's blocks, or the
    heads of one of them, before its last projection. Of more than four panels four are shown.

    Args:
        models: models with token mixers, by name; ours, or those of timm that `measure.mixer_layers` finds.
        images: (N, 3, H, W), uint8 or in [0, 1], at the size at which they are shown to the models.
        stage: the one that is shown first, from 1.

    Raises UserError for no models or images, and a model without token mixers.
    """
    check_models(models)
    images = as_images(images, next(iter(models.values()))).pixels
    size = tuple(images.shape[-2:])
    layers = {name: mixer_layers(model) for name, model in models.items()}
    stages = sorted({layer.stage + 1 for found in layers.values() for layer in found})

    @lru_cache(maxsize=64)
    def sites(name: str, image: int, stage: int) -> dict[str, Site]:
        model = models[name]
        with evaluating(model, None, 0) as device:
            ((batch, _),) = as_images(images[image : image + 1], model).batches(model, device, 1)
            return mixer_sites(model, batch, _of_stage(name, layers[name], stage))

    @lru_cache(maxsize=512)
    def weights(name: str, image: int, stage: int, row: int, column: int, block: int | None) -> dict[str, np.ndarray]:
        """By block or, of one block, by head; row and column in pixels."""
        found, at = {}, sites(name, image, stage)
        with evaluating(models[name], None, 0):
            for label, layer, head in _panels(name, _of_stage(name, layers[name], stage), at, block):
                site = at[layer.name]
                found[label] = token_weights(site, *token_at(row, column, size, site.size), head)[0]
        return found

    def draw(model: str, stage: int, panels: int | None, image: int, row: int, column: int) -> Figure:
        from stm_lab.figures import mixing_over_image

        maps = weights(model, image, stage, row, column, panels)
        cells = next(iter(maps.values())).shape
        title = f"{model}, stage {stage}: what each of {cells[0]}x{cells[1]} tokens gives to the framed one"
        asks = token_at(row, column, size, cells)
        place = (asks[0] + 0.5) / cells[0], (asks[1] + 0.5) / cells[1]
        return mixing_over_image(as_shown(images[image]), maps, place, title)

    most = max(layer.block + 1 for found in layers.values() for layer in found)
    choices = [("the blocks", None), *((f"heads of block {number}", number) for number in range(1, most + 1))]
    controls = {
        "model": widgets.Dropdown(options=list(models), description="model"),
        "stage": widgets.Dropdown(options=stages, value=stage if stage in stages else stages[0], description="stage"),
        "panels": widgets.Dropdown(options=choices, value=None, description="panels"),
        **place_controls(len(images), size),
    }
    return Explorer(draw, controls, select=lambda panel, x, y: pixel_at(x, y, size))


def _of_stage(name: str, layers: Sequence[MixerLayer], stage: int) -> list[MixerLayer]:
    found = [layer for layer in layers if layer.stage == stage - 1]
    if not found:
        known = ", ".join(str(number + 1) for number in sorted({layer.stage for layer in layers}))
        raise UserError(f"{name} has no mixers in stage {stage}; known: {known}")
    return found


def _panels(
    name: str, layers: Sequence[MixerLayer], sites: Mapping[str, Site], block: int | None
) -> list[tuple[str, MixerLayer, int | None]]:
    """What is drawn of a stage's layers: (title, layer, head)."""
    if block is None:
        return [(f"block {layer.block + 1}", layer, None) for layer in _some(layers)]
    if block > len(layers):
        raise UserError(f"{name} has {len(layers)} blocks in stage {layers[0].stage + 1}, and no block {block}")
    layer = layers[block - 1]
    if not sites[layer.name].heads:
        raise UserError(f"{name}: its mixers have no heads; choose the blocks")
    return [(f"block {block}, head {head + 1}", layer, head) for head in _some(range(sites[layer.name].heads))]


def _some(items: Sequence) -> list:
    """All, or of many the first, the last, and some between."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(_AT_MOST, len(items))).round().astype(int))]
