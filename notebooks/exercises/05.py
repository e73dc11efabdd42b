"""Exercises of notebook 05: halo attention. A block has the side b, its window w = b + 2 halo."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from stm_lab.checks.core import Draw, exercise

_NOTEBOOK = "05_halo_attention"


# ---- 1: how many blocks attend to a token ----------------------------------------------------------------------------


def _maps(draw: Draw) -> dict:
    height, width = draw.distinct(2, 5, 17)
    return {"height": height, "width": width, "block": draw.integer(2, 5), "halo": draw.integer(1, 4)}


def _counts(size, block, before, after, starts=None):
    """Along one axis: how many intervals [start - before, start + block + after) hold each place."""
    starts = torch.arange(0, size, block) if starts is None else starts
    place = torch.arange(size)[:, None]
    return ((place >= starts - before) & (place < starts + block + after)).sum(1)


def _heard(height, width, block, before, after):
    return _counts(height, block, before, after)[:, None] * _counts(width, block, before, after)


@exercise(_NOTEBOOK, 1, inputs=_maps, what="count")
def heard_by(height, width, block, halo):
    "(H, W) whole numbers: how many blocks have each token in their windows; the last blocks may be cut off."
    return _heard(height, width, block, halo, halo)


@heard_by.mistake("only its own block is counted; windows of neighbouring blocks contain the token too, by their halos")
def own_block(height, width, block, halo):
    return _heard(height, width, block, 0, 0)


@heard_by.mistake("your halo lies above and left of the blocks only; it must surround them")
def only_before(height, width, block, halo):
    return _heard(height, width, block, halo, 0)


@heard_by.mistake("your halo lies below and right of the blocks only; it must surround them")
def only_after(height, width, block, halo):
    return _heard(height, width, block, 0, halo)


@heard_by.mistake("your windows are a token too long: the last row is start + block + halo - 1, `<` and not `<=`")
def one_too_long(height, width, block, halo):
    return _heard(height, width, block, halo, halo + 1)


@heard_by.mistake("you add the counts of rows and columns; every pair is a block, so multiply them")
def added(height, width, block, halo):
    return _counts(height, block, halo, halo)[:, None] + _counts(width, block, halo, halo)


@heard_by.mistake(
    "the last blocks are missing: if a side is no multiple of the block, the block that is cut off counts too"
)
def whole_blocks(height, width, block, halo):
    down, across = (
        _counts(size, block, halo, halo, torch.arange(0, size - block + 1, block)) for size in (height, width)
    )
    return down[:, None] * across


@heard_by.mistake("you use one window per token; there is one per block, `block` tokens apart")
def sliding(height, width, block, halo):
    down, across = (_counts(size, block, halo, halo, torch.arange(size)) for size in (height, width))
    return down[:, None] * across


@heard_by.mistake("you count the tokens of the blocks; count the blocks")
def in_tokens(height, width, block, halo):
    return _heard(height, width, block, halo, halo) * block * block


@heard_by.mistake("you count the tokens that each one attends to; count the blocks that attend to it")
def whom_it_hears(height, width, block, halo):
    def keys(size):
        start = torch.arange(size) // block * block
        return (start + block + halo).clamp(max=size) - (start - halo).clamp(min=0)

    return keys(height)[:, None] * keys(width)


@heard_by.mistake("you also count blocks that would lie outside the map")
def without_edges(height, width, block, halo):
    down, across = (
        _counts(size, block, halo, halo, torch.arange(-10 * block, size + 10 * block, block))
        for size in (height, width)
    )
    return down[:, None] * across


@heard_by.mistake("only the next blocks are counted; a halo that is wider than a block reaches farther")
def next_blocks(height, width, block, halo):
    reach = min(halo, block)
    return _heard(height, width, block, reach, reach)


@heard_by.mistake("a slice that begins at a negative number counts from the end: begin at max(start - halo, 0)")
def negative_slices(height, width, block, halo):
    count = torch.zeros(height, width, dtype=torch.long)
    for top in range(0, height, block):
        for left in range(0, width, block):
            count[top - halo : top + block + halo, left - halo : left + block + halo] += 1
    return count


# ---- 2: attention with a mask ---------------------------------------------------------------------------------------


def _masked(draw: Draw) -> dict:
    queries, keys = draw.distinct(2, 3, 8)
    d = draw.integer(3, 7)
    inside = draw.normal(3, keys) > 0
    inside[:, 0], inside[0, 1] = True, False  # each block has a key, and one has something to mask
    q, k, v = draw.normal(3, queries, d), draw.normal(3, keys, d), draw.normal(3, keys, d)
    if draw.choice([True, False]):  # large logits outside, very low ones inside: no finite number replaces -inf
        q[..., -1], k[..., -1] = 1, torch.where(inside, -1e5, 1e5)
    return {"q": q, "k": k, "v": v, "inside": inside}


def _attention(q, k, v, inside, *, scale=None, axis=-1):
    logits = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    return logits.masked_fill(~inside[:, None], -math.inf).softmax(axis) @ v


@exercise(_NOTEBOOK, 2, inputs=_masked, what="output")
def masked_attention(q, k, v, inside):
    "(N, n, d), (N, m, d), (N, m, d), (N, m) bool -> (N, n, d): softmax over the keys inside, weight 0 outside."
    return _attention(q, k, v, inside)


@masked_attention.mistake("the mask is not used: keys outside still take a share")
def unmasked(q, k, v, inside):
    return _attention(q, k, v, torch.ones_like(inside))


@masked_attention.mistake("masked logits are 0, and exp(0) is 1: such a key takes a share; it must be -inf")
def zero_logits(q, k, v, inside):
    return (q @ k.mT * q.shape[-1] ** -0.5 * inside[:, None]).softmax(-1) @ v


@masked_attention.mistake(
    "the mask comes after the softmax (or on v): the weights no longer add up to 1; mask the logits, before it"
)
def mask_after_softmax(q, k, v, inside):
    return ((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) * inside[:, None]) @ v


@masked_attention.mistake("the mask is inverted: True means *inside*, and you mask those keys")
def mask_turned(q, k, v, inside):
    return _attention(q, k, v, ~inside)


@masked_attention.mistake("the scale is missing: divide the logits by the root of d")
def unscaled(q, k, v, inside):
    return _attention(q, k, v, inside, scale=1)


@masked_attention.mistake("the logits are divided by d; divide by its root")
def scaled_by_d(q, k, v, inside):
    return _attention(q, k, v, inside, scale=1 / q.shape[-1])


@masked_attention.mistake("the logits are multiplied by the root of d; divide")
def scaled_up(q, k, v, inside):
    return _attention(q, k, v, inside, scale=q.shape[-1] ** 0.5)


@masked_attention.mistake("the softmax runs over the queries; for each query, the weights of its *keys* add up to 1")
def over_queries(q, k, v, inside):
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(1).masked_fill(~inside[:, None], 0) @ v


@masked_attention.mistake("the softmax is missing: you use the logits themselves as weights")
def no_softmax(q, k, v, inside):
    return (q @ k.mT * q.shape[-1] ** -0.5 * inside[:, None]) @ v


@masked_attention.mistake("0 times -inf is NaN: do not multiply the mask by -inf; use `masked_fill`")
def nothing_times_infinity(q, k, v, inside):
    return (q @ k.mT * q.shape[-1] ** -0.5 + ~inside[:, None] * -math.inf).softmax(-1) @ v


@masked_attention.mistake(
    "masked logits are not low enough: if the logits inside are even lower, the keys outside win; use -inf"
)
def finite_mask(q, k, v, inside):
    return (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~inside[:, None], -100.0).softmax(-1) @ v


@masked_attention.mistake("you subtract a number from the masked logits: large ones still win; set them to -inf")
def taken_off(q, k, v, inside):
    return (q @ k.mT * q.shape[-1] ** -0.5 - 100.0 * ~inside[:, None]).softmax(-1) @ v


@masked_attention.mistake(
    "you set keys and values outside to 0: their logits are then 0, and exp(0) is 1, a lost share; mask the logits"
)
def zeroed(q, k, v, inside):
    k, v = k * inside[..., None], v * inside[..., None]
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v


@masked_attention.mistake("the weights are not divided by their sum")
def not_normalised(q, k, v, inside):
    return ((q @ k.mT * q.shape[-1] ** -0.5).exp() * inside[:, None]) @ v


@masked_attention.mistake("the scale comes too late: apply it to the logits, before the softmax")
def scaled_output(q, k, v, inside):
    return _attention(q, k, v, inside, scale=1) * q.shape[-1] ** -0.5


@masked_attention.mistake("you average the keys; the weights apply to the values")
def keys_for_values(q, k, v, inside):
    return _attention(q, k, k, inside)


# ---- 3: the relative term -------------------------------------------------------------------------------------------


def _tables(draw: Draw) -> dict:
    block, halo, d = draw.integer(2, 5), draw.integer(1, 4), draw.integer(3, 7)
    return {"q": draw.normal(block, d), "table": draw.normal(2 * (block + 2 * halo) - 1, d), "halo": halo}


def _relative(q, table, halo, row):
    """row: from the place of the query in its block and of the key in the window to the row of the table."""
    i, j = torch.arange(len(q))[:, None], torch.arange(len(q) + 2 * halo)
    return torch.einsum("id,ijd->ij", q, table[row(i, j) + 0 * (i + j)])


@exercise(_NOTEBOOK, 3, inputs=_tables, what="relative term")
def relative_term(q, table, halo):
    "(b, d), (2w - 1, d) -> (b, w): query i times row w - 1 + j - i, for key j of the window."
    w = len(q) + 2 * halo
    return _relative(q, table, halo, lambda i, j: w - 1 + j - i)


@relative_term.mistake("the step has the wrong sign: it is key minus query, j - i")
def query_minus_key(q, table, halo):
    w = len(q) + 2 * halo
    return _relative(q, table, halo, lambda i, j: w - 1 + i - j)


@relative_term.mistake("w - 1 is missing in the row number: negative indices silently count from the end of the table")
def negative_rows(q, table, halo):
    return _relative(q, table, halo, lambda i, j: j - i)


@relative_term.mistake(
    "you count the key's place from the block; count it from the window's first row, so do not subtract the halo"
)
def from_the_block(q, table, halo):
    w = len(q) + 2 * halo
    return _relative(q, table, halo, lambda i, j: w - 1 + j - halo - i)


@relative_term.mistake("your rows start from b - 1, as if the table held only the rows that are read; start from w - 1")
def from_b(q, table, halo):
    return _relative(q, table, halo, lambda i, j: len(q) - 1 + j - i)


@relative_term.mistake("your row depends on the key only; subtract the query's place")
def absolute(q, table, halo):
    w = len(q) + 2 * halo
    return _relative(q, table, halo, lambda i, j: w - 1 + j)


@relative_term.mistake("the distance has lost its sign: left and right get the same row")
def without_sign(q, table, halo):
    w = len(q) + 2 * halo
    return _relative(q, table, halo, lambda i, j: w - 1 + (j - i).abs())


@relative_term.mistake("the query is scaled by the root of d; in the relative term it is not")
def scaled_query(q, table, halo):
    return relative_term.truth(q * q.shape[-1] ** -0.5, table, halo)


@relative_term.mistake("you sum each row of the table as it is; take its dot product with the query")
def without_query(q, table, halo):
    return relative_term.truth(torch.ones_like(q), table, halo)


@relative_term.mistake("your rows are one too low: step 0 has row w - 1")
def one_too_low(q, table, halo):
    w = len(q) + 2 * halo
    return _relative(q, table, halo, lambda i, j: w - 2 + j - i)


@relative_term.mistake("your row is i + j; it must be w - 1 plus the step from query to key, j - i")
def sum_of_places(q, table, halo):
    return _relative(q, table, halo, lambda i, j: j + i)


@relative_term.mistake(
    "every query takes rows 0 to w - 1; the rows depend on the step from query to key, w - 1 + j - i"
)
def first_rows(q, table, halo):
    return _relative(q, table, halo, lambda i, j: j)


@relative_term.mistake("your window has a halo on one side only: w is b + 2 halo")
def halo_once(q, table, halo):
    b, w = len(q), len(q) + halo
    return torch.einsum("id,ijd->ij", q, table[w - 1 + torch.arange(w) - torch.arange(b)[:, None]])


@relative_term.mistake("you return products with the whole table; select the rows: for key j, row w - 1 + j - i")
def whole_table(q, table, halo):
    return q @ table.T


# ---- 4: how far a stack of blocks sees ------------------------------------------------------------------------------


def _stacks(draw: Draw) -> dict:
    block, layers = draw.integer(2, 7), draw.integer(2, 4)
    size = draw.integer(50, 80)
    return {
        "place": draw.choice([draw.integer(0, size - 1), draw.integer(size - 9, size - 1)]),  # often near the end
        "size": size,
        "block": block,
        "halo": draw.integer(1, block + 3),  # may be wider than a block
        "layers": layers,
    }


def _span(place, size, block, halo, layers):
    first = last = place
    for _ in range(layers):
        first = max(first // block * block - halo, 0)
        last = min(last // block * block + block - 1 + halo, size - 1)
    return first, last


def _cut(first, last, size):
    return max(first, 0), min(last, size - 1)


@exercise(_NOTEBOOK, 4, inputs=_stacks, what="span", cases=12)
def heard_after(place, size, block, halo, layers):
    "Along one axis: (first, last) token, both included, that a token sees through so many layers of one cut."
    return _span(place, size, block, halo, layers)


@heard_after.mistake(
    "you extend the span by the halo around the token, as in a convolution; a token sees its block's *window*"
)
def round_the_token(place, size, block, halo, layers):
    return _cut(place - layers * halo, place + layers * halo, size)


@heard_after.mistake(
    "you extend the span by the halo around the first block; a token in the halo belongs to another block, and sees "
    "the whole window of *that* block"
)
def round_the_block(place, size, block, halo, layers):
    start = place // block * block
    return _cut(start - layers * halo, start + block - 1 + layers * halo, size)


@heard_after.mistake("you add block + halo in every layer; the first layer adds only the halo: follow both ends")
def whole_windows(place, size, block, halo, layers):
    start, step = place // block * block, layers * (block + halo)
    return _cut(start - step, start + block - 1 + step, size)


@heard_after.mistake("your span leaves the map: tokens outside are masked, in every layer")
def outside(place, size, block, halo, layers):
    first = last = place
    for _ in range(layers):
        first, last = first // block * block - halo, last // block * block + block - 1 + halo
    return first, last


@heard_after.mistake("the last token is size - 1")
def last_is_size(place, size, block, halo, layers):
    first, last = outside(place, size, block, halo, layers)
    return max(first, 0), min(last, size)


@heard_after.mistake("your last token is the one after the last: start + block - 1 + halo")
def one_after(place, size, block, halo, layers):
    first = last = place
    for _ in range(layers):
        first, last = max(first // block * block - halo, 0), min(last // block * block + block + halo, size - 1)
    return first, last


@heard_after.mistake("your span is that of one layer; the stack has `layers`")
def one_layer(place, size, block, halo, layers):
    return _span(place, size, block, halo, 1)


@heard_after.mistake("your span is that of one layer too many")
def layer_too_many(place, size, block, halo, layers):
    return _span(place, size, block, halo, layers + 1)


@heard_after.mistake(
    "each further layer adds a block at both ends only if the halo is no wider than a block; follow the ends"
)
def a_block_a_layer(place, size, block, halo, layers):
    start, step = place // block * block, (layers - 1) * block + halo
    return _cut(start - step, start + block - 1 + step, size)


@heard_after.mistake("your span ends in the padding to whole blocks; the last token of the map is size - 1")
def in_the_padding(place, size, block, halo, layers):
    first, last = outside(place, size, block, halo, layers)
    return _cut(first, last, -(-size // block) * block)


@heard_after.mistake("the last token is included: yours is the one after it")
def end_after(place, size, block, halo, layers):
    first, last = _span(place, size, block, halo, layers)
    return first, last + 1


@heard_after.mistake("the halo is missing: blocks would never see each other")
def blocks_alone(place, size, block, halo, layers):
    return _span(place, size, block, 0, layers)


# ---- 5: the whole, from memory --------------------------------------------------------------------------------------


def _tokens(draw: Draw) -> dict:
    block, halo = draw.integer(2, 4), draw.integer(1, 3)
    height, width = draw.distinct(2, block + 1, 11)
    q, k, v = (draw.normal(height, width, 5) for _ in range(3))
    return {"q": q, "k": k, "v": v, "block": block, "halo": halo}


def _attend(q, k, v, block, halo, *, shift=0, scale=None, inside="all", turned=False):
    """Block by block on a padded map; `shift` moves the windows, `inside` says which keys count as inside."""
    H, W, d = q.shape
    wide = 2 * (halo + block)  # width of the border of zeros: more than any window needs
    border = (0, 0, wide, wide, wide, wide)
    q, k, v = (F.pad(each, border) for each in (q, k, v))
    known = torch.zeros(q.shape[:2], dtype=torch.bool)
    bottom, right = (None, None) if inside == "after" else (H + wide, W + wide)
    known[wide:bottom, wide:right] = True
    known |= inside == "none"
    out, window = torch.zeros_like(q), block + 2 * halo
    for y in range(wide, wide + H, block):
        for x in range(wide, wide + W, block):
            top, left = y - halo + shift, x - halo + shift
            keys = (slice(top, top + window), slice(left, left + window))
            logits = q[y : y + block, x : x + block].reshape(-1, d) @ k[keys].reshape(-1, d).T
            logits = logits * (d**-0.5 if scale is None else scale)
            weights = logits.masked_fill(~known[keys].reshape(-1), -math.inf).softmax(-1)
            made = (weights @ v[keys].reshape(-1, d)).view(block, block, d)
            out[y : y + block, x : x + block] = made.transpose(0, 1) if turned else made
    return out[wide : wide + H, wide : wide + W]


@exercise(_NOTEBOOK, 5, inputs=_tokens, what="map")
def halo_attention(q, k, v, block, halo):
    "Three maps (H, W, d) -> (H, W, d): one head, scaled, no relative term; keys outside the map have weight 0."
    return _attend(q, k, v, block, halo)


halo_attention.mistakes_of(
    _attend,
    {
        "nothing is masked: zeros outside the map have the logit 0, and take a share": {"inside": "none"},
        "only the padding above and left is masked; mask that below and right too": {"inside": "after"},
        "your windows begin a token too late: at block * row - halo": {"shift": 1},
        "the scale is missing: divide the logits by the root of d": {"scale": 1},
        "you write the tokens of a block column by column; they were read row by row": {"turned": True},
    },
)


@halo_attention.mistake("your halo lies below and right of the blocks only, twice as wide; it must surround them")
def halo_below(q, k, v, block, halo):
    return _attend(q, k, v, block, halo, shift=halo)


@halo_attention.mistake("the halo is missing: your blocks see only themselves")
def no_halo(q, k, v, block, halo):
    return _attend(q, k, v, block, 0)


@halo_attention.mistake("the logits are divided by d; divide by its root")
def scale_by_d(q, k, v, block, halo):
    return _attend(q, k, v, block, halo, scale=1 / q.shape[-1])


@halo_attention.mistake(
    "each of your tokens has its own window, `halo` around it (neighbourhood attention); a block shares one window"
)
def neighbourhood(q, k, v, block, halo):
    return _attend(q, k, v, 1, halo)


@halo_attention.mistake("you average all keys equally: the softmax of q k is missing")
def averaged(q, k, v, block, halo):
    return _attend(torch.zeros_like(q), k, v, block, halo)


def _by_slices(q, k, v, block, keys, *, axis=-1, whole=False):
    """Block by block without padding; `keys` says, along one axis, which ones a block that begins at `start` sees."""
    (H, W, d), (h, w) = q.shape, k.shape[:2]
    out, spare = torch.zeros_like(q), block - 1 if whole else 0
    for y in range(0, H - spare, block):
        for x in range(0, W - spare, block):
            mine = q[y : y + block, x : x + block]
            near = keys(y, h), keys(x, w)
            weights = (mine.reshape(-1, d) @ k[near].reshape(-1, d).T * d**-0.5).softmax(axis)
            out[y : y + block, x : x + block] = (weights @ v[near].reshape(-1, d)).view(mine.shape)
    return out


def _window(block, halo):
    return lambda start, size: slice(max(start - halo, 0), start + block + halo)


@halo_attention.mistake("a slice that begins at a negative number counts from the end: begin at max(start - halo, 0)")
def slices_from_the_end(q, k, v, block, halo):
    return _by_slices(q, k, v, block, lambda start, size: slice(start - halo, start + block + halo))


@halo_attention.mistake("you move windows at the edges into the map; they must keep their place and be cut off")
def moved_windows(q, k, v, block, halo):
    def keys(start, size):
        first = max(start - halo, 0)
        return slice(first, first + block + 2 * halo)

    return _by_slices(q, k, v, block, keys)


@halo_attention.mistake("your halo lies above and left of the blocks only; it must surround them")
def halo_before(q, k, v, block, halo):
    return _by_slices(q, k, v, block, lambda start, size: slice(max(start - halo, 0), start + block))


@halo_attention.mistake("your halo lies below and right of the blocks only; it must surround them")
def halo_after(q, k, v, block, halo):
    return _by_slices(q, k, v, block, lambda start, size: slice(start, start + block + halo))


@halo_attention.mistake("your windows end a token too early: the last row is start + block + halo - 1, included")
def one_too_short(q, k, v, block, halo):
    return _by_slices(q, k, v, block, lambda start, size: slice(max(start - halo, 0), start + block + halo - 1))


@halo_attention.mistake("every token sees the whole map; each block should see its window")
def whole_map(q, k, v, block, halo):
    return _by_slices(q, k, v, block, lambda start, size: slice(None))


@halo_attention.mistake("the softmax runs over the queries; for each query, the weights of its *keys* add up to 1")
def over_the_queries(q, k, v, block, halo):
    return _by_slices(q, k, v, block, _window(block, halo), axis=0)


@halo_attention.mistake(
    "the last blocks are missing: if a side is no multiple of the block, they are cut off, but they still count"
)
def without_the_last(q, k, v, block, halo):
    return _by_slices(q, k, v, block, _window(block, halo), whole=True)


@halo_attention.mistake(
    "you join the blocks one after the other: bring (rows, columns, b, b, d) to (rows, b, columns, b, d) before you "
    "reshape"
)
def laid_back_in_line(q, k, v, block, halo):
    H, W, _ = q.shape
    padded = F.pad(q, (0, 0, 0, -W % block, 0, -H % block))
    out = _by_slices(padded, k, v, block, _window(block, halo))
    blocks = out.unflatten(1, (-1, block)).unflatten(0, (-1, block)).transpose(1, 2)  # (rows, columns, b, b, d)
    return blocks.reshape(padded.shape)[:H, :W]


@halo_attention.mistake("your output is the padded map; remove the padding")
def still_padded(q, k, v, block, halo):
    H, W, _ = q.shape
    padded = F.pad(q, (0, 0, 0, -W % block, 0, -H % block))
    return _by_slices(padded, k, v, block, _window(block, halo))


@halo_attention.mistake("you average the keys; the weights apply to the values")
def blended_keys(q, k, v, block, halo):
    return _attend(q, k, k, block, halo)
