"""Answers as the picture moves, turns and changes its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from stm_lab.figures.draw import board, draw_lines, lines, picture, placed
from stm_lab.figures.style import RED, colours, described, drawing, legend, plain
from stm_lab.util.errors import UserError

AXES = {
    "translation": "shift (pixels along each moved axis)",
    "rotation": "rotation before the crop (degrees)",
    "rotation_after_crop": "rotation after the crop (degrees)",
    "scale": "size of the content (times as large)",
}
SAME = "same answer as for the standard view (%)"
# ---- curves ----------------------------------------------------------------------------------------------------------


@drawing
def consistency_curves(curves: Mapping[str, object]) -> Figure:
    """How often the answer stays the same as the picture moves, by mixer.

    curves: for each mixer a result of `invariance`, a list of such results (its seeds), or a pair (strengths, values):
    strengths (S,) in pixels, values in percent, (S,), or (runs, S). The mean is drawn and the range shaded.
    Raises UserError for no curves, for values that do not fit their strengths, and for results of several kinds.
    """
    kind = _kind("consistency_curves", curves)
    figure = lines({name: _read(name, curve) for name, curve in curves.items()}, AXES[kind], SAME, size=(6.6, 3.8))
    _strength_axis(figure.axes[0], kind)
    return figure


@drawing
def invariance_curves(results: Mapping[str, object], *, chance: float | None = None) -> Figure:
    """Accuracy beside consistency, by mixer.

    results: for each mixer a result of `invariance`, or a list of its seeds'. If labels are unknown, the left panel is
    left out. chance: the accuracy of a guess, in percent. Raises UserError as `consistency_curves`.
    """
    kind = _kind("invariance_curves", results)
    labelled = all(run.accuracy is not None for curve in results.values() for run in _runs(curve))
    quantities = {"accuracy": "accuracy (%)"} if labelled else {}
    quantities["consistency"] = SAME
    figure, panels = board(len(quantities), 2, (4.0, 3.6), room=(2.4, 0))
    for axes, (quantity, label) in zip(panels, quantities.items(), strict=True):
        draw_lines(axes, {name: _read(name, curve, quantity) for name, curve in results.items()}, markersize=3.5)
        axes.set(xlabel=AXES[kind], ylabel=label)
        _strength_axis(axes, kind)
        axes.set_ylim(bottom=0)
    if labelled and chance is not None:
        panels[0].axhline(chance, color="0.4", linestyle=":", linewidth=1.5)
        where = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom", "size": 8}
        panels[0].annotate("chance", (0.99, chance), **where)
    legend(figure, panels[-1])
    return figure


@drawing
def protocols_compared(published: Mapping[str, object], straight: Mapping[str, object]) -> Figure:
    """Consistency by the published protocol and by the straight one, a panel a mixer.

    The dotted curve is the published one on its own axis; the dashed one has each of its points at the picture's true
    shift. Dotted and dashed differ by the bent axis, dashed and solid by the black bars (and the missing direction).
    Results as in `invariance_curves`, with one standard view for both protocols. Raises UserError for no results, or
    for mixers that only one of the two has.
    """
    if set(published) != set(straight):
        raise UserError(f"protocols_compared: published {', '.join(published)}; straight {', '.join(straight)}")
    kind = _kind("protocols_compared", straight)
    figure, panels = board(len(published), 3, (3.2, 2.7), room=(0, 0.5), sharex=True, sharey=True)
    for axes, (name, colour) in zip(panels, colours(published).items(), strict=True):
        for label, dash, marker, curve in (
            ("published, as its axis says", ":", "s", _read(name, published[name], axis="strengths")),
            ("published, at the true strength", "--", "^", _read(name, published[name])),
            ("straight", "-", "o", _read(name, straight[name])),
        ):
            means = [values.mean() for values in curve.values()]
            look = {"color": colour, "linestyle": dash, "marker": marker, "markersize": 3, "linewidth": 1.6}
            axes.plot(list(curve), means, label=label, **look)
        axes.set_title(name, fontsize=10)
        plain(axes)
    for axes in panels:  # once all is drawn: the panels share their limits
        _strength_axis(axes, kind)
    figure.supxlabel(AXES[kind], fontsize=10)
    figure.supylabel("same answer (%)", fontsize=10)
    legend(figure, panels[0], "upper center", ncols=3, fontsize=8)
    return figure


def _strength_axis(axes: Axes, kind: str) -> None:
    axes.set_ylim(top=101)
    if kind == "scale":
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.axvline(1, color="0.6", linewidth=0.8)
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 3, 5, 10]))


def _runs(curve: object) -> list:
    """The results of one mixer's seeds; none for a pair of numbers."""
    return [curve] if hasattr(curve, "consistency") else [run for run in curve if hasattr(run, "consistency")]


def _kind(where: str, curves: Mapping[str, object]) -> str:
    found = {run.kind for curve in curves.values() for run in _runs(curve)}
    if len(found) > 1:
        raise UserError(f"{where}: results of different kinds: {', '.join(sorted(found))}")
    return found.pop() if found else "translation"


def _read(
    name: str, curve: object, quantity: str = "consistency", axis: str = "true_strengths"
) -> dict[float, np.ndarray]:
    """{strength: values of the runs}. axis: which strengths of a result, by default those of what was really done."""
    if runs := _runs(curve):
        curve = (getattr(runs[0], axis), [getattr(run, quantity) for run in runs])
    strengths, values = (np.asarray(part, dtype=float) for part in curve)
    values = np.atleast_2d(values)
    if strengths.shape != values.shape[1:]:
        raise UserError(f"{name} has strengths {strengths.shape} for values {values.shape}")
    return dict(zip(strengths, values.T, strict=True))


