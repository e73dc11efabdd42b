"""Notebook 07's own: an image on its way through the unified backbone, in numbers, as a figure and as an explorer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import ipywidgets as widgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from stm_lab.backbone import Stage, UnifiedBackbone
from stm_lab.designs import SCALES, list_scales
from stm_lab.explore.shell import Explorer, State
from stm_lab.figures.draw import beside, named_rows, placed
from stm_lab.figures.style import described, drawing, number
from stm_lab.layers import Block, MergePatches, PatchConv2d
from stm_lab.measure._batches import input_size, model_name
from stm_lab.mixers import list_mixers
from stm_lab.mixers.halo import HaloAttention
from stm_lab.mixers.pvt import SpatialReductionAttention
from stm_lab.mixers.swin import ShiftedWindowAttention
from stm_lab.models import build_model
from stm_lab.util.errors import UserError, check_known

Shape = tuple[int, int, int]  # rows, columns, channels


def _sum(parts: Iterable[TracedPart | TracedStage]) -> int | None:
    """Multiply-adds of all parts; None if one is unknown."""
    macs = [part.macs for part in parts]
    return None if None in macs else sum(macs)


class TracedPart(NamedTuple):
    """One part of a stage: a layer, or all modules of one kind in its blocks, `times` of them in a row.

    `before`, `after`: the map, (rows, columns, channels); `parameters` and `macs` (multiply-adds for one image) are of
    all `times` together, macs is None if a mixer has no formula. `note` says what is padded or dropped, or "".
    """

    name: str
    before: Shape
    after: Shape
    times: int
    parameters: int
    macs: int | None
    note: str = ""


class TracedStage(NamedTuple):
    """The stem, one of the stages, or the head: its parts, in the order of the network."""

    name: str
    parts: tuple[TracedPart, ...]

    @property
    def before(self) -> Shape:
        return self.parts[0].before

    @property
    def after(self) -> Shape:
        return self.parts[-1].after

    @property
    def tokens(self) -> int:
        """Positions of its output map."""
        return self.after[0] * self.after[1]

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def macs(self) -> int | None:
        return _sum(self.parts)


class ShapeTrace(NamedTuple):
    """The backbone, stage by stage, for one image of `image_size` (height, width in pixels)."""

    model: str
    image_size: tuple[int, int]
    stages: tuple[TracedStage, ...]

    @property
    def parameters(self) -> int:
        return sum(stage.parameters for stage in self.stages)

    @property
    def macs(self) -> int | None:
        return _sum(self.stages)


def trace(model: UnifiedBackbone, *, image_size: int | tuple[int, int] | None = None) -> ShapeTrace:
    """Shapes, padding, parameters and multiply-adds of every part, by arithmetic: nothing is run, weights are not read.

    Multiply-adds are those of convolutions and matrix products, as `cost` counts them; a mixer's come from its own
    `macs(H, W)`.

    model: one of this package, of any design, on any device ("meta", too).
    image_size: one number or (height, width) in pixels; default: the model's own.
    Raises UserError for other models and for images that are too small.
    """
    if not isinstance(model, UnifiedBackbone):
        raise UserError(f"trace: {model_name(model)} is not a backbone of stm_lab; `cost` takes any model of timm")
    size = input_size(model) if image_size is None else image_size
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise UserError(f"trace: images must be at least 1x1, not {height}x{width}")
    stages, shape = [], (height, width, model.in_chans)
    for name, module, parts_of in (
        ("stem", model.stem, _through),
        *((f"stage {place}", stage, _stage) for place, stage in enumerate(model.stages, 1)),
        ("head", model.head, _head),
    ):
        stages.append(TracedStage(name, tuple(parts_of(module, shape))))
        shape = stages[-1].after
    return ShapeTrace(model_name(model), (height, width), tuple(stages))


def _stage(stage: Stage, shape: Shape) -> Iterator[TracedPart]:
    if not isinstance(stage.downsample, nn.Identity):
        for part in _through(stage.downsample, shape):
            yield part
            shape = part.after
    if not isinstance(stage.position_embedding, nn.Identity):
        weight = stage.position_embedding.weight
        note = "" if weight.shape[1:3] == shape[:2] else f"resized from {weight.shape[1]}x{weight.shape[2]}"
        yield TracedPart("position embedding", shape, shape, 1, weight.numel(), 0, note)
    yield from _blocks(list(stage.blocks), shape)
    if not isinstance(stage.norm, nn.Identity):
        yield _layer("stage norm", stage.norm, shape)


def _blocks(blocks: Sequence[Block], shape: Shape) -> Iterator[TracedPart]:
    """The modules of all blocks of a stage by their kinds, in the order of a block."""
    height, width, _ = shape
    two = blocks[0].norm1 is not None
    kinds: list[tuple[str, str, Callable | None]] = [
        ("norm 1", "norm1", None),
        ("mixer", "mixer", lambda mixer: mixer.macs(height, width) if hasattr(mixer, "macs") else None),
        ("layer scale 1", "gamma1", None),
        ("norm 2" if two else "norm", "norm2", None),
        ("MLP", "mlp", lambda mlp: sum(_macs(layer, height, width) for layer in mlp.children())),
        ("layer scale 2" if two else "layer scale", "gamma2", None),
    ]
    for name, attribute, macs_of in kinds:
        modules = [getattr(block, attribute) for block in blocks]
        if modules[0] is None or (attribute == "gamma1" and not two):
            continue
        macs = [macs_of(module) for module in modules] if macs_of else [0]
        notes = dict.fromkeys(_padding_note(module, height, width) for module in modules)
        total = None if None in macs else sum(macs)
        note = "; ".join(filter(None, notes))
        yield TracedPart(name, shape, shape, len(blocks), sum(map(_parameters, modules)), total, note)


def _head(head: nn.Module, shape: Shape) -> Iterator[TracedPart]:
    """1x1 convolution and norm, pooling, classifier; a kind of head has some of these."""
    if isinstance(getattr(head, "conv", None), nn.Conv2d):
        yield (made := _layer("1x1 convolution", head.conv, shape))
        shape = made.after
        yield _layer("BatchNorm, GELU", head.norm, shape)
    yield (pooled := TracedPart("mean of all tokens", shape, (1, 1, shape[2]), 1, 0, 0))
    if isinstance(getattr(head, "norm", None), nn.LayerNorm):
        yield _layer("norm", head.norm, pooled.after)
    if isinstance(getattr(head, "fc", None), nn.Linear):
        yield _layer("classifier", head.fc, pooled.after)


_NAMES = {nn.LayerNorm: "norm", nn.GELU: "GELU", MergePatches: "2x2 patches", nn.Linear: "linear"}


def _through(layers: Iterable[nn.Module], shape: Shape) -> Iterator[TracedPart]:
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            name = f"conv {layer.kernel_size[0]}x{layer.kernel_size[0]}, stride {layer.stride[0]}"
        else:
            name = next((name for kind, name in _NAMES.items() if isinstance(layer, kind)), type(layer).__name__)
        yield (part := _layer(name, layer, shape))
        shape = part.after


def _layer(name: str, layer: nn.Module, shape: Shape) -> TracedPart:
    height, width, channels = shape
    after, zeros = shape, (0, 0)
    if isinstance(layer, nn.Conv2d):
        (rows, above), (columns, left) = (_side(layer, size) for size in (height, width))
        after, zeros = (rows, columns, layer.out_channels), (above, left)
    elif isinstance(layer, MergePatches):
        after, zeros = (-(-height // 2), -(-width // 2), 4 * channels), (height % 2, width % 2)
    elif isinstance(layer, nn.Linear):
        after = (height, width, layer.out_features)
    note = f"reads zeros: {_lines(*zeros)}" if any(zeros) else ""
    return TracedPart(name, shape, after, 1, _parameters(layer), _macs(layer, *after[:2]), note)


def _macs(layer: nn.Module, rows: int, columns: int) -> int:
    """Multiply-adds of a convolution or linear layer whose output has this size; of other layers 0."""
    return rows * columns * layer.weight.numel() if isinstance(layer, nn.Conv2d | nn.Linear) else 0


def _side(layer: nn.Conv2d, size: int) -> tuple[int, int]:
    """A side after a convolution, and how many rows (or columns) of zeros it reads there."""
    (kernel, _), (stride, _), (padding, _) = layer.kernel_size, layer.stride, layer.padding
    missing = -size % kernel if isinstance(layer, PatchConv2d) else 0
    after = (size + missing + 2 * padding - kernel) // stride + 1
    read = (after - 1) * stride + kernel  # of the padded side, from its first row on
    return after, read - size if read >= size + padding else padding


def _lines(rows: int, columns: int) -> str:
    return f"{rows} row{'s' * (rows != 1)}, {columns} column{'s' * (columns != 1)}"


def _padding_note(module: object, height: int, width: int) -> str:
    """How a mixer cuts a map into blocks or keys, and what it pads or drops; "" for other modules."""
    lost = [0, 0]
    if isinstance(module, SpatialReductionAttention):
        ratio, padded = module.reduction, [max(side, module.reduction) for side in (height, width)]
        note, lost = f"keys {padded[0] // ratio}x{padded[1] // ratio}", [side % ratio for side in padded]
    elif isinstance(module, HaloAttention | ShiftedWindowAttention):
        is_halo = isinstance(module, HaloAttention)
        block = module.block if is_halo else min(module.window, height, width)
        sides = min(block, height), min(block, width)
        padded = [-(-size // side) * side for size, side in zip((height, width), sides, strict=True)]
        note = f"{'blocks' if is_halo else 'windows'} of {sides[0]}x{sides[1]}"
    else:
        return ""
    note += f"; padded to {padded[0]}x{padded[1]}" if padded != [height, width] else ""
    return note + (f"; dropped: {_lines(*lost)}" if any(lost) else "")


def _parameters(what: nn.Module | nn.Parameter) -> int:
    return what.numel() if isinstance(what, nn.Parameter) else sum(p.numel() for p in what.parameters())


# ---- the figure ------------------------------------------------------------------------------------------------------

_IMAGE, _MAP, _OPENED = "#BBBBBB", "#56B4E9", "#D55E00"
_BARS = {"parameters": ("#0072B2", "parameters"), "macs": ("#E69F00", "multiply-adds")}
_COLUMNS = ((0.0, "left"), (0.285, "left"), (0.455, "left"), (0.8, "right"), (1.0, "right"))  # of the table


@drawing
def shape_trace(trace: ShapeTrace, opened: str = "stage 1") -> Figure:
    """The maps of a `trace` as boxes (drawn with the square roots of their sides), shares of parameters and
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
    """The text under a box: tokens, blocks, padding and dropped rows."""
    if stage.name == "head":
        return "from the mean of all tokens"
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
    axes.set_xlabel("share of the network's total (%)", fontsize=9)
    axes.get_yticklabels()[names.index(opened)].set(color=_OPENED, weight="bold")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False, fontsize=8.5, borderaxespad=0)


