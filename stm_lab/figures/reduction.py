"""Spatial-reduction attention: patches of tokens that become one key each, who listens to which, what that gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stm_lab.figures.style import CHANCE, colours, described, framed, grouped, plain
from stm_lab.util.errors import UserError

_SHARPNESS = 60.0
_FRAME = "#56B4E9"  # on an image with white lines on it
_NUMBERED = 64  # keys at most whose weights are written into their cells


def reduction_steps(image: np.ndarray, *, reduction: int, place: tuple[int, int]) -> Figure:
    """One token's way through spatial-reduction attention, in four panels: the map cut into patches, the keys that are
    made of them, what the token takes from each key, and the same laid over the patches.

    Args:
        image: (H, W, 3) in [0, 1], one colour a token.
        reduction: R, the side of a patch; what is left at the bottom and at the right belongs to none.
        place: (row, column) of the token that asks; it is framed.

    A key is drawn as its patch's mean colour, and the attention is by colours (softmax of minus sixty times the squared
    distance), without learned weights. Raises UserError for an array that is no image, a reduction that is not 1 to the
    map's shorter side, and a place outside of the map.
    """
    image = np.asarray(image, float)
    if image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"reduction_steps: the image has the shape {image.shape}; expected (H, W, 3)")
    height, width = image.shape[:2]
    if not 1 <= reduction <= min(height, width):
        raise UserError(f"reduction={reduction} must be 1 to {min(height, width)} on a {height}x{width} map")
    if not (0 <= place[0] < height and 0 <= place[1] < width):
        raise UserError(f"place={place} is no token of a {height}x{width} map")
    keys, weights = _by_colours(image, reduction, place)
    rows, columns = weights.shape
    figure = Figure(figsize=(11, 3.15), dpi=100)
    panels = [figure.add_axes((0.01 + 0.2475 * number, 0.02, 0.2325, 0.83)) for number in range(4)]
    for axes in panels:
        axes.set(xticks=[], yticks=[])
    panels[0].imshow(image, interpolation="nearest")
    panels[1].imshow(keys, interpolation="nearest")
    panels[2].imshow(weights, cmap="cividis", vmin=0, interpolation="nearest")
    if weights.size <= _NUMBERED:
        _numbers(panels[2], weights, [(column, row) for row in range(rows) for column in range(columns)])
    panels[3].imshow(image.mean(2), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    edges = (-0.5, columns * reduction - 0.5, rows * reduction - 0.5, -0.5)
    _overlay(panels[3], weights, edges)
    panels[3].set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    for axes in (panels[0], panels[3]):
        _patches(axes, rows, columns, reduction)
        framed(axes, *place)
    titles = (
        f"1. {height * width} tokens, patches of {reduction}x{reduction}",
        f"2. {weights.size} keys",
        "3. the framed token's attention (%)",
        "4. the same, laid over the patches",
    )
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=9)
    return described(figure, _steps_in_words((height, width), weights, reduction, place))


def _by_colours(image: np.ndarray, reduction: int, place: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The mean colour of each whole patch, (rows, columns, 3), and what the token at `place` takes from each."""
    rows, columns = (size // reduction for size in image.shape[:2])
    whole = image[: rows * reduction, : columns * reduction]
    keys = whole.reshape(rows, reduction, columns, reduction, 3).mean((1, 3))
    logits = -_SHARPNESS * ((keys - image[place]) ** 2).sum(2)
    weights = np.exp(logits - logits.max())
    return keys, weights / weights.sum()


def _steps_in_words(size: tuple[int, int], weights: np.ndarray, reduction: int, place: tuple[int, int]) -> str:
    rows, columns = weights.shape
    left = size[0] * size[1] - weights.size * reduction**2
    return (
        f"A map of {size[0]}x{size[1]} tokens in patches of {reduction}x{reduction}: {rows}x{columns} keys, {left} "
        f"tokens belong to none. The token in row {place[0]}, column {place[1]} takes {100 * weights.max():.0f}% from "
        f"the key in {_largest(weights)}."
    )


def _largest(weights: np.ndarray) -> str:
    row, column = np.unravel_index(weights.argmax(), weights.shape)
    return f"row {row}, column {column}"


def query_map(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    place: tuple[float, float],
    *,
    tokens: tuple[int, int],
    reduction: int,
    title: str,
) -> Figure:
    """One image and, laid over it, what one query takes from each of the reduced keys: a panel a head.

    Args:
        image: (H, W, 3) in [0, 1].
        maps: (rows, columns) attention weights by the head's name, each of the same number of keys.
        place: row and column of the query, as fractions of the image. It is framed, one token large.
        tokens: (rows, columns) of the map that asks; patches of `reduction` x `reduction` of these stand behind a key.
        title: above all.

    Each panel is relative to its own largest weight; its title tells that, and how many keys the weights amount to (the
    exponential of their entropy). Raises UserError for no maps.
    """
    if not maps:
        raise UserError("query_map: no heads")
    figure, panels, fontsize = _panels(len(maps) + 1)
    height, width = image.shape[:2]
    token = height / tokens[0], width / tokens[1]
    patch = reduction * token[0], reduction * token[1]
    row, column = (min(int(fraction * size), size - 1) for fraction, size in zip(place, tokens, strict=True))
    said = []
    for axes, (name, weights) in zip(panels, [("the image", None), *maps.items()], strict=True):
        told = name
        if weights is None:
            axes.imshow(image, extent=(0, width, height, 0), interpolation="nearest")
            _grid(axes, next(iter(maps.values())).shape, patch)
        else:
            axes.imshow(image.mean(2), extent=(0, width, height, 0), cmap="gray", vmin=0, vmax=1)
            _overlay(axes, weights, (0, weights.shape[1] * patch[1], weights.shape[0] * patch[0], 0))
            told = f"{name}: {_spread(weights)}"
            said.append(f"{told}, most from the key in {_largest(weights)}")
        axes.set_title(told, fontsize=fontsize, pad=3, y=1.0)  # a given y spares looking for ticks
        axes.set(xlim=(0, width), ylim=(height, 0))
        framed(axes, row * token[0], column * token[1], *token, first=0, colour=_FRAME)
    figure.suptitle(title, fontsize=10, y=1 - 0.08 / figure.get_figheight(), va="top")
    return described(figure, f"{title}. {'; '.join(said)}.")


def _panels(count: int) -> tuple[Figure, list[Axes], float]:
    """A figure with room for a title, `count` square panels in one line or two, and the font size of their titles."""
    columns = count if count <= 4 else -(-count // 2)
    lines = -(-count // columns)
    side = min(3.3, 11 / columns)
    tall = 0.42 + (side + 0.16) * lines
    figure = Figure(figsize=(side * columns, tall), dpi=100)
    panels = []
    for number in range(count):
        left, top = number % columns / columns, 0.42 + (side + 0.16) * (number // columns) + 0.26
        box = (left + 0.006, 1 - (top + side - 0.14) / tall, 1 / columns - 0.012, (side - 0.14) / tall)
        panels.append(figure.add_axes(box))
        panels[-1].set_axis_off()
    return figure, panels, 9 if columns < 4 else 7.5


def _spread(weights: np.ndarray) -> str:
    """The largest share, and how many keys they amount to."""
    share = weights / weights.sum()
    heard = np.exp(-(share * np.log(np.maximum(share, 1e-12))).sum())
    return f"at most {_percent(share.max())}, as if {heard:.1f} keys"


def accuracy_by_reduction(rows: Sequence[Mapping], *, chance: float | None = None) -> Figure:
    """What trained networks score when their keys stand for smaller or larger patches than those they learned with.

    rows: with mixer, reduction, trained (the reduction of the training) and top1 (percent); those of one mixer and
    reduction are averaged. A line a mixer; the ring is the network as it was trained. Raises UserError for no rows or
    one that lacks a key.
    """
    groups = grouped(rows, ("mixer", "reduction", "trained", "top1"), ("mixer",))
    colour = colours(name for (name,) in groups)
    figure = Figure(figsize=(7.5, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    said = []
    for (name,), found in groups.items():
        ratios = sorted({row["reduction"] for row in found})
        means = [float(np.mean([row["top1"] for row in found if row["reduction"] == ratio])) for ratio in ratios]
        axes.plot(ratios, means, "o-", color=colour[name], linewidth=2, markersize=5, label=name)
        for ratio, mean in zip(ratios, means, strict=True):
            axes.annotate(f"{mean:.0f}", (ratio, mean), (0, 8), textcoords="offset points", ha="center", fontsize=8)
        trained = found[0]["trained"]
        if trained in ratios:
            ring = {"markersize": 13, "markerfacecolor": "none", "markeredgecolor": "0.2"}
            axes.plot(trained, means[ratios.index(trained)], "o", **ring)
        told = ", ".join(f"{ratio}: {mean:.1f}%" for ratio, mean in zip(ratios, means, strict=True))
        said.append(f"{name} (trained with {trained}) {told}")
    if chance is not None:
        axes.axhline(chance, **CHANCE)
    ratios = sorted({row["reduction"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set(xticks=ratios, xticklabels=[str(ratio) for ratio in ratios], ylim=(0, 105))
    axes.set(xlabel="side of the patch behind a key (tokens); ring: as trained", ylabel="top-1 accuracy (%)")
    plain(axes)
    figure.legend(loc="outside right center", frameon=False)
    return described(figure, f"Accuracy by the patch's side. {'; '.join(said)}.")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.01 else f"{100 * share:.1g}%"


def _overlay(axes: Axes, weights: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    """The larger its share, the less of the grey image is seen below."""
    share = weights / (weights.max() or 1)
    axes.imshow(share, extent=extent, cmap="inferno", vmin=0, vmax=1, alpha=0.25 + 0.6 * share, interpolation="nearest")


def _numbers(axes: Axes, weights: np.ndarray, places: Sequence[tuple[float, float]]) -> None:
    for (x, y), value in zip(places, weights.flat, strict=True):
        ink = "black" if value > 0.6 * weights.max() else "white"
        axes.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=ink)


def _patches(axes: Axes, rows: int, columns: int, reduction: int) -> None:
    line = {"color": "white", "linewidth": 1.0, "alpha": 0.8}
    axes.hlines(np.arange(rows + 1) * reduction - 0.5, -0.5, columns * reduction - 0.5, **line)
    axes.vlines(np.arange(columns + 1) * reduction - 0.5, -0.5, rows * reduction - 0.5, **line)


def _grid(axes: Axes, keys: tuple[int, int], pixels: tuple[float, float]) -> None:
    """Which pixels stand behind each key; no lines where there are too many to be told apart."""
    if keys[0] * keys[1] > 256:
        return
    line = {"color": "white", "linewidth": 0.7, "alpha": 0.7}
    axes.hlines(np.arange(keys[0] + 1) * pixels[0], 0, keys[1] * pixels[1], **line)
    axes.vlines(np.arange(keys[1] + 1) * pixels[1], 0, keys[0] * pixels[0], **line)
