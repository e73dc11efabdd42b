"""Figure of notebook 01: networks whose mixers are switched off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from stm_lab.figures.draw import board, dots, named_rows
from stm_lab.figures.style import CHANCE, by_name, colours, dot, drawing, legend


@drawing
def switched_off(rows: Sequence[Mapping], *, chance: float | None = None) -> Figure:
    """Draw the accuracy of trained networks with and without their mixers: two dots a mixer, joined by a line.

    rows: with mixer, on and off (top-1 accuracy in percent); the rows of one mixer are averaged.
    """
    by_mixer = by_name(rows, "mixer", "on", "off")
    figure, (axes,) = board(1, 1, (7.5, 1.3 + 0.38 * len(by_mixer)), dpi=110)
    for row, (name, colour) in enumerate(colours(by_mixer).items()):
        on, off = (float(np.mean([one[key] for one in by_mixer[name]])) for key in ("on", "off"))
        axes.plot([off, on], [row, row], color=colour, linewidth=2, zorder=2)
        dots(axes, [on], row, colour, size=9)
        dots(axes, [off], row, colour, hollow=True, size=9)
    entries = [dot("0.3", "as trained"), dot("0.3", "mixers\nswitched off", markerfacecolor="white")]
    if chance is not None:
        entries.append(axes.axvline(chance, **CHANCE))
    named_rows(axes, list(by_mixer))
    axes.set(xlabel="top-1 accuracy (%)", xlim=(0, None))
    legend(figure, entries)
    return figure
