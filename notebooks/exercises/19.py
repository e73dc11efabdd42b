"""Exercises of notebook 19: your own mixer. Tokens are (B, H, W, C)."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F

from stm_lab.checks.core import Draw, exercise

_NOTEBOOK = "19_design_your_own_mixer"


# ---- 1: a token's own row and column --------------------------------------------------------------------------------


def _tokens(draw: Draw) -> dict:
    height, width, channels = draw.distinct(3, 3, 8)
    return {"x": draw.normal(2, height, width, channels)}


@exercise(_NOTEBOOK, 1, inputs=_tokens, what="mixed map")
def row_and_column(x):
    "(B, H, W, C) -> (B, H, W, C): half the mean of the token's row plus half that of its column, minus the token."
    return (x.mean(2, keepdim=True) + x.mean(1, keepdim=True)) / 2 - x


@row_and_column.mistake(
    "that is the mean of the whole map: one mean over axis 1 and one over axis 2, added, not nested"
)
def whole_map(x):
    return x.mean((1, 2), keepdim=True) - x


@row_and_column.mistake("only the row is used (axis 2 is averaged); the column, axis 1, is missing")
def rows_only(x):
    return x.mean(2, keepdim=True) - x


@row_and_column.mistake("only the column is used (axis 1 is averaged); the row, axis 2, is missing")
def columns_only(x):
    return x.mean(1, keepdim=True) - x


@row_and_column.mistake("the two means are added in full; take half of each, so that a flat map gives 0")
def not_halved(x):
    return x.mean(2, keepdim=True) + x.mean(1, keepdim=True) - x


@row_and_column.mistake("the token itself is not subtracted; the residual branch adds it again")
def minus_forgotten(x):
    return (x.mean(2, keepdim=True) + x.mean(1, keepdim=True)) / 2


@row_and_column.mistake("images are mixed: axis 0 is the batch; rows and columns are the axes 1 and 2")
def over_the_batch(x):
    return (x.mean(0, keepdim=True) + x.mean(1, keepdim=True)) / 2 - x


@row_and_column.mistake("channels (axis 3) are averaged; rows and columns are the axes 1 and 2")
def over_channels(x):
    return (x.mean(2, keepdim=True) + x.mean(3, keepdim=True)) / 2 - x


# ---- 2: windows on a map of any size --------------------------------------------------------------------------------


def _maps(draw: Draw) -> dict:
    side = draw.integer(2, 4)
    height, width = draw.distinct(2, side + 1, 11)
    height += height % side == 0  # so that the last windows are not whole
    return {"x": draw.normal(2, height, width, 3), "side": side}


def _window_means(x: torch.Tensor, side: int, *, counted=None, offset=(0, 0)) -> torch.Tensor:
    """The mean of each window's tokens, at each of them. counted: tokens to divide by; offset: of the first window."""
    H, W = x.shape[1:3]
    top, left = offset
    pad = (0, 0, left, -(left + W) % side, top, -(top + H) % side)
    total, inside = F.pad(x, pad), F.pad(torch.ones_like(x[..., :1]), pad)

    def summed(values: torch.Tensor) -> torch.Tensor:
        B, rows, columns, C = values.shape
        windows = values.view(B, rows // side, side, columns // side, side, C)
        return windows.sum((2, 4), keepdim=True).expand_as(windows).reshape(B, rows, columns, C)

    means = summed(total) / (summed(inside) if counted is None else counted)
    return means[:, top : top + H, left : left + W]


@exercise(_NOTEBOOK, 2, inputs=_maps, what="map of means")
def window_mean(x, side):
    "(B, H, W, C) -> (B, H, W, C): at each token the mean of its window of side x side, as far as it lies in the map."
    return _window_means(x, side)


@window_mean.mistake("padded zeros are counted: divide by the number of tokens in the map, not by side * side")
def padding_counted(x, side):
    return _window_means(x, side, counted=side * side)


@window_mean.mistake("the padding is still in the result; crop the map to its H rows and W columns at the end")
def not_cropped(x, side):
    H, W = x.shape[1:3]
    means = _window_means(x, side)
    rows, columns = (torch.arange(s + -s % side).clamp(max=s - 1) for s in (H, W))
    return means[:, rows][:, :, columns]


@window_mean.mistake("partial windows at the bottom and right are dropped; pad to whole windows instead")
def dropped(x, side):
    H, W = (s // side * side for s in x.shape[1:3])
    return _window_means(x[:, :H, :W], side)


@window_mean.mistake("that is the mean of the whole map; take the mean of each window")
def whole_map_mean(x, side):
    return x.mean((1, 2), keepdim=True).expand_as(x)


@window_mean.mistake("border tokens are repeated in the padding and counted twice; count each token of the map once")
def repeated(x, side):
    H, W = x.shape[1:3]
    rows, columns = (torch.arange(s + -s % side).clamp(max=s - 1) for s in (H, W))
    return _window_means(x[:, rows][:, :, columns], side)[:, :H, :W]


@window_mean.mistake(
    "you padded at the top and left; the first window begins at token (0, 0), so pad at the bottom and right"
)
def padded_at_the_top(x, side):
    H, W = x.shape[1:3]
    return _window_means(x, side, offset=(-H % side, -W % side))


@window_mean.mistake(
    "that is a window around each token, as in pooling; here all tokens of a window share one mean"
)
def sliding(x, side):
    shifted = F.pad(x.permute(0, 3, 1, 2), ((side - 1) // 2, side // 2) * 2)
    inside = F.pad(torch.ones_like(x[..., 0])[:, None], ((side - 1) // 2, side // 2) * 2)
    return (F.avg_pool2d(shifted, side, 1) / F.avg_pool2d(inside, side, 1)).permute(0, 2, 3, 1)


@window_mean.mistake("your windows are strips: side rows high, but as wide as the map")
def strips(x, side):
    means = _window_means(x.mean(2, keepdim=True).expand(-1, -1, side, -1), side)
    return means[:, :, :1].expand_as(x)


# ---- 3: the cost of the cross ---------------------------------------------------------------------------------------


def _sizes(draw: Draw) -> dict:
    height, width = draw.distinct(2, 5, 60)
    return {"height": height, "width": width, "dim": draw.integer(6, 96), "kernel": draw.choice([3, 5, 7, 9])}


def _cross(height, width, C, K, *, linears=2, strips=2, bias=0, factor=1, taps=None):
    taps = strips * K if taps is None else taps
    return factor * height * width * (linears * C * C + taps * C + bias)


@exercise(_NOTEBOOK, 3, inputs=_sizes, what="cost")
def cross_macs(height, width, dim, kernel):
    "Multiply-adds of the cross for one image: two projections, and two strips of `kernel` weights in every channel."
    return height * width * (2 * dim * dim + 2 * kernel * dim)


@cross_macs.mistake("you count a square kernel, K * K; the cross has two strips of K")
def square(height, width, dim, kernel):
    return _cross(height, width, dim, kernel, taps=kernel**2)


cross_macs.mistakes_of(
    _cross,
    {
        "you count one strip; there is one across and one down": {"strips": 1},
        "you count one projection; there is one before the strips and one after them": {"linears": 1},
        "the projections are missing: dim * dim in every token, twice": {"linears": 0},
        "your cost is twice what it should be: one multiply-add is one, not two (FLOPs are two)": {"factor": 2},
    },
)


@cross_macs.mistake("the biases are counted; an addition alone is not a multiply-add")
def with_biases(height, width, dim, kernel):
    return _cross(height, width, dim, kernel, bias=3 * dim)


@cross_macs.mistake("that is the cost of one token; the map has height * width of them")
def one_token(height, width, dim, kernel):
    return _cross(1, 1, dim, kernel)


@cross_macs.mistake(
    "the strips are counted as full convolutions, dim * dim * K; depth-wise strips have K weights a channel"
)
def dense(height, width, dim, kernel):
    return _cross(height, width, dim, kernel, taps=2 * kernel * dim)


@cross_macs.mistake(
    "products with the zeros outside the map are missing; they are computed and counted like the others"
)
def inside_only(height, width, dim, kernel):
    half = kernel // 2
    taps = sum(
        min(at, half) + min(size - 1 - at, half) + 1
        for size, lines in ((width, height), (height, width))
        for _ in range(lines)
        for at in range(size)
    )
    return height * width * 2 * dim * dim + taps * dim


@cross_macs.mistake("the crossing is counted once, 2 K - 1; both strips have a weight at the centre")
def crossing_once(height, width, dim, kernel):
    return _cross(height, width, dim, kernel, taps=2 * kernel - 1)


# ---- 4: the reach ---------------------------------------------------------------------------------------------------


def _matrices(draw: Draw) -> dict:
    """Which token attends to which on a small map: a rectangle around each token; the rest is rounding."""
    height, width = draw.distinct(2, 5, 8)
    rows, columns = draw.distinct(2, 1, 3)
    p = torch.arange(height * width)
    down, right = ((place[:, None] - place).abs() for place in (p // width, p % width))
    heard = (down <= rows) & (right <= columns) & (draw.normal(len(p), len(p)) > -1)
    heard |= (down == rows) & (right == columns) & (p[:, None] > p)
    weights = draw.normal(len(p), len(p)).abs()
    return {"weights": torch.where(heard, weights + 0.1, weights * 1e-13), "height": height, "width": width}


def _away(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    p = torch.arange(height * width)
    return tuple((place[:, None] - place).abs() for place in (p // width, p % width))


def _heard(weights: torch.Tensor) -> torch.Tensor:
    return weights > 1e-9 * weights.max()


@exercise(_NOTEBOOK, 4, inputs=_matrices, what="reach")
def reach(weights, height, width):
    "(P, P) -> int: rows or columns to the farthest token that one depends on, above 1e-9 of the largest weight."
    down, right = _away(height, width)
    return int(torch.maximum(down, right)[_heard(weights)].max())


@reach.mistake("you count the tokens in between; the next row is 1 away, not 0")
def between(weights, height, width):
    return reach.truth(weights, height, width) - 1


@reach.mistake("only rows are counted: column distances are |p % width - q % width|")
def rows_counted(weights, height, width):
    return int(_away(height, width)[0][_heard(weights)].max())


@reach.mistake("only columns are counted: row distances are |p // width - q // width|")
def columns_counted(weights, height, width):
    return int(_away(height, width)[1][_heard(weights)].max())


@reach.mistake("rows and columns are added; take the larger of the two")
def added(weights, height, width):
    down, right = _away(height, width)
    return int((down + right)[_heard(weights)].max())


@reach.mistake("that is the Euclidean distance; take the larger of rows and columns")
def euclidean(weights, height, width):
    down, right = _away(height, width)
    return float((down**2 + right**2)[_heard(weights)].max()) ** 0.5


@reach.mistake("rounding counts in your version: treat weights below 1e-9 of the largest as 0")
def rounding(weights, height, width):
    down, right = _away(height, width)
    return int(torch.maximum(down, right)[weights > 0].max())


@reach.mistake(
    "that is the difference of the indices, |p - q|; the token below has an index larger by `width`, and is 1 row away"
)
def along_the_list(weights, height, width):
    p = torch.arange(height * width)
    return int((p[:, None] - p).abs()[_heard(weights)].max())


@reach.mistake("height and width are exchanged: p stands in row p // width, column p % width")
def exchanged(weights, height, width):
    down, right = _away(width, height)
    return int(torch.maximum(down, right)[_heard(weights)].max())


@reach.mistake("that is the mean distance; take the largest")
def mean_reach(weights, height, width):
    down, right = _away(height, width)
    return float(torch.maximum(down, right)[_heard(weights)].double().mean())


# ---- 5: a fair width ------------------------------------------------------------------------------------------------


def _network(a: int, b: int, c: int, width: int) -> int:
    """Parameters of a network: its matrices grow with the square of the width, biases and kernels with the width."""
    return a * width * width + b * width + c


def _targets(draw: Draw) -> dict:
    unit = draw.choice([2, 4, 8])
    count = partial(_network, draw.integer(20, 60), draw.integer(100, 900), draw.integer(500, 5000))
    width = draw.integer(2, 12)
    step = count((width + 1) * unit) - count(width * unit)
    share = draw.choice([0.2, 0.3, 0.7, 0.8])  # between two widths, nearer to one
    return {"count": count, "target": round(count(width * unit) + share * step), "unit": unit}


def _multiples(count, target, unit):
    """The largest width with at most `target` parameters, and the next."""
    width = unit
    while count(width + unit) <= target:
        width += unit
    return width, width + unit


@exercise(_NOTEBOOK, 5, inputs=_targets, what="width", cases=8)
def fair_width(count, target, unit):
    "The multiple of `unit` whose network, count(width) parameters, comes nearest to `target`; count grows with width."
    return min(_multiples(count, target, unit), key=lambda width: abs(count(width) - target))


@fair_width.mistake("you always stay below the target; the next width may be nearer")
def below(count, target, unit):
    return _multiples(count, target, unit)[0]


@fair_width.mistake("you always go above the target; the width before may be nearer")
def above(count, target, unit):
    return _multiples(count, target, unit)[1]


@fair_width.mistake("your width is not a multiple of `unit`; the heads must divide it")
def any_width(count, target, unit):
    return min(range(1, 200), key=lambda width: abs(count(width) - target))


@fair_width.mistake(
    "parameters grow nearly with the square of the width, not in proportion: call count"
)
def proportional(count, target, unit):
    return max(unit, round(unit * target / count(unit) / unit) * unit)


@fair_width.mistake(
    "parameters do not grow with the square alone: biases, kernels and classifier grow otherwise; call count"
)
def square_root(count, target, unit):
    return max(unit, round(unit * math.sqrt(target / count(unit)) / unit) * unit)


@fair_width.mistake("that is the number of units; the width is that number times `unit`")
def units(count, target, unit):
    return fair_width.truth(count, target, unit) // unit


@fair_width.mistake("that is the number of parameters of the network; return the width")
def parameters(count, target, unit):
    return count(fair_width.truth(count, target, unit))
