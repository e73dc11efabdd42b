"""What does a model cost on paper: parameters; multiply-adds, by operator, by formula, and as the paper prints them.

What it costs on a machine is measured by `throughput` and `memory`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stm_lab.measure._batches import Data, as_images, input_size, model_name
from stm_lab.measure._units import OUTSIDE, REST, Unit, gathered, of_units, units
from stm_lab.util.errors import check_known

OWN = "(own)"  # what belongs to the model itself and to none of its parts: a class token, a product in its forward
UNIT = "1 MAC = one multiplication and one addition"
COUNTS = ("parameters", "macs", "macs_fvcore", "macs_formula")


@dataclass(frozen=True)
class PartCost:
    """One part of a model, by its name in the model: parameters, and multiply-adds for one image.

    `macs_fvcore` and `macs_formula` are as in `Cost`. Of a layer: `stage`, its stage by timm's name for it, empty
    outside of stages; and `role`, one of stem, mixers, MLPs, downsampling, head and rest.
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

    Attributes:
        parameters: numbers that are learned.
        macs: multiply-adds of convolutions and matrix products, as torch's counter sees them in a forward pass.
        macs_fvcore: the same and fvcore's charge for norms, pooling and sampling, which is what the paper prints.
        macs_formula: multiply-adds by formula: a mixer's `macs(H, W)`, and those of convolutions and linear layers;
            None where products are made by something that has no formula (attention of timm's models, say).
        parts: the model's children, those of its stages for a list of stages; they add up to the whole.
        layers: the finest units, each with its stage and its role; they add up, too.
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
        total = {"model": self.model, "part": "total", **{name: getattr(self, name) for name in COUNTS}}
        if by in ("part", "layer"):
            parts = self.parts if by == "part" else self.layers
            rows = [{"part": part.name, **{name: getattr(part, name) for name in COUNTS}} for part in parts]
        else:
            how = dict.fromkeys(COUNTS, sum)
            grouped = gathered(self.layers, ("stage", "role") if by == "stage" else ("role",), how)
            rows = [{"part": " ".join(filter(None, (row.get("stage"), row["role"]))), **row} for row in grouped]
        return [{"model": self.model, **row} for row in rows] + [total]

    def __str__(self) -> str:
        height, width = self.image_size
        return (
            f"{self.model}, one image of {height}x{width}: {self.parameters:,} parameters, {self.macs:,} MACs of "
            f"convolutions and matrix products ({UNIT}); {self.macs_fvcore:,} with fvcore's charge for norms, pooling "
            "and sampling"
        )


def cost(model: nn.Module, data: Data | None = None, *, image_size: int | tuple[int, int] | None = None) -> Cost:
    """Count parameters and multiply-adds, in all, by part and by layer. Runs nothing: a copy without storage is traced.

    `macs` are those of convolutions and matrix products, attention's among them (q.k and weights.v, which counters miss
    where a fused kernel computes them: plain products are asked for here); norms, activations, softmax, pooling and
    deformable sampling are not counted. It is `macs_torch_flopcounter` of published tables' scripts: half of what
    torch's FlopCounterMode calls FLOPs. The paper (arXiv 2211.05781) prints fvcore's total, `macs_fvcore`: 5 more for
    each element of a layer or group norm (4 without scale and shift), 2 of a batch norm (1), 1 for each element that is
    averaged over the whole map, 4 for each value that is sampled bilinearly.

    image_size: one number or (height, width); default: that of the images in `data`, without data the model's own.
    Raises UserError for data that are no images.
    """
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    if image_size is None and data is not None:
        image_size = tuple(as_images(data, model, limit=1).pixels.shape[-2:])
    height, width = image_size or input_size(model)

    shadow = _without_storage(model).eval()
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    image = torch.empty(1, 3, height, width, dtype=dtype, device="meta")
    counter = FlopCounterMode(display=False, custom_mapping=_FVCORE)
    with _formulas(shadow) as formulas, torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        shadow(image)
    counts = _Counts(model, shadow, counter, formulas)

    parts = [counts.part(name, name) for name in _parts(model)]
    whole, together = counts.part("", OWN), {name: sum(getattr(p, name) for p in parts) for name in COUNTS[:3]}
    own = {name: getattr(whole, name) - together[name] for name in together}
    if any(own.values()):
        parts.insert(0, PartCost(OWN, **own, macs_formula=0 if own["macs"] == 0 else None))
    return Cost(
        model_name(model),
        (height, width),
        whole.parameters,
        whole.macs,
        tuple(parts),
        whole.macs_fvcore,
        whole.macs_formula,
        tuple(counts.layers()),
    )


class _Counts:
    """What was counted, by the names of modules; "" is the model."""

    def __init__(self, model: nn.Module, shadow: nn.Module, counter: FlopCounterMode, formulas: dict[str, int]):
        root = type(shadow).__name__
        self._model, self._modules, self._formulas = model, dict(model.named_modules()), formulas
        self._macs, self._charges = {}, {}
        for name, by_operator in counter.get_flop_counts().items():
            name = "" if name == "Global" else name.removeprefix(f"{root}.") if name != root else None
            if name is not None:
                charged = sum(flops for operator, flops in by_operator.items() if operator in _CHARGED)
                self._macs[name] = (sum(by_operator.values()) - charged) // 2
                self._charges[name] = charged

    def parameters(self, name: str) -> int:
        return sum(parameter.numel() for parameter in self._modules[name].parameters())

    def macs(self, name: str) -> int:
        return self._total(self._macs, name)

    def fvcore(self, name: str) -> int:
        return self.macs(name) + self._total(self._charges, name)

    def _total(self, counted: dict[str, int], name: str) -> int:
        """Of a list of modules, which is never called itself, the sum of theirs."""
        if name in counted:
            return counted[name]
        children = self._modules[name].named_children()
        return sum(self._total(counted, f"{name}.{child}".lstrip(".")) for child, _ in children)

    def formula(self, name: str) -> int | None:
        """By formula; None if the counter found products in here that none of the formulas is about."""
        inside = [n for n in self._formulas if n == name or n.startswith(f"{name}." if name else "")]
        is_all = sum(map(self.macs, inside)) == self.macs(name)
        return sum(self._formulas[n] for n in inside) if is_all else None

    def part(self, name: str, called: str) -> PartCost:
        return PartCost(called, self.parameters(name), self.macs(name), self.fvcore(name), self.formula(name))

    def layers(self) -> Iterator[PartCost]:
        parts = units(self._model)
        counted = zip(*(of_units(parts, total) for total in (self.parameters, self.macs, self.fvcore)), strict=True)
        for unit, (parameters, macs, fvcore) in zip(parts, counted, strict=True):
            if parameters or fvcore:
                formula = self._formula_of(unit, macs)
                yield PartCost(unit.name or OWN, parameters, macs, fvcore, formula, unit.stage, unit.role)

    def _formula_of(self, unit: Unit, macs: int) -> int | None:
        if unit.own:
            return 0 if macs == 0 else None
        return self.formula(unit.name)


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


def _pooled(x: torch.Size, *_: object, out_shape: object = None, **__: object) -> int:
    return math.prod(x)


def _sampled(*_: object, out_shape: torch.Size = None, **__: object) -> int:
    return 4 * math.prod(out_shape)


_ATEN = torch.ops.aten
_FVCORE = {
    _ATEN.native_layer_norm: _normed(5),
    _ATEN.native_group_norm: _normed(5),
    _ATEN.native_batch_norm: _normed(2),
    _ATEN._native_batch_norm_legit_no_training: _normed(2),
    _ATEN.mean: _averaged,
    _ATEN._adaptive_avg_pool2d: _pooled,
    _ATEN.grid_sampler_2d: _sampled,
}
_CHARGED = frozenset(_FVCORE)


# ---- formulas --------------------------------------------------------------------------------------------------------


@contextmanager
def _formulas(shadow: nn.Module) -> Iterator[dict[str, int]]:
    """Multiply-adds by formula, by the names of modules, filled while the model runs on one image.

    A mixer's own formula stands for all that is inside of it.
    """
    found: dict[str, int] = {}

    def mixer(name: str, module: nn.Module):
        def before(_: nn.Module, args: tuple) -> None:
            _, height, width, _ = args[0].shape  # tokens (B, H, W, C)
            found[name] = found.get(name, 0) + module.macs(height, width)

        return module.register_forward_pre_hook(before)

    def layer(name: str, module: nn.Module):
        def after(_: nn.Module, __: tuple, out: torch.Tensor) -> None:
            each = module.in_features if isinstance(module, nn.Linear) else module.weight[0].numel()
            found[name] = found.get(name, 0) + out.numel() * each

        return module.register_forward_hook(after)

    hooks, covered = [], None
    for name, module in shadow.named_modules():
        if covered is not None and name.startswith(covered):
            continue
        if name and callable(getattr(module, "macs", None)):
            hooks.append(mixer(name, module))
            covered = f"{name}."
        elif isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            hooks.append(layer(name, module))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


# ---- the copy that is traced, and the parts --------------------------------------------------------------------------


def _without_storage(model: nn.Module) -> nn.Module:
    """A copy on the meta device. Telling deepcopy what each tensor becomes means that no weight is ever copied."""
    shadows: dict[int, object] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        shadow = torch.empty_like(tensor, device="meta", requires_grad=False)
        shadows[id(tensor)] = nn.Parameter(shadow, requires_grad=False) if isinstance(tensor, nn.Parameter) else shadow
    return copy.deepcopy(model, shadows)


def _parts(model: nn.Module) -> list[str]:
    """The names of the model's children; one that holds the stages, by timm's `feature_info`, is opened."""
    stages = {info["module"] for info in getattr(model, "feature_info", ())}
    parts: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        opened = any(stage.startswith(f"{name}.") for stage in stages) or isinstance(child, nn.ModuleList)
        grandchildren = {f"{name}.{inner}": module for inner, module in child.named_children()} if opened else {}
        parts |= grandchildren or {name: child}
    return [name for name, part in parts.items() if not isinstance(part, nn.Identity | nn.Dropout)]
