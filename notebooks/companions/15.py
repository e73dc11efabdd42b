"""For notebook 15: where mixers lean, and how far they mix by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from stm_lab.figures.draw import board, colour_bar, ends, line_panels, picture
from stm_lab.figures.style import by_name, curves_of, described, drawing


@drawing
def leans(matrices: Mapping[str, object]) -> Figure:
    """A panel per mixer: for every output position, an arrow to the centre of the inputs that it depends on, mean over
    images. The colour is the arrow's length in tokens, on one scale for all.

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
    """Locality by stage: a panel per state (trained, untrained), a line per mixer.

    rows: with mixer, stage (from 0), state and `key`, one for each mixer inside a network; those of one mixer and stage
    are averaged and their range is shaded. key: "reach", the mean mixing distance over that of uniform mixing, or
    "distance" (tokens), "distance_pixels".
    """
    by_state = by_name([{**row, "stage": row["stage"] + 1} for row in rows], "state", "mixer", key)
    panels = {state: curves_of(some, "mixer", "stage", key) for state, some in by_state.items()}
    labels = {"reach": "mean mixing distance\n(1: uniform mixing)", "distance": "mean mixing distance (tokens)"}
    label = labels.get(key, "mean mixing distance (pixels)")
    figure = line_panels(panels, "stage", label, level=(1, "uniform mixing") if key == "reach" else None, markersize=5)
    figure.axes[0].set(xticks=sorted({row["stage"] + 1 for row in rows}), ylim=(0, None))
    return figure
