"""Notebook 11's own: receptive fields in a grid, by distance, by area, and of a clicked pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from stm_lab import measure
from stm_lab.explore.parts import as_shown, checked_pixels, clipped, place_controls
from stm_lab.explore.shell import Explorer, State
from stm_lab.figures.draw import board, colour_bar, decades, dots, draw_lines, ends, named_rows, picture, placed
from stm_lab.figures.style import by_name, colours, described, dot, drawing, legend
from stm_lab.measure._batches import as_images, evaluating
from stm_lab.measure.receptive import RadialProfile, high_contribution_area, high_contribution_side, stage_index
from stm_lab.util.errors import UserError


@drawing
def receptive_grid(maps: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Draw maps in a grid, one row per name, one column per label; each is relative to its strongest pixel.

    maps: {name: {label: (H, W) contributions, not negative}}; a label that a name lacks leaves its place empty. The
    number is the share of the area in the smallest centred square that holds half of the contribution.
    """
    labels = list(dict.fromkeys(label for of_name in maps.values() for label in of_name))
    figure, panels = board(len(labels) * len(maps), len(labels), (1.55, 1.5), room=(1.2, 0.35))
    grid, said = panels.reshape(len(maps), -1), []
    for line, (name, of_name) in zip(grid, maps.items(), strict=True):
        areas = {label: _percent(high_contribution_area(map_, 0.5)) for label, map_ in of_name.items()}
        for axes, label in zip(line, labels, strict=True):
            axes.set(xticks=[], yticks=[])
            if label not in of_name:
                axes.set_axis_off()
                continue
            image = picture(axes, **decades(of_name[label] / of_name[label].max(), 1))
            axes.set_xlabel(f"half in {areas[label]}%", fontsize=8, labelpad=2)
        line[0].set_axis_on()
        line[0].set_ylabel(name, fontsize=10)
        said.append(f"{name}: " + ", ".join(f"{label} {area}%" for label, area in areas.items()))
    for axes, label in zip(grid[0], labels, strict=True):
        axes.set_title(label, fontsize=10)
    colour_bar(
        figure, image, panels, "contribution, relative to the strongest pixel", shrink=min(1, 3 / len(maps)), aspect=25
    )
    return described(figure, f"Receptive fields; the share of the area that holds half of each. {'; '.join(said)}.")


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.0f}"


@drawing
def radial_profiles(profiles: Mapping[str, Sequence[RadialProfile]]) -> Figure:
    """Plot contribution by distance from the centre: of one pixel (left), and of all up to that distance (right).

    profiles: by name, those of one or more networks (seeds) on images of one size; the line is their mean, the shade
    their range. Left, a profile is divided by its largest value.
    """
    figure, (left, right) = board(2, 2, (4.8, 3.5))
    means = {name: [each.mean / each.mean.max() for each in some] for name, some in profiles.items()}
    held = {name: [100 * each.held for each in some] for name, some in profiles.items()}
    for axes, values in ((left, means), (right, held)):
        curves = {name: dict(zip(profiles[name][0].distance, np.transpose(some), strict=True))
                  for name, some in values.items()}  # fmt: skip
        draw_lines(axes, curves, marker="")
        axes.set(xlabel="distance from the centre (pixels)", xlim=(0, None))
    left.set(yscale="log", ylim=(1e-4, 1.5), ylabel="contribution of a pixel,\nrelative to the strongest ring")
    right.set(ylim=(0, 102), ylabel="held within that distance (%)", yticks=[0, 25, 50, 75, 90, 100])
    legend(figure, left)
    said = []
    for name, some in held.items():
        half, most = np.searchsorted(np.mean(some, 0), [50 - 1e-9, 90 - 1e-9])
        distance = profiles[name][0].distance
        said.append(f"{name} {distance[half]} and {distance[most]}")
    return described(figure, f"Radius in pixels that holds 50 and 90%: {'; '.join(said)}.")


@drawing
def area_ratios(rows: Sequence[Mapping]) -> Figure:
    """Plot how much of the image holds a share of the contribution, one panel per threshold, one row per mixer.

    rows: with mixer, threshold (0 to 1), area (0 to 1, or None where a protocol finds none) and state, one row
    per network. Dots of the first state are full, of a second one hollow (trained, untrained).
    Raises UserError for no rows, for a row that lacks a key, and for more than two states.
    """
    groups = by_name(rows, "threshold", "mixer", "area", "state")
    states, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("state", "mixer"))
    if len(states) > 2:
        raise UserError(f"area_ratios: states {', '.join(states)}; one or two can be told apart")
    figure, panels = board(len(groups), len(groups), (9.6 / len(groups), 1.3 + 0.36 * len(names)), sharey=True)
    for axes, (threshold, some) in zip(panels, sorted(groups.items()), strict=True):
        for line, (name, colour) in enumerate(colours(names).items()):
            axes.axhline(line, color="0.93", linewidth=0.8)
            for state, offset in zip(states, (-0.12, 0.16), strict=False):
                mine = [row["area"] for row in some if (row["mixer"], row["state"]) == (name, state)]
                areas = [100 * area for area in mine if area is not None]
                dots(axes, areas, line + offset, colour, hollow=state != states[0], size=6)
        axes.set_title(f"{100 * threshold:g}% of the contribution", fontsize=10)
        named_rows(axes, names)
        axes.margins(x=0.08)
        axes.set_xlim(0, None)
    figure.supxlabel("lies in a square of this share of the image (%)", fontsize=10)
    legend(figure, [dot("0.3", one, markerfacecolor=face) for one, face in zip(states, ("0.3", "white"), strict=False)])
    return figure