# ---- two views -------------------------------------------------------------------------------------------------------

# in inches: side of a map, space between maps, border; heights at which rows of maps and bars begin
_SIDE, _GAP, _EDGE, _HEIGHT = 1.42, 0.13, 0.1, 4.6
_ROWS, _BARS, _BAR = (2.5, 0.82), (0.56, 0.38), 0.14


@dataclass(frozen=True)
class Answers:
    """What one network answers for the standard view (first) and the moved one (second).

    classes: the two answers; confidences: in each, in percent; kept: the confidence in the first answer for the moved
    view, in percent; maps: one number for each cell of one stage's features, (h, w) each; cosine: of the two views'
    features, averaged over the cells, -1 to 1.
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


@drawing
def views_compared(views: Sequence[np.ndarray], answers: Sequence[Answers], move: str, stage: str) -> Figure:
    """The standard view above the moved one, and for each network a map of its features beside each of them.

    A network's two maps have one scale of colours about 0. The bars below are its confidence in its answer for the
    standard view, for both views. A changed answer is framed.
    views: two pictures, (H, W, 3) in [0, 1], the first two panels. move: what was done; stage: whose features are
    drawn; both in words. Raises UserError for no answers, and for another number of views than two.
    """
    if not answers or len(views) != 2:
        raise UserError(f"views_compared: {len(views)} views, {len(answers)} networks; expected two and at least one")
    width = _EDGE + max(5, 1 + len(answers)) * (_SIDE + _GAP)  # the line on top needs its room
    boxes = [(_EDGE / width, bottom / _HEIGHT, _SIDE / width, _SIDE / _HEIGHT) for bottom in _ROWS]
    # everything else in one panel, in inches: twenty panels would take longer to make than to draw
    figure, (*panels, paper) = placed((width, _HEIGHT), [*boxes, (0, 0, 1, 1)])
    for axes, view, title in zip(panels, views, ("standard view", "moved view"), strict=True):
        picture(axes, view)
        axes.set_title(title, fontsize=8, pad=3)
    paper.set_axis_off()
    shade = colours([answer.name for answer in answers])
    for column, answer in enumerate(answers, 1):
        _column(paper, _EDGE + column * (_SIDE + _GAP), answer, shade[answer.name])
    for text, bottom in (("standard", _BARS[0]), ("moved", _BARS[1])):
        paper.text(_EDGE + _SIDE, bottom + _BAR / 2, text, fontsize=7, ha="right", va="center")
    paper.text(width / 2, _HEIGHT - 0.08, f"{move}; {stage}", fontsize=9, ha="center", va="top")
    paper.set(xlim=(0, width), ylim=(0, _HEIGHT), aspect="auto")
    same = sum(answer.stays for answer in answers)
    words = "; ".join(map(_said, answers))
    return described(figure, f"{move}. {same} of {len(answers)} networks keep their answer. {words}. {stage}.")


def _column(paper: Axes, left: float, answer: Answers, colour: str) -> None:
    """One network: its name, two maps with the answers above them, and its confidence in the first answer."""
    middle = left + _SIDE / 2
    paper.text(middle, _ROWS[0] + _SIDE + 0.27, answer.name, fontsize=9, ha="center", color=colour, weight="bold")
    top = max(np.abs(values).max() for values in answer.maps) or 1.0
    for row, (values, bottom) in enumerate(zip(answer.maps, _ROWS, strict=True)):
        changed = row == 1 and not answer.stays
        height, width = (_SIDE * length / max(values.shape) for length in values.shape)
        x, y = middle - width / 2, bottom + (_SIDE - height) / 2
        place = {"extent": (x, x + width, y, y + height), "aspect": "auto"}
        paper.imshow(values, **place, vmin=-top, vmax=top, cmap="PuOr", interpolation="nearest")
        title = f"{_short(answer.classes[row])} {answer.confidences[row]:.0f}%"
        paper.text(middle, bottom + _SIDE + 0.06, title, fontsize=8, ha="center", color=RED if changed else "black")
        if changed:
            paper.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=RED, linewidth=3))
    for share, bottom in zip((answer.confidences[0], answer.kept), _BARS, strict=True):
        paper.add_patch(Rectangle((left, bottom), _SIDE, _BAR, color="0.92"))
        paper.add_patch(Rectangle((left, bottom), _SIDE * share / 100, _BAR, color=colour, alpha=0.8))
    first = f"{_short(answer.classes[0])} {answer.confidences[0]:.0f} to {answer.kept:.0f}%"
    paper.text(middle, 0.21, first, fontsize=7, ha="center")
    paper.text(middle, 0.07, f"cosine {answer.cosine:.2f}", fontsize=7, ha="center")


def _short(name: str) -> str:
    """The first of a class's names, short enough for its column."""
    name = name.split(",")[0]
    return name if len(name) <= 14 else f"{name[:13]}."


def _said(answer: Answers) -> str:
    before, after = (f"{name} {sure:.0f}%" for name, sure in zip(answer.classes, answer.confidences, strict=True))
    change = f"still {after}" if answer.stays else f"now {after}, {answer.classes[0]} {answer.kept:.0f}%"
    return f"{answer.name}: {before}, {change}, features cosine {answer.cosine:.2f}"
