"""Receptive fields: maps over the input, their profiles, and what squares and discs hold of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from stm_lab.figures.style import colours, described, grouped, legend_beside, plain, styles
from stm_lab.measure.receptive import RadialProfile, high_contribution_area, high_contribution_side
from stm_lab.util.errors import UserError

_DECADES = 4  # of a map's colours: a pixel below is as dark as one without any contribution


def receptive_fields(maps: Mapping[str, np.ndarray]) -> Figure:
    """One panel a mixer: the share of its contribution that each pixel makes, on one logarithmic scale for all.

    maps: (H, W) contributions, not negative, as `effective_receptive_field` gives; each is divided by its sum. The
    white square is the smallest centred one that holds half of it, the title its share of the image.
    Raises UserError for no maps or an empty one.
    """
    if not maps:
        raise UserError("receptive_fields: no maps")
    side = {name: high_contribution_side(contribution, 0.5) for name, contribution in maps.items()}
    shares = {name: contribution / contribution.sum() for name, contribution in maps.items()}
    top = max(share.max() for share in shares.values())
    norm = LogNorm(top * 10**-_DECADES, top, clip=True)

    columns, lines = min(len(maps), 6), math.ceil(len(maps) / 6)
    figure = Figure(figsize=(1.0 + 1.9 * columns, 2.3 * lines), dpi=120, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (name, share) in zip(grid, shares.items(), strict=False):
        height, width = share.shape
        # Pixels without any contribution are raised to the scale's foot: the logarithm of 0 would leave holes.
        image = axes.imshow(np.maximum(share, norm.vmin), norm=norm, cmap="inferno", interpolation="nearest")
        corner = (width // 2 - side[name] / 2, height // 2 - side[name] / 2)
        axes.add_patch(Rectangle(corner, side[name], side[name], fill=False, edgecolor="white", linewidth=1.1))
        axes.set_title(f"{name}\n50% in {100 * high_contribution_area(maps[name], 0.5):.1f}% of area", fontsize=9)
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axes.set_xticks([0, width - 1])
        axes.set_yticks([0, height - 1])
        axes.tick_params(labelsize=7, length=2)
        axes.set_xlabel("input pixel", fontsize=8, labelpad=-7)  # between the two numbers
    for axes in grid[len(maps) :]:
        axes.remove()
    bar = figure.colorbar(image, ax=list(grid[: len(maps)]), shrink=0.75, aspect=22, pad=0.015)
    bar.set_label("share of contribution", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    said = ", ".join(
        f"{name} in {side[name]} pixels, {100 * high_contribution_area(maps[name], 0.5):.1f}% of the area"
        for name in maps
    )
    return described(figure, f"Receptive fields; the smallest centred square that holds half of each: {said}.")


def receptive_grid(maps: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """A row a name, a column a label (a stage, a protocol, trained or not): each map relative to its strongest pixel.

    maps: {name: {label: (H, W) contributions, not negative}}; a label that a name lacks leaves its place empty. The
    number is the share of the area in the smallest centred square that holds half of the contribution.
    Raises UserError for no maps or an empty one.
    """
    labels = list(dict.fromkeys(label for of_name in maps.values() for label in of_name))
    if not labels:
        raise UserError("receptive_grid: no maps")
    figure = Figure(figsize=(1.2 + 1.55 * len(labels), 0.35 + 1.5 * len(maps)), dpi=120, layout="constrained")
    grid = figure.subplots(len(maps), len(labels), squeeze=False)
    norm = LogNorm(10**-_DECADES, 1, clip=True)
    said = []
    for line, (name, of_name) in zip(grid, maps.items(), strict=True):
        areas = []
        for axes, label in zip(line, labels, strict=True):
            axes.set(xticks=[], yticks=[])
            if label not in of_name:
                axes.set_axis_off()
                continue
            contribution = of_name[label]
            area = high_contribution_area(contribution, 0.5)
            shown = np.maximum(contribution / contribution.max(), norm.vmin)
            image = axes.imshow(shown, norm=norm, cmap="inferno", interpolation="nearest")
            axes.set_xlabel(f"half in {_percent(area)}%", fontsize=8, labelpad=2)
            areas.append(f"{label} {_percent(area)}%")
        said.append(f"{name}: {', '.join(areas)}")
        line[0].set_axis_on()
        line[0].set_ylabel(name, fontsize=10)
    for axes, label in zip(grid[0], labels, strict=True):
        axes.set_title(label, fontsize=10)
    bar = figure.colorbar(image, ax=list(grid.ravel()), shrink=min(1, 3 / len(maps)), aspect=25, pad=0.015)
    bar.set_label("contribution, relative to the strongest pixel", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return described(
        figure,
        "Receptive fields; share of the area in the square that holds half of each. " + "; ".join(said) + ".",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.0f}"


def radial_profiles(profiles: Mapping[str, Sequence[RadialProfile]]) -> Figure:
    """Contribution by distance from the centre: of one pixel (left), and of all up to that distance (right).

    profiles: by name, those of one or more networks (seeds) on images of one size; the line is their mean, the shade
    their range. Left, a profile is divided by its largest value. Raises UserError for no profiles.
    """
    if not any(profiles.values()):
        raise UserError("radial_profiles: no profiles")
    figure = Figure(figsize=(9.6, 3.5), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    said = []
    for name, style in styles(colours(profiles)).items():
        distance = profiles[name][0].distance
        means = np.array([profile.mean / profile.mean.max() for profile in profiles[name]])
        held = 100 * np.array([profile.held for profile in profiles[name]])
        for axes, values in ((left, means), (right, held)):
            axes.plot(distance, values.mean(0), **style, linewidth=2, label=name)
            if len(values) > 1:
                axes.fill_between(distance, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0)
        radii = (distance[np.searchsorted(held.mean(0), share - 1e-9)] for share in (50, 90))
        said.append("{} {} and {}".format(name, *radii))
    left.set(yscale="log", ylim=(10**-_DECADES, 1.5), ylabel="contribution of a pixel,\nrelative to the strongest ring")
    right.set(ylim=(0, 102), ylabel="held within that distance (%)", yticks=[0, 25, 50, 75, 90, 100])
    for axes in (left, right):
        axes.set(xlabel="distance from the centre (pixels)", xlim=(0, None))
        plain(axes)
    legend_beside(figure, left)
    return described(figure, f"Radius in pixels that holds 50 and 90%: {'; '.join(said)}.")


def area_ratios(rows: Sequence[Mapping]) -> Figure:
    """How much of the image holds a share of the contribution: a panel a threshold, a line of dots a mixer.

    rows: with mixer, threshold (0 to 1), area (0 to 1, or None where a protocol finds none) and state, of which the
    first is drawn full and a second one hollow (trained, untrained); one row a network, so that seeds are several dots.
    Raises UserError for no rows, for a row that lacks a key, and for more than two states.
    """
    panels = grouped(rows, ("mixer", "threshold", "area", "state"), ("threshold",))
    states, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("state", "mixer"))
    if len(states) > 2:
        raise UserError(f"area_ratios: states {', '.join(states)}; one or two can be told apart")
    figure = Figure(figsize=(9.6, 1.3 + 0.36 * len(names)), dpi=120, layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    colour, said = colours(names), []
    for axes, ((threshold,), some) in zip(grid, sorted(panels.items()), strict=True):
        means = []
        for line, name in enumerate(names):
            axes.axhline(line, color="0.93", linewidth=0.8)
            for state, offset in zip(states, (-0.12, 0.16), strict=False):
                areas = [100 * row["area"] for row in some if _is(row, name, state) and row["area"] is not None]
                face = colour[name] if state == states[0] else "white"
                axes.plot(
                    areas, [line + offset] * len(areas), "o", color=colour[name], markerfacecolor=face, markersize=6
                )
                if areas:
                    means.append(f"{name} {state} {np.mean(areas):.3g}")
        axes.set_title(f"{100 * threshold:g}% of the contribution", fontsize=10)
        axes.set(xlim=(0, None), ylim=(len(names) - 0.4, -0.6), yticks=range(len(names)), yticklabels=names)
        axes.margins(x=0.08)
        plain(axes, "x")
        said.append(f"{100 * threshold:g}%: {', '.join(means)}")
    figure.supxlabel("lies in a square of this share of the image (%)", fontsize=10)
    marks = [Line2D([], [], marker="o", linestyle="", color="0.3", markerfacecolor=f) for f in ("0.3", "white")]
    figure.legend(marks[: len(states)], states, loc="outside right center", frameon=False)
    return described(figure, f"Share of the image in percent that holds a share of the field. {'; '.join(said)}.")


def _is(row: Mapping, name: str, state: str) -> bool:
    return row["mixer"] == name and row["state"] == state


def accuracy_over_area(rows: Sequence[Mapping]) -> Figure:
    """Top-1 accuracy (percent) over the share of the image (percent) that holds half of the field, a dot a network.

    rows: with mixer, area and top1, both in percent. A name stands at its dot, or, where seeds are several dots, in a
    legend. Raises UserError for no rows or a row that lacks a key.
    """
    by_mixer = grouped(rows, ("mixer", "area", "top1"), ("mixer",))
    figure = Figure(figsize=(5.6, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    colour, said = colours(name for (name,) in by_mixer), []
    has_seeds = len(rows) > len(by_mixer)
    for (name,), some in by_mixer.items():
        areas, accuracies = ([row[key] for row in some] for key in ("area", "top1"))
        axes.plot(areas, accuracies, "o", color=colour[name], markersize=7, label=name)
        if not has_seeds:
            place = areas[0], accuracies[0]
            axes.annotate(name, place, xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
        said.append(f"{name} {np.mean(areas):.1f}, {np.mean(accuracies):.1f}")
    if has_seeds:
        figure.legend(loc="outside right center", frameon=False)
    widest = max(row["area"] for row in rows)  # a name reaches beyond its dot
    axes.set(
        xlabel="square that holds half of the field (% of the image)",
        ylabel="top-1 accuracy (%)",
        xlim=(0, 1.12 * widest or 1),
    )
    axes.margins(y=0.18)
    plain(axes)
    return described(figure, f"Half of the field in percent of the image, and accuracy in percent: {'; '.join(said)}.")


def receptive_field_over_image(
    image: np.ndarray, contribution: np.ndarray, place: tuple[int, int], side: int, title: str
) -> Figure:
    """One image, (H, W, 3) in [0, 1], with the pixel that a cell looks at and the square round it that holds half of
    the cell's receptive field; beside it the field, (H, W), not negative, relative to its strongest pixel.

    place: row and column of the pixel. side: of the square, in pixels. title: above both.
    """
    figure = Figure(figsize=(8.2, 4.0), dpi=100)
    left, right = (figure.add_axes(box) for box in ((0.05, 0.1, 0.4, 0.8), (0.5, 0.1, 0.4, 0.8)))
    left.imshow(image, interpolation="nearest")
    norm = LogNorm(10**-_DECADES, 1, clip=True)
    shown = np.maximum(contribution / (contribution.max() or 1), norm.vmin)
    field = right.imshow(shown, norm=norm, cmap="inferno", interpolation="nearest")
    for axes, edge in ((left, "#E69F00"), (right, "white")):
        _marked(axes, place, side, edge, contribution.shape)
    bar = figure.colorbar(field, cax=figure.add_axes((0.915, 0.1, 0.018, 0.8)))
    bar.ax.tick_params(labelsize=7)
    bar.set_label("contribution, relative to the strongest pixel", fontsize=8)
    figure.suptitle(title, fontsize=10, y=0.97)
    return described(
        figure, f"{title}. Half of it lies in a square of {side} pixels round row {place[0]}, column {place[1]}."
    )


def _marked(axes: Axes, place: tuple[int, int], side: int, edge: str, shape: tuple[int, int]) -> None:
    row, column = place
    axes.plot([column], [row], "+", color=edge, markersize=9, markeredgewidth=1.6)
    corner = (column - side / 2, row - side / 2)
    axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=edge, linewidth=1.3))
    height, width = shape
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[0, width - 1], yticks=[0, height - 1])
    axes.set_xlabel("column (pixel)", fontsize=8, labelpad=-6)
    axes.set_ylabel("row (pixel)", fontsize=8, labelpad=-10)
    axes.tick_params(labelsize=7, length=2)
