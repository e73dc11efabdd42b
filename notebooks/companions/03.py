"""Figures and explorer of notebook 03: keys made of patches, and what a query takes from them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab import measure
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
from stm_lab.figures.draw import checked_image, fences, framed, numbers, overlay, picture, placed
from stm_lab.figures.style import described, drawing
from stm_lab.measure._sites import MixerLayer
from stm_lab.mixers import get_mixer
from stm_lab.util.errors import UserError

_SIDE_BY_SIDE, _MEAN = "side by side", "mean"
_LARGEST_PATCH = 16  # tokens a side
_NUMBERED = 64  # areas or keys up to which each has its number


_SHARPNESS = 60.0


@drawing
def reduction_steps(image: np.ndarray, *, reduction: int, place: tuple[int, int]) -> Figure:
    """Draw one token's spatial-reduction attention in four panels: the map cut into patches, the keys made of them, the
    token's attention to each key, and the same laid over the patches.

    Args:
        image: (H, W, 3) in [0, 1], one colour a token.
        reduction: R, the side of a patch; the rest at the bottom and at the right belongs to no patch.
        place: (row, column) of the query token; it is framed.

    A key is drawn as its patch's mean colour. The attention compares colours (softmax of minus sixty times the squared
    distance), without learned weights. Raises UserError for an array that is not an image, a reduction outside 1 to the
    map's shorter side, and a place outside the map.
    """
    image = checked_image("reduction_steps", image)
    height, width = image.shape[:2]
    if not 1 <= reduction <= min(height, width):
        raise UserError(f"reduction={reduction} must be 1 to {min(height, width)} on a {height}x{width} map")
    if not (0 <= place[0] < height and 0 <= place[1] < width):
        raise UserError(f"place={place} is no token of a {height}x{width} map")
    rows, columns = height // reduction, width // reduction
    whole = image[: rows * reduction, : columns * reduction]
    keys = whole.reshape(rows, reduction, columns, reduction, 3).mean((1, 3))
    logits = -_SHARPNESS * ((keys - image[place]) ** 2).sum(2)
    weights = np.exp(logits - logits.max())
    weights = weights / weights.sum()  # (rows, columns)
    figure, panels = placed((11, 3.15), [(0.01 + 0.2475 * number, 0.02, 0.2325, 0.83) for number in range(4)])
    picture(panels[0], image, f"1. {height * width} tokens, patches of {reduction}x{reduction}")
    picture(panels[1], keys, f"2. {weights.size} keys")
    drawn = picture(panels[2], weights, "3. the framed token's attention (%)", cmap="cividis", vmin=0)
    if weights.size <= _NUMBERED:
        numbers(panels[2], drawn, [f"{100 * value:.0f}" for value in weights.flat])
    edges = (-0.5, columns * reduction - 0.5, rows * reduction - 0.5, -0.5)
    overlay(panels[3], image, weights, (-0.5, width - 0.5, height - 0.5, -0.5), edges)
    panels[3].set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    panels[3].set_title("4. the same, laid over the patches", fontsize=9)
    for axes in (panels[0], panels[3]):
        fences(axes, np.arange(rows + 1) * reduction - 0.5, np.arange(columns + 1) * reduction - 0.5)
        framed(axes, *place)
    left = height * width - weights.size * reduction**2
    said = (
        f"A map of {height}x{width} tokens in patches of {reduction}x{reduction}: {rows}x{columns} keys, {left} "
        f"tokens belong to none. The token in row {place[0]}, column {place[1]} takes {100 * weights.max():.0f}% from "
        f"the key in {_largest(weights)}."
    )
    return described(figure, said)


def _largest(weights: np.ndarray) -> str:
    return "row {}, column {}".format(*np.unravel_index(weights.argmax(), weights.shape))


@drawing
def attention_over_image(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    place: tuple[float, float],
    *,
    tokens: tuple[int, int],
    reduction: int,
    title: str,
) -> Figure:
    """Draw one query's attention to each of the reduced keys over an image, one panel for each head.

    Args:
        image: (H, W, 3) in [0, 1].
        maps: (rows, columns) attention weights by the head's name, each of the same number of keys.
        place: row and column of the query, as fractions of the image; its token is framed.
        tokens: (rows, columns) of the query's map; a key summarises a patch of `reduction` x `reduction` of them.
        title: of the figure.

    Each panel is scaled to its own largest weight. Its title gives that weight and the number of keys in use (the
    exponential of the weights' entropy).
    """
    if not maps:
        raise UserError("attention_over_image: no heads")
    figure, panels, fontsize = _head_panels(len(maps) + 1)
    height, width = image.shape[:2]
    token = height / tokens[0], width / tokens[1]
    patch = reduction * token[0], reduction * token[1]
    row, column = (min(int(fraction * size), size - 1) for fraction, size in zip(place, tokens, strict=True))
    rows, columns = next(iter(maps.values())).shape
    area, said = (0, width, height, 0), []
    for axes, (name, weights) in zip(panels, [("the image", None), *maps.items()], strict=True):
        axes.set_axis_off()
        told = name
        if weights is None:
            axes.imshow(image, extent=area, interpolation="nearest")
            if rows * columns <= 256:  # more lines could not be told apart
                across = np.arange(columns + 1) * patch[1]
                fences(axes, np.arange(rows + 1) * patch[0], across, linewidth=0.7, alpha=0.7)
        else:
            overlay(axes, image, weights, area, (0, weights.shape[1] * patch[1], weights.shape[0] * patch[0], 0))
            told = f"{name}: {_shares(weights)}"
            said.append(f"{told}, most from the key in {_largest(weights)}")
        axes.set_title(told, fontsize=fontsize, pad=3, y=1.0)  # a given y spares looking for ticks
        axes.set(xlim=(0, width), ylim=(height, 0))
        framed(axes, row * token[0], column * token[1], *token, first=0, colour="#56B4E9")
    figure.suptitle(title, fontsize=10, y=1 - 0.08 / figure.get_figheight(), va="top")
    return described(figure, f"{title}. {'; '.join(said)}.")


def _head_panels(count: int) -> tuple[Figure, list[Axes], float]:
    """A figure with room for a title, `count` square panels in one row or two, and the font size of their titles."""
    columns = count if count <= 4 else -(-count // 2)
    side = min(3.3, 11 / columns)
    tall = 0.42 + (side + 0.16) * -(-count // columns)
    boxes = []
    for number in range(count):
        left, top = number % columns / columns, 0.42 + (side + 0.16) * (number // columns) + 0.26
        boxes.append((left + 0.006, 1 - (top + side - 0.14) / tall, 1 / columns - 0.012, (side - 0.14) / tall))
    return *placed((side * columns, tall), boxes), 9 if columns < 4 else 7.5


def _shares(weights: np.ndarray) -> str:
    """The largest share, and the number of keys in use."""
    share = weights / weights.sum()
    keys = np.exp(-(share * np.log(np.maximum(share, 1e-12))).sum())
    most = 100 * share.max()
    return f"at most {f'{most:.0f}' if most >= 1 else f'{most:.1g}'}%, as if {keys:.1f} keys"


def query_map(models: Mapping[str, nn.Module], images: Tensor, *, stage: int = 1) -> Explorer:
    """Explore the attention of the clicked query to the reduced keys, laid over the image.

    The ratio is the side, in tokens, of a key's patch: the trained one, or any other in that block alone (see
    `reduced_tokens`).

    models: by name, with mixers of pvt or pvt_v2. images: (N, 3, H, W), uint8 or in [0, 1], at the models' input size.
    stage: shown first, counted from 1.
    Raises UserError for no models or images, and a model with other mixers.
    """
    images = checked_pixels(models, images)
    size = images.shape[-2:]
    layers = {name: by_stage(_reducing(name, model)) for name, model in models.items()}

    @lru_cache(maxsize=64)
    def attention(name: str, image: int, stage: int, block: int, ratio: int) -> np.ndarray:
        """(heads, H, W, rows, columns); ratio 0 is the trained one."""
        layer = in_stage(name, layers[name], stage)[block - 1]
        (site,) = sites_of(models[name], images[image : image + 1], [layer])
        mixer = models[name].get_submodule(layer.name)
        with torch.no_grad():
            found = key_attention(mixer, site.tokens.view(1, *site.size, -1), ratio or mixer.reduction)
        return found[0].float().cpu().numpy()

    def draw(model: str, stage: int, block: int, head: str, ratio: int, image: int, row: int, column: int) -> Figure:
        here = in_stage(model, layers[model], stage)
        block = min(block, len(here))
        trained = models[model].get_submodule(here[block - 1].name).reduction
        weights = attention(model, image, stage, block, ratio)
        H, W, rows, columns = weights.shape[1:]
        side = min(ratio or trained, H, W)
        other = "" if side == trained else f" (trained with {trained}x{trained})"
        title = f"{model}, stage {stage}, block {block}: {H}x{W} queries, {rows}x{columns} keys of patches"
        y, x = token_at(row, column, size, (H, W))
        return attention_over_image(
            as_shown(images[image]),
            _of_heads(weights[:, y, x], head),
            middle(row, column, size, (H, W)),
            tokens=(H, W),
            reduction=side,
            title=f"{title} {side}x{side}{other}",
        )

    mixers = [models[name].get_submodule(one.name) for name in models for of in layers[name].values() for one in of]
    heads = [_SIDE_BY_SIDE, _MEAN, *map(str, range(1, max(mixer.heads for mixer in mixers) + 1))]
    ratios = [("as trained", 0), *((str(side), side) for side in range(1, _LARGEST_PATCH + 1))]
    controls = {
        **layer_controls(layers, stage),
        "block": widgets.Dropdown(options=list(range(1, most_blocks(layers) + 1))),
        "head": widgets.Dropdown(options=heads, description="heads"),
        "ratio": widgets.Dropdown(options=ratios, description="patch of a key"),
        **place_controls(len(images), size),
    }
    return Explorer(draw, controls, select=lambda panel, x, y, _: pixel(x, y, size))


def key_attention(mixer: nn.Module, x: Tensor, reduction: int) -> Tensor:
    """Attention of every token to every reduced key: tokens (B, H, W, C) -> (B, heads, H, W, rows, columns).

    The last two axes sum to 1. mixer: that of pvt and pvt_v2. reduction: as in `reduced_tokens`.
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

    With its own reduction, this is what the mixer computes. For another one the trained kernel is stretched over r x r
    tokens: each weight is spread over the tokens that its area covers, so that a map of one colour gives the same
    result. A mixer trained without a reduction takes the mean of each patch.
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
    """(wanted, own): what share of each of `own` cells of an axis lies in each of `wanted`; columns sum to 1."""
    mine, theirs = torch.arange(wanted, dtype=torch.float64)[:, None], torch.arange(own, dtype=torch.float64)
    low = torch.maximum(mine / wanted, theirs / own)
    high = torch.minimum((mine + 1) / wanted, (theirs + 1) / own)
    return own * (high - low).clamp(min=0)


def _reducing(name: str, model: nn.Module) -> list[MixerLayer]:
    """The mixers of a model. Raises UserError if they are not pvt's."""
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
