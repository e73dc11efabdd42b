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
import torch.nn.functional as F
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
from stm_lab.mixers import get_mixer
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
    layers = {name: _by_stage(measure.mixer_layers(model)) for name, model in models.items()}

    @lru_cache(maxsize=64)
    def sites(name: str, image: int, stage: int) -> list[Site]:
        return _sites(models[name], images[image : image + 1], _in_stage(name, layers[name], stage))

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
        return figures.mixing_over_image(as_shown(images[image]), maps, _middle(row, column, size, cells), title)

    choices = [("the blocks", None)] + [(f"heads of block {one}", one) for one in range(1, _most_blocks(layers) + 1)]
    controls = {
        **_layer_controls(layers, stage),
        "panels": widgets.Dropdown(options=choices, value=None),
        **place_controls(len(images), size),
    }
    return Explorer(draw, controls, select=lambda panel, x, y, _: _pixel(x, y, size))


def query_map(models: Mapping[str, nn.Module], images: Tensor, *, stage: int = 1) -> Explorer:
    """The attention of the clicked query over the reduced keys of spatial-reduction attention, laid over the image.

    The ratio is the side, in tokens, of the patch behind a key: the trained one, or any other in that block alone (see
    `reduced_tokens`).

    models: by name, with mixers of pvt or pvt_v2. images: (N, 3, H, W), uint8 or in [0, 1], as large as the models see
    them. stage: the first one, from 1.
    Raises UserError for no models or images, and a model with other mixers.
    """
    images = checked_pixels(models, images)
    size = images.shape[-2:]
    layers = {name: _by_stage(_reducing(name, model)) for name, model in models.items()}

    @lru_cache(maxsize=64)
    def attention(name: str, image: int, stage: int, block: int, ratio: int) -> np.ndarray:
        """(heads, H, W, rows, columns); ratio 0 is the trained one."""
        layer = _in_stage(name, layers[name], stage)[block - 1]
        (site,) = _sites(models[name], images[image : image + 1], [layer])
        mixer = models[name].get_submodule(layer.name)
        with torch.no_grad():
            found = key_attention(mixer, site.tokens.view(1, *site.size, -1), ratio or mixer.reduction)
        return found[0].float().cpu().numpy()

    def draw(model: str, stage: int, block: int, head: str, ratio: int, image: int, row: int, column: int) -> Figure:
        here = _in_stage(model, layers[model], stage)
        block = min(block, len(here))
        trained = models[model].get_submodule(here[block - 1].name).reduction
        weights = attention(model, image, stage, block, ratio)
        H, W, rows, columns = weights.shape[1:]
        side = min(ratio or trained, H, W)
        other = "" if side == trained else f" (trained with {trained}x{trained})"
        title = f"{model}, stage {stage}, block {block}: {H}x{W} queries, {rows}x{columns} keys of patches"
        y, x = token_at(row, column, size, (H, W))
        return figures.query_map(
            as_shown(images[image]),
            _of_heads(weights[:, y, x], head),
            _middle(row, column, size, (H, W)),
            tokens=(H, W),
            reduction=side,
            title=f"{title} {side}x{side}{other}",
        )

    mixers = [models[name].get_submodule(one.name) for name in models for of in layers[name].values() for one in of]
    heads = [_SIDE_BY_SIDE, _MEAN, *map(str, range(1, max(mixer.heads for mixer in mixers) + 1))]
    ratios = [("as trained", 0), *((str(side), side) for side in range(1, _LARGEST_PATCH + 1))]
    controls = {
        **_layer_controls(layers, stage),
        "block": widgets.Dropdown(options=list(range(1, _most_blocks(layers) + 1))),
        "head": widgets.Dropdown(options=heads, description="heads"),
        "ratio": widgets.Dropdown(options=ratios, description="patch behind a key"),
        **place_controls(len(images), size),
    }
    return Explorer(draw, controls, select=lambda panel, x, y, _: _pixel(x, y, size))


