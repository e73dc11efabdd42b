"""Deformable sampling: where the nine points of a token lie, what one of them finds, and how points move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from stm_lab.errors import UserError
from stm_lab.figures.style import described

POINTS = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)], float)  # [x, y] in tokens; x slow, as published
_INSIDE, _OUTSIDE, _BEYOND, _CHOSEN = "#E69F00", "#56B4E9", "#E8E8E8", "#D55E00"
_LARGEST = 420.0  # area of a dot that has all the weight, in square points
_GRID = 20  # tokens a side: more are drawn without lines between them


def sampling_points(
    image: np.ndarray,
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    size: tuple[int, int] | Mapping[str, tuple[int, int]],
    token: tuple[int, int] | Mapping[str, tuple[int, int]],
    title: str = "",
) -> Figure:
    """Where one token takes its samples, drawn over the image: a panel for each layer or group.

    A dot is a point, its area and opacity are its weight; the thin line comes from its place in the 3x3 grid. Points
    with nothing but zeros round them are blue.

    Args:
        image: (height, width, 3), uint8 or in [0, 1].
        panels: by name, places (P, [x, y]) in tokens of the map and weights (P,). P is a multiple of 9, with the points
            of a group one after the other; weights of each group add up to 1.
        size: (rows, columns) of the map in tokens; or by the panel's name.
        token: (row, column) whose points they are; or by the panel's name.
        title: above all.

    Raises UserError for no panels, places that are no (9 n, 2), and a token outside of its map.
    """
    if not panels:
        raise UserError("sampling_points: nothing to show")
    arrays = {name: _as_points(name, *pair) for name, pair in panels.items()}
    columns = min(len(arrays), 4)
    lines = math.ceil(len(arrays) / columns)
    figure = Figure(figsize=(3.1 * columns + 0.3, 3.3 * lines + 0.75), dpi=100, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    said = []
    for axes, (name, (places, weights)) in zip(grid, arrays.items(), strict=False):
        (rows, across), (row, column) = (each[name] if isinstance(each, Mapping) else each for each in (size, token))
        if not (0 <= row < rows and 0 <= column < across):
            raise UserError(f"sampling_points: token=({row}, {column}) lies outside of {rows}x{across} tokens")
        together = [places] if isinstance(size, Mapping) else [places for places, _ in arrays.values()]
        _map(axes, image, (rows, across), *_limits(together, (rows, across)))
        _frame(axes, row, column)
        _dots(axes, places, weights, (rows, across), (column, row))
        words = _in_words(places, weights, (rows, across), (column, row))
        axes.set_title(f"{name}\n{words}", fontsize=8)
        said.append(f"{name}: {words}")
    for axes in grid[len(arrays) :]:
        axes.remove()
    _legend(figure)
    figure.suptitle(title, fontsize=10)
    return described(figure, f"{title}. {'; '.join(said)}." if title else f"{'; '.join(said)}.")


def finds_nothing(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., [x, y]) in tokens -> (...) bool: a token or more outside of a map of that size, where all is 0."""
    x, y = places[..., 0], places[..., 1]
    return (x <= -1) | (x >= size[1]) | (y <= -1) | (y >= size[0])


def _as_points(name: str, places: object, weights: object) -> tuple[np.ndarray, np.ndarray]:
    places, weights = (
        np.asarray(each.detach().cpu() if hasattr(each, "detach") else each, float) for each in (places, weights)
    )
    if places.ndim != 2 or places.shape[1] != 2 or len(places) % 9 or weights.shape != places.shape[:1]:
        raise UserError(
            f"sampling_points: {name!r} has places {places.shape}, weights {weights.shape}; expected (9 n, 2) and (9 n,)"
        )
    return places, weights


