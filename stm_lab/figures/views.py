"""One picture as it is and as it was moved, and what several networks make of the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stm_lab.figures.style import colours, described
from stm_lab.util.errors import UserError

_CHANGED = "#D55E00"  # the frame and the words of an answer that did not stay
# in inches: sides of a map, between maps, from the border; where rows of maps and bars begin, from below
_SIDE, _GAP, _EDGE, _HEIGHT = 1.42, 0.13, 0.1, 4.6
_ROWS, _BARS, _BAR = (2.5, 0.82), (0.56, 0.38), 0.14


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
    width = _EDGE + max(5, 1 + len(answers)) * (_SIDE + _GAP)  # the line on top needs its room
    figure = Figure(figsize=(width, _HEIGHT), dpi=100)
    for view, bottom, title in zip(views, _ROWS, ("standard view", "moved view"), strict=True):
        axes = figure.add_axes((_EDGE / width, bottom / _HEIGHT, _SIDE / width, _SIDE / _HEIGHT))
        axes.imshow(view, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=8, pad=3)
    # all the rest on one panel, in inches: twenty panels would take longer to make than all that is in them
    board = figure.add_axes((0, 0, 1, 1))
    board.set_axis_off()
    shade = colours([answer.name for answer in answers])
    for column, answer in enumerate(answers, 1):
        _column(board, _EDGE + column * (_SIDE + _GAP), answer, shade[answer.name])
    for text, bottom in (("standard", _BARS[0]), ("moved", _BARS[1])):
        board.text(_EDGE + _SIDE, bottom + _BAR / 2, text, fontsize=7, ha="right", va="center")
    board.text(width / 2, _HEIGHT - 0.08, f"{move}; {stage}", fontsize=9, ha="center", va="top")
    board.set(xlim=(0, width), ylim=(0, _HEIGHT), aspect="auto")
    same = sum(answer.stays for answer in answers)
    words = "; ".join(map(_said, answers))
    return described(figure, f"{move}. {same} of {len(answers)} networks keep their answer. {words}. {stage}.")


def _column(board: Axes, left: float, answer: Answers, colour: str) -> None:
    """One network: its name, two maps with the answers above them, and its confidence in the first answer."""
    middle = left + _SIDE / 2
    board.text(middle, _ROWS[0] + _SIDE + 0.27, answer.name, fontsize=9, ha="center", color=colour, weight="bold")
    top = max(np.abs(values).max() for values in answer.maps) or 1.0
    for row, (values, bottom) in enumerate(zip(answer.maps, _ROWS, strict=True)):
        changed = row == 1 and not answer.stays
        height, width = (_SIDE * length / max(values.shape) for length in values.shape)
        x, y = middle - width / 2, bottom + (_SIDE - height) / 2
        place = (x, x + width, y, y + height)
        board.imshow(values, extent=place, vmin=-top, vmax=top, cmap="PuOr", interpolation="nearest", aspect="auto")
        title = f"{_short(answer.classes[row])} {answer.confidences[row]:.0f}%"
        board.text(
            middle, bottom + _SIDE + 0.06, title, fontsize=8, ha="center", color=_CHANGED if changed else "black"
        )
        if changed:
            board.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=_CHANGED, linewidth=3))
    for share, bottom in zip((answer.confidences[0], answer.kept), _BARS, strict=True):
        board.add_patch(Rectangle((left, bottom), _SIDE, _BAR, color="0.92"))
        board.add_patch(Rectangle((left, bottom), _SIDE * share / 100, _BAR, color=colour, alpha=0.8))
    first = f"{_short(answer.classes[0])} {answer.confidences[0]:.0f} to {answer.kept:.0f}%"
    board.text(middle, 0.21, first, fontsize=7, ha="center")
    board.text(middle, 0.07, f"cosine {answer.cosine:.2f}", fontsize=7, ha="center")


def _short(name: str) -> str:
    """The first of a class's names, short enough for its column."""
    name = name.split(",")[0]
    return name if len(name) <= 14 else f"{name[:13]}."


def _said(answer: Answers) -> str:
    before, after = (f"{name} {sure:.0f}%" for name, sure in zip(answer.classes, answer.confidences, strict=True))
    change = f"still {after}" if answer.stays else f"now {after}, {answer.classes[0]} {answer.kept:.0f}%"
    return f"{answer.name}: {before}, {change}, features cosine {answer.cosine:.2f}"
