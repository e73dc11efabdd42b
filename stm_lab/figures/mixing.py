"""What mixers mix: matrices, distances, and how much of them is shared by positions and inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from stm_lab.figures.style import colours, described, framed, grouped, legend_beside, plain, styles
from stm_lab.util.errors import UserError

PARTS = {"shared": "#0072B2", "positional": "#56B4E9", "dynamic": "#E69F00"}  # dark, middle, light also without colours
_HATCHES = {"shared": "", "positional": "////", "dynamic": "...."}
_MEANINGS = {
    "shared": "shared: one kernel for all\npositions and inputs",
    "positional": "positional: differs by position,\nnot by input",
    "dynamic": "dynamic: changes\nwith the input",
}
_DECADES = 3


def mixing_matrices(matrices: Mapping[str, object]) -> Figure:
    """A panel a mixer: the share that each input position (column) has in each output position (row), mean over inputs.

    matrices: by name, results of `mixing_matrix`. The colours are logarithmic, relative to each panel's largest share.
    Raises UserError for none.
    """
    if not matrices:
        raise UserError("mixing_matrices: no matrices")
    columns, lines = min(len(matrices), 4), math.ceil(len(matrices) / 4)
    figure = Figure(figsize=(1.2 + 2.3 * columns, 2.75 * lines), dpi=120, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    norm = LogNorm(10**-_DECADES, 1, clip=True)
    said = []
    for axes, (name, result) in zip(grid, matrices.items(), strict=False):
        weights = result.weights.mean(0)
        shown = np.maximum(weights / weights.max(), norm.vmin)
        image = axes.imshow(shown, norm=norm, cmap="viridis", interpolation="nearest")
        last = len(weights) - 1
        axes.set(xticks=[0, last], yticks=[0, last])
        axes.tick_params(labelsize=7, length=2)
        axes.set_title(f"{name}\nmean distance {result.distance:.2f} tokens", fontsize=9)
        axes.set_xlabel("input position", fontsize=8, labelpad=-7)
        axes.set_ylabel("output position", fontsize=8, labelpad=-7)
        said.append(f"{name} {result.distance:.2f}, {100 * result.own:.0f}% from itself")
    for axes in grid[len(matrices) :]:
        axes.remove()
    bar = figure.colorbar(image, ax=list(grid[: len(matrices)]), shrink=0.75, aspect=22, pad=0.015)
    bar.set_label("share, relative to the largest", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return described(figure, f"Mixing matrices. Mean mixing distance in tokens: {'; '.join(said)}.")


def leans(matrices: Mapping[str, object]) -> Figure:
    """A panel a mixer: for every output position, an arrow from it to the centre of what it is made of, mean over
    inputs. The colour is the arrow's length in tokens, one scale for all.

    matrices: by name, results of `mixing_matrix`. Raises UserError for none.
    """
    if not matrices:
        raise UserError("leans: no matrices")
    columns, lines = min(len(matrices), 6), math.ceil(len(matrices) / 6)
    figure = Figure(figsize=(1.2 + 1.75 * columns, 2.35 * lines), dpi=120, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    lengths = {name: np.hypot(*np.moveaxis(result.lean, 2, 0)) for name, result in matrices.items()}
    top = max(length.max() for length in lengths.values()) or 1.0
    said = []
    for axes, (name, result) in zip(grid, matrices.items(), strict=False):
        height, width = result.map_size
        image = axes.imshow(lengths[name], vmin=0, vmax=top, cmap="cividis", interpolation="nearest")
        rows, columns_ = np.nonzero(lengths[name] > 0.02 * top)  # shorter ones would be dots
        down, right = np.moveaxis(result.lean[rows, columns_], 1, 0)
        axes.quiver(
            columns_, rows, right, down, angles="xy", scale_units="xy", scale=1, color="white", width=0.011,
            headwidth=3.5, edgecolor="black", linewidth=0.3, minlength=0.1, zorder=3,
        )  # fmt: skip
        axes.set(xticks=[0, width - 1], yticks=[0, height - 1], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axes.tick_params(labelsize=7, length=2)
        inside = result.lean_inside
        told = f"border {result.lean_border:.2f}" + (f", inside {inside:.2f}" if inside is not None else "")
        axes.set_title(f"{name}\n{told}", fontsize=9)
        axes.set_xlabel("column (token)", fontsize=8, labelpad=-7)
        said.append(f"{name}: {told}")
    for axes in grid[len(matrices) :]:
        axes.remove()
    grid[0].set_ylabel("row (token)", fontsize=8, labelpad=-7)
    bar = figure.colorbar(image, ax=list(grid[: len(matrices)]), shrink=0.7, aspect=20, pad=0.015)
    bar.set_label("lean (tokens)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return described(figure, f"Mean lean in tokens. {'; '.join(said)}.")


def mixing_distances(rows: Sequence[Mapping], *, key: str = "reach") -> Figure:
    """Locality by stage: a panel a state (trained, untrained), a line a mixer.

    rows: with mixer, stage (from 0), state and `key`, one for each mixer inside a network; all of one mixer and stage
    are averaged, their range is shaded. key: "reach", the mean mixing distance over that of mixing all alike, or
    "distance" (tokens), "distance_pixels". Raises UserError for no rows or a row that lacks a key.
    """
    panels = grouped(rows, ("mixer", "stage", "state", key), ("state",))
    figure = Figure(figsize=(2.6 + 3.5 * len(panels), 3.5), dpi=120, layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    drawn = styles(colours(row["mixer"] for row in rows))
    said = []
    for axes, ((state,), some) in zip(grid, panels.items(), strict=True):
        lines = []
        for name, style in drawn.items():
            by_stage = _by_stage([row for row in some if row["mixer"] == name], key)
            if not by_stage:
                continue
            stages = [stage + 1 for stage in by_stage]
            means = [float(np.mean(values)) for values in by_stage.values()]
            axes.plot(stages, means, **style, linewidth=2, marker="o", markersize=5, label=name)
            low, high = ([pick(values) for values in by_stage.values()] for pick in (min, max))
            axes.fill_between(stages, low, high, color=style["color"], alpha=0.12, linewidth=0)
            lines.append(f"{name} {', '.join(f'{mean:.2f}' for mean in means)}")
        if key == "reach":
            axes.axhline(1, color="0.4", linestyle=":", linewidth=1.5, label="all alike")
        axes.set_title(state, fontsize=10)
        axes.set(xlabel="stage", xticks=sorted({row["stage"] + 1 for row in rows}), ylim=(0, None))
        plain(axes)
        said.append(f"{state}: {'; '.join(lines)}")
    labels = {"reach": "mean mixing distance\n(1: all positions alike)", "distance": "mean mixing distance (tokens)"}
    grid[0].set_ylabel(labels.get(key, "mean mixing distance (pixels)"))
    legend_beside(figure, grid[0])
    return described(figure, f"Mean mixing distance by stage ({key}). {'. '.join(said)}.")


def _by_stage(rows: Sequence[Mapping], key: str) -> dict[int, list[float]]:
    values: dict[int, list[float]] = {}
    for row in rows:
        if row[key] is not None:
            values.setdefault(row["stage"], []).append(row[key])
    return dict(sorted(values.items()))


def inductive_biases(rows: Sequence[Mapping]) -> Figure:
    """A bar a mixer, in three parts: what of its mixing one kernel does for all, what only positions, what only inputs
    explain. A panel a state.

    rows: with mixer, state, shared, positional and dynamic (shares that add up to 1); those of one mixer are averaged.
    Rows without shares (one input) are left out. Raises UserError for no rows or a row that lacks a key.
    """
    rows = [row for row in rows if row.get("dynamic", 0) is not None]
    panels = grouped(rows, ("mixer", "state", *PARTS), ("state",))
    names = list(dict.fromkeys(row["mixer"] for row in rows))
    figure = Figure(figsize=(3.4 + 3.2 * len(panels), 1.3 + 0.42 * len(names)), dpi=120, layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    said = []
    for axes, ((state,), some) in zip(grid, panels.items(), strict=True):
        bars = []
        for line, name in enumerate(names):
            mine = [row for row in some if row["mixer"] == name]
            if not mine:
                continue
            means = {part: 100 * float(np.mean([row[part] for row in mine])) for part in PARTS}
            _stacked(axes, line, means)
            bars.append(f"{name} {', '.join(f'{part} {mean:.0f}' for part, mean in means.items())}")
        axes.set_title(state, fontsize=10)
        axes.set(xlim=(0, 100), ylim=(len(names) - 0.5, -0.5), yticks=range(len(names)), yticklabels=names)
        plain(axes, "x")
        said.append(f"{state}: {'; '.join(bars)}")
    figure.supxlabel("squared norm of the Jacobian (%)", fontsize=10)
    patches = [Patch(facecolor=c, hatch=_HATCHES[part], edgecolor="white") for part, c in PARTS.items()]
    figure.legend(patches, [_MEANINGS[part] for part in PARTS], loc="outside right center", frameon=False, fontsize=8)
    return described(figure, f"Parts of the mixing in percent. {'. '.join(said)}.")


def _stacked(axes: Axes, line: int, means: Mapping[str, float]) -> None:
    start = 0.0
    for part, mean in means.items():
        width = max(mean, 0.0)  # an estimate may be a little below zero
        axes.barh(
            line, width, 0.62, left=start, color=PARTS[part], hatch=_HATCHES[part], edgecolor="white", linewidth=0
        )
        if width > 9:
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
            axes.text(start + width / 2, line, f"{mean:.0f}", ha="center", va="center", fontsize=8, bbox=box)
        start += width


def mixing_over_image(
    image: np.ndarray, maps: Mapping[str, np.ndarray], place: tuple[float, float], title: str
) -> Figure:
    """One image, (H, W, 3) in [0, 1], and drawn over it what each of its tokens gives to one output token, a panel a
    layer.

    maps: (h, w) contributions by the layer's name, not negative; each is shown relative to its largest, the clearer the
    image, the more. place: row and column of the token, as fractions of the image. title: above all.
    Raises UserError for no maps.
    """
    if not maps:
        raise UserError("mixing_over_image: no layers")
    columns = len(maps) + 1
    figure = Figure(figsize=(min(2.5 * columns, 11), 0.75 + min(2.5 * columns, 11) / columns), dpi=100)
    height, width = image.shape[:2]
    grey = image.mean(2)
    said = []
    top = 1 - 0.48 / figure.get_figheight()
    bottom = 0.1 / figure.get_figheight()
    for i, (name, contribution) in enumerate([("the image", None), *maps.items()]):
        axes = figure.add_axes((i / columns + 0.008, bottom, 1 / columns - 0.016, top - bottom - 0.06))
        axes.set_axis_off()
        axes.set_title(name, fontsize=9, pad=3)
        extent = (0, width, height, 0)
        if contribution is None:
            axes.imshow(image, extent=extent, interpolation="nearest")
        else:
            axes.imshow(grey, extent=extent, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            _overlay(axes, contribution, extent)
            own = _own(contribution, place)
            said.append(f"{name}: {100 * own:.0f}% from the token itself")
        shape = contribution.shape if contribution is not None else next(iter(maps.values())).shape
        row, column = _cell(place, shape)
        tall, wide = height / shape[0], width / shape[1]
        framed(axes, row * tall, column * wide, tall, wide, first=0, colour="#56B4E9")
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / figure.get_figheight(), va="top")
    return described(figure, f"{title}. {'; '.join(said)}.")


def _overlay(axes: Axes, contribution: np.ndarray, extent: tuple) -> None:
    share = contribution / (contribution.max() or 1)
    axes.imshow(share, extent=extent, cmap="inferno", vmin=0, vmax=1, alpha=0.25 + 0.6 * share, interpolation="nearest")


def _own(contribution: np.ndarray, place: tuple[float, float]) -> float:
    row, column = _cell(place, contribution.shape)
    return float(contribution[row, column] / (contribution.sum() or 1))


def _cell(place: tuple[float, float], shape: tuple[int, int]) -> tuple[int, int]:
    return tuple(min(int(fraction * size), size - 1) for fraction, size in zip(place, shape, strict=True))