def key_attention(mixer: nn.Module, x: Tensor, reduction: int) -> Tensor:
    """What every token takes from every reduced key: tokens (B, H, W, C) -> (B, heads, H, W, rows, columns).

    The last two axes add up to 1. mixer: that of pvt and pvt_v2. reduction: as in `reduced_tokens`.
    """
    B, H, W, C = x.shape
    h, d = mixer.heads, C // mixer.heads
    source = reduced_tokens(mixer, x, reduction)
    rows, columns = source.shape[1:3]
    q = mixer.q(x).view(B, H * W, h, d).transpose(1, 2)
    k = mixer.kv(source).view(B, rows * columns, 2, h, d)[:, :, 0].transpose(1, 2)
    return (d**-0.5 * q @ k.mT).softmax(-1).view(B, h, H, W, rows, columns)


def reduced_tokens(mixer: nn.Module, x: Tensor, reduction: int) -> Tensor:
    """The tokens from which keys and values are made, (B, H, W, C) -> (B, H // r, W // r, C); r is `reduction`, at most
    the map's shorter side.

    With the mixer's own reduction it is what the mixer computes. For another one the trained kernel is laid over r x r
    tokens: each of its weights is spread over the tokens that its area covers, so that a map of one colour gives the
    same as before. A mixer that was trained without a reduction takes the mean of each patch.
    """
    r = min(reduction, *x.shape[1:3])
    own = mixer.reduction
    if r == own:
        return mixer.norm(mixer.reduce(x)) if own > 1 else x
    x = x.permute(0, 3, 1, 2)
    if own == 1:
        return F.avg_pool2d(x, r).permute(0, 2, 3, 1)
    spread = _spread(own, r).to(x)
    kernel = torch.einsum("ocji,yj,xi->ocyx", mixer.reduce.weight, spread, spread)
    return mixer.norm(F.conv2d(x, kernel, mixer.reduce.bias, stride=r).permute(0, 2, 3, 1))


def _spread(own: int, wanted: int) -> Tensor:
    """(wanted, own): which share of each of `own` cells of an axis lies in each of `wanted`; columns add up to 1."""
    mine, theirs = torch.arange(wanted, dtype=torch.float64)[:, None], torch.arange(own, dtype=torch.float64)
    low = torch.maximum(mine / wanted, theirs / own)
    high = torch.minimum((mine + 1) / wanted, (theirs + 1) / own)
    return own * (high - low).clamp(min=0)


def sampling_points(models: Mapping[str, nn.Module], images: Tensor, *, stage: int = 1) -> Explorer:
    """Where the clicked token takes its samples in trained deformable mixers: one group, and all of them.

    models: by name, with our `dcn_v3` mixers. images: (N, 3, H, W), uint8 or in [0, 1], as large as the models see
    them. stage: the first one, from 1.
    Raises UserError for no models or images, and a model without deformable mixers.
    """
    images = checked_pixels(models, images)
    size = images.shape[-2:]

    @lru_cache(maxsize=256)
    def layers(name: str, image: int) -> dict[int, list[LayerPoints]]:
        return _by_stage(measure.sampling_points(models[name], images[image : image + 1]).layers)

    def layer_at(name: str, image: int, stage: int, block: int) -> tuple[int, LayerPoints]:
        """The layer with its block's number."""
        here = _in_stage(name, layers(name, image), stage)
        number = min(block, len(here))
        return number, here[number - 1]

    def draw(model: str, stage: int, block: int, group: int, image: int, row: int, column: int) -> Figure:
        number, layer = layer_at(model, image, stage, block)
        y, x = token_at(row, column, size, layer.map_size)
        places, weights = layer.places[0, y, x], layer.weights[0, y, x]  # (h, 9, 2), (h, 9)
        group = min(group, layer.groups)
        panels = {f"group {group} of {layer.groups}": (places[group - 1], weights[group - 1])}
        if layer.groups > 1:
            panels[f"all {layer.groups} groups"] = (places.reshape(-1, 2), weights.reshape(-1))
        H, W = layer.map_size
        title = f"{model}, stage {stage}, block {number}: the token in row {y}, column {x} of {H}x{W}"
        shown = as_shown(images[image])
        return figures.sampling_points(shown, panels, size=(H, W), token=(y, x), title=title, panel_size=4.3)

    def select(panel: int, x: float, y: float, now: State) -> State:
        cells = layer_at(now["model"], now["image"], now["stage"], now["block"])[1].map_size
        row, column = ((at + 0.5) * pixels / count for at, pixels, count in zip((y, x), size, cells, strict=True))
        is_inside = 0 <= row < size[0] and 0 <= column < size[1]  # the figure shows more than the image
        return {"row": int(row), "column": int(column)} if is_inside else {}

    first = {name: layers(name, 0) for name in models}
    groups = max(layer.groups for found in first.values() for here in found.values() for layer in here)
    controls = {
        **_layer_controls(first, stage),
        "block": widgets.IntSlider(1, 1, _most_blocks(first)),
        "group": widgets.IntSlider(1, 1, groups),
        **place_controls(len(images), size),
    }
    return Explorer(draw, controls, select=select)


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


