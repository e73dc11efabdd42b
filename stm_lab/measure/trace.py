"""What shape has the map after every layer of the backbone, what is padded on the way, what does each layer cost?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from stm_lab.backbone import Stage, UnifiedBackbone
from stm_lab.layers import Block, MergePatches, PatchConv2d
from stm_lab.measure._batches import input_size, model_name, rows_of
from stm_lab.mixers.halo import HaloAttention
from stm_lab.mixers.pvt import SpatialReductionAttention
from stm_lab.mixers.swin import ShiftedWindowAttention
from stm_lab.util.errors import UserError

Shape = tuple[int, int, int]  # rows, columns, channels


def _sum(parts: Iterable[TracedPart | TracedStage]) -> int | None:
    """Multiply-adds of all parts; None if one is unknown."""
    macs = [part.macs for part in parts]
    return None if None in macs else sum(macs)


@dataclass(frozen=True)
class TracedPart:
    """One part of a stage: a layer, or all modules of one kind in its blocks, `times` of them in a row.

    `before`, `after`: the map, (rows, columns, channels); `parameters` and `macs` (multiply-adds for one image) are of
    all `times` together, macs None where a mixer has no formula. `note` says what is padded or dropped, or "".
    """

    name: str
    before: Shape
    after: Shape
    times: int
    parameters: int
    macs: int | None
    note: str = ""


@dataclass(frozen=True)
class TracedStage:
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


@dataclass(frozen=True)
class ShapeTrace:
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

    def rows(self) -> list[dict]:
        """One row a part."""
        names = "times before after parameters macs note"
        return [
            {"model": self.model, "stage": stage.name, "part": part.name, **row}
            for stage in self.stages
            for part in stage.parts
            for row in rows_of(part, names)
        ]


def trace(model: UnifiedBackbone, *, image_size: int | tuple[int, int] | None = None) -> ShapeTrace:
    """Shapes, padding, parameters and multiply-adds of every part, by arithmetic: nothing is run, weights are not read.

    Multiply-adds are those of convolutions and matrix products, as `cost` counts them; a mixer's come from its own
    `macs(H, W)`.

    model: one of this package, of any design, on any device ("meta", too).
    image_size: one number or (height, width) in pixels; default: the model's own.
    Raises UserError for another kind of model, and for images that are too small.
    """
    if not isinstance(model, UnifiedBackbone):
        raise UserError(f"trace: {model_name(model)} is no backbone of stm_lab; `cost` takes any model of timm")
    size = input_size(model) if image_size is None else image_size
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise UserError(f"trace: images must be at least 1x1, not {height}x{width}")
    stages, shape = [], (height, width, model.in_chans)
    for name, module, parts_of in (
        ("stem", model.stem, _through),
        *((f"stage {number}", stage, _stage) for number, stage in enumerate(model.stages, 1)),
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
    """1x1 convolution and norm, pooling, classifier; the kinds of heads have some of them."""
    if isinstance(getattr(head, "conv", None), nn.Conv2d):
        yield (made := _layer("1x1 convolution", head.conv, shape))
        shape = made.after
        yield _layer("BatchNorm, GELU", head.norm, shape)
    yield (pooled := TracedPart("mean of all tokens", shape, (1, 1, shape[2]), 1, 0, 0))
    if isinstance(getattr(head, "norm", None), nn.LayerNorm):
        yield _layer("norm", head.norm, pooled.after)
    if isinstance(getattr(head, "fc", None), nn.Linear):
        yield _layer("classifier", head.fc, pooled.after)


# ---- one layer ------------------------------------------------------------------------------------------------------

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
    note = f"zeros: {_lines(*zeros)}" if any(zeros) else ""
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
    """Into which blocks or keys a mixer cuts a map, and what it pads or drops; "" for other modules."""
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
