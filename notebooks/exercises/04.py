"""Exercises of notebook 04: shifted-window attention. Tokens are counted row by row, p = row * width + column."""

from __future__ import annotations

import itertools

import torch

from stm_lab.checks.core import Draw, exercise

_NOTEBOOK = "04_shifted_window_attention"


# ---- 1: which tokens attend to which ---------------------------------------------------------------------------------


def _grids(draw: Draw) -> dict:
    window = draw.integer(3, 4)
    height, width = draw.distinct(2, window + 1, 2 * window + 2)
    return {"height": height, "width": width, "window": window, "shift": draw.integer(1, window - 1)}


def _same(first, second=None):
    """(H,), (W,) numbers of the window along each axis -> (P, P) bool; `second` for keys that differ from queries."""
    rows, columns = (numbers[:, None] == numbers for numbers in (first, second))
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1).flatten(1)


def _bands(size, window, shift):
    return (torch.arange(size) - shift).div(window, rounding_mode="floor")


@exercise(_NOTEBOOK, 1, inputs=_grids, what="table of which token attends to which", cases=8)
def hears(height, width, window, shift):
    "(P, P) bool, P = height * width: whether token p attends to token q; both sides of the map exceed the window."
    return _same(_bands(height, window, shift), _bands(width, window, shift))


@hears.mistake("the shift is not used: these are the windows of an unshifted block")
def without_shift(height, width, window, shift):
    return _same(_bands(height, window, 0), _bands(width, window, 0))


