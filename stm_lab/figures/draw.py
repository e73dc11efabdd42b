"""The primitives of all figures: panels, lines with bands, dots, stacked bars, maps, and numbers in cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from stm_lab.figures.style import CHANCE, colours, drawing, legend, number, plain, styles
from stm_lab.util.errors import UserError

Curves = Mapping[str, Mapping[float, float | Sequence[float]]]  # {name: {x: y, or the ys of several runs}}
_NONE: Mapping[str, str] = {}
_PAD = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
_SIGNED, _PLAIN = "PuOr_r", "cividis"  # both told apart without colour vision

# ---- whole figures that notebooks draw from plain numbers ------------------------------------------------------------


@drawing
def lines(
    curves: Curves,
    x_label: str,
    y_label: str,
    *,
    level: tuple[float, str] | None = None,
    log: str = "",
    size: tuple[float, float] = (7.5, 3.6),
    **look: Any,
) -> Figure:
    """A line for each name, with a legend beside the panel.

    curves: {name: {x: y}}; a sequence instead of y holds several runs: their mean is drawn, their range shaded.
    level: a dotted line at a value, with its label. log: the logarithmic axes, "x", "y" or "xy". look: of `draw_lines`.
    """
    return line_panels({"": curves}, x_label, y_label, level=level, log=log, size=size, room=0, **look)


@drawing
def line_panels(
    panels: Mapping[str, Curves],
    x_label: str,
    y_label: str,
    *,
    level: tuple[float, str] | None = None,
    log: str = "",
    columns: int = 3,
    size: tuple[float, float] = (3.5, 3.6),
    room: float = 2.0,
    **look: Any,
) -> Figure:
    """Panels of lines on the same axes: {title: curves}, and the rest as in `lines`; `look` as in `draw_lines`."""
    figure, shown = board(len(panels), columns, size, room=(room, 0), sharex=True, sharey=True)
    drawn = styles(name for curves in panels.values() for name in curves)
    for axes, (title, curves) in zip(shown, panels.items(), strict=True):
        draw_lines(axes, curves, drawn, **look)
        if level is not None:
            axes.axhline(level[0], **{**CHANCE, "label": level[1]})
        axes.set_title(title, fontsize=10)
        axes.set(xlabel=x_label if len(panels) <= columns else "", ylabel="" if axes is not shown[0] else y_label)
        for axis in log:
            log_axis(axes, axis)
    places = sorted({x for curves in panels.values() for points in curves.values() for x in points})
    if all(float(x).is_integer() for x in places):
        whole_steps(shown[0])
    if "x" in log:
        shown[0].xaxis.set_major_locator(FixedLocator(places))
        shown[0].xaxis.set_major_formatter("{x:g}")
    if len(panels) > columns:
        shown[0].set_ylabel("")
        figure.supxlabel(x_label, fontsize=10)
        figure.supylabel(y_label, fontsize=10)
    legend(figure, shown)
    return figure


@drawing
def scatter(
    points: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
    *,
    size: tuple[float, float] = (5.6, 4.0),
) -> Figure:
    """Dots by name: {name: [(x, y), ...]}. A name stands at its dot if each has one, otherwise in a legend."""
    figure, (axes,) = board(1, 1, size)
    single = all(len(some) == 1 for some in points.values())
    for name, colour in colours(points).items():
        axes.plot(*zip(*points[name], strict=True), "o", color=colour, markersize=8, alpha=0.85, label=name)
        if single:
            beside(axes, points[name][0], name, (0, 7), ha="center")
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.margins(x=0.12, y=0.18)  # a name reaches beyond its dot
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(number)
    plain(axes)
    if not single:
        legend(figure, axes)
    return figure


# ---- panels and axes -------------------------------------------------------------------------------------------------


def board(
    count: int,
    columns: int,
    size: tuple[float, float],
    *,
    room: tuple[float, float] = (0.0, 0.0),
    dpi: int = 120,
    **options: Any,
) -> tuple[Figure, Sequence[Axes]]:
    """A figure with `count` panels, at most `columns` in a row, and its panels row by row.

    size: width and height that each panel adds, in inches; room: those of everything else. options: of `subplots`.
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure((room[0] + size[0] * columns, room[1] + size[1] * rows), dpi=dpi, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def placed(
    size: tuple[float, float], boxes: Iterable[tuple[float, float, float, float]], dpi: int = 100
) -> tuple[Figure, list[Axes]]:
    """A figure whose panels stand at given places: no layout engine, which would draw everything twice."""
    figure = Figure(size, dpi=dpi)
    return figure, [figure.add_axes(box) for box in boxes]


def log_axis(axes: Axes, axis: str) -> None:
    """A logarithmic axis, "x" or "y", for what is drawn so far; ticks are plain numbers, denser in a short range."""
    axes.set(**{f"{axis}scale": "log"})
    ticks = axes.xaxis if axis == "x" else axes.yaxis
    low, high = ticks.get_data_interval()
    ticks.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 4 * low else (1, 1.2, 1.5, 2, 3, 5, 7)))
    ticks.set_major_formatter(number)
    ticks.set_minor_locator(NullLocator())


