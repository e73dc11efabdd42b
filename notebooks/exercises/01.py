"""Exercises of notebook 01: what a token mixer is. Tokens are maps (B, H, W, C)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stm_lab.checks.core import Draw, exercise

_NOTEBOOK = "01_what_is_a_token_mixer"


def _maps(draw: Draw) -> dict:
    height, width = draw.distinct(2, 3, 8)
    return {"x": draw.normal(draw.integer(1, 3), height, width, 4 * draw.integer(1, 3))}


# ---- 1: the mixer that averages all tokens --------------------------------------------------------------------------


@exercise(_NOTEBOOK, 1, inputs=_maps, what="mixed map")
def global_average(x):
    "(B, H, W, C) -> the same shape: the mean of all tokens of an image, minus the token itself."
    return x.mean(dim=(1, 2), keepdim=True) - x


@global_average.mistake("your mean is taken over the channels; tokens are mixed by a mean over rows and columns")
def over_channels(x):
    return x.mean(dim=-1, keepdim=True) - x


@global_average.mistake("your mean includes the batch axis, so images are mixed with each other; leave axis 0 out")
def over_batch(x):
    return x.mean(dim=(0, 1, 2), keepdim=True) - x


@global_average.mistake("your mean is over axis 1 alone; a token should receive all rows and columns")
def over_rows(x):
    return x.mean(dim=1, keepdim=True) - x


@global_average.mistake("your mean is over axis 2 alone; a token should receive all rows and columns")
def over_columns(x):
    return x.mean(dim=2, keepdim=True) - x


@global_average.mistake("the token itself is not subtracted: the residual branch would count it twice")
def without_minus(x):
    return x.mean(dim=(1, 2), keepdim=True).expand_as(x)


@global_average.mistake("your output is a sum, not a mean: divide by the number of tokens")
def a_sum(x):
    return x.sum(dim=(1, 2), keepdim=True) - x


@global_average.mistake("you return one token for each image; use `keepdim=True`, so that the subtraction broadcasts")
def collapsed(x):
    return x.mean(dim=(1, 2))


@global_average.mistake("the sign is reversed: return the mean minus the token, not the token minus the mean")
def turned(x):
    return x - x.mean(dim=(1, 2), keepdim=True)


# ---- 2: a mixer without a single multiplication ---------------------------------------------------------------------


def _shift(x: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Output (row, column) is input (row - down, column - right); 0 outside the map."""
    H, W = x.shape[1:3]
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    return padded[:, 1 - down : 1 - down + H, 1 - right : 1 - right + W]


def _shifted(x: torch.Tensor, moves: list[tuple[int, int]]) -> torch.Tensor:
    parts = x.chunk(4, dim=-1)
    return torch.cat([_shift(part, *move) for part, move in zip(parts, moves, strict=True)], dim=-1)


@exercise(_NOTEBOOK, 2, inputs=_maps, what="shifted map")
def shift_mixer(x):
    "(B, H, W, C) -> the same: four quarters of the channels move down, up, right, left by one token; 0 moves in."
    return _shifted(x, [(1, 0), (-1, 0), (0, 1), (0, -1)])


@shift_mixer.mistake("tokens that leave on one side come back on the other: torch.roll wraps around; put 0 there")
def wraps_round(x):
    down, up, right, left = x.chunk(4, dim=-1)
    return torch.cat([down.roll(1, 1), up.roll(-1, 1), right.roll(1, 2), left.roll(-1, 2)], dim=-1)


@shift_mixer.mistake("every quarter moves the opposite way: out[:, 1:] = x[:, :-1] moves *down*")
def opposite(x):
    return _shifted(x, [(-1, 0), (1, 0), (0, -1), (0, 1)])


@shift_mixer.mistake("rows and columns are exchanged: axis 1 counts rows, so moving along it is down or up")
def exchanged(x):
    return _shifted(x, [(0, 1), (0, -1), (1, 0), (-1, 0)])


@shift_mixer.mistake("all channels move down; only the first quarter should (x.chunk(4, dim=-1) splits them)")
def all_down(x):
    return _shift(x, 1, 0)


@shift_mixer.mistake("the border keeps its old values; it should become 0, because nothing moves in")
def border_kept(x):
    out, quarter = x.clone(), x.shape[-1] // 4
    out[:, 1:, :, :quarter] = x[:, :-1, :, :quarter]
    out[:, :-1, :, quarter : 2 * quarter] = x[:, 1:, :, quarter : 2 * quarter]
    out[:, :, 1:, 2 * quarter : 3 * quarter] = x[:, :, :-1, 2 * quarter : 3 * quarter]
    out[:, :, :-1, 3 * quarter :] = x[:, :, 1:, 3 * quarter :]
    return out


@shift_mixer.mistake("your quarters are interleaved; the first C / 4 channels together should move down, and so on")
def interleaved(x):
    moves = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    return torch.stack([_shift(x[..., c : c + 1], *moves[c % 4])[..., 0] for c in range(x.shape[-1])], dim=-1)


# ---- 3: one step of a block -----------------------------------------------------------------------------------------


def _blocks(draw: Draw) -> dict:
    height, width = draw.distinct(2, 3, 7)
    channels = draw.integer(3, 6)
    turn = draw.normal(height, height)
    return {
        "x": draw.normal(2, height, width, channels),
        "norm": torch.nn.LayerNorm(channels, dtype=torch.float64),
        "mixer": lambda tokens: torch.einsum("rh,bhwc->brwc", turn, tokens),
        "gamma": draw.normal(channels),
    }


