"""Notebook 06's own: where the points of deformable mixers lie and how they move, measured, drawn and explored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from stm_lab.explore.parts import (
    as_shown,
    by_stage,
    checked_pixels,
    clipped,
    in_stage,
    layer_controls,
    matrix_field,
    matrix_text,
    mean_colours,
    most_blocks,
    place_controls,
    read_matrix,
    single_images,
    token_at,
)
from stm_lab.explore.shell import Explorer, State
from stm_lab.figures.draw import board, fences, framed, picture, placed
from stm_lab.figures.style import described, dot, drawing, legend
from stm_lab.measure._batches import Data, as_images, evaluating, model_name, rows_of
from stm_lab.measure._sites import mixer_calls, mixer_layers
from stm_lab.mixers.dcn_v3 import GRID, DeformableConvV3
from stm_lab.util.errors import UserError

# ---- measured: where points lie, and their weights -------------------------------------------------------------------

# Legend of shapes: N images, (H, W) tokens of the layer's map, h groups, P = 9 points.


def finds_nothing(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., [x, y]) in tokens -> (...) bool: at least one token outside a map of that size, where samples are 0."""
    x, y = places[..., 0], places[..., 1]
    return (x <= -1) | (x >= size[1]) | (y <= -1) | (y >= size[0])


class LayerPoints(NamedTuple):
    """Points of one layer.

    layer: its module's name; stage, block: from 0. offsets: (N, H, W, h, P, [x, y]), tokens of the map. weights:
    (N, H, W, h, P), which add up to 1 in each group.
    """

    layer: str
    stage: int | None
    block: int | None
    offsets: np.ndarray
    weights: np.ndarray

    @property
    def map_size(self) -> tuple[int, int]:
        return self.offsets.shape[1:3]

    @property
    def groups(self) -> int:
        return self.offsets.shape[3]

    @property
    def places(self) -> np.ndarray:
        """(N, H, W, h, P, [x, y]): where the samples are taken, in tokens; (0, 0) is the centre of the first token."""
        height, width = self.map_size
        own = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)  # (H, W, [x, y])
        return own[:, :, None, None].astype(np.float32) + GRID + self.offsets

    @property
    def distance(self) -> float:
        """Tokens from a token to its samples: the mean by weight."""
        return float((self.weights * np.hypot(*np.moveaxis(GRID + self.offsets, -1, 0))).sum(-1).mean())

    @property
    def outside(self) -> float:
        """Share of the weight on points that find 0: at least one token outside the map."""
        return float((self.weights * finds_nothing(self.places, self.map_size)).sum(-1).mean())

    @property
    def moving(self) -> float:
        """Standard deviation of a point's offset over tokens and images, in tokens along an axis; mean over points and
        axes. 0 if all tokens have the same offsets."""
        return float(self.offsets.std((0, 1, 2)).mean())

    @property
    def largest_weight(self) -> float:
        """The largest of the nine weights, on average; 1/9 if all are equal."""
        return float(self.weights.max(-1).mean())


class SamplingPoints(NamedTuple):
    """Where a model's deformable mixers take their samples.

    pixels: (N, 3, H, W), the images, as they were given. layers: in the model's order.
    """

    model: str
    pixels: Tensor
    layers: tuple[LayerPoints, ...]

    def rows(self) -> list[dict]:
        """One row a layer: its numbers."""
        shared = {"images": len(self.pixels), "model": self.model}
        names = "layer stage block map_size groups distance outside moving largest_weight"
        return [{"model": self.model, **row} | shared for layer in self.layers for row in rows_of(layer, names)]