def _limits(places: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Corners [x, y] of what is shown: the map, a margin round it, and all points."""
    every, edge = np.concatenate(places), np.array([size[1], size[0]])
    margin = 0.35 + 0.04 * edge.max()
    return np.minimum(every.min(0), -0.5) - margin, np.maximum(every.max(0), edge - 0.5) + margin


def _map(axes: Axes, image: np.ndarray, size: tuple[int, int], low: np.ndarray, high: np.ndarray) -> None:
    """The image, as large as its map of tokens, with lines between tokens; grey where there is 0."""
    extent = (-0.5, size[1] - 0.5, size[0] - 0.5, -0.5)
    axes.imshow(image, extent=extent, interpolation="nearest", zorder=1)
    axes.set_facecolor(_BEYOND)
    if max(size) <= _GRID:
        line = {"color": "white", "lw": 0.5, "alpha": 0.45, "zorder": 2}
        axes.hlines(np.arange(1, size[0]) - 0.5, -0.5, size[1] - 0.5, **line)
        axes.vlines(np.arange(1, size[1]) - 0.5, -0.5, size[0] - 0.5, **line)
    axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), xticks=[], yticks=[], aspect="equal")


def _frame(axes: Axes, row: int, column: int) -> None:
    for colour, width in (("black", 2.6), ("white", 1.2)):
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=colour, lw=width, zorder=3))


def _dots(
    axes: Axes, places: np.ndarray, weights: np.ndarray, size: tuple[int, int], centre: tuple[float, float]
) -> None:
    starts = np.tile(POINTS, (len(places) // 9, 1)) + centre
    top = weights.max() or 1.0
    colours = np.where(finds_nothing(places, size), _OUTSIDE, _INSIDE)
    for (x, y), (x0, y0), weight, colour in zip(places, starts, weights, colours, strict=True):
        alpha = 0.3 + 0.7 * float(max(weight, 0) / top)
        axes.plot([x0, x], [y0, y], color="white", lw=1.6, alpha=0.7 * alpha, zorder=4)
        axes.plot([x0, x], [y0, y], color="black", lw=0.7, alpha=alpha, zorder=5)
        area = 14 + _LARGEST * max(float(weight), 0) / (len(places) / 9) ** 0.5
        axes.scatter([x], [y], s=area, color=colour, alpha=alpha, edgecolors="black", linewidths=0.8, zorder=6)


def _in_words(places: np.ndarray, weights: np.ndarray, size: tuple[int, int], centre: tuple[float, float]) -> str:
    total = weights.sum() or 1.0
    far = (weights * np.hypot(*(places - centre).T)).sum() / total
    outside = finds_nothing(places, size)
    return f"{far:.1f} tokens away; {100 * weights[outside].sum() / total:.0f}% of the weight finds 0"


def _legend(figure: Figure) -> None:
    dot = {"marker": "o", "linestyle": "", "markeredgecolor": "black", "markersize": 8}
    handles = [
        Line2D([], [], markerfacecolor=_INSIDE, label="a point; its size is its weight", **dot),
        Line2D([], [], markerfacecolor=_OUTSIDE, label="outside: finds 0", **dot),
        Line2D([], [], color="black", lw=0.8, label="from its place in the grid"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)


def point_paths(values: np.ndarray, paths: Mapping[str, np.ndarray], *, title: str = "") -> Figure:
    """How points moved over a map of numbers, step by step: a ring where each began, a dot where it came to.

    Args:
        values: (H, W), the map.
        paths: by name, places (steps, [x, y]) in tokens.
        title: above all.

    Raises UserError for no paths.
    """
    if not paths:
        raise UserError("point_paths: nothing to show")
    values = np.asarray(values, float)
    low, high = _limits([np.asarray(path, float) for path in paths.values()], values.shape)
    figure = Figure(figsize=(6.2, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap="cividis", interpolation="nearest", zorder=1)
    axes.set_facecolor(_BEYOND)
    axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal", xlabel="x (tokens)", ylabel="y (tokens)")
    said = []
    for (name, path), colour in zip(paths.items(), ("#E69F00", "#56B4E9", "#D55E00", "#CC79A7"), strict=False):
        path = np.asarray(path, float)
        axes.plot(*path.T, color="white", lw=3.2, zorder=3)
        axes.plot(*path.T, color=colour, lw=1.8, zorder=4, label=name)
        axes.plot(*path[0], "o", mfc="white", mec=colour, mew=2, ms=8, zorder=5)
        axes.plot(*path[-1], "o", mfc=colour, mec="black", ms=8, zorder=6)
        said.append(f"{name}: from ({path[0, 0]:.1f}, {path[0, 1]:.1f}) to ({path[-1, 0]:.1f}, {path[-1, 1]:.1f})")
    figure.colorbar(image, ax=axes, shrink=0.8, label="value")
    figure.legend(loc="outside lower center", ncols=len(paths), frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return described(figure, f"{title}. Points, [x, y] in tokens: {'; '.join(said)}.")