@exercise(_NOTEBOOK, 3, inputs=_blocks, what="tokens")
def mixing_step(x, norm, mixer, gamma):
    "(B, H, W, C) -> the same shape: x + gamma * mixer(norm(x)). gamma: (C,)."
    return x + gamma * mixer(norm(x))


@mixing_step.mistake("the residual branch is missing: a block adds to x, it does not replace it")
def no_residual(x, norm, mixer, gamma):
    return gamma * mixer(norm(x))


@mixing_step.mistake("the norm comes after the mixer; it belongs before it (pre-norm): mixer(norm(x))")
def norm_after(x, norm, mixer, gamma):
    return x + gamma * norm(mixer(x))


@mixing_step.mistake("the residual branch carries norm(x); it must carry x itself, unchanged")
def residual_normed(x, norm, mixer, gamma):
    tokens = norm(x)
    return tokens + gamma * mixer(tokens)


@mixing_step.mistake("gamma scales the residual branch as well; it should scale the mixer's output alone")
def gamma_on_all(x, norm, mixer, gamma):
    return gamma * (x + mixer(norm(x)))


@mixing_step.mistake("the norm is missing: the mixer should see norm(x)")
def no_norm(x, norm, mixer, gamma):
    return x + gamma * mixer(x)


@mixing_step.mistake("gamma is missing: without it the mixer's branch starts at full strength")
def no_gamma(x, norm, mixer, gamma):
    return x + mixer(norm(x))


@mixing_step.mistake("the sum is normalised as well (post-norm); here the residual branch has no norm")
def post_norm(x, norm, mixer, gamma):
    return norm(x + gamma * mixer(x))


# ---- 4: the mixing matrix of any mixer ------------------------------------------------------------------------------


def _mixers(draw: Draw) -> dict:
    height, width = draw.distinct(2, 2, 5)
    count = height * width
    weights = draw.normal(count, count)

    def mixer(x):
        return torch.einsum("pq,bqc->bpc", weights, x.flatten(1, 2)).unflatten(1, x.shape[1:3])

    return {"mixer": mixer, "height": height, "width": width}


def _impulses(height, width):
    """(P, H, W, 1): maps with a single 1 each, in row order."""
    return torch.eye(height * width, dtype=torch.float64).view(-1, height, width, 1)


@exercise(_NOTEBOOK, 4, inputs=_mixers, what="mixing matrix")
def matrix_of(mixer, height, width):
    "(P, P), P = height * width: entry [p, q] is what output token p gets from input token q. One channel, linear."
    return mixer(_impulses(height, width)).flatten(1).T


@matrix_of.mistake("your output is the mixing matrix's transpose: an impulse at q fills *column* q")
def rows_for_columns(mixer, height, width):
    return mixer(_impulses(height, width)).flatten(1)


@matrix_of.mistake("the tokens are counted column by column; p = row * width + column")
def by_columns(mixer, height, width):
    eye = torch.eye(height * width, dtype=torch.float64).view(-1, width, height, 1).transpose(1, 2)
    return mixer(eye).transpose(1, 2).flatten(1).T


@matrix_of.mistake("the rows are normalised; return the entries themselves")
def normalised(mixer, height, width):
    weights = mixer(_impulses(height, width)).flatten(1).T
    return weights / weights.sum(1, keepdim=True)


@matrix_of.mistake("you return absolute values; keep the signs, because a mixer may subtract")
def absolute(mixer, height, width):
    return mixer(_impulses(height, width)).flatten(1).T.abs()


@matrix_of.mistake("the residual branch is included; return the matrix of the mixer alone")
def with_residual(mixer, height, width):
    return mixer(_impulses(height, width)).flatten(1).T + torch.eye(height * width, dtype=torch.float64)


@matrix_of.mistake("you return the diagonal alone; any output token may respond to any impulse")
def diagonal(mixer, height, width):
    return torch.diag(mixer(_impulses(height, width)).flatten(1).diagonal())


# ---- 5: how far a mixer reaches -------------------------------------------------------------------------------------


def _matrices(draw: Draw) -> dict:
    height, width = draw.distinct(2, 2, 6)
    return {"weights": draw.normal(height * width, height * width).abs(), "height": height, "width": width}


def _distance(weights, height, width, *, power=2, axis=1, columns=None, root=True):
    columns = columns or width
    p = torch.arange(height * width)
    places = torch.stack([p // columns, p % columns], dim=1).double()  # (P, 2)
    away = (places[:, None] - places).abs().pow(power).sum(2)
    away = away.pow(1 / power) if root else away
    shares = weights / weights.sum(axis, keepdim=True) if axis is not None else weights
    return (shares * away).sum().item() / len(weights)


@exercise(_NOTEBOOK, 5, inputs=_matrices, what="distance")
def mean_distance(weights, height, width):
    "Mean Euclidean distance, in tokens, from an output token to its inputs, weighted by their shares."
    return _distance(weights, height, width)


mean_distance.mistakes_of(
    _distance,
    {
        "the weights are not normalised: divide each row by its sum first": {"axis": None},
        "the columns are divided by their sums; a row is an output token, and its shares add up to 1": {"axis": 0},
        "the distances are squared: the root is missing": {"root": False},
        "that is the city-block distance, |rows| + |columns|; use the Euclidean one": {"power": 1},
    },
)


@mean_distance.mistake("you divide by the height, but a row has `width` tokens: row = p // width, column = p % width")
def height_for_width(weights, height, width):
    return _distance(weights, height, width, columns=height)


@mean_distance.mistake("that is the sum over all output tokens; return the mean")
def summed(weights, height, width):
    return _distance(weights, height, width) * height * width
