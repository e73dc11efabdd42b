"""Shifted windows, step by step: who is cut from whom, where the roll puts the pieces, what the mask keeps apart."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stm_lab.figures.style import described, framed
from stm_lab.measure.windows import Windows, colour_weights, token_window
from stm_lab.util.errors import UserError

_STEPS = ("the map", "the shifted grid", "rolled", "the mask", "attention", "shifted back")
_OUTSIDE = (0.86, 0.86, 0.86)  # padding


def window_steps(
    image: np.ndarray,
    *,
    window: int,
    shift: int,
    place: tuple[int, int],
    masked: bool = True,
    step: int = 6,
) -> Figure:
    """Attention in shifted windows in six panels: the map, the shifted grid on it, the roll, the mask, the attention of
    one token in its window, and the same on the map again.

    Args:
        image: (H, W, 3) in [0, 1], one colour a token.
        window, shift: of the mixer; a small map has its shorter side as window, and no shift.
        place: (row, column) of the token that is followed; framed in every panel.
        masked: whether the mask is used; without it the pieces that the roll brought together hear each other.
        step: how many of the panels are drawn, 1 to 6.

    The attention is by colours, see `colour_weights`. Raises UserError for an array that is no image, a step that is
    none, and what `token_window` refuses.
    """
    image = np.asarray(image, float)
    if image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"window_steps: the image has the shape {image.shape}; expected (H, W, 3)")
    if not 1 <= step <= len(_STEPS):
        raise UserError(f"window_steps: step={step} must be 1 to {len(_STEPS)}")
    found = token_window(*image.shape[:2], window=window, shift=shift, place=place)
    weights = colour_weights(image, found, masked=masked)
    figure = Figure(figsize=(10.5, 7.3), dpi=100)
    draw = (_draw_map, _draw_grid, _draw_rolled, _draw_mask, _draw_attention, _draw_back)
    for number, (name, panel) in enumerate(zip(_STEPS, draw, strict=True)):
        axes = figure.add_axes((0.02 + 0.33 * (number % 3), 0.52 - 0.495 * (number // 3), 0.3, 0.425))
        axes.set(xticks=[], yticks=[])
        if number >= step:
            axes.set_title(f"{number + 1}", fontsize=9, color="0.6")
            axes.set_facecolor("0.97")
            continue
        note = panel(axes, image, found, weights, masked)
        axes.set_title(f"{number + 1}. {name}{note}", fontsize=9)
    return described(figure, _in_words(found, weights, masked, step))


def _padded(image: np.ndarray, found: Windows) -> np.ndarray:
    full = np.empty((*found.padded, 3))
    full[:] = _OUTSIDE
    full[: found.size[0], : found.size[1]] = image
    return full


def _dimmed(colours: np.ndarray, keep: np.ndarray) -> np.ndarray:
    return np.where(keep[..., None], colours, 0.35 * colours + 0.62)


def _lines(axes: Axes, numbers: np.ndarray, colour: str = "black", width: float = 1.6) -> None:
    """A line wherever two neighbours have different numbers."""
    height, across = numbers.shape
    for row in np.flatnonzero((numbers[1:] != numbers[:-1]).any(1)):
        axes.plot([-0.5, across - 0.5], [row + 0.5] * 2, color=colour, linewidth=width)
    for column in np.flatnonzero((numbers[:, 1:] != numbers[:, :-1]).any(0)):
        axes.plot([column + 0.5] * 2, [-0.5, height - 0.5], color=colour, linewidth=width)


def _draw_map(axes: Axes, image: np.ndarray, found: Windows, weights: np.ndarray, masked: bool) -> str:
    axes.imshow(image, interpolation="nearest")
    framed(axes, *_place(found))
    return f": {found.size[0]}x{found.size[1]} tokens"


def _draw_grid(axes: Axes, image: np.ndarray, found: Windows, weights: np.ndarray, masked: bool) -> str:
    same = found.pieces == found.pieces[_place(found)]
    axes.imshow(_dimmed(_padded(image, found), same), interpolation="nearest")
    _lines(axes, found.pieces)
    framed(axes, *_place(found))
    inside = found.pieces[: found.size[0], : found.size[1]]
    return f": {len(np.unique(inside))} pieces"


def _draw_rolled(axes: Axes, image: np.ndarray, found: Windows, weights: np.ndarray, masked: bool) -> str:
    roll = (-found.shift, -found.shift)
    colours, pieces = (np.roll(a, roll, (0, 1)) for a in (_padded(image, found), found.pieces))
    row, column = ((at - found.shift) % size for at, size in zip(_place(found), found.padded, strict=True))
    side = found.side
    top, left = row // side * side, column // side * side
    keep = np.zeros(found.padded, bool)
    keep[top : top + side, left : left + side] = True
    axes.imshow(_dimmed(colours, keep), interpolation="nearest")
    _lines(axes, pieces, "#D55E00", 1.2)
    ys, xs = np.indices(found.padded) // side
    _lines(axes, ys * found.padded[1] + xs)
    framed(axes, row, column)
    return f" by -{found.shift}: {found.padded[0] // side}x{found.padded[1] // side} windows"


def _draw_mask(axes: Axes, image: np.ndarray, found: Windows, weights: np.ndarray, masked: bool) -> str:
    allowed = found.allowed if masked else np.ones_like(found.allowed)
    axes.imshow(allowed, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    framed(axes, found.query, 0, 1, len(allowed))
    axes.set_ylabel("query", fontsize=8)
    axes.set_xlabel("key", fontsize=8)
    return f" of its window: {100 * allowed.mean():.0f}% allowed"


def _draw_attention(axes: Axes, image: np.ndarray, found: Windows, weights: np.ndarray, masked: bool) -> str:
    axes.imshow(weights, cmap="cividis", vmin=0, interpolation="nearest")
    framed(axes, *divmod(found.query, found.side))
    if found.side <= 8:
        for (row, column), value in np.ndenumerate(weights):
            ink = "black" if value > 0.6 * weights.max() else "white"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=ink)
    return " of the framed token (%)"


def _draw_back(axes: Axes, image: np.ndarray, found: Windows, weights: np.ndarray, masked: bool) -> str:
    back = np.zeros(found.padded)
    back[found.rows, found.columns] = weights
    shown = back[: found.size[0], : found.size[1]]
    axes.imshow(shown, cmap="cividis", vmin=0, vmax=weights.max(), interpolation="nearest")
    _lines(axes, found.pieces[: found.size[0], : found.size[1]], "0.75", 0.8)
    framed(axes, *_place(found))
    return f": it hears {int((shown > 0).sum())} tokens"


def _place(found: Windows) -> tuple[int, int]:
    return int(found.rows.flat[found.query]), int(found.columns.flat[found.query])


def _in_words(found: Windows, weights: np.ndarray, masked: bool, step: int) -> str:
    row, column = _place(found)
    size, padded = "x".join(map(str, found.size)), "x".join(map(str, found.padded))
    stranger = found.pieces[found.rows, found.columns] != found.pieces[row, column]
    said = [f"The token in row {row}, column {column} of {size}"]
    if step > 1:
        said.append(f"windows of {found.side}x{found.side}, shifted by {found.shift}, on {padded} with the padding")
    if step > 3:
        said.append(f"{100 * found.allowed.mean():.0f}% of the pairs in its window may hear each other")
    if step > 4:
        heard = int(((weights > 0) & found.inside).sum())
        aside = 100 * float(weights[stranger].sum()), 100 * float(weights[~found.inside].sum())
        said.append(
            f"{'masked' if masked else 'without the mask'} it hears {heard} tokens, and takes {aside[0]:.0f}% from "
            f"tokens of other pieces, {aside[1]:.0f}% from the padding"
        )
    return "; ".join(said) + "."
