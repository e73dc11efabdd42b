"""Figure and explorer of notebook 04: which tokens of a shifted window attend to each other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from stm_lab.explore.parts import mean_colours, single_images
from stm_lab.explore.shell import Explorer, State
from stm_lab.figures.draw import checked_image, framed, numbers, picture, placed
from stm_lab.figures.style import described, drawing
from stm_lab.util.errors import UserError


class Windows(NamedTuple):
    """One token's shifted window, on a map padded to whole windows (h, w), h >= H, w >= W.

    side, shift: as used on this map (the shorter side and 0 if that fits in the window). size: (H, W) of the map
    itself; padded: (h, w). pieces: (h, w) numbers, equal where tokens lie in one window of the shifted grid.
    rows, columns: (side, side) places, on the map, of the tokens in the window after the roll. inside: (side, side)
    bool, False for padding. allowed: (L, L) bool, query by key, L = side * side, tokens row by row.
    query: the token's own number, from 0 to L - 1.
    """

    side: int
    shift: int
    size: tuple[int, int]
    padded: tuple[int, int]
    pieces: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    inside: np.ndarray
    allowed: np.ndarray
    query: int


def token_window(height: int, width: int, *, window: int, shift: int, place: tuple[int, int]) -> Windows:
    """Find the window of the token at `place` (row, column).

    Raises UserError for a shift outside [0, window) and a place outside the map.
    """
    if not 0 <= shift < window:
        raise UserError(f"shift={shift} must be at least 0 and less than window={window}")
    if not (0 <= place[0] < height and 0 <= place[1] < width):
        raise UserError(f"place={place} is no token of a {height}x{width} map")
    if min(height, width) <= window:
        window, shift = min(height, width), 0
    sizes = (height, width)
    padded = tuple(-(-size // window) * window for size in sizes)
    bands = [(np.arange(size) - shift) // window for size in padded]  # which window of the shifted grid, along an axis
    pieces = (bands[0] + 1)[:, None] * (padded[1] // window + 1) + bands[1] + 1

    def of_window(axis: int) -> np.ndarray:
        first = (place[axis] - shift) % padded[axis] // window * window  # after the roll
        return (np.arange(first, first + window) + shift) % padded[axis]

    rows, columns = np.meshgrid(of_window(0), of_window(1), indexing="ij")
    inside = (rows < height) & (columns < width)
    piece, true = pieces[rows, columns].ravel(), inside.ravel()
    allowed = (piece[:, None] == piece) & (true | ~true[:, None])
    query = int(np.flatnonzero(((rows == place[0]) & (columns == place[1])).ravel())[0])
    return Windows(window, shift, sizes, padded, pieces, rows, columns, inside, allowed, query)


def colour_weights(image: np.ndarray, found: Windows, *, masked: bool = True) -> np.ndarray:
    """The token's attention weights in its window, (side, side), with the sum 1, from colours alone.

    Softmax of minus ten times the squared distance of the colours, image (H, W, 3) in [0, 1]; padding is black.
    masked: whether the mask is used; without it every token of the window is a key.
    """
    colours = np.zeros((*found.padded, 3))
    colours[: found.size[0], : found.size[1]] = image
    tokens = colours[found.rows, found.columns].reshape(-1, 3)
    logits = -10.0 * ((tokens - tokens[found.query]) ** 2).sum(1)
    if masked:
        logits = np.where(found.allowed[found.query], logits, -np.inf)
    weights = np.exp(logits - logits.max())
    return (weights / weights.sum()).reshape(found.side, found.side)


# ---- the figure ------------------------------------------------------------------------------------------------------

_NUMBERED = 64  # areas or keys up to which each has its number
_STEPS = ("the map", "the shifted grid", "rolled", "the mask", "attention", "shifted back")
_PADDING = (0.86, 0.86, 0.86)


@drawing
def window_steps(
    image: np.ndarray, *, window: int, shift: int, place: tuple[int, int], masked: bool = True, step: int = 6
) -> Figure:
    """Draw attention in shifted windows in six panels: the map, the shifted grid on it, the roll, the mask, the
    attention of one token in its window, and the same back on the map.

    Args:
        image: (H, W, 3) in [0, 1], one colour a token.
        window, shift: of the mixer; if the map's shorter side fits in one window, the window shrinks to it, unshifted.
        place: (row, column) of the token that is followed; framed in every panel.
        masked: whether the mask is used; without it the pieces that the roll brought together attend to each other.
        step: how many of the panels are drawn, 1 to 6.

    The attention compares colours, see `colour_weights`. Raises UserError for an array that is not an image, another
    step, and as `token_window`.
    """
    image = checked_image("window_steps", image)
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
    return f": it attends to {int((shown > 0).sum())} tokens"


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
        said.append(f"{100 * found.allowed.mean():.0f}% of the pairs in its window may attend to each other")
    if step > 4:
        tokens = int(((weights > 0) & found.inside).sum())
        aside = 100 * float(weights[stranger].sum()), 100 * float(weights[~found.inside].sum())
        said.append(
            f"{'with' if masked else 'without'} the mask it attends to {tokens} tokens, and takes {aside[0]:.0f}% from "
            f"tokens of other pieces, {aside[1]:.0f}% from the padding"
        )
    return "; ".join(said) + "."


# ---- the explorer ----------------------------------------------------------------------------------------------------


def shifted_windows(images: Mapping[str, Tensor]) -> Explorer:
    """Explore a photograph as a map of tokens and the clicked token's steps: the map, the shifted grid, the roll, the
    mask of its window, its attention in the window, and the same back on the map.

    The attention compares colours, without learned weights; `mixing_weights` shows that of a network.

    images: by name, each (3, H, W) or (1, 3, H, W), uint8 or in [0, 1]. Raises UserError for no images.
    """
    photographs = single_images(images, "shifted_windows")

    @lru_cache(maxsize=64)
    def tokens(name: str, height: int, width: int) -> np.ndarray:
        return mean_colours(photographs[name], height, width)

    def draw(
        image: str, step: int, height: int, width: int, window: int, shifted: bool, masked: bool, row: int, column: int
    ) -> Figure:
        place = min(row, height - 1), min(column, width - 1)
        shift = window // 2 if shifted else 0
        return window_steps(
            tokens(image, height, width), window=window, shift=shift, place=place, masked=masked, step=step
        )

    most = 28  # tokens a side: a click needs some pixels for each
    controls = {
        "image": widgets.Dropdown(options=list(photographs)),
        "step": widgets.IntSlider(6, 1, 6),
        "height": widgets.IntSlider(12, 2, most, description="height (tokens)"),
        "width": widgets.IntSlider(12, 2, most, description="width (tokens)"),
        "window": widgets.IntSlider(4, 2, 8),
        "shifted": widgets.Checkbox(True, description="shifted by half a window"),
        "masked": widgets.Checkbox(True),
        "row": widgets.IntSlider(0, 0, most - 1),
        "column": widgets.IntSlider(0, 0, most - 1),
    }

    def select(panel: int, x: float, y: float, now: State) -> State:
        place = _token(panel, round(x), round(y), now)
        return {} if place is None else _on_map(*place, now)

    return Explorer(draw, controls, select=select)


def _token(panel: int, x: int, y: int, now: State) -> tuple[int, int] | None:
    """Row and column of the token shown at a place of a panel; None in a panel that is not drawn yet."""
    if panel >= now["step"]:
        return None
    if panel in (0, 1, 5):
        return y, x
    height, width, window = now["height"], now["width"], now["window"]
    place = min(now["row"], height - 1), min(now["column"], width - 1)
    shift = window // 2 if now["shifted"] else 0
    found = token_window(height, width, window=window, shift=shift, place=place)
    if panel == 2:
        return (y + found.shift) % found.padded[0], (x + found.shift) % found.padded[1]
    cell = y if panel == 3 else y * found.side + x  # the mask has a row for each query
    if not 0 <= cell < found.side**2:
        return None
    return int(found.rows.flat[cell]), int(found.columns.flat[cell])


def _on_map(row: int, column: int, now: State) -> State:
    """What a click on a token sets; nothing in the padding."""
    is_inside = 0 <= row < now["height"] and 0 <= column < now["width"]
    return {"row": row, "column": column} if is_inside else {}
