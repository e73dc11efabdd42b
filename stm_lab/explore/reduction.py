"""Click a query, and see which of the reduced keys it listens to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab.explore.pictures import as_shown, check_models, pixel_at, place_controls, token_at
from stm_lab.explore.shell import Explorer
from stm_lab.measure import mixer_layers
from stm_lab.measure._batches import as_images, evaluating
from stm_lab.mixers import get_mixer
from stm_lab.util.errors import UserError

_AS_TRAINED, _SIDE_BY_SIDE, _MEAN = "as trained", "side by side", "mean"


def query_map(models: Mapping[str, nn.Module], images: Tensor, *, stage: int = 1) -> Explorer:
    """The attention of one query over the reduced keys of spatial-reduction attention, laid over the image.

    Choose model, stage, block, head and image; click a token in any panel, or move the sliders for its row and column
    in pixels. The ratio is the side, in tokens, of the patch behind a key: as trained, or any other, for which the
    trained kernel is laid over as many tokens (see `reduced_tokens`), in that block alone. On a smaller map the patch
    is as large as its shorter side.

    Args:
        models: models whose mixers are those of pvt and pvt_v2, by name.
        images: (N, 3, H, W), uint8 or in [0, 1], at the size at which they are shown to the models.
        stage: the one that is shown first, from 1.

    Raises UserError for no models or images, and a model that has other mixers.
    """
    check_models(models)
    images = as_images(images, next(iter(models.values()))).pixels
    size = tuple(images.shape[-2:])
    layers = {name: _reducing(name, model) for name, model in models.items()}
    stages = sorted({at for found in layers.values() for at, _ in found})
    blocks = max(block for found in layers.values() for _, block in found)
    heads = max(mixer.heads for found in layers.values() for mixer in found.values())

    @lru_cache(maxsize=16)
    def inputs(name: str, image: int) -> dict[tuple[int, int], Tensor]:
        """What each mixer of the model is given, (1, H, W, C), by its stage and block."""
        return _mixer_inputs(models[name], layers[name], images[image : image + 1])

    @lru_cache(maxsize=64)
    def attention(name: str, image: int, stage: int, block: int, ratio: int) -> np.ndarray:
        """(heads, H, W, rows, columns)"""
        mixer = _mixer_at(name, layers[name], stage, block)
        with torch.no_grad():
            found = key_attention(mixer, inputs(name, image)[stage, block], ratio or mixer.reduction)
        return found[0].float().cpu().numpy()

    def draw(model: str, stage: int, block: int, head: str, ratio: int, image: int, row: int, column: int) -> Figure:
        from stm_lab.figures import query_map as drawn

        weights = attention(model, image, stage, block, ratio)
        tokens = weights.shape[1:3]
        asks = token_at(row, column, size, tokens)
        maps = _chosen(weights[:, asks[0], asks[1]], head, f"{model}, stage {stage}")
        trained = layers[model][stage, block].reduction
        side = min(ratio or trained, *tokens)
        title = f"{model}, stage {stage}, block {block}: {_sizes(weights.shape[1:], side, trained)}"
        place = (asks[0] + 0.5) / tokens[0], (asks[1] + 0.5) / tokens[1]
        return drawn(as_shown(images[image]), maps, place, tokens=tokens, reduction=side, title=title)

    controls = {
        "model": widgets.Dropdown(options=list(models), description="model"),
        "stage": widgets.Dropdown(options=stages, value=stage if stage in stages else stages[0], description="stage"),
        "block": widgets.Dropdown(options=list(range(1, blocks + 1)), description="block"),
        "head": widgets.Dropdown(options=[_SIDE_BY_SIDE, _MEAN, *map(str, range(1, heads + 1))], description="heads"),
        "ratio": widgets.Dropdown(
            options=[(_AS_TRAINED, 0), *((str(side), side) for side in range(1, 17))], description="patch behind a key"
        ),
        **place_controls(len(images), size),
    }

    return Explorer(draw, controls, select=lambda panel, x, y: pixel_at(x, y, size))


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
    """The tokens that keys and values are made of, (B, H, W, C) -> (B, H // r, W // r, C); r is `reduction`, at most
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


def _reducing(name: str, model: nn.Module) -> dict[tuple[int, int], nn.Module]:
    """The mixers of a model by stage and block, both from 1; UserError if they are others than pvt's."""
    kind, found = get_mixer("pvt"), {}
    for layer in mixer_layers(model):
        mixer = model.get_submodule(layer.name)
        if not isinstance(mixer, kind):
            raise UserError(f"query_map: {name} mixes by {type(mixer).__name__}; only pvt and pvt_v2 reduce their keys")
        found[layer.stage + 1, layer.block + 1] = mixer
    return found


def _mixer_at(name: str, layers: Mapping[tuple[int, int], nn.Module], stage: int, block: int) -> nn.Module:
    if (stage, block) not in layers:
        known = sorted(number for at, number in layers if at == stage)
        last = f"has {known[-1]} blocks" if known else "is not there"
        raise UserError(f"{name}: stage {stage} {last}, block {block} cannot be shown")
    return layers[stage, block]


def _mixer_inputs(
    model: nn.Module, layers: Mapping[tuple[int, int], nn.Module], image: Tensor
) -> dict[tuple[int, int], Tensor]:
    """One forward pass, and what came to each mixer on the way."""
    found: dict[tuple[int, int], Tensor] = {}
    hooks = [
        mixer.register_forward_pre_hook(lambda _, given, place=place: found.update({place: given[0].detach()}))
        for place, mixer in layers.items()
    ]
    try:
        with evaluating(model, None, 0) as device, torch.no_grad():
            ((batch, _),) = as_images(image, model).batches(model, device, 1)
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _sizes(shape: Sequence[int], side: int, trained: int) -> str:
    """shape: (H, W, rows, columns) of the weights. side: of the patch behind a key, `trained` the trained one."""
    H, W, rows, columns = shape
    other = "" if side == trained else f" (trained with {trained}x{trained})"
    return f"{H}x{W} queries, {rows}x{columns} keys of patches {side}x{side}{other}"


def _chosen(weights: np.ndarray, head: str, where: str) -> dict[str, np.ndarray]:
    """(heads, rows, columns) -> maps by their names: all heads, their mean, or one of them."""
    if head == _MEAN:
        return {f"mean of {len(weights)} heads": weights.mean(0)}
    if head == _SIDE_BY_SIDE:
        return {f"head {number}": found for number, found in enumerate(weights, start=1)}
    if int(head) > len(weights):
        raise UserError(f"{where} has {len(weights)} {'head' if len(weights) == 1 else 'heads'}, not {head}")
    return {f"head {head}": weights[int(head) - 1]}
