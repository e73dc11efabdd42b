"""What does a model cost on paper: parameters; multiply-adds, by operator, by formula, and as the paper prints them.

`throughput` and `memory` measure what it costs on a machine.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stm_lab.measure._batches import Data, as_images, input_size, model_name
from stm_lab.measure._units import OUTSIDE, REST, gathered, units
from stm_lab.util.errors import check_known

OWN = "(own)"  # what belongs to the model itself and to none of its parts: a class token, a product in its forward
COUNTS = ("parameters", "macs", "macs_fvcore", "macs_formula")


@dataclass(frozen=True)
class PartCost:
    """One part of a model, by its name in the model: parameters, and multiply-adds for one image.

    `macs_fvcore` and `macs_formula` are as in `Cost`. `stage` and `role` are set for layers: timm's name for the stage,
    empty outside of stages; and stem, mixers, MLPs, downsampling, head or rest.
    """

    name: str
    parameters: int
    macs: int
    macs_fvcore: int = 0
    macs_formula: int | None = None
    stage: str = OUTSIDE
    role: str = REST


@dataclass(frozen=True)
class Cost:
    """Counts for one image of `image_size` (height, width in pixels); 1 MAC = one multiplication and one addition.

    macs: multiply-adds of convolutions and matrix products, as torch's counter sees them in a forward pass.
    macs_fvcore: the same plus fvcore's charge for norms, pooling and sampling, which is what the paper prints.
    macs_formula: by formula, a mixer's `macs(H, W)`, and those of convolutions and linear layers; None where a module
        without a formula makes products (attention of timm's models, say).
    parts: the model's children, or those of its list of stages. layers: the finest units, each with its stage and its
        role. Both add up to the whole.
    """

    model: str
    image_size: tuple[int, int]
    parameters: int
    macs: int
    parts: tuple[PartCost, ...]
    macs_fvcore: int = 0
    macs_formula: int | None = None
    layers: tuple[PartCost, ...] = ()

    def rows(self, by: str = "part") -> list[dict]:
        """One row a part, the last one the total. `by`: "part"; "layer", the units by name; "role", that is, stem,
        mixers, MLPs, downsampling, head and rest; "stage", each role of each stage. Raises UserError for another."""
        check_known("by", by, ("part", "layer", "role", "stage"), "Cost.rows: ")
        if by in ("role", "stage"):
            layers = ({"stage": layer.stage, "role": layer.role, **_counts(layer)} for layer in self.layers)
            rows = [{"part": f"{row.get('stage', '')} {row['role']}".strip(), **row} for row in gathered(layers, by)]
        else:
            rows = [{"part": part.name, **_counts(part)} for part in (self.parts if by == "part" else self.layers)]
        return [{"model": self.model, **row} for row in (*rows, {"part": "total", **_counts(self)})]


def _counts(of: PartCost | Cost) -> dict[str, int | None]:
    return {name: getattr(of, name) for name in COUNTS}


def cost(model: nn.Module, data: Data | None = None, *, image_size: int | tuple[int, int] | None = None) -> Cost:
    """Count parameters and multiply-adds, in all, by part and by layer. Runs nothing: a copy without storage is traced.

    `macs` are half of what torch's FlopCounterMode calls FLOPs: convolutions and matrix products, attention's among
    them (q.k and weights.v, which it misses in a fused kernel: plain products are asked for here), without norms,
    activations, softmax, pooling and deformable sampling. The paper (arXiv 2211.05781) prints fvcore's total,
    `macs_fvcore`: 5 more for each element of a layer or group norm (4 without scale and shift), 2 of a batch norm (1),
    1 for each element that is averaged over the whole map, 4 for each value that is sampled bilinearly.

    image_size: one number or (height, width); default: that of the images in `data`, without data the model's own.
    Raises UserError for data that are no images.
    """
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    if image_size is None and data is not None:
        image_size = tuple(as_images(data, model, limit=1).pixels.shape[-2:])
    height, width = image_size or input_size(model)

    counts = _Counts(model, height, width)
    whole, parts = counts.part(""), [counts.part(name) for name in _parts(model)]
    own = [getattr(whole, name) - sum(getattr(part, name) for part in parts) for name in COUNTS[:3]]
    if any(own):
        parts.insert(0, PartCost(OWN, *own, macs_formula=None if own[1] else 0))
    layers = [layer for layer in counts.layers() if layer.parameters or layer.macs_fvcore]
    return Cost(
        **_counts(whole),
        model=model_name(model),
        image_size=(height, width),
        parts=tuple(parts),
        layers=tuple(layers),
    )


class _Counts:
    """The costs of a model's modules by their names; "" is the model."""

    def __init__(self, model: nn.Module, height: int, width: int):
        shadow = _without_storage(model).eval()
        dtype = next((p.dtype for p in model.parameters()), torch.float32)
        image = torch.empty(1, 3, height, width, dtype=dtype, device="meta")
        counter = FlopCounterMode(display=False, custom_mapping=_FVCORE)
        with ExitStack() as hooks, torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            self._formulas = _formulas(shadow, hooks)
            shadow(image)
        self._model, self._modules = model, dict(model.named_modules())
        self._counted: dict[str, tuple[int, int]] = {}  # multiply-adds, fvcore's charges
        root = type(shadow).__name__
        for name, by_operator in counter.get_flop_counts().items():
            if name != root:  # the model stands under "Global", too
                charged = sum(flops for operator, flops in by_operator.items() if operator in _FVCORE)
                name = "" if name == "Global" else name.removeprefix(f"{root}.")
                self._counted[name] = ((sum(by_operator.values()) - charged) // 2, charged)

    def _of(self, name: str) -> tuple[int, int]:
        """Multiply-adds and charges; a list of modules, which is never called itself, has the sum of theirs."""
        if name in self._counted:
            return self._counted[name]
        children = [self._of(f"{name}.{child}".lstrip(".")) for child, _ in self._modules[name].named_children()]
        return sum(macs for macs, _ in children), sum(charged for _, charged in children)

    def _formula(self, name: str, macs: int) -> int | None:
        """By formula; None if the counter found products in here that belong to none of the formulas."""
        inside = [n for n in self._formulas if n == name or n.startswith(f"{name}." if name else "")]
        is_all = sum(self._of(n)[0] for n in inside) == macs
        return sum(self._formulas[n] for n in inside) if is_all else None

    def part(self, name: str) -> PartCost:
        macs, charged = self._of(name)
        parameters = sum(parameter.numel() for parameter in self._modules[name].parameters())
        return PartCost(name, parameters, macs, macs + charged, self._formula(name, macs))

    def layers(self) -> Iterator[PartCost]:
        """The units; of those that only hold others, what is not theirs."""
        for unit in units(self._model):
            counts = asdict(self.part(unit.name))
            if unit.own:
                held = unit.module.named_children()
                for child in [name for name, module in held if not isinstance(module, nn.Identity)]:
                    theirs = self.part(f"{unit.name}.{child}".lstrip("."))
                    counts |= {name: counts[name] - getattr(theirs, name) for name in COUNTS[:3]}
                counts["macs_formula"] = None if counts["macs"] else 0
            yield PartCost(**counts | {"name": unit.name or OWN, "stage": unit.stage, "role": unit.role})


# ---- fvcore's charges: what its operators' handlers add, by aten operator (fvcore/nn/jit_handles.py) -----------------


def _normed(each: int):
    """`each` for an element of the input, one less without scale and shift."""

    def charge(x: torch.Size, *rest: object, out_shape: object = None, **named: object) -> int:
        scale = next(part for part in rest if part is None or isinstance(part, torch.Size))  # the first weight
        return math.prod(x) * (each if scale is not None else each - 1)

    return charge


def _averaged(x: torch.Size, dims: object = None, *_: object, out_shape: object = None, **__: object) -> int:
    """One for each element, if it is a map that is averaged over both of its sides (adaptive pooling to 1x1)."""
    over = {dim % 4 for dim in dims} if len(x) == 4 and isinstance(dims, list | tuple) else set()
    return math.prod(x) if over in ({2, 3}, {1, 2}) else 0


_ATEN = torch.ops.aten
_FVCORE = {
    _ATEN.native_layer_norm: _normed(5),
    _ATEN.native_group_norm: _normed(5),
    _ATEN.native_batch_norm: _normed(2),
    _ATEN._native_batch_norm_legit_no_training: _normed(2),
    _ATEN.mean: _averaged,
    _ATEN._adaptive_avg_pool2d: lambda x, *_, **__: math.prod(x),
    _ATEN.grid_sampler_2d: lambda *_, out_shape, **__: 4 * math.prod(out_shape),
}


# ---- formulas --------------------------------------------------------------------------------------------------------

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _formulas(shadow: nn.Module, hooks: ExitStack) -> dict[str, int]:
    """Multiply-adds by formula, by the names of modules, filled while the model runs on one image.

    A mixer's own formula covers all modules inside it.
    """
    found: dict[str, int] = defaultdict(int)

    def add(name: str, has_formula: bool, module: nn.Module, args: tuple, out: torch.Tensor) -> None:
        # of a mixer, on tokens (B, H, W, C); of a convolution or linear layer
        found[name] += module.macs(*args[0].shape[1:3]) if has_formula else out.numel() * module.weight[0].numel()

    covered = None
    for name, module in shadow.named_modules():
        if covered is not None and name.startswith(covered):
            continue
        has_formula = bool(name) and callable(getattr(module, "macs", None))
        covered = f"{name}." if has_formula else covered
        if has_formula or isinstance(module, _LAYERS):
            hooks.enter_context(module.register_forward_hook(partial(add, name, has_formula)))
    return found


# ---- the copy that is traced, and the parts --------------------------------------------------------------------------


def _without_storage(model: nn.Module) -> nn.Module:
    """A copy on the meta device. Telling deepcopy what each tensor becomes means that no weight is ever copied."""
    shadows: dict[int, object] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        shadow = torch.empty_like(tensor, device="meta", requires_grad=False)
        shadows[id(tensor)] = nn.Parameter(shadow, requires_grad=False) if isinstance(tensor, nn.Parameter) else shadow
    return copy.deepcopy(model, shadows)


def _parts(model: nn.Module) -> list[str]:
    """The names of the model's children; a child that holds the stages, by timm's `feature_info`, is opened."""
    stages = {info["module"] for info in getattr(model, "feature_info", ())}
    parts: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        opened = any(stage.startswith(f"{name}.") for stage in stages) or isinstance(child, nn.ModuleList)
        grandchildren = {f"{name}.{inner}": module for inner, module in child.named_children()} if opened else {}
        parts |= grandchildren or {name: child}
    return [name for name, part in parts.items() if not isinstance(part, nn.Identity | nn.Dropout)]
