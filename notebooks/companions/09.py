"""Notebook 09's own: a figure that is redrawn in one place as its rows come in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from IPython.display import HTML, display

from stm_lab.util.progress import is_watched

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LiveFigure:
    """Redraws the rows of a training after each epoch, in one place.

        with lab.companion.LiveFigure(figures.run_curves) as live:
            train.fit("quick", on_row=live)
        lab.save(live.figure, "training")

    In a notebook that is executed in batch, only the last figure is shown, once. The cell should not end in the figure,
    which would show it again. `draw` is a pure function from rows to a figure. `watched` says whether the cell's output
    is seen while it is made; default: `is_watched`.
    """

    def __init__(self, draw: Callable[[list[dict[str, Any]]], Figure], *, watched: bool | None = None):
        self.figure: Figure | None = None  # the last one drawn
        self._draw = draw
        self._watched = is_watched(sys.stdout) if watched is None else watched
        self._handle = None

    def __call__(self, rows: Sequence[dict[str, Any]]) -> None:
        """Draw these rows instead of the ones before."""
        self.figure = self._draw(list(rows))
        if self._handle is not None:
            self._handle.update(self.figure)

    def __enter__(self) -> LiveFigure:
        if self._watched:  # above the run's output, which the first figure would otherwise interrupt
            self._handle = display(HTML("<i>The curves appear after the first epoch.</i>"), display_id=True)
        return self

    def __exit__(self, *_) -> None:
        if self._handle is None and self.figure is not None:
            display(self.figure)