def whole_steps(axes: Axes) -> None:
    """Ticks of x at whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def named_rows(axes: Axes, names: Sequence[str], **options: Any) -> None:
    """A row for each name, the first on top. options: of the names' text."""
    axes.set_yticks(range(len(names)), list(names), **options)
    axes.set_ylim(len(names) - 0.5, -0.5)
    plain(axes, "x")


def beside(axes: Axes, place: tuple[float, float], text: str, offset: tuple[float, float] = (5, 0), **how: Any) -> None:
    """Text near a place, `offset` points from it."""
    axes.annotate(text, place, offset, textcoords="offset points", **{"va": "center", "fontsize": 8, **how})


# ---- marks -----------------------------------------------------------------------------------------------------------


def draw_lines(
    axes: Axes,
    curves: Curves,
    drawn: Mapping[str, Mapping] | None = None,
    *,
    marker: str = "o",
    markersize: float = 4,
    linewidth: float = 2,
) -> None:
    """A line for each name in its style, through the means of each x's values; where an x has several, their range."""
    for name, style in (drawn or styles(curves)).items():
        values = {x: np.atleast_1d(np.asarray(ys, float)) for x, ys in curves.get(name, {}).items()}
        if not values:
            continue
        means = [ys.mean() for ys in values.values()]
        axes.plot(list(values), means, **style, lw=linewidth, marker=marker, ms=markersize, label=name)
        if any(len(ys) > 1 for ys in values.values()):
            low, high = [ys.min() for ys in values.values()], [ys.max() for ys in values.values()]
            axes.fill_between(list(values), low, high, color=style["color"], alpha=0.15, linewidth=0)
    plain(axes)


def dots(axes: Axes, values: Sequence[float], row: float, colour: str, *, hollow: bool = False, size: int = 7) -> None:
    """A dot for each value in one row."""
    face = "white" if hollow else colour
    axes.plot(values, [row] * len(values), "o", color=colour, markerfacecolor=face, markersize=size, zorder=3)


def stacked(
    axes: Axes, row: int, shares: Mapping[str, float], shade: Mapping[str, str], hatches: Mapping[str, str] = _NONE
) -> None:
    """One bar of parts from the left, in percent; parts of 6 and more have their number. Parts below 0 count as 0."""
    left = 0.0
    for part, colour in shade.items():
        share = max(shares.get(part, 0.0), 0.0)
        look = {"color": colour, "edgecolor": "white", "hatch": hatches.get(part)}
        axes.barh(row, share, 0.65, left=left, label=part if row == 0 else None, **look)
        if share >= 6:
            axes.text(left + share / 2, row, f"{share:.0f}", ha="center", va="center", fontsize=8, bbox=_PAD)
        left += share


# ---- maps ------------------------------------------------------------------------------------------------------------


def picture(axes: Axes, values: np.ndarray, title: str = "", **how: Any) -> AxesImage:
    """An image or a map without ticks, one square a value."""
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)
    return axes.imshow(values, interpolation="nearest", **how)


