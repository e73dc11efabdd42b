"""What the notebooks that build operators by hand show: maps side by side, small matrices with their numbers, and what
is left of a network without its mixers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stm_lab.figures.style import CHANCE, colours, described, framed, grouped, plain
from stm_lab.util.errors import UserError

_SIGNED, _PLAIN = "PuOr_r", "cividis"  # both told apart without colour vision


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
        shared: one scale of colours for all maps (so that they can be compared); else each has its own.
        mark: (row, column) of a token that is framed in every map of tokens.
        title: above all.

    Raises UserError for no maps and for an array of another shape.
    """
    arrays = {name: _as_map(name, value) for name, value in maps.items()}
    if not arrays:
        raise UserError("map_panels: nothing to show")
    columns, lines = min(columns, len(arrays)), math.ceil(len(arrays) / columns)
    figure = Figure(figsize=(2.45 * columns + 0.4, 2.6 * lines + 0.35 * bool(title)), dpi=110, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    flat = [array for array in arrays.values() if array.ndim == 2]
    signed = any(np.nanmin(array) < 0 for array in flat) if flat else False
    said, drawn = [], []
    for axes, (name, array) in zip(grid, arrays.items(), strict=False):
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=9)
        if array.ndim == 3:
            axes.imshow(array, interpolation="nearest")
            said.append(f"{name}: an image")
            continue
        low, high = _limits(flat if shared else [array], signed)
        image = axes.imshow(array, cmap=_SIGNED if signed else _PLAIN, vmin=low, vmax=high, interpolation="nearest")
        drawn.append((axes, image))
        said.append(f"{name}: from {np.nanmin(array):.3g} to {np.nanmax(array):.3g}, mean {np.nanmean(array):.3g}")
        if mark is not None:
            framed(axes, *mark)
    for axes in grid[len(arrays) :]:
        axes.remove()
    if drawn and shared:
        figure.colorbar(drawn[-1][1], ax=[axes for axes, _ in drawn], shrink=0.8, aspect=25).ax.tick_params(labelsize=7)
    for axes, image in [] if shared else drawn:
        figure.colorbar(image, ax=axes, shrink=0.75, aspect=18).ax.tick_params(labelsize=6)
    if title:
        figure.suptitle(title, fontsize=10)
    return described(figure, f"{title}. {'; '.join(said)}." if title else f"{'; '.join(said)}.")


def _as_map(name: str, value: object) -> np.ndarray:
    array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] == 3):
        raise UserError(f"map_panels: {name!r} has the shape {array.shape}; expected (H, W), (H, W, 3) or (3, H, W)")
    if array.ndim == 3 and array.dtype != np.uint8:
        return array.astype(float).clip(0, 1)
    return array if array.ndim == 3 else array.astype(float)