def points_of(
    model: nn.Module,
    data: Data,
    *,
    image_size: int | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> SamplingPoints:
    """Find where the points of each deformable mixer (DCNv3) lie on images, and their weights.

    model: one with our `dcn_v3` mixers. data: (N, 3, H, W) uint8 or in [0, 1], a pair with labels, or a Dataset, which
    is decoded at `image_size` (default: the model's own). device: default the model's own. seed: of models that draw
    random numbers.

    Raises UserError for a model without such mixers, and invalid data.
    """
    layers = [layer for layer in mixer_layers(model) if isinstance(model.get_submodule(layer.name), DeformableConvV3)]
    if not layers:
        raise UserError(f"{model_name(model)}: no deformable mixer found; build_model('dcn_v3', ...) has some")
    images = as_images(data, model, image_size)
    found: dict[str, list[tuple[np.ndarray, ...]]] = {layer.name: [] for layer in layers}  # those of each batch
    with evaluating(model, device, seed) as device, torch.no_grad():
        for pixels, _ in images.batches(model, device, batch_size):
            for name, (mixer, (tokens, *_), _) in mixer_calls(model, pixels, layers).items():
                found[name].append(tuple(part.float().cpu().numpy() for part in mixer.sampling(tokens)))
    points = []
    for layer in layers:
        offsets, weights = (np.concatenate(parts) for parts in zip(*found[layer.name], strict=True))
        points.append(LayerPoints(layer.name, layer.stage, layer.block, offsets, weights))
    return SamplingPoints(model=model_name(model), pixels=images.pixels, layers=tuple(points))


# ---- drawn: points over an image -------------------------------------------------------------------------------------

_INSIDE, _OUTSIDE, _BEYOND, _CHOSEN = "#E69F00", "#56B4E9", "#E8E8E8", "#D55E00"
_LARGEST = 420.0  # area of a dot that has all the weight, in square points
_LINED = 20  # tokens a side up to which lines are drawn between tokens


def points_by_stage(result: SamplingPoints, image: int = 0, place: tuple[float, float] = (0.5, 0.5)) -> Figure:
    """All groups of the first block of each stage, for the token at a place of an image.

    result: of `points_of`. image: which of its images. place: fractions of height and width.
    Raises UserError if the result has no such image, or the place lies outside it.
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
    return points_over_image(shown, panels, size=sizes, token=tokens, title=result.model)


@drawing
def points_over_image(
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
    among zeros only are blue.

    Args:
        image: (height, width, 3), uint8 or in [0, 1].
        panels: by name, places (P, [x, y]) in tokens of the map and weights (P,). P is a multiple of 9, with the points
            of a group one after the other; weights of each group add up to 1.
        size: (rows, columns) of the map in tokens; or by the panel's name.
        token: (row, column) whose points they are; or by the panel's name.
        title: of the figure.
        panel_size: side of a panel in inches.

    Raises UserError for no panels, places that are not (9 n, 2), and a token outside its map.
    """
    if not panels:
        raise UserError("points_over_image: nothing to draw")
    arrays = {name: _as_points(name, *pair) for name, pair in panels.items()}
    columns = min(len(panels), 4)
    room = (max(0.3, 6.6 - panel_size * columns), 0.75)  # for title and legend
    figure, shown = board(len(panels), columns, (panel_size, panel_size + 0.2), room=room, dpi=100)
    said = []
    for axes, (name, (places, weights)) in zip(shown, arrays.items(), strict=True):
        (rows, across), (row, column) = (each[name] if isinstance(each, Mapping) else each for each in (size, token))
        if not (0 <= row < rows and 0 <= column < across):
            raise UserError(f"points_over_image: token=({row}, {column}) lies outside {rows}x{across} tokens")
        together = [places] if isinstance(size, Mapping) else [places for places, _ in arrays.values()]
        token_map(axes, image, (rows, across), *shown_limits(together, (rows, across)))
        framed(axes, row, column)
        draw_points(axes, places, weights, (rows, across), (column, row))
        total, lost = weights.sum() or 1.0, weights[finds_nothing(places, (rows, across))].sum()
        far = (weights * np.hypot(*(places - (column, row)).T)).sum() / total
        words = f"{far:.1f} tokens away; {100 * lost / total:.0f}% of the weight lies outside"
        axes.set_title(f"{name}\n{words}", fontsize=8)
        said.append(f"{name}: {words}")
    look = {"markeredgecolor": "black", "markersize": 8}
    entries = [dot(_INSIDE, "a point; its size is its weight", **look), dot(_OUTSIDE, "outside the map: 0", **look)]
    entries.append(Line2D([], [], color="black", lw=0.8, label="its offset from the grid"))
    legend(figure, entries, "lower center", ncols=3, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return described(figure, f"{title}. {'; '.join(said)}." if title else f"{'; '.join(said)}.")


def _as_points(name: str, places: object, weights: object) -> tuple[np.ndarray, np.ndarray]:
    places, weights = (
        np.asarray(each.detach().cpu() if hasattr(each, "detach") else each, float) for each in (places, weights)
    )
    if places.ndim != 2 or places.shape[1] != 2 or len(places) % 9 or weights.shape != places.shape[:1]:
        raise UserError(
            f"points_over_image: {name!r} has places {places.shape}, weights {weights.shape}; not (9 n, 2), (9 n,)"
        )
    return places, weights


def shown_limits(
    places: Sequence[np.ndarray], size: tuple[int, int], outside: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Corners [x, y] of what is shown: the map with so many tokens outside it, all points, and a margin."""
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


# ---- drawn: how points moved, and what one of them finds -------------------------------------------------------------

_PATHS = ("#E69F00", "#56B4E9", "#D55E00", "#CC79A7")  # colours of paths; they repeat dashed, then dotted


@drawing
def point_paths(values: np.ndarray, paths: Mapping[str, np.ndarray], *, title: str = "") -> Figure:
    """How points moved over a map of numbers, step by step: a ring at the start of each path, a dot at its end.

    values: (H, W), the map. paths: by name, places (steps, [x, y]) in tokens. title: of the figure.
    """
    if not paths:
        raise UserError("point_paths: nothing to draw")
    paths = {name: np.asarray(path, float) for name, path in paths.items()}
    low, high = shown_limits(list(paths.values()), np.shape(values))
    figure, (axes,) = board(1, 1, (6.2, 4.2), dpi=110)
    image = axes.imshow(values, cmap="cividis", interpolation="nearest", zorder=1)
    axes.set_facecolor(_BEYOND)
    axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal", xlabel="x (tokens)", ylabel="y (tokens)")
    said = []
    for number, (name, path) in enumerate(paths.items()):
        colour, dash = _PATHS[number % len(_PATHS)], ("-", "--", ":")[number // len(_PATHS) % 3]
        axes.plot(*path.T, color="white", lw=3.2, zorder=3)
        axes.plot(*path.T, dash, color=colour, lw=1.8, zorder=4, label=name)
        axes.plot(*path[0], "o", mfc="white", mec=colour, mew=2, ms=8, zorder=5)
        axes.plot(*path[-1], "o", mfc=colour, mec="black", ms=8, zorder=6)
        said.append(f"{name}: from ({path[0, 0]:.1f}, {path[0, 1]:.1f}) to ({path[-1, 0]:.1f}, {path[-1, 1]:.1f})")
    figure.colorbar(image, ax=axes, shrink=0.8, label="value")
    legend(figure, axes, "lower center", ncols=min(len(paths), len(_PATHS)), fontsize=8)
    figure.suptitle(title, fontsize=10)
    return described(figure, f"{title + '. ' if title else ''}Points, [x, y] in tokens: {'; '.join(said)}.")


@drawing
def sampled_value(
    tokens: np.ndarray, offsets: np.ndarray, logits: np.ndarray, *, token: tuple[int, int], point: int = 4
) -> Figure:
    """The nine points of one token: where they lie, the four tokens around one of them with their shares, and what each
    point contributes to the result. Three panels in this order, places in tokens; beside them a swatch of the result.

    Args:
        tokens: (H, W, 3) in [0, 1], the map; the numbers are its brightness (the mean of three channels).
        offsets: (9, [x, y]) in tokens. logits: (9,), whose softmax are the weights.
        token: (row, column). point: 0 to 8, x slow, whose four tokens are shown.

    Raises UserError for a token outside the map, an unknown point, and wrong shapes.
    """
    (row, column), size = token, tokens.shape[:2]
    if tokens.ndim != 3 or tokens.shape[2] != 3 or np.shape(offsets) != (9, 2) or np.shape(logits) != (9,):
        raise UserError(
            f"sampled_value: {tokens.shape}, {np.shape(offsets)}, {np.shape(logits)}; not (H, W, 3), (9, 2), (9,)"
        )
    if not (0 <= row < size[0] and 0 <= column < size[1] and 0 <= point < 9):
        raise UserError(
            f"sampled_value: token=({row}, {column}), point={point} for {size[0]}x{size[1]} tokens, 9 points"
        )
    weights = np.exp(logits - np.max(logits))
    weights = weights / weights.sum()
    places = np.array([column, row]) + GRID + offsets
    found = np.stack([sum(share * _colour(tokens, i, j) for i, j, share in _shares(*place)) for place in places])
    result, own = weights @ found, tokens[row, column]  # (3,)
    boxes = [(0.01, 0.1, 0.33, 0.78), (0.36, 0.1, 0.27, 0.78), (0.69, 0.13, 0.2, 0.75)]
    swatches = [(0.91, 0.53, 0.08, 0.3), (0.91, 0.13, 0.08, 0.3)]
    figure, (left, middle, right, *patches) = placed((12.4, 4.4), boxes + swatches)
    _nine(left, tokens, places, weights, token, point)
    words = _four(middle, tokens, places[point], point, found[point].mean())
    _bars(right, weights, found.mean(1), point)
    right.set_title(f"contribution of each; result {result.mean():.3f}", fontsize=9)
    for axes, colour, name in zip(patches, (own, result), ("the token", "the result"), strict=True):
        axes.set(facecolor=colour.clip(0, 1), xticks=[], yticks=[])
        axes.set_title(f"{name}\n{colour.mean():.3f}", fontsize=8)
    lost = int(finds_nothing(places, size).sum())
    said = (
        f"The token in row {row}, column {column} of {size[0]}x{size[1]}, brightness {own.mean():.3f}. {words} Its "
        f"weight is {weights[point]:.2f}. The nine together give {result.mean():.3f}; {lost} of them lie outside."
    )
    return described(figure, said)


def _shares(x: float, y: float) -> list[tuple[int, int, float]]:
    """The four tokens around a place, (column, row), and their shares."""
    left, top = math.floor(x), math.floor(y)
    return [(i, j, (1 - abs(x - i)) * (1 - abs(y - j))) for j in (top, top + 1) for i in (left, left + 1)]


def _inside(tokens: np.ndarray, i: int, j: int) -> bool:
    return 0 <= j < tokens.shape[0] and 0 <= i < tokens.shape[1]


def _colour(tokens: np.ndarray, i: int, j: int) -> np.ndarray:
    return tokens[j, i].astype(float) if _inside(tokens, i, j) else np.zeros(3)


def _nine(
    axes: Axes, tokens: np.ndarray, places: np.ndarray, weights: np.ndarray, token: tuple[int, int], point: int
) -> None:
    """The nine points with their numbers over the map, and a ring around the chosen one."""
    (row, column), size = token, tokens.shape[:2]
    # a click may send a point outside the map
    token_map(axes, tokens, size, *shown_limits([places], size, outside=1.5))
    framed(axes, row, column)
    draw_points(axes, places, weights, size, (column, row))
    for number, (x, y) in enumerate(places):
        axes.text(x, y, str(number), ha="center", va="center", fontsize=7, zorder=8)
    axes.scatter(*places[point], s=260, facecolors="none", edgecolors=_CHOSEN, linewidths=2.2, zorder=7)
    axes.set_title("drag the points, or click to move the chosen one", fontsize=9)


def _four(axes: Axes, tokens: np.ndarray, place: np.ndarray, point: int, found: float) -> str:
    """The four tokens around the chosen point, with shares and brightness; the same in words."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2}
    said = []
    for i, j, share in _shares(*place):
        inside, colour = _inside(tokens, i, j), _colour(tokens, i, j)
        face = colour.clip(0, 1) if inside else _BEYOND
        axes.add_patch(Rectangle((i - 0.5, j - 0.5), 1, 1, fc=face, ec="white", lw=0.8, zorder=1))
        said.append(f"{share:.2f} x {colour.mean():.3f}" if inside else f"{share:.2f} x 0, outside")
        y = j + (0.38 if j > place[1] else -0.38)
        axes.text(i, y, said[-1], ha="center", va="center", fontsize=8, bbox=box, zorder=5)
    left, top = math.floor(place[0]), math.floor(place[1])
    axes.add_patch(Rectangle((left, top), 1, 1, fill=False, ec="black", lw=0.8, zorder=3))
    axes.plot(*place, "o", mfc=_CHOSEN, mec="black", ms=10, zorder=4)
    axes.set(xlim=(left - 0.5, left + 1.5), ylim=(top + 1.5, top - 0.5), aspect="equal", xticks=[], yticks=[])
    axes.set_title(f"point {point} at ({place[0]:.2f}, {place[1]:.2f}) finds {found:.3f}", fontsize=9)
    return f"Point {point} lies at x {place[0]:.2f}, y {place[1]:.2f} and finds {found:.3f}: {', '.join(said)}."


def _bars(axes: Axes, weights: np.ndarray, found: np.ndarray, point: int) -> None:
    gives = weights * found
    axes.barh(range(9), gives, 0.7, color=[_CHOSEN if n == point else _INSIDE for n in range(9)], edgecolor="black")
    for n, (weight, value) in enumerate(zip(weights, found, strict=True)):
        axes.annotate(f" {weight:.2f} x {value:.2f}", (gives[n], n), va="center", fontsize=7)
    axes.set(yticks=range(9), ylim=(8.6, -0.6), xlim=(0, max(gives.max(), 1e-3) * 1.5))
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("weight x brightness", fontsize=8)
    axes.set_ylabel("point", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


_FARTHEST, _LOGIT = 8.0, 4.0  # the largest offset in tokens, and the largest logit


_LINE = ("x", "y", "logit")  # a line of the field of points


def moved_points(images: Mapping[str, Tensor]) -> Explorer:
    """A photograph as a map of tokens, and the nine points of one of them, moved by hand: the value at each, and the
    result.

    A drag over the map moves the point nearest to where the pointer goes down; a click on the map, or on the four
    tokens beside it, moves the chosen point there; a click on a bar chooses its point. The field `numbers` holds all
    nine, a line each: x, y (tokens), logit, whose softmax is the weight. The sliders show and set the chosen line.

    images: by name, each (3, H, W) or (1, 3, H, W), uint8 or in [0, 1]. Raises UserError for no images.
    """
    photographs, side = single_images(images, "moved_points"), 12

    @lru_cache(maxsize=32)
    def tokens(name: str) -> np.ndarray:
        return mean_colours(photographs[name], side, side)

    def draw(image: str, row: int, column: int, point: int, x: float, y: float, logit: float, numbers: str) -> Figure:
        values = _points(numbers)  # x, y and logit are in there
        return sampled_value(tokens(image), values[:, :2], values[:, 2], token=(row, column), point=point)

    start = np.zeros((9, 3))
    start[7] = 0.5, -0.75, 1
    far = {"min": -_FARTHEST, "max": _FARTHEST, "step": 0.05}
    controls = {
        "image": widgets.Dropdown(options=list(photographs)),
        "row": widgets.IntSlider(side // 2, 0, side - 1, description="row (token)"),
        "column": widgets.IntSlider(side // 2, 0, side - 1, description="column (token)"),
        "point": widgets.IntSlider(7, 0, 8),
        "x": widgets.FloatSlider(0.5, **far),
        "y": widgets.FloatSlider(-0.75, **far),
        "logit": widgets.FloatSlider(1.0, min=-_LOGIT, max=_LOGIT, step=0.1),
        "numbers": matrix_field(start, "all points", "18em"),
    }
    return Explorer(draw, controls, select=_put, grab=_nearest_point, follow=_same_line)


def _put(panel: int, x: float, y: float, now: State) -> State:
    """A click on the map or the four tokens moves the chosen point there; one on a bar chooses its point."""
    if panel > 2:
        return {}  # the swatches, which have no places
    if panel == 2:
        return {"point": clipped(y, 9)}
    own = np.array([now["column"], now["row"]]) + GRID[now["point"]]
    along, down = np.clip((np.array([x, y]) - own).round(2), -_FARTHEST, _FARTHEST).tolist()
    return {"x": along, "y": down}


def _nearest_point(panel: int, x: float, y: float, now: State) -> State | None:
    """A drag moves the nearest point of the map, or the chosen one among its four tokens."""
    if panel > 0:
        return {} if panel == 1 else None
    try:
        offsets = _points(now["numbers"])[:, :2]
    except UserError:
        return None  # the message below the picture says so
    places = np.array([now["column"], now["row"]]) + GRID + offsets
    return {"point": int(np.linalg.norm(places - [x, y], axis=1).argmin())}


def _same_line(changed: str, now: State) -> State:
    """Keep the sliders and the chosen point's line of the field equal."""
    if changed not in (*_LINE, "point", "numbers"):
        return {}
    values = _points(now["numbers"])
    if changed not in _LINE:
        return dict(zip(_LINE, values[now["point"]].tolist(), strict=True))
    values[now["point"], _LINE.index(changed)] = now[changed]
    return {"numbers": matrix_text(values)}


def _points(text: str) -> np.ndarray:
    """(9, [x, y, logit])"""
    return read_matrix(text, "all points", (9, 3), np.array([_FARTHEST, _FARTHEST, _LOGIT]))


def sampling_points(models: Mapping[str, nn.Module], images: Tensor, *, stage: int = 1) -> Explorer:
    """Where the clicked token takes its samples in trained deformable mixers: one group, and all of them.

    models: by name, with our `dcn_v3` mixers. images: (N, 3, H, W), uint8 or in [0, 1], as large as the models see
    them. stage: the first one, from 1.
    Raises UserError without models or images, and for a model without deformable mixers.
    """
    images = checked_pixels(models, images)
    size = images.shape[-2:]

    @lru_cache(maxsize=256)
    def layers(name: str, image: int) -> dict[int, list[LayerPoints]]:
        return by_stage(points_of(models[name], images[image : image + 1]).layers)

    def layer_at(name: str, image: int, stage: int, block: int) -> tuple[int, LayerPoints]:
        """The layer with its block's number."""
        here = in_stage(name, layers(name, image), stage)
        number = min(block, len(here))
        return number, here[number - 1]

    def draw(model: str, stage: int, block: int, group: int, image: int, row: int, column: int) -> Figure:
        number, layer = layer_at(model, image, stage, block)
        y, x = token_at(row, column, size, layer.map_size)
        places, weights = layer.places[0, y, x], layer.weights[0, y, x]  # (h, 9, 2), (h, 9)
        group = min(group, layer.groups)
        panels = {f"group {group} of {layer.groups}": (places[group - 1], weights[group - 1])}
        if layer.groups > 1:
            panels[f"all {layer.groups} groups"] = (places.reshape(-1, 2), weights.reshape(-1))
        H, W = layer.map_size
        title = f"{model}, stage {stage}, block {number}: the token in row {y}, column {x} of {H}x{W}"
        shown = as_shown(images[image])
        return points_over_image(shown, panels, size=(H, W), token=(y, x), title=title, panel_size=4.3)

    def select(panel: int, x: float, y: float, now: State) -> State:
        cells = layer_at(now["model"], now["image"], now["stage"], now["block"])[1].map_size
        row, column = ((at + 0.5) * pixels / count for at, pixels, count in zip((y, x), size, cells, strict=True))
        is_inside = 0 <= row < size[0] and 0 <= column < size[1]  # the figure shows more than the image
        return {"row": int(row), "column": int(column)} if is_inside else {}

    first = {name: layers(name, 0) for name in models}
    groups = max(layer.groups for found in first.values() for here in found.values() for layer in here)
    controls = {
        **layer_controls(first, stage),
        "block": widgets.IntSlider(1, 1, most_blocks(first)),
        "group": widgets.IntSlider(1, 1, groups),
        **place_controls(len(images), size),
    }
    return Explorer(draw, controls, select=select)
