"""Operators by hand: maps side by side, small matrices with their numbers, kernels, and mixers as cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stm_lab.figures.draw import board, colour_bar, framed, heard, limits, numbers, picture, placed
from stm_lab.figures.style import colours, described, drawing, number, plain, styles
from stm_lab.util.errors import UserError


@drawing
def image_grid(images: Sequence, titles: Sequence[str], columns: int = 8) -> Figure:
    """A contact sheet: small images with their names.

    images: a tensor (N, 3, H, W), uint8 or in [0, 1], or N pictures (H, W, 3), PIL's too; titles: N names.
    Raises UserError for no images and for another number of titles.
    """
    if len(images) != len(titles):
        raise UserError(f"image_grid: {len(images)} images with {len(titles)} titles; expected one each")
    figure, panels = board(len(images), columns, (1.25, 1.45))
    for axes, image, title in zip(panels, images, titles, strict=True):
        pixels = np.asarray(image)
        axes.set_axis_off()
        axes.imshow(pixels.transpose(1, 2, 0) if pixels.shape[0] == 3 else pixels, interpolation="nearest")
        axes.set_title(title, fontsize=8, pad=3)
    return described(figure, f"{len(images)} images, row by row: {', '.join(titles)}.")


@drawing
def map_panels(
    maps: Mapping[str, object],
    *,
    columns: int = 4,
    shared: bool = True,
    mark: tuple[float, float] | None = None,
    title: str = "",
) -> Figure:
    """Maps and images side by side, a panel each, under their names.

    Args:
        maps: by name, tensors or arrays: (H, W) one number a token, drawn by colour, signed ones about 0; (H, W, 3) or
            (3, H, W) images in [0, 1] or uint8.
        columns: panels in a row at most.
        shared: one scale of colours for all maps; otherwise each has its own.
        mark: (row, column) of a token that is framed in every map of tokens.
        title: above all.

    Raises UserError for no maps and for an array of another shape.
    """
    arrays = {name: _as_map(name, value) for name, value in maps.items()}
    figure, panels = board(len(arrays), columns, (2.45, 2.6), room=(0.4, 0.35 * bool(title)), dpi=110)
    flat = [array for array in arrays.values() if array.ndim == 2]
    signed = any(np.nanmin(array) < 0 for array in flat)
    said, drawn = [], {}
    for axes, (name, array) in zip(panels, arrays.items(), strict=True):
        if array.ndim == 3:
            picture(axes, array, name)
            said.append(f"{name}: an image")
            continue
        drawn[axes] = picture(axes, array, name, **limits(flat if shared else [array], signed))
        said.append(f"{name}: from {np.nanmin(array):.3g} to {np.nanmax(array):.3g}, mean {np.nanmean(array):.3g}")
        if mark is not None:
            framed(axes, *mark)
    if drawn and shared:
        colour_bar(figure, next(iter(drawn.values())), drawn, shrink=0.8, aspect=25)
    for axes, image in () if shared else drawn.items():
        colour_bar(figure, image, [axes], aspect=18)
    figure.suptitle(title, fontsize=10)
    return described(figure, f"{title}. {'; '.join(said)}." if title else f"{'; '.join(said)}.")


def _as_map(name: str, value: object) -> np.ndarray:
    array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] == 3):
        raise UserError(f"{name!r} has the shape {array.shape}; expected (H, W), (H, W, 3) or (3, H, W)")
    if array.ndim == 3 and array.dtype != np.uint8:
        return array.astype(float).clip(0, 1)
    return array if array.ndim == 3 else array.astype(float)


@drawing
def number_grids(
    grids: Mapping[str, object],
    *,
    digits: int = 2,
    labels: tuple[str, str] | None = None,
    mark: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    title: str = "",
) -> Figure:
    """Small matrices side by side, with the number in every cell: kernels, masks, index tables, mixing matrices.

    Args:
        grids: by name, tensors or arrays (rows, columns), at most about 16 x 16; booleans are 1 and 0, NaN stays empty.
        digits: after the point; whole numbers have none.
        labels: of the axes down and across, such as ("output token", "input token").
        mark: cells to frame, by the grid's name: (row, column).
        title: above all.

    Raises UserError for no grids and for an array that is no matrix.
    """
    arrays = {name: _as_map(name, value) for name, value in grids.items()}
    if wrong := next((name for name, array in arrays.items() if array.ndim != 2), None):
        raise UserError(f"number_grids: {wrong!r} is no matrix")
    widths = [max(1.4, 0.36 * array.shape[1] + 0.3) for array in arrays.values()]
    height = max(0.36 * array.shape[0] for array in arrays.values()) + 0.9
    size = (sum(widths) / len(widths), height)
    figure, panels = board(len(arrays), len(arrays), size, room=(0.4, 0), dpi=110, width_ratios=widths)
    said = []
    for axes, (name, array) in zip(panels, arrays.items(), strict=True):
        image = axes.imshow(array, **limits([array], bool(np.nanmin(array) < 0)))
        texts = [_short(value, digits) for value in array.flat]
        numbers(axes, image, texts)
        for place in (mark or {}).get(name, ()):
            framed(axes, *place)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7, length=0)
        axes.set(xticks=range(array.shape[1]) if labels else [], yticks=range(array.shape[0]) if labels else [])
        axes.set_ylabel(labels[0] if labels else "", fontsize=8)
        axes.set_xlabel(labels[1] if labels else "", fontsize=8)
        across = array.shape[1]
        rows = [" ".join(text or "-" for text in texts[i : i + across]) for i in range(0, array.size, across)]
        short = f"{array.shape[0]} x {across} numbers from {np.nanmin(array):.3g} to {np.nanmax(array):.3g}"
        said.append(f"{name}: {' / '.join(rows) if array.size <= 64 else short}")
    figure.suptitle(title, fontsize=10)
    return described(figure, f"{title}. {'; '.join(said)}." if title else f"{'; '.join(said)}.")


def _short(value: float, digits: int) -> str:
    if np.isnan(value):
        return ""
    if value == round(value):
        return str(round(value))
    return f"{value:.{digits}f}".removeprefix("0") if 0 < value < 1 else f"{value:.{digits}f}".replace("-0.", "-.")


@drawing
def mixer_cards(cards: Sequence[Mapping]) -> Figure:
    """Mixers side by side: who the framed token hears, and below it the facts.

    cards: with name; heard, (H, W) contributions to the token, not negative; place, its (row, column); facts, {what:
    text}. Raises UserError for none.
    """
    lines, count = max(len(card["facts"]) for card in cards), len(cards)
    height = 3.2 + 0.24 * lines
    bottom = (0.24 * lines + 0.25) / height
    boxes = [(i / count + 0.04, bottom, 1 / count - 0.08, 1 - bottom - 0.5 / height) for i in range(count)]
    figure, panels = placed((4.3 * count, height), boxes)
    colour, said = colours(card["name"] for card in cards), []
    for i, (axes, card) in enumerate(zip(panels, cards, strict=True)):
        tokens = heard(axes, card["heard"], card["place"])
        axes.set_title(card["name"], fontsize=12, color=colour[card["name"]], weight="bold")
        for line, (what, text) in enumerate(card["facts"].items()):
            y = (0.24 * (lines - line) - 0.08) / height
            figure.text(i / count + 0.03, y, what, fontsize=8, color="0.35")
            figure.text((i + 0.46) / count + 0.03, y, text, fontsize=8)
        facts = ", ".join(f"{what} {text}" for what, text in card["facts"].items())
        token = "the token in row {}, column {}".format(*card["place"])
        said.append(f"{card['name']}: {token} hears {tokens} of {np.size(card['heard'])}; {facts}")
    return described(figure, ". ".join(said) + ".")


@drawing
def mixer_bench(
    name: str,
    contributions: np.ndarray,
    place: tuple[int, int],
    curves: Mapping[str, Mapping[int, int]],
    side: int,
    facts: Mapping[str, str],
) -> Figure:
    """A mixer with some options: who the framed token hears; its cost over the side of the map, beside others; facts.

    Args:
        name: the mixer's, one of those of `curves`.
        contributions: (H, W), to the token, not negative. place: its row and column.
        curves: {mixer: {side of the map: multiply-adds}}; those of 0 are not drawn, the axes are logarithmic.
        side: the one that is marked.
        facts: {what: text}, to the right.

    Raises UserError if `curves` lacks the mixer.
    """
    if name not in curves:
        raise UserError(f"mixer_bench: no curve of {name!r}")
    figure, (left, middle) = placed((10.4, 3.7), [(0.02, 0.06, 0.3, 0.84), (0.405, 0.15, 0.235, 0.75)])
    tokens = heard(left, contributions, place)
    left.set_title(f"{name}: heard by the framed token", fontsize=10)
    _costs(middle, name, curves, side)
    for line, (what, text) in enumerate(facts.items()):
        figure.text(0.765, 0.88 - 0.128 * line, what, fontsize=8, color="0.35", va="top")
        figure.text(0.765, 0.833 - 0.128 * line, text, fontsize=9, va="top")
    told = ", ".join(f"{what}: {text}" for what, text in facts.items())
    return described(
        figure,
        f"{name}: the token in row {place[0]}, column {place[1]} hears {tokens} of {contributions.size}. {told}. "
        f"Multiply-adds at side {side}: {'; '.join(f'{other} {number(of[side])}' for other, of in curves.items())}.",
    )


def _costs(axes: Axes, name: str, curves: Mapping[str, Mapping[int, int]], side: int) -> None:
    drawn = styles(curves)
    for other, of in curves.items():
        points = {side: macs for side, macs in of.items() if macs > 0}
        if points:
            width = 3.2 if other == name else 1.3
            axes.plot(list(points), list(points.values()), **drawn[other], linewidth=width, label=other)
    if curves[name][side] > 0:
        axes.plot(side, curves[name][side], "o", color=drawn[name]["color"], markersize=8)
    sides = sorted({one for of in curves.values() for one in of})
    axes.set(xscale="log", yscale="log", xlabel="side of the map (tokens)")
    axes.set_title("multiply-adds", fontsize=10)
    axes.set_xticks(sides, [str(one) for one in sides])
    axes.minorticks_off()
    axes.tick_params(labelsize=8)
    plain(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8, handlelength=1.3)
