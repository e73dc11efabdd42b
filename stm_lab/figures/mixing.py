"""What mixers mix: matrices, distances, and how much of them is shared by positions and inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from stm_lab.figures.draw import (
    board,
    colour_bar,
    decades,
    ends,
    framed,
    line_panels,
    named_rows,
    overlay,
    picture,
    placed,
    stacked,
)  # fmt: skip
from stm_lab.figures.style import by_name, curves_of, described, drawing, legend
from stm_lab.util.errors import UserError

PARTS = {"shared": "#0072B2", "positional": "#56B4E9", "dynamic": "#E69F00"}  # dark, middle, light also without colours
_HATCHES = {"shared": "", "positional": "////", "dynamic": "...."}
_MEANINGS = {
    "shared": "shared: one kernel for all\npositions and inputs",
    "positional": "positional: differs by position,\nnot by input",
    "dynamic": "dynamic: changes\nwith the input",
}


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
def leans(matrices: Mapping[str, object]) -> Figure:
    """A panel a mixer: for every output position, an arrow from it to the centre of what it is made of, mean over
    inputs. The colour is the arrow's length in tokens, one scale for all.

    matrices: by name, results of `mixing_matrix`. Raises UserError for none.
    """
    figure, panels = board(len(matrices), 6, (1.75, 2.35), room=(1.2, 0))
    lengths = {name: np.hypot(*np.moveaxis(result.lean, 2, 0)) for name, result in matrices.items()}
    top = max(length.max() for length in lengths.values()) or 1.0
    for axes, (name, result) in zip(panels, matrices.items(), strict=True):
        image = picture(axes, lengths[name], vmin=0, vmax=top, cmap="cividis")
        rows, columns = np.nonzero(lengths[name] > 0.02 * top)  # shorter ones would be dots
        down, right = np.moveaxis(result.lean[rows, columns], 1, 0)
        axes.quiver(
            columns, rows, right, down, angles="xy", scale_units="xy", scale=1, color="white", width=0.011,
            headwidth=3.5, edgecolor="black", linewidth=0.3, minlength=0.1, zorder=3,
        )  # fmt: skip
        ends(axes, result.map_size[1], result.map_size[0], "column (token)", "row (token)" * (axes is panels[0]))
        inside = "" if result.lean_inside is None else f", inside {result.lean_inside:.2f}"
        axes.set_title(f"{name}\nborder {result.lean_border:.2f}{inside}", fontsize=9)
    colour_bar(figure, image, panels, "lean (tokens)", shrink=0.7, aspect=20)
    titles = "; ".join(axes.get_title().replace("\n", ": ") for axes in panels)
    return described(figure, f"Mean lean in tokens. {titles}.")


@drawing
def mixing_distances(rows: Sequence[Mapping], *, key: str = "reach") -> Figure:
    """Locality by stage: a panel a state (trained, untrained), a line a mixer.

    rows: with mixer, stage (from 0), state and `key`, one for each mixer inside a network; all of one mixer and stage
    are averaged, their range is shaded. key: "reach", the mean mixing distance over that of an even mixture, or
    "distance" (tokens), "distance_pixels".
    """
    by_state = by_name([{**row, "stage": row["stage"] + 1} for row in rows], "state", "mixer", key)
    panels = {state: curves_of(some, "mixer", "stage", key) for state, some in by_state.items()}
    labels = {"reach": "mean mixing distance\n(1: all positions alike)", "distance": "mean mixing distance (tokens)"}
    label = labels.get(key, "mean mixing distance (pixels)")
    figure = line_panels(panels, "stage", label, level=(1, "all alike") if key == "reach" else None, markersize=5)
    figure.axes[0].set(xticks=sorted({row["stage"] + 1 for row in rows}), ylim=(0, None))
    return figure


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
