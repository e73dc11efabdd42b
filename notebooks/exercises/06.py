"""Exercises of notebook 06: deformable convolution. Places are [x, y] in tokens, (0, 0) the centre of the first."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from stm_lab.checks.core import Draw, exercise

_NOTEBOOK = "06_deformable_convolution"
_GRID = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]  # x slow, y fast
_BY_ROWS = [(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1)]


# ---- 1: values between tokens ---------------------------------------------------------------------------------------


def _near(draw: Draw, height: int, width: int, where: str) -> tuple[float, float]:
    """A place [x, y] between tokens, never on one."""
    u, v = (0.05 + 0.9 * float(torch.sigmoid(draw.normal())) for _ in range(2))
    x, y = u + draw.integer(0, width - 2), v + draw.integer(0, height - 2)
    x = {"left": u - 1, "right": width - 1 + u, "far": width + 1 + u}.get(where, x)
    y = {"above": v - 1, "below": height - 1 + v}.get(where, y)
    return x, y


_WHERE = ("inside", "left", "right", "above", "below", "far")


def _many_places(draw: Draw) -> dict:
    height, width = draw.distinct(2, 4, 9)
    places = [_near(draw, height, width, where) for where in (*_WHERE, "inside")]
    x, y = torch.tensor(places, dtype=torch.float64).T.contiguous()
    return {"tokens": draw.normal(height, width, 3), "x": x, "y": y}


def _sample(tokens, x, y, *, share=lambda a: 1 - abs(a), place=None):
    """The four tokens around a place, each by its share; `place` says where those outside are looked up, if at all."""
    height, width, _ = tokens.shape
    left, top = math.floor(x), math.floor(y)
    total = torch.zeros_like(tokens[0, 0])
    for j in (top, top + 1):
        for i in (left, left + 1):
            at = (j, i) if place is None else place(j, i, height, width)
            if 0 <= at[0] < height and 0 <= at[1] < width:
                total += share(x - i) * share(y - j) * tokens[at]
    return total


def _at_each(sample, tokens, x, y):
    return torch.stack([sample(tokens, *place) for place in zip(x.tolist(), y.tolist(), strict=True)])


@exercise(_NOTEBOOK, 1, inputs=_many_places, what="table of values")
def values_at(tokens, x, y):
    "(H, W, C), places (N,) and (N,) in tokens -> (N, C): bilinear, 0 outside."
    return _at_each(_sample, tokens, x, y)


@values_at.mistake("your x counts rows; x runs along a row, so it is the column")
def x_is_a_row(tokens, x, y):
    return _at_each(_sample, tokens, y, x)


@values_at.mistake("you take the nearest token only; four tokens have a share")
def nearest(tokens, x, y):
    return _at_each(_sample, tokens, x.round(), y.round())


@values_at.mistake("the shares are reversed: the *nearer* token has the larger one, 1 - distance")
def shares_turned(tokens, x, y):
    return _at_each(lambda *at: _sample(*at, share=abs), tokens, x, y)


def _with_border(tokens, x, y):
    return _sample(tokens, x, y, place=lambda j, i, H, W: (min(max(j, 0), H - 1), min(max(i, 0), W - 1)))


@values_at.mistake(
    "outside the map you repeat its border; values there are 0. An index may be clamped if its share is set to 0 too"
)
def border_repeated(tokens, x, y):
    return _at_each(_with_border, tokens, x, y)


@values_at.mistake("indices beyond the map wrap to its other side (a remainder, or a roll); values outside are 0")
def comes_round(tokens, x, y):
    return _at_each(lambda *at: _sample(*at, place=lambda j, i, H, W: (j % H, i % W)), tokens, x, y)


@values_at.mistake("negative indices count from the end in Python: left of the map you read its right side")
def from_the_end(tokens, x, y):
    return _at_each(lambda *at: _sample(*at, place=lambda j, i, H, W: (j + H * (j < 0), i + W * (i < 0))), tokens, x, y)


def _towards_zero(tokens, x, y):
    height, width, _ = tokens.shape
    total, left, top = torch.zeros_like(tokens[0, 0]), int(x), int(y)
    for j, down in ((top, 1 - y + top), (top + 1, y - top)):
        for i, across in ((left, 1 - x + left), (left + 1, x - left)):
            if 0 <= j < height and 0 <= i < width:
                total += across * down * tokens[j, i]
    return total


@values_at.mistake("you round towards zero, which selects the wrong tokens left of the map and above it; use floor")
def rounded_to_zero(tokens, x, y):
    return _at_each(_towards_zero, tokens, x, y)


@values_at.mistake("you average the four tokens equally; their shares depend on the place between them")
def averaged(tokens, x, y):
    return _at_each(_sample, tokens, x.floor() + 0.5, y.floor() + 0.5)


@values_at.mistake("the centre of a token is the whole number itself: do not subtract half a token")
def half_off(tokens, x, y):
    return _at_each(_sample, tokens, x - 0.5, y - 0.5)


@values_at.mistake(
    "your places are stretched, by half a token at the border: you convert them to grid_sample's coordinates by one "
    "convention and sample by the other (align_corners)"
)
def stretched(tokens, x, y):
    height, width, _ = tokens.shape
    return _at_each(_sample, tokens, x * width / (width - 1) - 0.5, y * height / (height - 1) - 0.5)


@values_at.mistake("a place outside the map by less than a token still has a share of its border")
def nothing_outside(tokens, x, y):
    inside = (x >= 0) & (x <= tokens.shape[1] - 1) & (y >= 0) & (y <= tokens.shape[0] - 1)
    return _at_each(_sample, tokens, x, y) * inside[:, None]


@values_at.mistake(
    "you rescale the shares of the tokens inside to add up to 1; tokens outside keep their share, with the value 0"
)
def shares_made_whole(tokens, x, y):
    whole = _at_each(_sample, torch.ones_like(tokens), x, y)
    return torch.where(whole > 0, _at_each(_sample, tokens, x, y) / whole.clamp_min(1e-12), whole)


# ---- 2: from tokens to grid_sample ----------------------------------------------------------------------------------


def _whereabouts(draw: Draw) -> dict:
    height, width = draw.distinct(2, 3, 9)
    return {"places": 3 * draw.normal(5, 2), "height": height, "width": width, "aligned": bool(draw.integer(0, 1))}


def _size(height, width):
    return torch.tensor([width, height], dtype=torch.float64)


def _grid_of(places, height, width, aligned):
    if aligned:
        return 2 * places / (_size(height, width) - 1) - 1
    return (2 * places + 1) / _size(height, width) - 1


@exercise(_NOTEBOOK, 2, inputs=_whereabouts, what="grid", cases=10)
def to_grid(places, height, width, aligned):
    "(N, [x, y]) in tokens -> (N, [x, y]): -1 and 1 are the map's edges or, if `aligned`, the outer tokens' centres."
    return _grid_of(places, height, width, aligned)


@to_grid.mistake("you ignore `aligned`: -1 and 1 are always the *edges* of the map in your version")
def always_edges(places, height, width, aligned):
    return _grid_of(places, height, width, False)


@to_grid.mistake("you ignore `aligned`: -1 and 1 are always the *centres* of the outer tokens in your version")
def always_middles(places, height, width, aligned):
    return _grid_of(places, height, width, True)


@to_grid.mistake("the two are exchanged: aligned means that -1 and 1 are the centres of the outer tokens")
def other_way_round(places, height, width, aligned):
    return _grid_of(places, height, width, not aligned)


@to_grid.mistake(
    "half a token is missing if `aligned` is False: (0, 0) is the centre of the first token, not its corner"
)
def from_the_corner(places, height, width, aligned):
    return _grid_of(places, height, width, True) if aligned else 2 * places / _size(height, width) - 1


@to_grid.mistake("if `aligned`, the centres of the outer tokens are W - 1 tokens apart, not W; divide by that")
def a_token_too_wide(places, height, width, aligned):
    return 2 * places / _size(height, width) - 1 if aligned else _grid_of(places, height, width, False)


@to_grid.mistake("x is divided by the height and y by the width; x runs along the width")
def sides_exchanged(places, height, width, aligned):
    return _grid_of(places, width, height, aligned)


@to_grid.mistake("x and y are exchanged in the result")
def exchanged(places, height, width, aligned):
    return _grid_of(places, height, width, aligned).flip(-1)


@to_grid.mistake("your grid runs from 0 to 1; stretch it to -1 to 1")
def from_zero(places, height, width, aligned):
    return (_grid_of(places, height, width, aligned) + 1) / 2


@to_grid.mistake("both axes are divided by one side; each has its own")
def one_side(places, height, width, aligned):
    return _grid_of(places, width, width, aligned)


@to_grid.mistake("you clip the grid to -1 ... 1; a point may lie outside, where its sample is 0")
def cut(places, height, width, aligned):
    return _grid_of(places, height, width, aligned).clamp(-1, 1)


# ---- 3: nine points, moved and weighted -----------------------------------------------------------------------------


def _maps(draw: Draw) -> dict:
    height, width = draw.distinct(2, 2, 6)
    return {
        "value": draw.normal(height, width, 3),
        "offsets": draw.normal(height, width, 9, 2),
        "logits": draw.normal(height, width, 9),
    }


def _aggregate(value, offsets, weights, *, grid=_GRID, own=True, aligned=False, mode="bilinear", outside="zeros"):
    """(H, W, C), (H, W, 9, 2), (H, W, 9) -> (H, W, C), by grid_sample."""
    height, width, _ = value.shape
    place = torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"), -1).double()
    place = place[:, :, None] * own + torch.tensor(grid, dtype=torch.float64) + offsets  # (H, W, 9, [x, y])
    places = _grid_of(place, height, width, aligned).view(1, height * width, 9, 2)
    found = F.grid_sample(value.permute(2, 0, 1)[None], places, mode, outside, align_corners=False)  # (1, C, HW, 9)
    return (found[0].view(-1, height, width, 9) * weights).sum(-1).permute(1, 2, 0)


@exercise(_NOTEBOOK, 3, inputs=_maps, what="map")
def deformed(value, offsets, logits):
    "One group: (H, W, C), (H, W, 9, [x, y]), (H, W, 9) -> (H, W, C)."
    return _aggregate(value, offsets, logits.softmax(-1))


@deformed.mistake("the softmax is missing: you use the logits themselves as weights")
def no_softmax(value, offsets, logits):
    return _aggregate(value, offsets, logits)


@deformed.mistake("the weights are sigmoids, as in deformable convolution v2; here the nine add up to 1, by softmax")
def sigmoids(value, offsets, logits):
    return _aggregate(value, offsets, logits.sigmoid())


@deformed.mistake("the softmax runs over the tokens of a row; for each token, its nine weights add up to 1")
def over_tokens(value, offsets, logits):
    return _aggregate(value, offsets, logits.softmax(1))


@deformed.mistake("offsets come as [x, y], and you read [y, x]")
def offsets_exchanged(value, offsets, logits):
    return _aggregate(value, offsets.flip(-1), logits.softmax(-1))


@deformed.mistake("your points run row by row; in this operator x is slow and y is fast: point 1 lies *below* point 0")
def by_rows(value, offsets, logits):
    return _aggregate(value, offsets, logits.softmax(-1), grid=_BY_ROWS)


@deformed.mistake("the 3x3 grid is missing: offsets are counted from each point's place in it")
def without_grid(value, offsets, logits):
    return _aggregate(value, offsets, logits.softmax(-1), grid=[(0, 0)] * 9)


@deformed.mistake("the offsets are not used: your version is a convolution")
def without_offsets(value, offsets, logits):
    return _aggregate(value, 0 * offsets, logits.softmax(-1))


@deformed.mistake("the weights are not used: all nine points count equally")
def alike(value, offsets, logits):
    return _aggregate(value, offsets, torch.full_like(logits, 1 / 9))


@deformed.mistake("the token's own place is missing: all tokens sample around the first one")
def without_place(value, offsets, logits):
    return _aggregate(value, offsets, logits.softmax(-1), own=False)


@deformed.mistake("outside the map you repeat its border; values there are 0")
def with_border(value, offsets, logits):
    return _aggregate(value, offsets, logits.softmax(-1), outside="border")


@deformed.mistake(
    "your places are stretched, by half a token at the border: you convert them to grid_sample's coordinates by one "
    "convention and sample by the other (align_corners)"
)
def stretched_places(value, offsets, logits):
    return _aggregate(value, offsets, logits.softmax(-1), aligned=True)


@deformed.mistake("you sample the nearest token; between tokens, four of them have a share")
def at_the_nearest(value, offsets, logits):
    return _aggregate(value, offsets, logits.softmax(-1), mode="nearest")


@deformed.mistake("the offsets have the wrong sign: a point at place p moves to p + offset")
def turned_round(value, offsets, logits):
    return _aggregate(value, -offsets, logits.softmax(-1))


# ---- 4: the kernel that fixed offsets make --------------------------------------------------------------------------


def _fixed(draw: Draw) -> dict:
    reach = draw.integer(1, 3)
    offsets = torch.tensor([[draw.integer(-reach, reach) for _ in range(2)] for _ in range(9)])
    offsets[1] = offsets[0] + torch.tensor([0, -1])  # so that points 0 and 1 meet
    return {"offsets": offsets, "logits": draw.normal(9)}


def _kernel(offsets, weights, *, grid=_GRID, adds=True):
    places = torch.as_tensor(grid) + offsets
    reach = int(places.abs().max())
    kernel = torch.zeros(2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
    for (x, y), weight in zip(places.tolist(), weights, strict=True):
        kernel[y + reach, x + reach] = weight + (kernel[y + reach, x + reach] if adds else 0)
    return kernel


@exercise(_NOTEBOOK, 4, inputs=_fixed, what="kernel")
def as_kernel(offsets, logits):
    "(9, [x, y]) whole numbers, (9,) -> the kernel (K, K) of F.conv2d, K odd and as small as the points allow."
    return _kernel(offsets, logits.softmax(-1))


@as_kernel.mistake("if two points lie at the same place, the second weight replaces the first; add them")
def replaced(offsets, logits):
    return _kernel(offsets, logits.softmax(-1), adds=False)


@as_kernel.mistake("rows and columns are exchanged: a kernel is [row, column], which is [y, x]")
def rows_exchanged(offsets, logits):
    return _kernel(offsets, logits.softmax(-1)).T.contiguous()


@as_kernel.mistake("your points run row by row; in this operator x is slow and y is fast")
def kernel_by_rows(offsets, logits):
    return _kernel(offsets, logits.softmax(-1), grid=_BY_ROWS)


@as_kernel.mistake("your kernel is rotated by 180 degrees: F.conv2d does not flip it")
def kernel_turned(offsets, logits):
    return _kernel(offsets, logits.softmax(-1)).flip(0, 1)


@as_kernel.mistake("the softmax is missing: you use the logits themselves as weights")
def kernel_of_logits(offsets, logits):
    return _kernel(offsets, logits)


@as_kernel.mistake("the 3x3 grid is missing: offsets are counted from each point's place in it")
def kernel_without_grid(offsets, logits):
    return _kernel(offsets, logits.softmax(-1), grid=[(0, 0)] * 9)


@as_kernel.mistake("the offsets are not used: the kernel must reach as far as the points move")
def kernel_without_offsets(offsets, logits):
    return _kernel(0 * offsets, logits.softmax(-1))


# ---- 5: how an offset learns ----------------------------------------------------------------------------------------


def _one_place(draw: Draw) -> dict:
    height, width = draw.distinct(2, 4, 9)
    x, y = _near(draw, height, width, draw.choice(_WHERE))
    return {"tokens": draw.normal(height, width, 3), "x": x, "y": y}


def _slope(tokens, x, y, *, value=_sample):
    """The slope between two places of one cell, in which a sample is linear along each axis, so any step is exact."""
    left, top = math.floor(x), math.floor(y)
    along = value(tokens, left + 0.75, y) - value(tokens, left + 0.25, y)
    down = value(tokens, x, top + 0.75) - value(tokens, x, top + 0.25)
    return 2 * torch.stack((along, down))


@exercise(_NOTEBOOK, 5, inputs=_one_place, what="slope", cases=24)
def slope(tokens, x, y):
    "(H, W, C), a place between tokens -> (2, C): how the sample grows with x, and with y; 0 outside."
    return _slope(tokens, x, y)


@slope.mistake("the slopes along x and y are exchanged")
def slopes_exchanged(tokens, x, y):
    return _slope(tokens, x, y).flip(0)


@slope.mistake("the slope has the wrong sign: take right minus left, and below minus above")
def slope_turned(tokens, x, y):
    return -_slope(tokens, x, y)


@slope.mistake("you use only the upper row and the left column; the other ones have a share too")
def one_pair(tokens, x, y):
    left, top = math.floor(x), math.floor(y)
    return torch.stack((_slope(tokens, x, float(top))[0], _slope(tokens, float(left), y)[1]))


@slope.mistake("you weight both rows equally, and both columns; the nearer one counts more")
def both_alike(tokens, x, y):
    left, top = math.floor(x), math.floor(y)
    return torch.stack((_slope(tokens, x, top + 0.5)[0], _slope(tokens, left + 0.5, y)[1]))


@slope.mistake("the shares are reversed: the *nearer* row (or column) has the larger one")
def slope_shares_turned(tokens, x, y):
    left, top = math.floor(x), math.floor(y)
    return torch.stack((_slope(tokens, x, 2 * top + 1 - y)[0], _slope(tokens, 2 * left + 1 - x, y)[1]))


@slope.mistake("you add the differences of two rows without their shares")
def without_shares(tokens, x, y):
    return 2 * both_alike(tokens, x, y)


@slope.mistake(
    "outside the map you repeat its border, so the slope vanishes; values there are 0, and they fall within one token"
)
def slope_of_border(tokens, x, y):
    return _slope(tokens, x, y, value=_with_border)


@slope.mistake("a place outside the map by less than a token still depends on its border")
def no_slope_outside(tokens, x, y):
    inside = 0 <= x <= tokens.shape[1] - 1 and 0 <= y <= tokens.shape[0] - 1
    return _slope(tokens, x, y) * inside