def _limits(arrays: Sequence[np.ndarray], signed: bool) -> tuple[float, float]:
    low, high = min(np.nanmin(a) for a in arrays), max(np.nanmax(a) for a in arrays)
    if signed:
        high = max(abs(low), abs(high)) or 1.0
        return -high, high
    return low, high if high > low else low + 1


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
        grids: by name, tensors or arrays (rows, columns), some 16 x 16 at most; booleans are 1 and 0, NaN stays empty.
        digits: behind the point; whole numbers have none.
        labels: of the axes down and across, such as ("output token", "input token").
        mark: cells to frame, by the grid's name: (row, column).
        title: above all.

    Raises UserError for no grids and for an array that is no matrix.
    """
    arrays = {name: _as_map(name, value) for name, value in grids.items()}
    if not arrays:
        raise UserError("number_grids: nothing to show")
    if wrong := next((name for name, array in arrays.items() if array.ndim != 2), None):
        raise UserError(f"number_grids: {wrong!r} is no matrix")
    widths = [max(1.4, 0.36 * array.shape[1] + 0.3) for array in arrays.values()]
    height = max(0.36 * array.shape[0] for array in arrays.values()) + 0.9
    figure = Figure(figsize=(sum(widths) + 0.4, height), dpi=110, layout="constrained")
    grid = figure.subplots(1, len(arrays), squeeze=False, width_ratios=widths)[0]
    said = []
    for axes, (name, array) in zip(grid, arrays.items(), strict=True):
        signed = bool(np.nanmin(array) < 0)
        low, high = _limits([array], signed)
        image = axes.imshow(array, cmap=_SIGNED if signed else _PLAIN, vmin=low, vmax=high, aspect="equal")
        for (row, column), value in np.ndenumerate(array):
            if not np.isnan(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                colour = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
                axes.text(column, row, _short(value, digits), ha="center", va="center", fontsize=7, color=colour)
        for place in (mark or {}).get(name, ()):
            framed(axes, *place)
        axes.set_title(name, fontsize=9)
        _ticks(axes, array.shape, labels)
        said.append(f"{name}: {_in_words(array, digits)}")
    if title:
        figure.suptitle(title, fontsize=10)
    return described(figure, f"{title}. {'; '.join(said)}." if title else f"{'; '.join(said)}.")


def _ticks(axes: Axes, shape: tuple[int, int], labels: tuple[str, str] | None) -> None:
    axes.tick_params(labelsize=7, length=0)
    if labels is None:
        axes.set(xticks=[], yticks=[])
        return
    axes.set(xticks=range(shape[1]), yticks=range(shape[0]))
    axes.set_ylabel(labels[0], fontsize=8)
    axes.set_xlabel(labels[1], fontsize=8)


def _short(value: float, digits: int) -> str:
    if value == round(value):
        return str(round(value))
    return f"{value:.{digits}f}".removeprefix("0") if 0 < value < 1 else f"{value:.{digits}f}".replace("-0.", "-.")


def _in_words(array: np.ndarray, digits: int) -> str:
    if array.size > 64:
        return f"{array.shape[0]} x {array.shape[1]} numbers from {np.nanmin(array):.3g} to {np.nanmax(array):.3g}"
    return " / ".join(" ".join("-" if np.isnan(v) else _short(v, digits) for v in row) for row in array)


def switched_off(rows: Sequence[Mapping], *, chance: float | None = None) -> Figure:
    """What is left of trained networks when their mixers are switched off: two dots a mixer, and the way between.

    rows: with mixer, on and off (top-1 accuracy in percent); those of one mixer are averaged. Raises UserError for no
    rows or one that lacks a key.
    """
    names = [name for (name,) in grouped(rows, ("mixer", "on", "off"), ("mixer",))]
    colour = colours(names)
    figure = Figure(figsize=(7.5, 1.3 + 0.38 * len(names)), dpi=110, layout="constrained")
    axes = figure.subplots()
    said = []
    for line, name in enumerate(names):
        mine = [row for row in rows if row["mixer"] == name]
        on, off = (float(np.mean([row[key] for row in mine])) for key in ("on", "off"))
        axes.plot([off, on], [line, line], color=colour[name], linewidth=2, zorder=2)
        axes.plot(on, line, "o", color=colour[name], markersize=9, zorder=3)
        axes.plot(off, line, "o", markerfacecolor="white", markeredgecolor=colour[name], markersize=9, zorder=3)
        said.append(f"{name} {on:.1f}% on, {off:.1f}% off")
    axes.plot([], [], "o", color="0.3", label="as trained")
    axes.plot([], [], "o", markerfacecolor="white", markeredgecolor="0.3", label="mixers\nswitched off")
    if chance is not None:
        axes.axvline(chance, **CHANCE)
    axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    axes.set_xlabel("top-1 accuracy (%)")
    axes.set_xlim(0, None)
    plain(axes, "x")
    figure.legend(loc="outside right center", frameon=False)
    return described(figure, f"Accuracy with and without the mixers: {'; '.join(said)}.")


def cost_shares(parts: Mapping[str, Mapping[str, float]], label: str = "multiply-adds (%)") -> Figure:
    """What parts of an operator take of its cost, a bar each, such as projections and kernel in every stage.

    parts: {bar: {part: number}}, the same parts in every bar; totals stand beside the bars. Raises UserError for none.
    """
    if not parts:
        raise UserError("cost_shares: nothing to show")
    figure = Figure(figsize=(8, 1.2 + 0.42 * len(parts)), dpi=110, layout="constrained")
    axes = figure.subplots()
    shades = dict(zip(next(iter(parts.values())), ("#0072B2", "#E69F00", "#56B4E9", "#D55E00"), strict=False))
    said = []
    for line, (name, numbers) in enumerate(parts.items()):
        total, left = sum(numbers.values()) or 1, 0.0
        for part, colour in shades.items():
            share = 100 * numbers[part] / total
            axes.barh(line, share, 0.65, left=left, color=colour, edgecolor="white", label=part if line == 0 else None)
            if share >= 6:
                box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
                axes.text(left + share / 2, line, f"{share:.0f}", ha="center", va="center", fontsize=8, bbox=box)
            left += share
        axes.annotate(f"{total:,.0f}", (100, line), (5, 0), textcoords="offset points", va="center", fontsize=8)
        said.append(f"{name}: " + ", ".join(f"{part} {100 * numbers[part] / total:.0f}%" for part in shades))
    axes.set(yticks=range(len(parts)), yticklabels=list(parts), ylim=(len(parts) - 0.5, -0.5), xlim=(0, 122))
    axes.set(xlabel=label, xticks=range(0, 101, 20))
    plain(axes, "x")
    figure.legend(loc="outside right center", frameon=False)
    return described(figure, f"Shares of {label}. {'; '.join(said)}.")
