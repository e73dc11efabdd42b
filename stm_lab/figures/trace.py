"""An image on its way through the backbone: the map after every stage, what it costs, and one stage with its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stm_lab.figures.draw import beside, named_rows, placed
from stm_lab.figures.style import described, drawing, number
from stm_lab.util.errors import check_known

if TYPE_CHECKING:
    from stm_lab.measure import ShapeTrace, TracedPart, TracedStage

_IMAGE, _MAP, _OPENED = "#BBBBBB", "#56B4E9", "#D55E00"
_BARS = {"parameters": ("#0072B2", "parameters"), "macs": ("#E69F00", "multiply-adds")}
_COLUMNS = ((0.0, "left"), (0.285, "left"), (0.455, "left"), (0.8, "right"), (1.0, "right"))  # of the table


@drawing
def shape_trace(trace: ShapeTrace, opened: str = "stage 1") -> Figure:
    """The maps of a `measure.trace` as boxes (sides drawn by the square roots of theirs), shares of parameters and
    multiply-adds by stage, and the parts of the stage that is opened. Three panels in this order.

    opened: the name of one of the trace's stages. Raises UserError for another.
    """
    stages = {stage.name: stage for stage in trace.stages}
    check_known("stage", opened, stages, "shape_trace: ")
    boxes = [(0.01, 0.525, 0.98, 0.42), (0.07, 0.085, 0.28, 0.33), (0.41, 0.03, 0.58, 0.44)]
    figure, panels = placed((11, 6.6), boxes)
    _boxes(panels[0], trace, opened)
    _shares(panels[1], trace, opened)
    _parts(panels[2], stages[opened])
    height, width = trace.image_size
    title = f"{trace.model}, an image of {height}x{width}: {trace.parameters:,} parameters, {_count(trace.macs)} MACs"
    figure.suptitle(title, fontsize=11, y=0.985)
    said = "; ".join(
        f"{name} {_shape(stage.after)}, {stage.parameters:,} parameters, {_count(stage.macs)} MACs"
        for name, stage in stages.items()
    )
    parts = "; ".join(
        f"{_times(part)} {_shape(part.after)}, {part.parameters:,}{f' ({part.note})' if part.note else ''}"
        for part in stages[opened].parts
    )
    return described(figure, f"{title}. {said}. Opened, {opened}: {parts}.")


def _boxes(axes: Axes, trace: ShapeTrace, opened: str) -> None:
    shapes = [("image", (*trace.image_size, trace.stages[0].before[2]), "")]
    shapes += [(stage.name, stage.after, _said(stage)) for stage in trace.stages]
    largest = max(trace.image_size) ** 0.5
    centred = {"ha": "center", "va": "center"}
    for place, (name, (height, width, channels), said) in enumerate(shapes):
        tall, wide = (0.94 * side**0.5 / largest for side in (height, width))
        edge, line, bold = (_OPENED, 3, "bold") if name == opened else ("black", 1, None)
        corner, colour = (place - wide / 2, -tall / 2), _MAP if place else _IMAGE
        axes.add_patch(Rectangle(corner, wide, tall, fc=colour, ec=edge, lw=line))
        axes.text(place, 0.6, name, fontsize=10, weight=bold, **centred)
        text = f"{height} x {width} x {channels}" if (height, width) != (1, 1) else f"{channels:,} numbers"
        axes.text(place, -0.6, text, fontsize=9.5, **centred)
        axes.text(place, -0.76, said, ha="center", va="top", fontsize=7.5, color="0.25", linespacing=1.3)
        if place:
            axes.annotate("", (place - 0.42, 0.6), (place - 0.58, 0.6), arrowprops={"arrowstyle": "->", "color": "0.5"})
    axes.set(xlim=(-0.55, len(shapes) - 0.45), ylim=(-1.05, 0.72), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _said(stage: TracedStage) -> str:
    """The text under a box: tokens, blocks, and what is padded or dropped."""
    if stage.name == "head":
        return "of the mean of all tokens"
    blocks = next((part.times for part in stage.parts if part.name == "mixer"), 0)
    first = f"{stage.tokens:,} token{'s' * (stage.tokens != 1)}"
    inside = f", {blocks} block{'s' * (blocks != 1)}" if blocks else ""
    noted = [part for part in stage.parts if part.name != "position embedding"]
    notes = [line for part in noted for line in part.note.split("; ") if line]
    return "\n".join([first + inside, *notes[:3]])


def _shares(axes: Axes, trace: ShapeTrace, opened: str) -> None:
    for shift, (key, (colour, word)) in zip((-0.19, 0.19), _BARS.items(), strict=True):
        total = getattr(trace, key)
        for line, stage in enumerate(trace.stages):
            value = getattr(stage, key)
            if value is None:
                beside(axes, (0, line + shift), "not counted", (3, 0), fontsize=7)
                continue
            share = 100 * value / total if total else 0.0
            axes.barh(line + shift, share, 0.36, color=colour, label=word if line == 0 else None)
            beside(axes, (share, line + shift), number(value), (3, 0), fontsize=7.5)
    names = [stage.name for stage in trace.stages]
    named_rows(axes, names)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the network's (%)", fontsize=9)
    axes.get_yticklabels()[names.index(opened)].set(color=_OPENED, weight="bold")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False, fontsize=8.5, borderaxespad=0)


def _parts(axes: Axes, stage: TracedStage) -> None:
    """A table: a row a part, its note below it; the map before it only where the part changes the map."""
    axes.set(xlim=(0, 1), ylim=(13.5, -1.2), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    rows = [(("inside: " + stage.name, "map before", "after", "parameters", "MACs"), "bold", "")]
    for part in stage.parts:
        before = _shape(part.before) if part.before != part.after else ""
        rows.append(((_times(part), before, _shape(part.after), *_numbers(part)), None, part.note))
    rows.append((("together", "", "", *_numbers(stage)), "bold", ""))
    line = -0.6
    for place, (cells, weight, note) in enumerate(rows):
        for (x, side), text in zip(_COLUMNS, cells, strict=True):
            colour = _OPENED if text.startswith("inside: ") else "black"
            axes.text(x, line, text, ha=side, va="center", fontsize=8.5, weight=weight, color=colour)
        line += 0.82
        if note:
            axes.text(0.02, line - 0.12, note, ha="left", va="center", fontsize=7.5, color="0.35")
            line += 0.68
        if place in (0, len(rows) - 2):
            axes.axhline(line - 0.41, color="0.6", lw=0.8)


def _numbers(part: TracedPart | TracedStage) -> tuple[str, str]:
    return f"{part.parameters:,}" if part.parameters else "-", "-" if part.macs == 0 else _count(part.macs)


def _times(part: TracedPart) -> str:
    return f"{part.times} x {part.name}" if part.times > 1 else part.name


def _shape(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))


def _count(value: int | None) -> str:
    return "not counted" if value is None else f"{value:,}"
