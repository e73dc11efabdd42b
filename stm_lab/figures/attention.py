"""Attention on a map of tokens: halo's blocks, swin's shifted windows, the reduced keys of pvt."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from stm_lab.figures.draw import fences, framed, numbers, overlay, picture, placed
from stm_lab.figures.style import described, drawing
from stm_lab.measure.windows import Windows, colour_weights, token_window
from stm_lab.util.errors import UserError

# ---- halo: blocks ----------------------------------------------------------------------------------------------------

_SILENT, _BLOCK, _HALO, _MASKED, _ONE_WAY = "#DDDDDD", "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
_MEANINGS = {
    _BLOCK: "its block",
    _HALO: "heard, and hears it",
    _ONE_WAY: "one way only",
    _MASKED: "masked: outside the map",
    _SILENT: "neither",
}
_NUMBERED = 64  # areas or keys up to which each has its number


@drawing
def halo_blocks(
    height: int, width: int, *, block: int = 7, halo: int = 3, place: tuple[int, int] | None = None
) -> Figure:
    """One token of a map that is cut into blocks with a halo: which tokens it hears, which hear it, and how many blocks
    hear each token. Three panels in this order, all in tokens of the map.

    The map is padded at the bottom and right to whole blocks; tokens outside of it are masked. As in the mixer, a side
    of the map that is shorter than a block is one block of that length.

    Args:
        height, width: of the map, tokens.
        block, halo: sides in tokens; a window's side is that of its block, min(block, side of the map), + 2 halo.
        place: (row, column) of the token; default: the last one of the first block, or of the map.

    Raises UserError for a map, block or halo that is too small, and a token outside of the map.
    """
    if min(height, width, block) < 1 or halo < 0:
        raise UserError(
            f"halo_blocks: {height}x{width} tokens, block={block}, halo={halo}; expected at least 1, and halo 0"
        )
    row, column = place or (min(block, height) - 1, min(block, width) - 1)
    if not (0 <= row < height and 0 <= column < width):
        raise UserError(f"halo_blocks: place=({row}, {column}) lies outside of {height}x{width} tokens")
    heard, hears_it, own, counts = _relations((height, width), block, halo, (row, column))
    sides = min(block, height), min(block, width)  # of a block
    window, only = math.prod(side + 2 * halo for side in sides), int((hears_it & ~heard).sum())
    masked = window - int(heard.sum())
    figure, panels = placed((11, 4.3), [(x, 0.12, 0.3, 0.76) for x in (0.015, 0.345, 0.675)])
    _window(panels[0], (row, column), sides, halo)
    _coloured(panels[0], heard, hears_it, own)
    _coloured(panels[1], hears_it, heard, own)
    _counted(panels[2], counts)
    titles = (
        f"it hears {heard.sum()} tokens; {masked} of {window} keys are masked",
        f"{hears_it.sum()} tokens hear it; {only} of them it does not hear",
        f"how many blocks hear each token; this one: {counts[row, column]}",
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
        f"{title}, of block ({row // block}, {column // block}), hears {heard.sum()} tokens; {masked} of the {window} "
        f"keys of its window are masked. {counts[row, column]} blocks hear it: {hears_it.sum()} tokens, {only} of "
        f"which it does not hear. A token is heard by {counts.min()} to {counts.max()} blocks."
    )
    return described(figure, said)


def _relations(size: tuple[int, int], block: int, halo: int, place: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Maps of `size`, bool: which tokens that at `place` hears, which hear it, its block; and how many blocks hear."""
    (row, column), (down, across) = place, (_hears(side, block, halo) for side in size)
    heard = down[row][:, None] & across[column]
    hears_it = down[:, row][:, None] & across[:, column]
    rows, columns = (np.arange(side) // block == at // block for side, at in zip(size, place, strict=True))
    counts = down[::block].sum(0)[:, None] * across[::block].sum(0)
    return heard, hears_it, rows[:, None] & columns, counts


def _hears(size: int, block: int, halo: int) -> np.ndarray:
    """(size, size) bool, along one axis: [query, key]. A window is a product of two such intervals."""
    first, key = np.arange(size)[:, None] // block * block, np.arange(size)
    return (key >= first - halo) & (key < first + block + halo)


def _window(axes: Axes, place: tuple[int, int], sides: tuple[int, int], halo: int) -> None:
    """The whole window of the token at `place`, as masked; the map is drawn over it. `sides`: of its block."""
    top, left = (at // side * side - halo - 0.5 for at, side in zip(place, sides, strict=True))
    height, width = (side + 2 * halo for side in sides)
    axes.add_patch(Rectangle((left, top), width, height, fc=_MASKED, ec="black", lw=0, hatch="///", zorder=1))
    axes.add_patch(Rectangle((left, top), width, height, fill=False, ec="black", lw=2, zorder=5))


def _coloured(axes: Axes, these: np.ndarray, back: np.ndarray, own: np.ndarray) -> None:
    shown = np.empty((*these.shape, 3))
    shown[:] = to_rgb(_SILENT)
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
            place = (left + right - 1) // 2, (top + bottom - 1) // 2  # the middle token, away from the fences
            axes.text(*place, str(count), ha="center", va="center", fontsize=8, color=ink, zorder=7)


def _runs(counts: np.ndarray) -> list[tuple[int, int]]:
    """[first, end) of the stretches in which a line of counts stays the same. Counts are a product of both axes."""
    ends = [*(np.flatnonzero(np.diff(counts)) + 1), len(counts)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _blocks(axes: Axes, size: tuple[int, int], sides: tuple[int, int], halo: int) -> None:
    """Lines between tokens, fences of the blocks, the padding to whole ones included, and the map's own frame."""
    height, width = size
    bottom, right = (-(-of_map // side) * side for of_map, side in zip(size, sides, strict=True))
    fences(axes, np.arange(height + 1) - 0.5, np.arange(width + 1) - 0.5, linewidth=0.4, alpha=1, zorder=3)
    dotted = {"color": "black", "linewidth": 1, "linestyle": ":", "alpha": 1, "zorder": 4}
    fences(axes, np.arange(0, bottom + 1, sides[0]) - 0.5, np.arange(0, right + 1, sides[1]) - 0.5, **dotted)
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, ec="black", lw=1.2, zorder=5))
    edge = halo + 0.8
    axes.set(xlim=(-edge, right - 1 + edge), ylim=(bottom - 1 + edge, -edge), aspect="equal", anchor="C")
    axes.spines[:].set_visible(False)


# ---- swin: shifted windows -------------------------------------------------------------------------------------------

_STEPS = ("the map", "the shifted grid", "rolled", "the mask", "attention", "shifted back")
_PADDING = (0.86, 0.86, 0.86)


@drawing
def window_steps(
    image: np.ndarray, *, window: int, shift: int, place: tuple[int, int], masked: bool = True, step: int = 6
) -> Figure:
    """Attention in shifted windows in six panels: the map, the shifted grid on it, the roll, the mask, the attention of
    one token in its window, and the same on the map again.

    Args:
        image: (H, W, 3) in [0, 1], one colour a token.
        window, shift: of the mixer; if the map's shorter side fits in one window, the window shrinks to it, unshifted.
        place: (row, column) of the token that is followed; framed in every panel.
        masked: whether the mask is used; without it the pieces that the roll brought together hear each other.
        step: how many of the panels are drawn, 1 to 6.

    The attention is by colours, see `colour_weights`. Raises UserError for an array that is no image, another step,
    and what `token_window` refuses.
    """
    image = _checked_image("window_steps", image)
    if not 1 <= step <= len(_STEPS):
        raise UserError(f"window_steps: step={step} must be 1 to {len(_STEPS)}")
    found = token_window(*image.shape[:2], window=window, shift=shift, place=place)
    weights = colour_weights(image, found, masked=masked)
    allowed = found.allowed if masked else np.ones_like(found.allowed)
    boxes = [(0.02 + 0.33 * (i % 3), 0.52 - 0.495 * (i // 3), 0.3, 0.425) for i in range(6)]
    figure, panels = placed((10.5, 7.3), boxes)
    draw = (
        lambda axes: _draw_map(axes, image, found),
        lambda axes: _draw_grid(axes, image, found),
        lambda axes: _draw_rolled(axes, image, found),
        lambda axes: _draw_mask(axes, allowed, found),
        lambda axes: _draw_attention(axes, weights, found),
        lambda axes: _draw_back(axes, weights, found),
    )
    for number, (axes, name, panel) in enumerate(zip(panels, _STEPS, draw, strict=True), 1):
        axes.set(xticks=[], yticks=[])
        if number > step:
            axes.set_title(f"{number}", fontsize=9, color="0.6")
            axes.set_facecolor("0.97")
        else:
            note = panel(axes)
            axes.set_title(f"{number}. {name}{note}", fontsize=9)
    return described(figure, _windows_in_words(found, weights, masked, step))


def _checked_image(where: str, image: np.ndarray) -> np.ndarray:
    image = np.asarray(image, float)
    if image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"{where}: the image has the shape {image.shape}; expected (H, W, 3)")
    return image


def _padded(image: np.ndarray, found: Windows) -> np.ndarray:
    full = np.empty((*found.padded, 3))
    full[:] = _PADDING
    full[: found.size[0], : found.size[1]] = image
    return full


def _dimmed(colours: np.ndarray, keep: np.ndarray) -> np.ndarray:
    return np.where(keep[..., None], colours, 0.35 * colours + 0.62)


def _lines(axes: Axes, pieces: np.ndarray, colour: str = "black", width: float = 1.6) -> None:
    """A line wherever two neighbours have different numbers."""
    height, across = pieces.shape
    for row in np.flatnonzero((pieces[1:] != pieces[:-1]).any(1)):
        axes.plot([-0.5, across - 0.5], [row + 0.5] * 2, color=colour, linewidth=width)
    for column in np.flatnonzero((pieces[:, 1:] != pieces[:, :-1]).any(0)):
        axes.plot([column + 0.5] * 2, [-0.5, height - 0.5], color=colour, linewidth=width)


def _draw_map(axes: Axes, image: np.ndarray, found: Windows) -> str:
    picture(axes, image)
    framed(axes, *_place(found))
    return f": {found.size[0]}x{found.size[1]} tokens"


def _draw_grid(axes: Axes, image: np.ndarray, found: Windows) -> str:
    picture(axes, _dimmed(_padded(image, found), found.pieces == found.pieces[_place(found)]))
    _lines(axes, found.pieces)
    framed(axes, *_place(found))
    return f": {len(np.unique(found.pieces[: found.size[0], : found.size[1]]))} pieces"


def _draw_rolled(axes: Axes, image: np.ndarray, found: Windows) -> str:
    roll = (-found.shift, -found.shift)
    colours, pieces = (np.roll(a, roll, (0, 1)) for a in (_padded(image, found), found.pieces))
    row, column = ((at - found.shift) % size for at, size in zip(_place(found), found.padded, strict=True))
    ys, xs = np.indices(found.padded) // found.side
    picture(axes, _dimmed(colours, (ys == row // found.side) & (xs == column // found.side)))
    _lines(axes, pieces, "#D55E00", 1.2)
    _lines(axes, ys * found.padded[1] + xs)
    framed(axes, row, column)
    return f" by -{found.shift}: {found.padded[0] // found.side}x{found.padded[1] // found.side} windows"


def _draw_mask(axes: Axes, allowed: np.ndarray, found: Windows) -> str:
    picture(axes, allowed, cmap="cividis", vmin=0, vmax=1)
    framed(axes, found.query, 0, 1, len(allowed))
    axes.set_ylabel("query", fontsize=8)
    axes.set_xlabel("key", fontsize=8)
    return f" of its window: {100 * allowed.mean():.0f}% allowed"


def _draw_attention(axes: Axes, weights: np.ndarray, found: Windows) -> str:
    image = picture(axes, weights, cmap="cividis", vmin=0)
    framed(axes, *divmod(found.query, found.side))
    if weights.size <= _NUMBERED:
        numbers(axes, image, [f"{100 * value:.0f}" for value in weights.flat])
    return " of the framed token (%)"


def _draw_back(axes: Axes, weights: np.ndarray, found: Windows) -> str:
    back = np.zeros(found.padded)
    back[found.rows, found.columns] = weights
    shown = back[: found.size[0], : found.size[1]]
    picture(axes, shown, cmap="cividis", vmin=0, vmax=weights.max())
    _lines(axes, found.pieces[: found.size[0], : found.size[1]], "0.75", 0.8)
    framed(axes, *_place(found))
    return f": it hears {int((shown > 0).sum())} tokens"


def _place(found: Windows) -> tuple[int, int]:
    return int(found.rows.flat[found.query]), int(found.columns.flat[found.query])


def _windows_in_words(found: Windows, weights: np.ndarray, masked: bool, step: int) -> str:
    row, column = _place(found)
    size, padded = "x".join(map(str, found.size)), "x".join(map(str, found.padded))
    stranger = found.pieces[found.rows, found.columns] != found.pieces[row, column]
    said = [f"The token in row {row}, column {column} of {size}"]
    if step > 1:
        said.append(f"windows of {found.side}x{found.side}, shifted by {found.shift}, on {padded} with the padding")
    if step > 3:
        said.append(f"{100 * found.allowed.mean():.0f}% of the pairs in its window may hear each other")
    if step > 4:
        tokens = int(((weights > 0) & found.inside).sum())
        aside = 100 * float(weights[stranger].sum()), 100 * float(weights[~found.inside].sum())
        said.append(
            f"{'masked' if masked else 'without the mask'} it hears {tokens} tokens, and takes {aside[0]:.0f}% from "
            f"tokens of other pieces, {aside[1]:.0f}% from the padding"
        )
    return "; ".join(said) + "."


# ---- pvt: reduced keys -----------------------------------------------------------------------------------------------

_SHARPNESS = 60.0


@drawing
def reduction_steps(image: np.ndarray, *, reduction: int, place: tuple[int, int]) -> Figure:
    """One token's way through spatial-reduction attention, in four panels: the map cut into patches, the keys that are
    made of them, the token's attention to each key, and the same laid over the patches.

    Args:
        image: (H, W, 3) in [0, 1], one colour a token.
        reduction: R, the side of a patch; the rest at the bottom and at the right belongs to no patch.
        place: (row, column) of the query token; it is framed.

    A key is drawn as its patch's mean colour, and the attention is by colours (softmax of minus sixty times the squared
    distance), without learned weights. Raises UserError for an array that is no image, a reduction that is not 1 to the
    map's shorter side, and a place outside of the map.
    """
    image = _checked_image("reduction_steps", image)
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
def query_map(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    place: tuple[float, float],
    *,
    tokens: tuple[int, int],
    reduction: int,
    title: str,
) -> Figure:
    """One image and, laid over it, one query's attention to each of the reduced keys: a panel a head.

    Args:
        image: (H, W, 3) in [0, 1].
        maps: (rows, columns) attention weights by the head's name, each of the same number of keys.
        place: row and column of the query, as fractions of the image. It is framed, one token large.
        tokens: (rows, columns) of the query's map; a key summarises a patch of `reduction` x `reduction` of them.
        title: above all.

    Each panel is relative to its own largest weight; its title tells that, and how many keys the weights amount to (the
    exponential of their entropy).
    """
    if not maps:
        raise UserError("query_map: no heads")
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
            told = f"{name}: {_spread(weights)}"
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


def _spread(weights: np.ndarray) -> str:
    """The largest share, and how many keys the shares amount to."""
    share = weights / weights.sum()
    keys = np.exp(-(share * np.log(np.maximum(share, 1e-12))).sum())
    most = 100 * share.max()
    return f"at most {f'{most:.0f}' if most >= 1 else f'{most:.1g}'}%, as if {keys:.1f} keys"
