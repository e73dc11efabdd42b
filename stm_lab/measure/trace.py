"""What shape has the map after every layer of the backbone, what is padded on the way, what does each layer cost?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from stm_lab.backbone import Block, Mlp, Stage, UnifiedBackbone
from stm_lab.layers import MergePatches, PatchConv2d
from stm_lab.measure._batches import input_size, model_name
from stm_lab.mixers.halo import HaloAttention
from stm_lab.mixers.pvt import SpatialReductionAttention
from stm_lab.mixers.swin import ShiftedWindowAttention
from stm_lab.util.errors import UserError

Shape = tuple[int, int, int]  # rows, columns, channels


@dataclass(frozen=True)
class TracedPart:
    """One part of a stage: a layer, or what all its blocks have of one kind, `times` of them in a row.

    `before`, `after`: the map, (rows, columns, channels); `parameters` and `macs` (multiply-adds for one image) are of
    all `times` together, macs None where a mixer has no formula. `note` says what is padded or dropped, or nothing.
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
        """Positions of the map that it gives."""
        return self.after[0] * self.after[1]

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def macs(self) -> int | None:
        return None if any(part.macs is None for part in self.parts) else sum(part.macs for part in self.parts)

    @property
    def notes(self) -> str:
        return "; ".join(f"{part.name}: {part.note}" for part in self.parts if part.note)


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
        return None if any(stage.macs is None for stage in self.stages) else sum(stage.macs for stage in self.stages)

    def rows(self) -> list[dict]:
        """One row a part."""
        return [
            {
                "model": self.model,
                "stage": stage.name,
                "part": part.name,
                "times": part.times,
                "before": list(part.before),
                "after": list(part.after),
                "parameters": part.parameters,
                "macs": part.macs,
                "note": part.note,
            }
            for stage in self.stages
            for part in stage.parts
        ]


