"""Deformable sampling: where the nine points of a token lie, what one of them samples, and how points move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stm_lab.figures.draw import board, fences, framed, picture
from stm_lab.figures.style import described, dot, drawing, legend
from stm_lab.measure.sampling import SamplingPoints, finds_nothing
from stm_lab.mixers.dcn_v3 import GRID
from stm_lab.util.errors import UserError

_INSIDE, _OUTSIDE, _BEYOND, _CHOSEN = "#E69F00", "#56B4E9", "#E8E8E8", "#D55E00"
_LARGEST = 420.0  # area of a dot that has all the weight, in square points
_LINED = 20  # tokens a side up to which lines are drawn between tokens


def sampling_by_stage(result: SamplingPoints, image: int = 0, place: tuple[float, float] = (0.5, 0.5)) -> Figure:
    """All groups of the first block of each stage, for the token at a place of an image.

    result: of `measure.sampling_points`. image: which of its images. place: fractions of height and width.
    Raises UserError for an image that the result does not have, and for a place outside of it.
    """
    if not 0 <= image < len(result.pixels):
        raise UserError(f"image={image}; there are {len(result.pixels)}, from 0")
    if not all(0 <= at < 1 for at in place):
        raise UserError(f"place={place}: shares of height and width, at least 0 and below 1")
    firsts = {layer.stage or 0: layer for layer in reversed(result.layers)}
    panels, sizes, tokens = {}, {}, {}
    for stage, layer in sorted(firsts.items()):
        name = f"stage {stage + 1}"
        sizes[name] = layer.map_size
        row, column = tokens[name] = tuple(int(at * side) for at, side in zip(place, layer.map_size, strict=True))
        panels[name] = layer.places[image, row, column].reshape(-1, 2), layer.weights[image, row, column].reshape(-1)
    shown = result.pixels[image].permute(1, 2, 0).cpu().numpy()
    return sampling_points(shown, panels, size=sizes, token=tokens, title=result.model)


@drawing
def sampling_points(
    image: np.ndarray,
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    size: tuple[int, int] | Mapping[str, tuple[int, int]],
    token: tuple[int, int] | Mapping[str, tuple[int, int]],
    title: str = "",
    panel_size: float = 3.1,
) -> Figure:
    """Where one token takes its samples, drawn over the image: a panel for each layer or group.

    A dot is a point, its area and opacity are its weight; the thin line comes from its place in the 3x3 grid. Points
    with only zeros round them are blue.

    Args:
        image: (height, width, 3), uint8 or in [0, 1].
        panels: by name, places (P, [x, y]) in tokens of the map and weights (P,). P is a multiple of 9, with the points
            of a group one after the other; weights of each group add up to 1.
        size: (rows, columns) of the map in tokens; or by the panel's name.
        token: (row, column) whose points they are; or by the panel's name.
        title: above all.
        panel_size: side of a panel in inches.

    Raises UserError for no panels, places that are not (9 n, 2), and a token outside of its map.
    """
    if not panels:
        raise UserError("sampling_points: nothing to draw")
    arrays = {name: _as_points(name, *pair) for name, pair in panels.items()}
    columns = min(len(panels), 4)
    room = (max(0.3, 6.6 - panel_size * columns), 0.75)  # for title and legend
    figure, shown = board(len(panels), columns, (panel_size, panel_size + 0.2), room=room, dpi=100)
    said = []
    for axes, (name, (places, weights)) in zip(shown, arrays.items(), strict=True):
        (rows, across), (row, column) = (each[name] if isinstance(each, Mapping) else each for each in (size, token))
        if not (0 <= row < rows and 0 <= column < across):
            raise UserError(f"sampling_points: token=({row}, {column}) lies outside of {rows}x{across} tokens")
        together = [places] if isinstance(size, Mapping) else [places for places, _ in arrays.values()]
        token_map(axes, image, (rows, across), *shown_limits(together, (rows, across)))
        framed(axes, row, column)
        draw_points(axes, places, weights, (rows, across), (column, row))
        total, lost = weights.sum() or 1.0, weights[finds_nothing(places, (rows, across))].sum()
        far = (weights * np.hypot(*(places - (column, row)).T)).sum() / total
        words = f"{far:.1f} tokens away; {100 * lost / total:.0f}% of the weight finds 0"
        axes.set_title(f"{name}\n{words}", fontsize=8)
        said.append(f"{name}: {words}")
    look = {"markeredgecolor": "black", "markersize": 8}
    entries = [dot(_INSIDE, "a point; its size is its weight", **look), dot(_OUTSIDE, "outside: finds 0", **look)]
    entries.append(Line2D([], [], color="black", lw=0.8, label="from its place in the grid"))
    legend(figure, entries, "lower center", ncols=3, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return described(figure, f"{title}. {'; '.join(said)}." if title else f"{'; '.join(said)}.")


def _as_points(name: str, places: object, weights: object) -> tuple[np.ndarray, np.ndarray]:
    places, weights = (
        np.asarray(each.detach().cpu() if hasattr(each, "detach") else each, float) for each in (places, weights)
    )
    if places.ndim != 2 or places.shape[1] != 2 or len(places) % 9 or weights.shape != places.shape[:1]:
        raise UserError(
            f"sampling_points: {name!r} has places {places.shape}, weights {weights.shape}; not (9 n, 2), (9 n,)"
        )
    return places, weights


def shown_limits(
    places: Sequence[np.ndarray], size: tuple[int, int], outside: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Corners [x, y] of what is shown: the map with so many tokens outside of it, all points, and a margin."""
    every, edge = np.concatenate(places), np.array([size[1], size[0]])
    margin = 0.35 + 0.04 * edge.max()
    low, high = np.minimum(every.min(0), -0.5 - outside), np.maximum(every.max(0), edge - 0.5 + outside)
    return low - margin, high + margin


def token_map(axes: Axes, image: np.ndarray, size: tuple[int, int], low: np.ndarray, high: np.ndarray) -> None:
    """The image, as large as its map of tokens, with lines between tokens; grey where the values are 0."""
    picture(axes, image, extent=(-0.5, size[1] - 0.5, size[0] - 0.5, -0.5), zorder=1)
    axes.set_facecolor(_BEYOND)
    if max(size) <= _LINED:
        fences(axes, np.arange(size[0] + 1) - 0.5, np.arange(size[1] + 1) - 0.5, linewidth=0.5, alpha=0.45, zorder=2)
    axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal")


def draw_points(
    axes: Axes, places: np.ndarray, weights: np.ndarray, size: tuple[int, int], centre: tuple[float, float]
) -> None:
    starts = np.tile(GRID, (len(places) // 9, 1)) + centre
    shares = np.maximum(weights, 0) / (weights.max() or 1.0)
    alpha = 0.3 + 0.7 * shares
    ways = np.stack((starts, places), 1)  # (P, 2, [x, y])
    axes.add_collection(LineCollection(ways, colors="white", linewidths=1.6, alpha=0.7 * alpha, zorder=4))
    axes.add_collection(LineCollection(ways, colors="black", linewidths=0.7, alpha=alpha, zorder=5))
    colours = np.where(finds_nothing(places, size)[:, None], to_rgb(_OUTSIDE), to_rgb(_INSIDE))
    area = 14 + _LARGEST * np.maximum(weights, 0) / (len(places) / 9) ** 0.5
    axes.scatter(*places.T, s=area, c=colours, alpha=alpha, edgecolors="black", linewidths=0.8, zorder=6)