@hears.mistake(
    "opposite sides of the map attend to each other, as after a roll without a mask; they are not neighbours"
)
def far_sides_meet(height, width, window, shift):
    def rolled(size):
        padded = -(-size // window) * window
        return (torch.arange(size) - shift) % padded // window

    return _same(rolled(height), rolled(width))


@hears.mistake("opposite sides of the map attend to each other, even without padding: do not take a remainder (%)")
def far_sides_meet_unpadded(height, width, window, shift):
    def rolled(size):
        return (torch.arange(size) - shift) % size // window

    return _same(rolled(height), rolled(width))


@hears.mistake("only the rows of your grid are shifted; shift the columns too")
def rows_shifted(height, width, window, shift):
    return _same(_bands(height, window, shift), _bands(width, window, 0))


@hears.mistake("your grid is shifted by half a window, whatever `shift` says")
def half_a_window(height, width, window, shift):
    return _same(_bands(height, window, window // 2), _bands(width, window, window // 2))


@hears.mistake("you divide by /, which gives fractions; // gives the number of the window")
def fractions(height, width, window, shift):
    return _same((torch.arange(height) - shift) / window, (torch.arange(width) - shift) / window)


@hears.mistake(
    "two windows share a number in your table; compare rows with rows and columns with columns, or allow for one more "
    "window in a row: the shifted grid has it"
)
def numbers_collide(height, width, window, shift):
    number = _bands(height, window, shift)[:, None] * (width // window) + _bands(width, window, shift)
    return number.flatten()[:, None] == number.flatten()


@hears.mistake("your grid is shifted the other way: its first border lies `shift` tokens from the upper left corner")
def other_way(height, width, window, shift):
    return _same(_bands(height, window, -shift), _bands(width, window, -shift))


@hears.mistake(
    "your division rounds towards zero, which merges two windows at the upper left; use //, which rounds down"
)
def rounds_to_zero(height, width, window, shift):
    def truncated(size):
        return (torch.arange(size) - shift).div(window, rounding_mode="trunc")

    return _same(truncated(height), truncated(width))


@hears.mistake("you test only one axis: rows *and* columns must lie in one window")
def one_axis(height, width, window, shift):
    rows, columns = (_bands(size, window, shift) for size in (height, width))
    all_rows, all_columns = torch.zeros_like(rows), torch.zeros_like(columns)
    return _same(rows, all_columns) | _same(all_rows, columns)


@hears.mistake("your window follows the token (all tokens nearer than `window`); here the windows are fixed")
def centred(height, width, window, shift):
    def near(size):
        i = torch.arange(size)
        return (i[:, None] - i).abs() < window

    return (near(height)[:, None, :, None] & near(width)[None, :, None, :]).flatten(0, 1).flatten(1)


@hears.mistake("no token attends to itself in your table; it should, as to all others of its window")
def not_itself(height, width, window, shift):
    found = hears.truth(height, width, window, shift)
    return found & ~torch.eye(len(found), dtype=torch.bool)


@hears.mistake("your tokens are counted column by column; p = row * width + column")
def by_columns(height, width, window, shift):
    return hears.truth(width, height, window, shift)


# ---- 2: nine regions ------------------------------------------------------------------------------------------------


def _rolled_maps(draw: Draw) -> dict:
    window = draw.integer(3, 5)
    rows, columns = draw.distinct(2, 2, 4)
    return {"height": rows * window, "width": columns * window, "window": window, "shift": draw.integer(1, window - 1)}


def _numbered(height, width, borders, *, first=0):
    """Regions by the borders that lie before each position, rows first."""
    rows, columns = (sum((torch.arange(size) >= border).long() for border in borders(size)) for size in (height, width))
    return 3 * rows[:, None] + columns + first


@exercise(_NOTEBOOK, 2, inputs=_rolled_maps, what="map of regions")
def regions(height, width, window, shift):
    "(H, W) int64: the regions 0 to 8 of the map *after* the roll, row by row; H and W are whole windows."
    return _numbered(height, width, lambda size: (size - window, size - shift))


@regions.mistake("these are the pieces of the map before the roll; after it the first rows are at the end")
def before_the_roll(height, width, window, shift):
    return _numbered(height, width, lambda size: (shift, size - window + shift))


@regions.mistake(
    "your map has four regions: the border at size - window is missing. (For the mask four would do. Do you see why?)"
)
def four_regions(height, width, window, shift):
    found = _numbered(height, width, lambda size: (size - shift,))
    return found // 3 * 2 + found % 3


@regions.mistake("four regions, numbered as if there were nine: the border at size - window is missing")
def four_of_nine(height, width, window, shift):
    return _numbered(height, width, lambda size: (size - shift,))


@regions.mistake("your last border is `shift` tokens from its start; it should be `shift` from its end")
def shift_from_the_start(height, width, window, shift):
    return _numbered(height, width, lambda size: (size - window, size - window + shift))


@regions.mistake("a token at the border should belong to the next region: use >=, not >")
def after_the_border(height, width, window, shift):
    return _numbered(height, width, lambda size: (size - window + 1, size - shift + 1))


@regions.mistake("your last border is half a window from the end, whatever `shift` says")
def half_a_window_from_the_end(height, width, window, shift):
    return _numbered(height, width, lambda size: (size - window, size - window // 2))


@regions.mistake(
    "you add the regions of rows and columns, so different ones share a number; take rows times 3, plus columns"
)
def rows_plus_columns(height, width, window, shift):
    found = regions.truth(height, width, window, shift)
    return found // 3 + found % 3


@regions.mistake("a row of regions has three numbers; you step by two")
def steps_by_two(height, width, window, shift):
    found = regions.truth(height, width, window, shift)
    return found // 3 * 2 + found % 3


@regions.mistake(
    "your numbers are those of the rolled pieces. They give the right mask, as in `mask`; here number nine regions, on "
    "every map"
)
def pieces_rolled(height, width, window, shift):
    rows, columns = (_bands(size, window, shift) + 1 for size in (height, width))
    found = rows[:, None] * (width // window + 1) + columns
    return found.roll((-shift, -shift), (0, 1))


@regions.mistake("your regions are rolled once more; the task numbers the map after the roll")
def rolled_twice(height, width, window, shift):
    return regions.truth(height, width, window, shift).roll((-shift, -shift), (0, 1))


@regions.mistake("your regions are numbered column by column; number them row by row, 0 1 2 at the top")
def numbered_by_columns(height, width, window, shift):
    found = regions.truth(height, width, window, shift)
    return found % 3 * 3 + found // 3


@regions.mistake("your regions are numbered from 1; begin with 0")
def from_one(height, width, window, shift):
    return _numbered(height, width, lambda size: (size - window, size - shift), first=1)


@regions.mistake("height and width are exchanged")
def sides_exchanged(height, width, window, shift):
    return regions.truth(width, height, window, shift)


# ---- 3: windows that are not square ---------------------------------------------------------------------------------


def _tables(draw: Draw) -> dict:
    height, width = draw.distinct(2, 2, 4)
    heads = draw.integer(2, 3)
    return {"table": draw.normal((2 * height - 1) * (2 * width - 1), heads), "height": height, "width": width}


def _offsets(size):
    i = torch.arange(size)
    return i[:, None] - i


def _looked_up(table, down, across, stride):
    """Offsets from 0 on, (height, height) and (width, width) -> (heads, L, L)."""
    index = (down[:, None, :, None] * stride + across[None, :, None, :]).flatten(0, 1).flatten(1)
    return table[index].permute(2, 0, 1)


@exercise(_NOTEBOOK, 3, inputs=_tables, what="bias")
def rectangular_bias(table, height, width):
    "((2 height - 1) * (2 width - 1), heads) -> (heads, L, L), L = height * width: by query minus key, rows first."
    return _looked_up(table, _offsets(height) + height - 1, _offsets(width) + width - 1, 2 * width - 1)


@rectangular_bias.mistake(
    "query and key are exchanged, so the bias means the other direction: the offset is query minus key, and "
    "permute(2, 0, 1) moves the heads to the front"
)
def key_minus_query(table, height, width):
    return rectangular_bias.truth(table, height, width).mT


@rectangular_bias.mistake("a row of the table has 2 * width - 1 offsets; you step by the height's")
def steps_by_height(table, height, width):
    return _looked_up(table, _offsets(height) + height - 1, _offsets(width) + width - 1, 2 * height - 1)


@rectangular_bias.mistake("a row of the table has 2 * width - 1 offsets, from -(width - 1) on; you step by the width")
def steps_by_width(table, height, width):
    return _looked_up(table, _offsets(height) + height - 1, _offsets(width) + width - 1, width)


@rectangular_bias.mistake(
    "negative offsets index the table from its end; add height - 1 and width - 1, so that they begin with 0"
)
def negative_offsets(table, height, width):
    return _looked_up(table, _offsets(height), _offsets(width), 2 * width - 1)


@rectangular_bias.mistake(
    "an index is too large for the table: the offsets must begin with 0 (add height - 1 and width - 1, nothing more), "
    "and a row of the table has 2 * width - 1 of them"
)
def beyond_the_table(table, height, width):
    return _looked_up(table, _offsets(height) + height, _offsets(width) + width, 2 * width - 1)


@rectangular_bias.mistake("height - 1 is added to both offsets; those of columns need width - 1")
def height_for_both(table, height, width):
    return _looked_up(table, _offsets(height) + height - 1, _offsets(width) + height - 1, 2 * width - 1)


@rectangular_bias.mistake("rows and columns of the tokens are exchanged: p // width is the row, p % width the column")
def row_for_column(table, height, width):
    p = torch.arange(height * width)
    down, across = (p % width)[:, None] - p % width, (p // width)[:, None] - p // width
    return table[(down + height - 1) * (2 * width - 1) + across + width - 1].permute(2, 0, 1)


@rectangular_bias.mistake("a row of the window has `width` tokens: p // width and p % width; you divide by the height")
def divides_by_height(table, height, width):
    p = torch.arange(height * width)
    down, across = (p // height)[:, None] - p // height, (p % height)[:, None] - p % height
    return table[(down + height - 1) * (2 * width - 1) + across + width - 1].permute(2, 0, 1)


@rectangular_bias.mistake(
    "you reshape instead of permuting; to bring the heads to the front, use permute(2, 0, 1)"
)
def poured(table, height, width):
    return rectangular_bias.truth(table, height, width).permute(1, 2, 0).reshape(-1, height * width, height * width)


@rectangular_bias.mistake("your heads are the last axis; they come first, (heads, L, L)")
def heads_last(table, height, width):
    return rectangular_bias.truth(table, height, width).permute(1, 2, 0)


@rectangular_bias.mistake("the sign of the offset is lost: left and right have separate numbers in the table")
def absolute(table, height, width):
    down, across = _offsets(height).abs() + height - 1, _offsets(width).abs() + width - 1
    return _looked_up(table, down, across, 2 * width - 1)


@rectangular_bias.mistake("the table's axes are exchanged: offsets of rows come first, then those of columns")
def axes_exchanged(table, height, width):
    turned = table.view(2 * height - 1, 2 * width - 1, -1).transpose(0, 1).flatten(0, 1)
    return rectangular_bias.truth(turned, height, width)


@rectangular_bias.mistake("the tokens of your window are counted column by column; count them row by row")
def tokens_by_columns(table, height, width):
    heads = table.shape[1]
    found = rectangular_bias.truth(table, height, width).view(heads, height, width, height, width)
    return found.permute(0, 2, 1, 4, 3).reshape(heads, height * width, height * width)


# ---- 4: until every token has reached every other -------------------------------------------------------------------


def _stacks(draw: Draw) -> dict:
    window = draw.integer(3, 5)
    height, width = draw.distinct(2, window + 1, 5 * window)
    return {"height": height, "width": width, "window": window, "shift": draw.integer(1, window - 1)}


def _needed(size, window, shift, *, wraps=False, first=0):
    """Blocks until every token of an axis has reached every other; the two kinds of blocks alternate."""

    def heard(block_shift):
        bands = _bands(size, window, block_shift)
        if wraps:
            bands = (torch.arange(size) - block_shift) % (-(-size // window) * window) // window
        return (bands[:, None] == bands).double()

    reach = torch.eye(size, dtype=torch.float64)
    for block in itertools.count(1):
        reach = (heard(shift if (block + first) % 2 == 0 else 0) @ reach).clamp(max=1)
        if bool((reach > 0).all()):
            return block


@exercise(_NOTEBOOK, 4, inputs=_stacks, what="number of blocks", cases=10)
def blocks_needed(height, width, window, shift):
    "Blocks, unshifted first, then shifted, and so on, until every token has reached every other, also through others."
    return max(_needed(height, window, shift), _needed(width, window, shift))


@blocks_needed.mistake("your first block is shifted; the first of a stage is not")
def begins_shifted(height, width, window, shift):
    return max(_needed(height, window, shift, first=1), _needed(width, window, shift, first=1))


@blocks_needed.mistake(
    "you count one block for each window (or pairs of blocks); a step from window to window takes two blocks"
)
def pairs(height, width, window, shift):
    return -(-blocks_needed.truth(height, width, window, shift) // 2)


@blocks_needed.mistake("opposite sides of your map attend to each other after the roll; the mask keeps them apart")
def round_the_back(height, width, window, shift):
    return max(_needed(size, window, shift, wraps=True) for size in (height, width))


@blocks_needed.mistake("you return the blocks of the shorter side; the longer side decides")
def shorter_side(height, width, window, shift):
    return _needed(min(height, width), window, shift)


@blocks_needed.mistake("only rows are counted; columns must be crossed too, and the longer side decides")
def rows_only(height, width, window, shift):
    return _needed(height, window, shift)


@blocks_needed.mistake("only columns are counted; rows must be crossed too, and the longer side decides")
def columns_only(height, width, window, shift):
    return _needed(width, window, shift)


@blocks_needed.mistake("you count one block too many: stop as soon as every token has reached every other")
def one_more(height, width, window, shift):
    return blocks_needed.truth(height, width, window, shift) + 1


@blocks_needed.mistake("you add the blocks of both sides; rows and columns are crossed at the same time")
def sides_added(height, width, window, shift):
    return _needed(height, window, shift) + _needed(width, window, shift)


@blocks_needed.mistake("you count from 0; the first block is 1")
def counts_from_zero(height, width, window, shift):
    return blocks_needed.truth(height, width, window, shift) - 1


# ---- 5: what windows save -------------------------------------------------------------------------------------------


def _maps(draw: Draw) -> dict:
    window = draw.integer(3, 7)
    height, width = draw.distinct(2, window + 1, 40)
    return {"height": height, "width": width, "channels": draw.integer(3, 64), "window": window}


def _costs(height, width, C, w, *, projections=4, products=2, factor=1, padded=True, keys=None, count=None):
    tokens = height * width
    queries = (-(-height // w)) * (-(-width // w)) * w * w if padded else tokens
    queries = queries if count is None else count
    inner = projections * tokens * C * C
    windows = inner + products * queries * (w * w if keys is None else keys) * C
    return factor * windows, factor * (inner + products * tokens * tokens * C)


@exercise(_NOTEBOOK, 5, inputs=_maps, what="cost")
def attention_cost(height, width, channels, window):
    "(in windows, over the whole map): multiply-adds of the mixer for one image; both sides exceed the window."
    return _costs(height, width, channels, window)


attention_cost.mistakes_of(
    _costs,
    {
        "the padding is not counted: a window that is half empty costs as much as a full one": {"padded": False},
        "one of the two products is missing: q.k, and the weights times v": {"products": 1},
        "the projections are missing: q, k, v and the output, C * C for each token": {"projections": 0},
        "you count three projections; after q, k and v there is one for the output": {"projections": 3},
        "your cost is twice what it should be: count a multiply-add as one, not two (FLOPs)": {"factor": 2},
    },
)


@attention_cost.mistake("windows at the border are left out: a partial window counts as a full one, so round up")
def rounded_down(height, width, channels, window):
    return _costs(height, width, channels, window, count=height // window * (width // window) * window**2)


@attention_cost.mistake(
    "you divide the areas and round up once; each axis has its own last window, so round up for each"
)
def rounded_once(height, width, channels, window):
    return _costs(height, width, channels, window, count=-(-height * width // window**2) * window**2)


@attention_cost.mistake(
    "your second number counts padding; attention over the whole map has no windows and no padding"
)
def whole_map_padded(height, width, channels, window):
    padded = -(-height // window) * -(-width // window) * window**2
    projections = 4 * height * width * channels**2
    return attention_cost.truth(height, width, channels, window)[0], projections + 2 * padded**2 * channels


@attention_cost.mistake("your second number lacks the projections; every token is projected four times there, too")
def whole_map_unprojected(height, width, channels, window):
    return attention_cost.truth(height, width, channels, window)[0], 2 * (height * width) ** 2 * channels


@attention_cost.mistake("a query has window * window keys, you count window")
def keys_not_squared(height, width, channels, window):
    return _costs(height, width, channels, window, keys=window)


@attention_cost.mistake("you count the attention of one window; multiply by the number of windows that cover the map")
def one_window(height, width, channels, window):
    return _costs(height, width, channels, window, count=window * window)


@attention_cost.mistake(
    "your count projects the padding; it is added after q, k and v, and cut off before the output projection"
)
def padding_projected(height, width, channels, window):
    rows, columns = -(-height // window) * window, -(-width // window) * window
    return _costs(rows, columns, channels, window)[0], _costs(height, width, channels, window)[1]


@attention_cost.mistake("the two are exchanged: first the windows, then the whole map")
def exchanged(height, width, channels, window):
    return attention_cost.truth(height, width, channels, window)[::-1]
