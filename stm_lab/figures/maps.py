"""Maps and images: side by side, with their numbers, and where in an image a place takes its values from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle

from stm_lab.figures.draw import (
    board,
    colour_bar,
    decades,
    ends,
    framed,
    limits,
    named_rows,
    numbers,
    overlay,
    picture,
    placed,
    stacked,
)
from stm_lab.figures.style import by_name, colours, described, drawing, legend
from stm_lab.measure.receptive import high_contribution_area, high_contribution_side
from stm_lab.util.errors import UserError

PARTS = {"shared": "#0072B2", "positional": "#56B4E9", "dynamic": "#E69F00"}  # dark, middle, light also without colours
_HATCHES = {"shared": "", "positional": "////", "dynamic": "...."}
_MEANINGS = {
    "shared": "shared: one kernel for all\npositions and inputs",
    "positional": "positional: differs by position,\nnot by input",
    "dynamic": "dynamic: changes\nwith the input",
}


# ---- by hand ---------------------------------------------------------------------------------------------------------


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


# ---- receptive fields ------------------------------------------------------------------------------------------------


@drawing
def receptive_fields(maps: Mapping[str, np.ndarray]) -> Figure:
    """One panel a mixer: the share of its contribution that each pixel makes, on one logarithmic scale for all.

    maps: (H, W) contributions, not negative, as `effective_receptive_field` gives them; each is divided by its sum. The
    white square is the smallest centred one that holds half of it, the title its share of the image.
    """
    figure, panels = board(len(maps), 6, (1.9, 2.3), room=(1.0, 0))
    areas = {name: f"50% in {100 * high_contribution_area(map_, 0.5):.1f}% of area" for name, map_ in maps.items()}
    top = max((map_ / map_.sum()).max() for map_ in maps.values())
    for axes, (name, map_) in zip(panels, maps.items(), strict=True):
        image = share_of_field(axes, map_, top)
        axes.set_title(f"{name}\n{areas[name]}", fontsize=9)
        ends(axes, map_.shape[1], map_.shape[0], "input pixel")
    colour_bar(figure, image, panels, "share of contribution")
    return figure


def share_of_field(axes: Axes, contribution: np.ndarray, top: float) -> AxesImage:
    """Shares of a field, on four decades below `top`, and the smallest centred square that holds half of it."""
    side, (height, width) = high_contribution_side(contribution, 0.5), contribution.shape
    image = picture(axes, **decades(contribution / contribution.sum(), top))
    corner = (width // 2 - side / 2, height // 2 - side / 2)
    axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1.1))
    return image


# ---- mixers ----------------------------------------------------------------------------------------------------------


@drawing
def mixing_matrices(matrices: Mapping[str, object]) -> Figure:
    """A panel a mixer: the share that each input position (column) has in each output position (row), mean over inputs.

    matrices: by name, results of `mixing_matrix`. The colours are logarithmic, relative to each panel's largest share.
    Raises UserError for none.
    """
    figure, panels = board(len(matrices), 4, (2.3, 2.75), room=(1.2, 0))
    said = []
    for axes, (name, result) in zip(panels, matrices.items(), strict=True):
        weights = result.weights.mean(0)
        image = picture(axes, **decades(weights / weights.max(), 1, 3, "viridis"))
        ends(axes, len(weights), len(weights), "input position", "output position")
        axes.set_title(f"{name}\nmean distance {result.distance:.2f} tokens", fontsize=9)
        said.append(f"{name} {result.distance:.2f}, {100 * result.own:.0f}% from itself")
    colour_bar(figure, image, panels, "share, relative to the largest")
    return described(figure, f"Mixing matrices. Mean mixing distance in tokens: {'; '.join(said)}.")


@drawing
def inductive_biases(rows: Sequence[Mapping]) -> Figure:
    """A bar a mixer, in three parts: the shares of its mixing that one kernel for all, position, and input explain. A
    panel a state.

    rows: with mixer, state, shared, positional and dynamic (shares that add up to 1); those of one mixer are averaged.
    Rows without shares (one input) are left out.
    """
    rows = [row for row in rows if row.get("dynamic", 0) is not None]
    groups = by_name(rows, "state", "mixer", *PARTS)
    names = list(dict.fromkeys(row["mixer"] for row in rows))
    figure, panels = board(len(groups), len(groups), (3.2, 1.3 + 0.42 * len(names)), room=(3.4, 0), sharey=True)
    said = []
    for axes, (state, some) in zip(panels, groups.items(), strict=True):
        bars = []
        for line, name in enumerate(names):
            if mine := [row for row in some if row["mixer"] == name]:
                means = {part: 100 * float(np.mean([row[part] for row in mine])) for part in PARTS}
                stacked(axes, line, means, PARTS, _HATCHES)
                bars.append(f"{name} {', '.join(f'{part} {mean:.0f}' for part, mean in means.items())}")
        axes.set_title(state, fontsize=10)
        named_rows(axes, names)
        axes.set_xlim(0, 100)
        said.append(f"{state}: {'; '.join(bars)}")
    figure.supxlabel("squared norm of the Jacobian (%)", fontsize=10)
    look = {"edgecolor": "white"}
    entries = [Patch(facecolor=PARTS[part], hatch=_HATCHES[part], label=_MEANINGS[part], **look) for part in PARTS]
    legend(figure, entries, fontsize=8)
    return described(figure, f"Parts of the mixing in percent. {'. '.join(said)}.")


@drawing
def mixing_over_image(
    image: np.ndarray, maps: Mapping[str, np.ndarray], place: tuple[float, float], title: str
) -> Figure:
    """One image, (H, W, 3) in [0, 1], and over it what each of its tokens gives to one output token, a panel a layer.

    maps: (h, w) contributions by the layer's name, not negative; each is shown relative to its largest: the less of
    the image shows through, the more. place: row and column of the token, as fractions of the image.
    """
    if not maps:
        raise UserError("mixing_over_image: no layers")
    columns, (height, width) = len(maps) + 1, image.shape[:2]
    wide = min(2.5 * columns, 11)
    tall = 0.75 + wide / columns
    boxes = [(i / columns + 0.008, 0.1 / tall, 1 / columns - 0.016, 0.94 - 0.58 / tall) for i in range(columns)]
    figure, panels = placed((wide, tall), boxes)
    area, said = (0, width, height, 0), []
    for axes, (name, contribution) in zip(panels, [("the image", None), *maps.items()], strict=True):
        axes.set_axis_off()
        axes.set_title(name, fontsize=9, pad=3)
        shape = next(iter(maps.values())).shape if contribution is None else contribution.shape
        row, column = (min(int(fraction * size), size - 1) for fraction, size in zip(place, shape, strict=True))
        if contribution is None:
            axes.imshow(image, extent=area, interpolation="nearest")
        else:
            overlay(axes, image, contribution, area)
            own = contribution[row, column] / (contribution.sum() or 1)
            said.append(f"{name}: {100 * own:.0f}% from the token itself")
        token = height / shape[0], width / shape[1]
        framed(axes, row * token[0], column * token[1], *token, first=0, colour="#56B4E9")
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / tall, va="top")
    return described(figure, f"{title}. {'; '.join(said)}.")


def heard(axes: Axes, contributions: np.ndarray, place: tuple[int, int]) -> int:
    """Contributions to the framed token, relative to the largest, on three decades; grey where there is none.

    Returns how many tokens contribute.
    """
    share = np.asarray(contributions, float) / (np.max(contributions) or 1)
    axes.set_facecolor("0.92")
    picture(axes, np.where(share > 1e-9, np.log10(share.clip(1e-3)), np.nan), cmap="cividis", vmin=-3, vmax=0)
    framed(axes, *place)
    return int((share > 1e-9).sum())


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