def _by_stage(layers: Iterable[Layer]) -> dict[int, list[Layer]]:
    """Layers by their stage, from 1, in the order of their blocks."""
    found: dict[int, list[Layer]] = {}
    for layer in layers:
        found.setdefault((layer.stage or 0) + 1, []).append(layer)
    return found


def _in_stage(name: str, layers: Mapping[int, list[Layer]], stage: int) -> list[Layer]:
    check_known("stage", stage, layers, f"{name}: ")
    return layers[stage]


def _most_blocks(layers: Mapping[str, Mapping[int, Sequence]]) -> int:
    return max(len(here) for found in layers.values() for here in found.values())


def _layer_controls(layers: Mapping[str, Mapping[int, Sequence]], stage: int) -> dict[str, widgets.Widget]:
    """Lists of the models and of all stages; `stage` is chosen first if there is one."""
    stages = sorted(set().union(*layers.values()))
    return {
        "model": widgets.Dropdown(options=list(layers)),
        "stage": widgets.Dropdown(options=stages, value=stage if stage in stages else stages[0]),
    }


def _sites(model: nn.Module, image: Tensor, layers: Sequence[MixerLayer]) -> list[Site]:
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


def _reducing(name: str, model: nn.Module) -> list[MixerLayer]:
    """The mixers of a model. Raises UserError if they are others than pvt's."""
    layers = measure.mixer_layers(model)
    for layer in layers:
        mixer = model.get_submodule(layer.name)
        if not isinstance(mixer, get_mixer("pvt")):
            raise UserError(f"{name} mixes by {type(mixer).__name__}; only pvt and pvt_v2 reduce their keys")
    return layers


def _of_heads(weights: np.ndarray, head: str) -> dict[str, np.ndarray]:
    """(heads, rows, columns) -> maps by their names: all heads, their mean, or one of them."""
    if head == _MEAN:
        return {f"mean of {len(weights)} heads": weights.mean(0)}
    if head == _SIDE_BY_SIDE:
        return {f"head {number}": found for number, found in enumerate(weights, start=1)}
    number = min(int(head), len(weights))
    return {f"head {number}": weights[number - 1]}


def _middle(row: int, column: int, size: Sequence[int], cells: Sequence[int]) -> tuple[float, float]:
    """The middle of the token at a pixel, as fractions of the image."""
    y, x = token_at(row, column, size, cells)
    return (y + 0.5) / cells[0], (x + 0.5) / cells[1]


def _pixel(x: float, y: float, size: Sequence[int]) -> dict[str, int]:
    """The pixel at a place of an image whose first pixel begins at 0; beside the image the nearest one."""
    return {"row": clipped(int(y), size[0]), "column": clipped(int(x), size[1])}