def checked_image(where: str, image: np.ndarray) -> np.ndarray:
    """The image as floats, (H, W, 3). Raises UserError, with the name of the figure, for another shape."""
    image = np.asarray(image, float)
    if image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"{where}: the image has the shape {image.shape}; expected (H, W, 3)")
    return image


def limits(arrays: Sequence[np.ndarray], signed: bool) -> dict[str, Any]:
    """Colours for maps on one scale, as options of imshow: about 0 where values are signed."""
    low, high = min(np.nanmin(array) for array in arrays), max(np.nanmax(array) for array in arrays)
    if signed:
        high = max(abs(low), abs(high)) or 1.0
        return {"cmap": _SIGNED, "vmin": -high, "vmax": high}
    return {"cmap": _PLAIN, "vmin": low, "vmax": high if high > low else low + 1}


def decades(values: np.ndarray, top: float, count: int = 4, cmap: str = "inferno") -> dict[str, Any]:
    """A map on a logarithmic scale of `count` decades below `top`, as arguments of `picture`.

    Smaller values are raised to the scale's foot: the logarithm of 0 would leave holes.
    """
    norm = LogNorm(top * 10.0**-count, top, clip=True)
    return {"values": np.maximum(values, norm.vmin), "norm": norm, "cmap": cmap}


def colour_bar(figure: Figure, image: AxesImage, panels: Iterable[Axes], label: str = "", **how: Any) -> Colorbar:
    """A colour bar beside the panels."""
    bar = figure.colorbar(image, ax=list(panels), **{"shrink": 0.75, "aspect": 22, "pad": 0.015, **how})
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return bar


def ends(axes: Axes, width: int, height: int, x_label: str = "", y_label: str = "") -> None:
    """Ticks at the first and last pixel or token of a map, its labels between them."""
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[0, width - 1], yticks=[0, height - 1])
    axes.tick_params(labelsize=7, length=2)
    axes.set_xlabel(x_label, fontsize=8, labelpad=-7)
    axes.set_ylabel(y_label, fontsize=8, labelpad=-8)


def numbers(axes: Axes, image: AxesImage, texts: Iterable[str]) -> None:
    """A text in each cell of an image of numbers, row by row, black or white; an empty text for none."""
    values = image.get_array()
    for (row, column), text in zip(np.ndindex(values.shape), texts, strict=True):
        if text:
            red, green, blue, _ = image.cmap(image.norm(values[row, column]))
            ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)


def framed(
    axes: Axes,
    row: float,
    column: float,
    tall: float = 1,
    wide: float = 1,
    *,
    first: float = -0.5,
    colour: str = "white",
) -> None:
    """A frame, dark outside and light inside, visible on any ground: round one token, or `tall` x `wide` of them.

    first: where row 0 and column 0 begin; imshow begins at -0.5, an extent may begin at 0.
    """
    for edge, line in (("black", 3.0), (colour, 1.4)):
        corner = (column + first, row + first)
        axes.add_patch(Rectangle(corner, wide, tall, fill=False, edgecolor=edge, linewidth=line, zorder=6))


def fences(axes: Axes, rows: np.ndarray, columns: np.ndarray, **line: Any) -> None:
    """Lines between the tokens of a map: level ones at `rows`, upright ones at `columns`."""
    style = {"color": "white", "linewidth": 1.0, "alpha": 0.8, **line}
    axes.hlines(rows, columns[0], columns[-1], **style)
    axes.vlines(columns, rows[0], rows[-1], **style)


def overlay(axes: Axes, image: np.ndarray, weights: np.ndarray, area: tuple, where: tuple | None = None) -> None:
    """Weights over a grey image, (H, W, 3) in [0, 1]: the larger a weight, the less of the image shows through.

    area: the image's extent; where: that of the weights, if it differs.
    """
    axes.imshow(image.mean(2), extent=area, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    share = weights / (weights.max() or 1)
    look = {"cmap": "inferno", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    axes.imshow(share, extent=where or area, alpha=0.25 + 0.6 * share, **look)
