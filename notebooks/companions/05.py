"""Notebook 05's own: blocks with a halo."""

from __future__ import annotations

import math

import ipywidgets as widgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from stm_lab.explore.shell import Explorer, State
from stm_lab.figures.draw import fences, framed, picture, placed
from stm_lab.figures.style import described, drawing
from stm_lab.util.errors import UserError

_NUMBERED = 64  # areas up to which each has its number
_NEITHER, _BLOCK, _HALO, _MASKED, _ONE_WAY = "#DDDDDD", "#0072B2", "#56B4E9", "#E69F00", "#D55E00"


_MEANINGS = {
    _BLOCK: "its block",
    _HALO: "a key, and attends back",
    _ONE_WAY: "one way only",
    _MASKED: "masked: outside the map",
    _NEITHER: "neither",
}


@drawing
def halo_blocks(
    height: int, width: int, *, block: int = 7, halo: int = 3, place: tuple[int, int] | None = None
) -> Figure:
    """One token of a map that is cut into blocks with a halo: the tokens that it attends to, those that attend to it,
    and how many blocks attend to each token. Three panels in this order, in tokens of the map.

    The map is padded at the bottom and right to whole blocks; tokens outside it are masked. As in the mixer, a side of
    the map that is shorter than a block is one block of that length.

    Args:
        height, width: of the map, tokens.
        block, halo: sides in tokens; a window's side is that of its block, min(block, side of the map), + 2 halo.
        place: (row, column) of the token; default: the last one of the first block, or of the map.

    Raises UserError if map, block or halo is too small, or the token lies outside the map.
    """
    if min(height, width, block) < 1 or halo < 0:
        raise UserError(
            f"halo_blocks: {height}x{width} tokens, block={block}, halo={halo}; at least 1, and halo at least 0"
        )
    row, column = place or (min(block, height) - 1, min(block, width) - 1)
    if not (0 <= row < height and 0 <= column < width):
        raise UserError(f"halo_blocks: place=({row}, {column}) lies outside {height}x{width} tokens")
    keys, queries, own, counts = _relations((height, width), block, halo, (row, column))
    sides = min(block, height), min(block, width)  # of a block
    window, only = math.prod(side + 2 * halo for side in sides), int((queries & ~keys).sum())
    masked = window - int(keys.sum())
    figure, panels = placed((11, 4.3), [(x, 0.12, 0.3, 0.76) for x in (0.015, 0.345, 0.675)])
    _window(panels[0], (row, column), sides, halo)
    _coloured(panels[0], keys, queries, own)
    _coloured(panels[1], queries, keys, own)
    _counted(panels[2], counts)
    titles = (
        f"attends to {keys.sum()} tokens; {masked} of {window} keys are masked",
        f"{queries.sum()} tokens attend to it; {only} of them one way",
        f"blocks that attend to each token; to this one: {counts[row, column]}",
    )
    for axes, title in zip(panels, titles, strict=True):
        _blocks(axes, (height, width), sides, halo)
        framed(axes, row, column)
        axes.set_title(title, fontsize=9)
    patches = [Patch(fc=c, ec="0.5", hatch="///" if c == _MASKED else None) for c in _MEANINGS]
    figure.legend(patches, _MEANINGS.values(), loc="lower center", ncols=len(patches), frameon=False, fontsize=9)
    cut = str(block) if sides == (block, block) else f"{sides[0]}x{sides[1]}"
    title = f"{height}x{width} tokens, blocks of {cut}, halo {halo}: the token in row {row}, column {column}"
    figure.suptitle(title, fontsize=10, y=0.985)
    said = (
        f"{title}, of block ({row // block}, {column // block}), attends to {keys.sum()} tokens; {masked} of the "
        f"{window} keys of its window are masked. {counts[row, column]} blocks attend to it: {queries.sum()} tokens, "
        f"{only} of which it does not attend to. {counts.min()} to {counts.max()} blocks attend to a token."
    )
    return described(figure, said)