def trace(model: UnifiedBackbone, *, image_size: int | tuple[int, int] | None = None) -> ShapeTrace:
    """Shapes, padding, parameters and multiply-adds of every part, by arithmetic: nothing is run, weights are not read.

    Multiply-adds are those of convolutions and matrix products, as `cost` counts them; a mixer's come from its own
    `macs(H, W)`.

    model: one of this package, of any design; on the device "meta" it does as well.
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
    for name, parts in _stages(model, shape):
        stages.append(TracedStage(name, parts))
    return ShapeTrace(model_name(model), (height, width), tuple(stages))


def _stages(model: UnifiedBackbone, shape: Shape) -> Iterator[tuple[str, tuple[TracedPart, ...]]]:
    stem = _through(model.stem, shape)
    yield "stem", stem
    shape = stem[-1].after
    for number, stage in enumerate(model.stages, 1):
        parts = tuple(_stage(stage, shape))
        yield f"stage {number}", parts
        shape = parts[-1].after
    yield "head", tuple(_head(model.head, shape))


def _stage(stage: Stage, shape: Shape) -> Iterator[TracedPart]:
    if not isinstance(stage.downsample, nn.Identity):
        down = _through(stage.downsample, shape)
        yield from down
        shape = down[-1].after
    if not isinstance(stage.position_embedding, nn.Identity):
        weight = stage.position_embedding.weight
        note = "" if weight.shape[1:3] == shape[:2] else f"resized from {weight.shape[1]}x{weight.shape[2]}"
        yield TracedPart("position embedding", shape, shape, 1, weight.numel(), 0, note)
    yield from _blocks(list(stage.blocks), shape)
    if not isinstance(stage.norm, nn.Identity):
        yield _layer("stage norm", stage.norm, shape)


def _blocks(blocks: Sequence[Block], shape: Shape) -> Iterator[TracedPart]:
    """What all blocks of a stage have of one kind, in the order of a block."""
    height, width, _ = shape
    two = blocks[0].norm1 is not None

    def part(name: str, modules: Sequence[nn.Module | nn.Parameter | None], macs: int | None, note: str = ""):
        parameters = sum(_parameters(module) for module in modules if module is not None)
        return TracedPart(name, shape, shape, len(blocks), parameters, macs, note)

    if two:
        yield part("norm 1", [block.norm1 for block in blocks], 0)
    formulas = [getattr(block.mixer, "macs", None) for block in blocks]
    macs = None if None in formulas else sum(formula(height, width) for formula in formulas)
    notes = dict.fromkeys(_padding_note(block.mixer, height, width) for block in blocks)
    yield part("mixer", [block.mixer for block in blocks], macs, "; ".join(filter(None, notes)))
    if two and blocks[0].gamma1 is not None:
        yield part("layer scale 1", [block.gamma1 for block in blocks], 0)
    yield part("norm 2" if two else "norm", [block.norm2 for block in blocks], 0)
    yield part("MLP", [block.mlp for block in blocks], sum(_mlp_macs(block.mlp, height, width) for block in blocks))
    if blocks[0].gamma2 is not None:
        yield part("layer scale 2" if two else "layer scale", [block.gamma2 for block in blocks], 0)


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


def _through(layers: Sequence[nn.Module], shape: Shape) -> tuple[TracedPart, ...]:
    parts = []
    for layer in layers:
        parts.append(_layer(_name(layer), layer, shape))
        shape = parts[-1].after
    return tuple(parts)


def _name(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d):
        (kernel, _), (stride, _) = layer.kernel_size, layer.stride
        return f"conv {kernel}x{kernel}, stride {stride}"
    return next((name for kind, name in _NAMES.items() if isinstance(layer, kind)), type(layer).__name__)


def _layer(name: str, layer: nn.Module, shape: Shape) -> TracedPart:
    height, width, channels = shape
    after, macs, note = shape, 0, ""
    if isinstance(layer, nn.Conv2d):
        (rows, above), (columns, left) = (_side(layer, size) for size in (height, width))
        after, note = (rows, columns, layer.out_channels), _zeros(above, left)
        macs = rows * columns * layer.weight.numel()
    elif isinstance(layer, MergePatches):
        after, note = (-(-height // 2), -(-width // 2), 4 * channels), _zeros(height % 2, width % 2)
    elif isinstance(layer, nn.Linear):
        after = (height, width, layer.out_features)
        macs = height * width * layer.weight.numel()
    return TracedPart(name, shape, after, 1, _parameters(layer), macs, note)


def _side(layer: nn.Conv2d, size: int) -> tuple[int, int]:
    """A side after a convolution, and how many rows (or columns) of zeros it reads there."""
    (kernel, _), (stride, _), (padding, _) = layer.kernel_size, layer.stride, layer.padding
    missing = -size % kernel if isinstance(layer, PatchConv2d) else 0
    after = (size + missing + 2 * padding - kernel) // stride + 1
    read = (after - 1) * stride + kernel  # of the padded side, from its first row on
    return after, read - size if read >= size + padding else padding


def _zeros(rows: int, columns: int) -> str:
    return f"zeros: {_lines(rows, columns)}" if rows or columns else ""


def _lines(rows: int, columns: int) -> str:
    return f"{rows} row{'s' * (rows != 1)}, {columns} column{'s' * (columns != 1)}"


def _mlp_macs(mlp: Mlp, height: int, width: int) -> int:
    layers = [layer for layer in (mlp.fc1, mlp.conv, mlp.fc2) if not isinstance(layer, nn.Identity)]
    return height * width * sum(layer.weight.numel() for layer in layers)


def _padding_note(mixer: nn.Module, height: int, width: int) -> str:
    """Into which blocks or keys a mixer cuts a map, and what it pads or drops; "" for mixers that do neither."""
    if isinstance(mixer, SpatialReductionAttention):
        ratio, padded = mixer.reduction, [max(side, mixer.reduction) for side in (height, width)]
        keys, lost = [side // ratio for side in padded], [side % ratio for side in padded]
        note = f"keys {keys[0]}x{keys[1]}"
        dropped = f"; dropped: {_lines(*lost)}" if any(lost) else ""
    elif isinstance(mixer, HaloAttention | ShiftedWindowAttention):
        is_halo = isinstance(mixer, HaloAttention)
        block = mixer.block if is_halo else min(mixer.window, height, width)
        sides = min(block, height), min(block, width)
        padded = [-(-size // side) * side for size, side in zip((height, width), sides, strict=True)]
        note, dropped = f"{'blocks' if is_halo else 'windows'} of {sides[0]}x{sides[1]}", ""
    else:
        return ""
    return note + (f"; padded to {padded[0]}x{padded[1]}" if padded != [height, width] else "") + dropped


def _parameters(what: nn.Module | nn.Parameter) -> int:
    return what.numel() if isinstance(what, nn.Parameter) else sum(p.numel() for p in what.parameters())