def _parts(axes: Axes, stage: TracedStage) -> None:
    """A table with a row for each part and its note below; the map before it only if the part changes the map."""
    axes.set(xlim=(0, 1), ylim=(13.5, -1.2), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    rows = [(("parts of " + stage.name, "map before", "after", "parameters", "MACs"), "bold", "")]
    for part in stage.parts:
        before = _shape(part.before) if part.before != part.after else ""
        rows.append(((_times(part), before, _shape(part.after), *_numbers(part)), None, part.note))
    rows.append((("total", "", "", *_numbers(stage)), "bold", ""))
    line = -0.6
    for place, (cells, weight, note) in enumerate(rows):
        for (x, side), text in zip(_COLUMNS, cells, strict=True):
            colour = _OPENED if text.startswith("parts of ") else "black"
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


# ---- the explorer ----------------------------------------------------------------------------------------------------

_STAGES = ("stem", "stage 1", "stage 2", "stage 3", "stage 4", "head")


def shape_tracer() -> Explorer:
    """An image on its way from stem to head: the map after every stage, what is padded, what it costs, and the parts
    of the clicked stage."""

    @lru_cache(maxsize=64)
    def network(mixer: str, scale: str):
        check_known("scale", scale, list_scales(mixer), f"{mixer}: ")
        return build_model(mixer, scale, device="meta")

    def draw(mixer: str, scale: str, height: int, width: int, opened: str) -> Figure:
        return shape_trace(trace(network(mixer, scale), image_size=(height, width)), opened)

    def select(panel: int, x: float, y: float, _: State) -> State:
        """Boxes lie at 0 (the image), 1 (the stem) and so on; bars begin with the stem; then comes the table."""
        place = (round(x) - 1, round(y), -1)[panel]
        return {"opened": _STAGES[place]} if 0 <= place < len(_STAGES) else {}

    controls = {
        "mixer": widgets.Dropdown(options=list_mixers()),
        "scale": widgets.Dropdown(options=SCALES, value="tiny"),
        "height": widgets.IntSlider(224, 1, 512, description="height (pixels)"),
        "width": widgets.IntSlider(224, 1, 512, description="width (pixels)"),
        "opened": widgets.Dropdown(options=_STAGES, value="stage 1"),
    }
    return Explorer(draw, controls, select=select)
