"""One picture as it is and as it was moved, and what several networks make of the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stm_lab.errors import UserError
from stm_lab.figures.style import colours, described, plain

_CHANGED = "#D55E00"  # the frame and the words of an answer that did not stay


@dataclass(frozen=True)
class Answers:
    """What one network says of the standard view (first) and of the moved one (second).

    classes: the two answers; confidences: of each, in percent; kept: the confidence in the first answer that is left in
    the moved view, in percent; maps: one number for each cell of one stage's features, (h, w) each, on one axis for
    both; cosine: of the two views' features, averaged over the cells, -1 to 1.
    """

    name: str
    classes: tuple[str, str]
    confidences: tuple[float, float]
    kept: float
    maps: tuple[np.ndarray, np.ndarray]
    cosine: float

    @property
    def stays(self) -> bool:
        return self.classes[0] == self.classes[1]


def views_compared(views: Sequence[np.ndarray], answers: Sequence[Answers], move: str, stage: str) -> Figure:
    """The standard view above the moved one, and for each network a map of its features beside each of them.

    A network's two maps have one scale of colours, 0 in its middle. Below them are bars: its confidence in its answer
    for the standard view, there and in the moved view. An answer that changed is framed and says so.

    Args:
        views: the two pictures, (H, W, 3) in [0, 1]. They are the first two panels.
        answers: one for each network.
        move: what was done, in words; stage: whose features are drawn, in words.

    Raises UserError for no answers, and for another number of views than two.
    """
    if not answers or len(views) != 2:
        raise UserError(
            f"views_compared: {len(views)} views and {len(answers)} networks; expected two, and one at least"
        )
    columns = max(5, 1 + len(answers))  # the line on top needs its room
    # no automatic layout, which would take longer than all the drawing
    figure = Figure(figsize=(1.55 * columns + 0.25, 4.9), dpi=100)
    left, right = 0.32 / figure.get_figwidth(), 1 - 0.08 / figure.get_figwidth()
    grid = figure.add_gridspec(
        3, columns, height_ratios=(1, 1, 0.28), left=left, right=right, top=0.86, bottom=0.09, wspace=0.07, hspace=0.27
    )
    for row, (view, title) in enumerate(zip(views, ("standard view", "moved view"), strict=True)):
        axes = figure.add_subplot(grid[row, 0])
        axes.imshow(view, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(title, fontsize=8, pad=3)
    shade = colours([answer.name for answer in answers])
    for column, answer in enumerate(answers, 1):
        top = max(np.abs(values).max() for values in answer.maps) or 1.0
        for row, values in enumerate(answer.maps):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(values, vmin=-top, vmax=top, cmap="PuOr", interpolation="nearest")
            axes.set_axis_off()
            changed = row == 1 and not answer.stays
            title = f"{_short(answer.classes[row])} {answer.confidences[row]:.0f}%"
            axes.set_title(title, fontsize=8, pad=3, color=_CHANGED if changed else "black")
            if changed:
                frame = {"fill": False, "edgecolor": _CHANGED, "linewidth": 3, "clip_on": False}
                axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, **frame))
        _bars(figure.add_subplot(grid[2, column]), answer, shade[answer.name], first=column == 1)
        middle = (axes.get_position().x0 + axes.get_position().x1) / 2
        figure.text(middle, 0.925, answer.name, ha="center", fontsize=9, color=shade[answer.name], weight="bold")
    figure.text(0.5, 0.985, f"{move}; {stage}", ha="center", va="top", fontsize=9)
    same = sum(answer.stays for answer in answers)
    words = "; ".join(map(_said, answers))
    return described(figure, f"{move}. {same} of {len(answers)} networks keep their answer. {words}. {stage}.")


def _bars(axes: Axes, answer: Answers, colour: str, first: bool) -> None:
    """Confidence in the first answer: in the standard view, and what is left of it."""
    axes.barh([1, 0], [answer.confidences[0], answer.kept], color=[colour, colour], alpha=0.8, height=0.7)
    axes.set(xlim=(0, 100), ylim=(-0.5, 1.5), yticks=[])
    axes.set_xticks([0, 50, 100], ["", "50", ""])  # the ends of two panels stand too near for their numbers
    axes.tick_params(labelsize=6, length=2, pad=1)
    axes.set_xlabel(f"% {_short(answer.classes[0])}, cos {answer.cosine:.2f}", fontsize=7, labelpad=1)
    plain(axes, "x")
    if first:
        for place, text in ((1, "standard"), (0, "moved")):
            axes.text(-4, place, text, ha="right", va="center", fontsize=7)


def _short(name: str) -> str:
    """The first of a class's names, short enough for its column."""
    name = name.split(",")[0]
    return name if len(name) <= 14 else f"{name[:13]}."


def _said(answer: Answers) -> str:
    before, after = (f"{name} {sure:.0f}%" for name, sure in zip(answer.classes, answer.confidences, strict=True))
    change = f"still {after}" if answer.stays else f"now {after}, {answer.classes[0]} {answer.kept:.0f}%"
    return f"{answer.name}: {before}, {change}, features cosine {answer.cosine:.2f}"
