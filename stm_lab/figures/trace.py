"""An image on its way through the backbone: the map after every stage, what it costs, and one stage with its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stm_lab.figures.style import described, number, plain
from stm_lab.util.errors import check_known

if TYPE_CHECKING:
    from stm_lab.measure import ShapeTrace, TracedPart, TracedStage

_IMAGE, _MAP, _OPENED = "#BBBBBB", "#56B4E9", "#D55E00"
_BARS = {"parameters": "#0072B2", "macs": "#E69F00"}
_WORDS = {"parameters": "parameters", "macs": "multiply-adds"}
_COLUMNS = (0.0, 0.285, 0.455, 0.625, 0.8, 1.0)  # of the table: where texts begin, and from the third on where they end


def shape_trace(trace: ShapeTrace, opened: str = "stage 1") -> Figure:
    """The maps of a `measure.trace` as boxes (sides drawn by the square roots of theirs), shares of parameters and
    multiply-adds by stage, and the parts of the stage that is opened. Three panels in this order.

    opened: the name of one of the trace's stages. Raises UserError for another.
    """
    names = [stage.name for stage in trace.stages]
    check_known("stage", opened, names, "shape_trace: ")
    figure = Figure(figsize=(11, 6.6), dpi=100)
    boxes = figure.add_axes((0.01, 0.525, 0.98, 0.42))
    bars = figure.add_axes((0.07, 0.085, 0.28, 0.33))
    table = figure.add_axes((0.41, 0.03, 0.58, 0.44))
    _boxes(boxes, trace, opened)
    _shares(bars, trace, opened)
    _parts(table, next(stage for stage in trace.stages if stage.name == opened))
    height, width = trace.image_size
    title = f"{trace.model}, an image of {height}x{width}: {trace.parameters:,} parameters, {_count(trace.macs)} MACs"
    figure.suptitle(title, fontsize=11, y=0.985)
    stages = (
        f"{stage.name} {_shape(stage.after)}, {stage.parameters:,} parameters, {_count(stage.macs)} MACs"
        for stage in trace.stages
    )
    inside = next(stage for stage in trace.stages if stage.name == opened)
    parts = (
        f"{_times(part)} {_shape(part.after)}, {part.parameters:,}{f' ({part.note})' if part.note else ''}"
        for part in inside.parts
    )
    return described(figure, f"{title}. {'; '.join(stages)}. Opened, {opened}: {'; '.join(parts)}.")


def _boxes(axes: Axes, trace: ShapeTrace, opened: str) -> None:
    shapes = [("image", (*trace.image_size, trace.stages[0].before[2]), "")]
    shapes += [(stage.name, stage.after, _said(stage)) for stage in trace.stages]
    largest = max(trace.image_size) ** 0.5
    for place, (name, (height, width, channels), said) in enumerate(shapes):
        tall, wide = (0.94 * side**0.5 / largest for side in (height, width))
        is_open = name == opened
        colour, edge = _IMAGE if place == 0 else _MAP, _OPENED if is_open else "black"
        box = Rectangle((place - wide / 2, -tall / 2), wide, tall, fc=colour, ec=edge, lw=3 if is_open else 1)
        axes.add_patch(box)
        axes.text(place, 0.6, name, ha="center", va="center", fontsize=10, weight="bold" if is_open else None)
        text = f"{height} x {width} x {channels}" if (height, width) != (1, 1) else f"{channels:,} numbers"
        axes.text(place, -0.6, text, ha="center", va="center", fontsize=9.5)
        if said:
            axes.text(place, -0.76, said, ha="center", va="top", fontsize=7.5, color="0.25", linespacing=1.3)
        if place:
            axes.annotate("", (place - 0.42, 0.6), (place - 0.58, 0.6), arrowprops={"arrowstyle": "->", "color": "0.5"})
    axes.set(xlim=(-0.55, len(shapes) - 0.45), ylim=(-1.05, 0.72), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _said(stage: TracedStage) -> str:
    """What stands under a box: tokens, blocks, and what is padded or dropped."""
    if stage.name == "head":
        return "of the mean of all tokens"
    blocks = next((part.times for part in stage.parts if part.name == "mixer"), 0)
    first = f"{stage.tokens:,} token{'s' * (stage.tokens != 1)}"
    inside = f", {blocks} block{'s' * (blocks != 1)}" if blocks else ""
    notes = [
        line for part in stage.parts for line in part.note.split("; ") if line and part.name != "position embedding"
    ]
    return "\n".join([first + inside, *notes[:3]])


def _shares(axes: Axes, trace: ShapeTrace, opened: str) -> None:
    for shift, (key, colour) in zip((-0.19, 0.19), _BARS.items(), strict=True):
        total = getattr(trace, key)
        for line, stage in enumerate(trace.stages):
            value = getattr(stage, key)
            if value is None:
                axes.annotate(
                    "not counted", (0, line + shift), (3, 0), textcoords="offset points", va="center", fontsize=7
                )
                continue
            share = 100 * value / total if total else 0.0
            axes.barh(line + shift, share, 0.36, color=colour, label=_WORDS[key] if line == 0 else None)
            axes.annotate(
                number(value), (share, line + shift), (3, 0), textcoords="offset points", va="center", fontsize=7.5
            )
    names = [stage.name for stage in trace.stages]
    axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5), xlim=(0, 100))
    axes.set_xlabel("share of the network's (%)", fontsize=9)
    axes.get_yticklabels()[names.index(opened)].set(color=_OPENED, weight="bold")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False, fontsize=8.5, borderaxespad=0)
    plain(axes, "x")


def _parts(axes: Axes, stage: TracedStage) -> None:
    axes.set(xlim=(0, 1), ylim=(13.5, -1.2), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    head = ("", "map before", "after", "parameters", "MACs")
    lines = [(_times(part), _before(part), _shape(part.after), *_numbers(part)) for part in stage.parts]
    rows = [("inside: " + stage.name, *head[1:]), *lines, ("together", "", "", *_numbers(stage))]
    line = -0.6
    for place, cells in enumerate(rows):
        bold = "bold" if place in (0, len(rows) - 1) else None
        for column, text in enumerate(cells):
            right = column >= 3
            x = _COLUMNS[column + 1] if right else _COLUMNS[column]
            colour = _OPENED if place == 0 and column == 0 else "black"
            axes.text(
                x, line, text, ha="right" if right else "left", va="center", fontsize=8.5, weight=bold, color=colour
            )
        line += 0.82
        note = stage.parts[place - 1].note if 0 < place < len(rows) - 1 else ""
        if note:
            axes.text(0.02, line - 0.12, note, ha="left", va="center", fontsize=7.5, color="0.35")
            line += 0.68
        if place in (0, len(rows) - 2):
            axes.axhline(line - 0.41, color="0.6", lw=0.8)


def _numbers(part: TracedPart | TracedStage) -> tuple[str, str]:
    return f"{part.parameters:,}" if part.parameters else "-", "-" if part.macs == 0 else _count(part.macs)


def _before(part: TracedPart) -> str:
    """Only where the part changes the map."""
    return _shape(part.before) if part.before != part.after else ""


def _times(part: TracedPart) -> str:
    return f"{part.times} x {part.name}" if part.times > 1 else part.name


def _shape(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))


def _count(value: int | None) -> str:
    return "not counted" if value is None else f"{value:,}"