@drawing
def receptive_field_over_image(
    image: np.ndarray, contribution: np.ndarray, place: tuple[int, int], side: int, title: str
) -> Figure:
    """Draw an image, (H, W, 3) in [0, 1], with a cell's pixel and the square around it that holds half of the cell's
    receptive field; beside it the field, (H, W), not negative, relative to its strongest pixel.

    place: row and column of the pixel. side: of the square, in pixels. title: above both.
    """
    figure, (left, right, bar) = placed(
        (8.2, 4.0), [(0.05, 0.1, 0.4, 0.8), (0.5, 0.1, 0.4, 0.8), (0.915, 0.1, 0.018, 0.8)]
    )
    picture(left, image)
    field = picture(right, **decades(contribution / (contribution.max() or 1), 1))
    (row, column), (height, width) = place, contribution.shape
    for axes, edge in ((left, "#E69F00"), (right, "white")):
        axes.plot([column], [row], "+", color=edge, markersize=9, markeredgewidth=1.6)
        corner = (column - side / 2, row - side / 2)
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=edge, linewidth=1.3))
        ends(axes, width, height, "column (pixel)", "row (pixel)")
    figure.colorbar(field, cax=bar).set_label("contribution, relative to the strongest pixel", fontsize=8)
    bar.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10, y=0.97)
    return described(figure, f"{title}. Half of it lies in a square of {side} pixels at row {row}, column {column}.")


def receptive_field(models: Mapping[str, nn.Module], images: Tensor) -> Explorer:
    """Explore the receptive field of the cell nearest to the clicked pixel, with the square that holds half of it.

    models: any timm models with feature maps, by name. images: (N, 3, H, W), uint8 or in [0, 1], as large as the models
    see them.
    Raises UserError for no models or images, and a model without feature maps.
    """
    images = checked_pixels(models, images)
    size = images.shape[-2:]
    most = max(stage_index(model, 0) + len(model.feature_info) for model in models.values())

    @lru_cache
    def cells(name: str, number: int) -> tuple[int, ...]:
        """Sides of the stage's map."""
        model = models[name]
        with evaluating(model, None, 0) as device, torch.inference_mode():
            ((batch, _),) = as_images(images[:1], model).batches(model, device, 1)
            (feature,) = model.forward_intermediates(batch, indices=[number], intermediates_only=True)
        return tuple(feature.shape[-2:])

    @lru_cache(maxsize=512)
    def field(name: str, number: int, image: int, cell: tuple[int, int]) -> measure.ReceptiveField:
        return measure.effective_receptive_field(models[name], images[image : image + 1], stage=number, cell=cell)

    def draw(model: str, stage: int, image: int, row: int, column: int) -> Figure:
        number = stage_index(models[model], stage - 1)
        rows, columns = counts = cells(model, number)
        strides = [-(-pixels // count) for pixels, count in zip(size, counts, strict=True)]
        y, x = cell = clipped(row / strides[0], rows), clipped(column / strides[1], columns)
        found = field(model, number, image, cell)
        side = high_contribution_side(found.contribution, 0.5, found.centre)
        title = f"{model}, stage {stage}, cell ({y}, {x}) of {rows}x{columns}: half of its field "
        title += f"in {side} x {side} pixels, 90% within {found.radius(0.9):.0f} pixels"
        shown = as_shown(images[image])
        return receptive_field_over_image(shown, found.contribution, found.centre, side, title)

    last = len(next(iter(models.values())).feature_info)
    controls = {
        "model": widgets.Dropdown(options=list(models)),
        "stage": widgets.Dropdown(options=range(1, most + 1), value=last),
        **place_controls(len(images), size),
    }

    def select(panel: int, x: float, y: float, _: State) -> State:
        is_image = panel < 2  # the other one is the scale of colours
        return {"row": clipped(y, size[0]), "column": clipped(x, size[1])} if is_image else {}

    return Explorer(draw, controls, select=select)