def _relations(size: tuple[int, int], block: int, halo: int, place: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Bool maps of `size`: keys of the token at `place`, queries that attend to it, its block; and counts of blocks."""
    (row, column), (down, across) = place, (_attends(side, block, halo) for side in size)
    keys = down[row][:, None] & across[column]
    queries = down[:, row][:, None] & across[:, column]
    rows, columns = (np.arange(side) // block == at // block for side, at in zip(size, place, strict=True))
    counts = down[::block].sum(0)[:, None] * across[::block].sum(0)
    return keys, queries, rows[:, None] & columns, counts


def _attends(size: int, block: int, halo: int) -> np.ndarray:
    """(size, size) bool, along one axis: [query, key]. A window is a product of two such intervals."""
    first, key = np.arange(size)[:, None] // block * block, np.arange(size)
    return (key >= first - halo) & (key < first + block + halo)


def _window(axes: Axes, place: tuple[int, int], sides: tuple[int, int], halo: int) -> None:
    """The whole window of the token at `place`, drawn as masked; the map goes on top. `sides`: of its block."""
    top, left = (at // side * side - halo - 0.5 for at, side in zip(place, sides, strict=True))
    height, width = (side + 2 * halo for side in sides)
    axes.add_patch(Rectangle((left, top), width, height, fc=_MASKED, ec="black", lw=0, hatch="///", zorder=1))
    axes.add_patch(Rectangle((left, top), width, height, fill=False, ec="black", lw=2, zorder=5))


def _coloured(axes: Axes, these: np.ndarray, back: np.ndarray, own: np.ndarray) -> None:
    shown = np.empty((*these.shape, 3))
    shown[:] = to_rgb(_NEITHER)
    shown[these] = to_rgb(_ONE_WAY)
    shown[these & back] = to_rgb(_HALO)
    shown[own] = to_rgb(_BLOCK)
    picture(axes, shown, zorder=2)


def _counted(axes: Axes, counts: np.ndarray) -> None:
    image = picture(axes, counts, cmap="cividis", vmin=1, vmax=max(int(counts.max()), 4), zorder=2)
    rows, columns = _runs(counts[:, 0]), _runs(counts[0])
    for top, bottom in rows if len(rows) * len(columns) <= _NUMBERED else ():
        for left, right in columns:
            count = counts[top, left]
            ink = "black" if image.norm(count) > 0.5 else "white"
            place = (left + right - 1) // 2, (top + bottom - 1) // 2  # the middle token, away from block boundaries
            axes.text(*place, str(count), ha="center", va="center", fontsize=8, color=ink, zorder=7)


def _runs(counts: np.ndarray) -> list[tuple[int, int]]:
    """[first, end) of the runs of equal counts along a line. Counts are a product of both axes."""
    ends = [*(np.flatnonzero(np.diff(counts)) + 1), len(counts)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _blocks(axes: Axes, size: tuple[int, int], sides: tuple[int, int], halo: int) -> None:
    """Lines between tokens, boundaries of the blocks (with the padding to whole blocks), and the map's frame."""
    height, width = size
    bottom, right = (-(-of_map // side) * side for of_map, side in zip(size, sides, strict=True))
    fences(axes, np.arange(height + 1) - 0.5, np.arange(width + 1) - 0.5, linewidth=0.4, alpha=1, zorder=3)
    dotted = {"color": "black", "linewidth": 1, "linestyle": ":", "alpha": 1, "zorder": 4}
    fences(axes, np.arange(0, bottom + 1, sides[0]) - 0.5, np.arange(0, right + 1, sides[1]) - 0.5, **dotted)
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, ec="black", lw=1.2, zorder=5))
    edge = halo + 0.8
    axes.set(xlim=(-edge, right - 1 + edge), ylim=(bottom - 1 + edge, -edge), aspect="equal", anchor="C")
    axes.spines[:].set_visible(False)


def halo_painter() -> Explorer:
    """A map cut into blocks with a halo: what the clicked token attends to, which part of its window is masked, which
    tokens and how many blocks attend to it. If a side of the map is shorter than a block, the block shrinks to it."""

    def draw(height: int, width: int, block: int, halo: int, row: int, column: int) -> Figure:
        place = min(row, height - 1), min(column, width - 1)
        return halo_blocks(height, width, block=block, halo=halo, place=place)

    most = 40  # tokens a side: a click needs some pixels for each
    controls = {
        "height": widgets.IntSlider(14, 1, most, description="height (tokens)"),
        "width": widgets.IntSlider(14, 1, most, description="width (tokens)"),
        "block": widgets.IntSlider(7, 1, 16),
        "halo": widgets.IntSlider(3, 0, 16),
        "row": widgets.IntSlider(6, 0, most - 1),
        "column": widgets.IntSlider(6, 0, most - 1),
    }
    return Explorer(draw, controls, select=lambda panel, x, y, now: _on_map(round(y), round(x), now))


def _on_map(row: int, column: int, now: State) -> State:
    """What a click on a token sets; in the padding, nothing."""
    is_inside = 0 <= row < now["height"] and 0 <= column < now["width"]
    return {"row": row, "column": column} if is_inside else {}
