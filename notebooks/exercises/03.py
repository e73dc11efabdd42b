"""Exercises of notebook 03: spatial-reduction attention. Tokens and keys are counted row by row."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stm_lab.checks.core import Draw, exercise

_NOTEBOOK = "03_spatial_reduction_attention"


# ---- 1: which tokens make which key ---------------------------------------------------------------------------------


def _grids(draw: Draw) -> dict:
    reduction = draw.integer(2, 4)
    rows, columns = draw.distinct(2, 2, 4)
    height = rows * reduction + draw.integer(1, reduction - 1)  # both axes have a remainder
    width = columns * reduction + draw.integer(1, reduction - 1)
    return {"height": height, "width": width, "reduction": reduction}


def _table(height, width, rows, columns, row_of, column_of):
    """(rows * columns, height * width) bool, by the row and column of each token's key; other tokens have none."""
    down, across = row_of(torch.arange(height)), column_of(torch.arange(width))
    made = (torch.arange(rows)[:, None] == down)[:, None, :, None] & (torch.arange(columns)[:, None] == across)[:, None]
    return made.flatten(0, 1).flatten(1)


@exercise(_NOTEBOOK, 1, inputs=_grids, what="table", cases=8)
def made_of(height, width, reduction):
    "(K, P) bool, P = height * width: whether token p goes into key j; the remainder goes into none."
    R = reduction
    return _table(height, width, height // R, width // R, lambda y: y // R, lambda x: x // R)


@made_of.mistake(
    "your map is padded to whole patches, so the remainder has keys, too; here it is dropped: round rows and columns "
    "of keys down"
)
def padded(height, width, reduction):
    R = reduction
    return _table(height, width, -(-height // R), -(-width // R), lambda y: y // R, lambda x: x // R)


@made_of.mistake(
    "the remainder at the right goes into the first key of the next row; it belongs to none. Check first whether a "
    "token's column of keys exists"
)
def spills_into_the_next_row(height, width, reduction):
    R, p = reduction, torch.arange(height * width)
    rows, columns = height // R, width // R
    return torch.arange(rows * columns)[:, None] == p // width // R * columns + p % width // R


@made_of.mistake("the remainder goes into the last patch in your table; it should go into none")
def remainder_joins_the_last(height, width, reduction):
    R, rows, columns = reduction, height // reduction, width // reduction
    return _table(
        height, width, rows, columns, lambda y: (y // R).clamp(max=rows - 1), lambda x: (x // R).clamp(max=columns - 1)
    )


@made_of.mistake("your patches are strips of R * R tokens in a row; a patch is R tokens wide and R tokens high")
def strips(height, width, reduction):
    R = reduction
    keys = (height // R) * (width // R)
    return torch.arange(keys)[:, None] == torch.arange(height * width) // R**2


@made_of.mistake("your keys are counted column by column; j = row * columns + column, columns = width // reduction")
def keys_by_columns(height, width, reduction):
    R, rows, columns = reduction, height // reduction, width // reduction
    found = made_of.truth(height, width, R).view(rows, columns, -1)
    return found.transpose(0, 1).flatten(0, 1)


@made_of.mistake("your tokens are counted column by column; p = row * width + column")
def tokens_by_columns(height, width, reduction):
    found = made_of.truth(height, width, reduction)
    return found.view(len(found), height, width).mT.flatten(1)


@made_of.mistake(
    "you count keys as if a row had `width` of them; it has width // reduction. The table has no rows for keys that do "
    "not exist"
)
def counted_by_width(height, width, reduction):
    R, p = reduction, torch.arange(height * width)
    rows, columns = height // R, width // R
    return torch.arange(rows * columns)[:, None] == p // width // R * width + p % width // R


@made_of.mistake("every `reduction`-th token goes into the same key: that is %; use // for patches")
def remainder_for_quotient(height, width, reduction):
    rows, columns = height // reduction, width // reduction
    return _table(height, width, rows, columns, lambda y: y % rows, lambda x: x % columns)


# ---- 2: many queries, few keys, several heads -----------------------------------------------------------------------


def _projected(draw: Draw) -> dict:
    heads, each = draw.distinct(2, 2, 4)
    queries, keys = draw.distinct(2, 5, 12)
    return {"q": draw.normal(queries, heads * each), "kv": draw.normal(keys, 2 * heads * each), "heads": heads}


def _attended(q, k, v, *, scale=None, axis=-1):
    """(heads, P, d), (heads, K, d) twice -> (heads, P, d)."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return (q @ k.mT * scale).softmax(axis) @ v


def _parts(q, kv, heads):
    q = q.unflatten(-1, (heads, -1)).transpose(0, 1)
    k, v = kv.unflatten(-1, (2, heads, -1)).permute(1, 2, 0, 3)
    return q, k, v


def _side_by_side(out):
    return out.transpose(0, 1).flatten(1)


@exercise(_NOTEBOOK, 2, inputs=_projected, what="output")
def few_keys(q, kv, heads):
    "(P, C), (K, 2 * C) with channels (key or value, head, d) -> (P, C), heads side by side."
    return _side_by_side(_attended(*_parts(q, kv, heads)))


@few_keys.mistake("the scale is missing: logits are divided by the root of a head's channels")
def without_scale(q, kv, heads):
    return _side_by_side(_attended(*_parts(q, kv, heads), scale=1.0))


@few_keys.mistake("your scale uses all channels; a head has d = C / heads of them, and the scale is d ** -0.5")
def scale_of_all_channels(q, kv, heads):
    return _side_by_side(_attended(*_parts(q, kv, heads), scale=q.shape[-1] ** -0.5))


@few_keys.mistake("your logits are divided by d; divide by its root")
def divided_by_d(q, kv, heads):
    return _side_by_side(_attended(*_parts(q, kv, heads), scale=heads / q.shape[-1]))


@few_keys.mistake(
    "you split kv as (head, key or value, d); its channels are (key or value, head, d): all keys come first"
)
def split_by_heads_first(q, kv, heads):
    q = q.unflatten(-1, (heads, -1)).transpose(0, 1)
    k, v = kv.unflatten(-1, (heads, 2, -1)).permute(2, 1, 0, 3)
    return _side_by_side(_attended(q, k, v))


@few_keys.mistake("keys and values are exchanged: the first half of the channels are the keys")
def keys_and_values_exchanged(q, kv, heads):
    q, k, v = _parts(q, kv, heads)
    return _side_by_side(_attended(q, v, k))


@few_keys.mistake("your softmax runs over the queries; it is the weights of one query that add up to 1")
def softmax_over_queries(q, kv, heads):
    return _side_by_side(_attended(*_parts(q, kv, heads), axis=-2))


@few_keys.mistake("you treat all channels as one head; split them first, so that each head attends separately")
def one_head(q, kv, heads):
    k, v = kv.chunk(2, -1)
    return _attended(q, k, v)


@few_keys.mistake(
    "your heads are not put back side by side: you reshape (heads, P, d) directly to (P, C); exchange heads and tokens "
    "first"
)
def not_put_back(q, kv, heads):
    return _attended(*_parts(q, kv, heads)).reshape(q.shape)


@few_keys.mistake(
    "your heads are split wrongly: view(heads, tokens, d) splits tokens; use view(tokens, heads, d), then exchange axes"
)
def cut_through_tokens(q, kv, heads):
    k, v = kv.chunk(2, -1)
    q, k, v = (part.reshape(heads, len(part), -1) for part in (q, k, v))
    return _side_by_side(_attended(q, k, v))


@few_keys.mistake("your weights are the logits: the softmax is missing")
def without_softmax(q, kv, heads):
    q, k, v = _parts(q, kv, heads)
    return _side_by_side(q @ k.mT * q.shape[-1] ** -0.5 @ v)


# ---- 3: an embedding for a larger map -------------------------------------------------------------------------------


def _rows_of_places(draw: Draw) -> dict:
    n, wanted = draw.distinct(2, 3, 9)
    return {"table": draw.normal(n, draw.integer(2, 4)), "wanted": wanted}


def _mixed(table, at):
    """(wanted,) places among the old ones -> (wanted, C), linearly, and constant outside the first and the last."""
    at = at.to(table.dtype).clamp(0, len(table) - 1)
    before = at.floor().long().clamp(max=len(table) - 2)
    share = (at - before)[:, None]
    return (1 - share) * table[before] + share * table[before + 1]


@exercise(_NOTEBOOK, 3, inputs=_rows_of_places, what="embedding", cases=8)
def lengthened(table, wanted):
    "(n, C) -> (wanted, C), wanted >= 2: linear between neighbours; the first place and the last stay."
    return _mixed(table, torch.arange(wanted, dtype=torch.float64) * (len(table) - 1) / (wanted - 1))


@lengthened.mistake(
    "your step is n / wanted; it should be (n - 1) / (wanted - 1), from the first place to the last"
)
def step_of_counts(table, wanted):
    return _mixed(table, torch.arange(wanted, dtype=torch.float64) * len(table) / wanted)


@lengthened.mistake(
    "your places are centres of cells (align_corners=False), which moves the ends inwards; here the first and the last "
    "place stay unchanged"
)
def centres_of_cells(table, wanted):
    return _mixed(table, (torch.arange(wanted, dtype=torch.float64) + 0.5) * len(table) / wanted - 0.5)


@lengthened.mistake("you take the nearest of the old places; it should be a mean of two, the nearer one counting more")
def nearest_place(table, wanted):
    at = torch.arange(wanted, dtype=torch.float64) * (len(table) - 1) / (wanted - 1)
    return table[(at + 0.5).floor().long()]


@lengthened.mistake("you take the old place before each new one; it should be a mean of the two beside it")
def place_before(table, wanted):
    at = torch.arange(wanted, dtype=torch.float64) * (len(table) - 1) / (wanted - 1)
    return table[at.long()]


@lengthened.mistake("the two shares are exchanged: the nearer place counts more")
def shares_exchanged(table, wanted):
    at = torch.arange(wanted, dtype=torch.float64) * (len(table) - 1) / (wanted - 1)
    before = at.long().clamp(max=len(table) - 2)
    share = (at - before)[:, None]
    return share * table[before] + (1 - share) * table[before + 1]


@lengthened.mistake("you take the plain mean of the two places beside each new one; the nearer counts more")
def plain_mean(table, wanted):
    at = torch.arange(wanted, dtype=torch.float64) * (len(table) - 1) / (wanted - 1)
    before = at.long().clamp(max=len(table) - 2)
    return (table[before] + table[before + 1]) / 2


@lengthened.mistake("your embedding is cut off or padded with zeros; it should be stretched over the new places")
def cut_or_filled(table, wanted):
    return F.pad(table, (0, 0, 0, max(wanted - len(table), 0)))[:wanted]


@lengthened.mistake("your embedding repeats after its end; it should be stretched over the new places")
def begins_anew(table, wanted):
    return table[torch.arange(wanted) % len(table)]


# ---- 4: keys that do not grow ---------------------------------------------------------------------------------------


def _mixers(draw: Draw) -> dict:
    reduction = draw.integer(2, 4)
    rows, columns = draw.distinct(2, 3, 9)
    return {
        "height": rows * reduction + draw.integer(1, reduction - 1),
        "width": columns * reduction + draw.integer(1, reduction - 1),
        "channels": draw.choice([8, 24, 40]),
        "reduction": reduction,
        "side": draw.choice([5, 7]),
    }


def _costs(height, width, channels, reduction, side, *, keys=None, kernel=None, fixed=None, products=2, twice=None):
    """As `two_costs`, with the number of keys of both, what the kernel costs, and how often keys meet queries."""
    tokens = height * width
    keys = (height // reduction) * (width // reduction) if keys is None else keys
    kernel = keys * (reduction * channels) ** 2 if kernel is None else kernel
    fixed = side * side if fixed is None else fixed
    own, twice = (2, 2) if twice is None else twice

    def rest(keys):
        return (own * tokens + twice * keys) * channels**2 + products * tokens * keys * channels

    return rest(keys) + kernel, rest(fixed)


@exercise(_NOTEBOOK, 4, inputs=_mixers, what="cost")
def two_costs(height, width, channels, reduction, side):
    "Multiply-adds of the mixer for one image: (reduced by the ratio, averaged to side x side); reduction >= 2."
    return _costs(height, width, channels, reduction, side)


@two_costs.mistake("the keys are rounded up; the remainder makes no key, so there are (H // R) * (W // R)")
def keys_rounded_up(height, width, channels, reduction, side):
    keys = -(-height // reduction) * -(-width // reduction)
    return _costs(height, width, channels, reduction, side, keys=keys)


@two_costs.mistake("your number of keys is H * W // R**2; count rows and columns of patches, each rounded down")
def keys_of_all_tokens(height, width, channels, reduction, side):
    return _costs(height, width, channels, reduction, side, keys=height * width // reduction**2)


two_costs.mistakes_of(
    _costs,
    {
        "the convolution is missing in the first number: R * R * C * C for each key": {"kernel": 0},
        "you count one product of queries and keys; there are two, Q K and weights times V": {"products": 1},
        "you project keys and values from every token; they are projected after the reduction": {"twice": (4, 0)},
    },
)


@two_costs.mistake("your convolution moves token by token; it has a stride, so it is computed once for each key")
def convolution_at_every_token(height, width, channels, reduction, side):
    kernel = height * width * (reduction * channels) ** 2
    return _costs(height, width, channels, reduction, side, kernel=kernel)


@two_costs.mistake("your convolution is depth-wise, R * R * C for each key; every output channel reads all C: R*R*C*C")
def depthwise_convolution(height, width, channels, reduction, side):
    kernel = (height // reduction) * (width // reduction) * reduction**2 * channels
    return _costs(height, width, channels, reduction, side, kernel=kernel)


@two_costs.mistake("you count `side` keys; there are side * side")
def side_not_squared(height, width, channels, reduction, side):
    return _costs(height, width, channels, reduction, side, fixed=side)


@two_costs.mistake("your cost is twice what it should be: count a multiply-add as one, not two")
def operations(height, width, channels, reduction, side):
    return tuple(2 * cost for cost in two_costs.truth(height, width, channels, reduction, side))


@two_costs.mistake("the two are exchanged: first by the ratio, then by the fixed number of keys")
def costs_exchanged(height, width, channels, reduction, side):
    return two_costs.truth(height, width, channels, reduction, side)[::-1]


# ---- 5: from memory -------------------------------------------------------------------------------------------------


def _operators(draw: Draw) -> dict:
    reduction = draw.integer(2, 3)
    rows, columns = draw.distinct(2, 2, 4)
    C = draw.integer(3, 5)
    height, width = rows * reduction + draw.integer(0, 1), columns * reduction + draw.integer(0, 1)
    return {
        "x": draw.normal(height, width, C),
        "query": draw.normal(C, C),
        "key_value": draw.normal(2 * C, C),
        "output": draw.normal(C, C),
        "kernel": draw.normal(C, C, reduction, reduction),
    }


def _operator(
    x, query, key_value, output, kernel, *,
    stride=None, padding=0, norm=True, scale=None, swap=False, axis=-1, normed_queries=False,
):  # fmt: skip
    """Spatial-reduction attention of one head, with any one of its lines changed."""
    H, W, C = x.shape
    source = F.conv2d(x.permute(2, 0, 1)[None], kernel, stride=stride or kernel.shape[-1], padding=padding)
    source = source[0].flatten(1).T  # (K, C)
    if norm:
        source = F.layer_norm(source, (C,), eps=1e-5)
    k, v = (source @ key_value.T).chunk(2, -1)
    if swap:
        k, v = v, k
    q = (F.layer_norm(x, (C,), eps=1e-5) if normed_queries else x).reshape(-1, C) @ query.T
    weights = (q @ k.T * (C**-0.5 if scale is None else scale)).softmax(axis)
    return (weights @ v @ output.T).view(H, W, C)


@exercise(_NOTEBOOK, 5, inputs=_operators, what="output")
def reduction_attention(x, query, key_value, output, kernel):
    "Tokens (H, W, C) -> (H, W, C); query, output (C, C), key_value (2C, C), kernel (C, C, R, R); one head, no biases."
    return _operator(x, query, key_value, output, kernel)


reduction_attention.mistakes_of(
    _operator,
    {
        "the scale is missing: logits are divided by the root of the channels": {"scale": 1.0},
        "the norm after the reduction is missing": {"norm": False},
        "the stride is missing: your kernel moves token by token; patches do not overlap": {"stride": 1},
        "keys and values are exchanged: the first C rows of key_value make the keys": {"swap": True},
        "your softmax runs over the queries; it is the weights of one query that add up to 1": {"axis": -2},
        "your queries are normalised; only the reduced tokens are": {"normed_queries": True},
    },
)


@reduction_attention.mistake("your convolution pads; nothing should be padded, and the remainder is dropped")
def padding_added(x, query, key_value, output, kernel):
    return _operator(x, query, key_value, output, kernel, padding=kernel.shape[-1] // 2)


@reduction_attention.mistake("the last projection, by `output`, is missing")
def output_forgotten(x, query, key_value, output, kernel):
    return _operator(x, query, key_value, torch.eye(len(output), dtype=x.dtype), kernel)


@reduction_attention.mistake("the tokens are added to your output; the residual branch is the block's")
def residual_added(x, query, key_value, output, kernel):
    return x + _operator(x, query, key_value, output, kernel)


@reduction_attention.mistake("your kernel has rows and columns exchanged; kernel[:, :, j, i] is for row j, column i")
def kernel_turned(x, query, key_value, output, kernel):
    return _operator(x, query, key_value, output, kernel.mT)


@reduction_attention.mistake(
    "your keys and values come from all tokens; reduce and normalise first, then project"
)
def nothing_reduced(x, query, key_value, output, kernel):
    k, v = (x.reshape(-1, x.shape[-1]) @ key_value.T).chunk(2, -1)
    q = x.reshape(-1, x.shape[-1]) @ query.T
    return ((q @ k.T * q.shape[-1] ** -0.5).softmax(-1) @ v @ output.T).view(x.shape)


@reduction_attention.mistake("the matrices are transposed: F.linear(x, w) is x @ w.T, for all of them")
def matrices_transposed(x, query, key_value, output, kernel):
    C = x.shape[-1]
    halves = torch.cat([half.T for half in key_value.split(C)])
    return _operator(x, query.T, halves, output.T, kernel)
