"""A model in parts with roles (stem, token mixers, MLPs, downsampling, head), and one part at work by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from stm_lab.measure._batches import Data, as_images, device_of, input_size, model_name
from stm_lab.pixels import Normalize
from stm_lab.util.errors import UserError, check_known

REST = "rest"  # norms, layer scale, position embeddings, and modules whose names say nothing
ROLES = ("stem", "mixers", "MLPs", "downsampling", "head", REST)
OUTSIDE = ""  # the stage of stem and head

# Names of modules in our backbone and in timm's models. The outermost known name decides.
_ANYWHERE = {
    "mixers": ("mixer", "token_mixer", "attn", "attention", "attn_block", "attn_grid", "conv_dw", "mlp_tokens"),
    "MLPs": ("mlp", "ffn", "channel_mixer", "mlp_channels"),
    "downsampling": ("downsample", "patch_merging"),
}
_AT_THE_TOP = {
    "stem": ("stem", "patch_embed", "conv_stem", "conv1", "bn1", "act1", "maxpool"),
    "head": ("head", "fc", "classifier", "conv_head", "norm_head", "fc_norm", "global_pool", "head_drop"),
}


@dataclass(frozen=True)
class Unit:
    """A module with one role, by its name in the model; `own`: without its children, which are units themselves."""

    name: str
    module: nn.Module
    stage: str
    role: str
    own: bool = False


def units(model: nn.Module) -> list[Unit]:
    """The units of a model in its order; together they hold each parameter and each operation once.

    Stages have the names of timm's `feature_info`; a model without it has none.
    """
    stages = [info["module"] for info in getattr(model, "feature_info", ())]
    return list(_walk("", model, stages))


def _walk(name: str, module: nn.Module, stages: list[str]) -> Iterator[Unit]:
    if isinstance(module, nn.Identity):
        return
    role, children = _role(name), dict(module.named_children())
    stage = next((stage for stage in stages if f"{name}.".startswith(f"{stage}.")), OUTSIDE)
    if role or not children:
        yield Unit(name, module, OUTSIDE if role in ("stem", "head") else stage, role or REST)
        return
    yield Unit(name, module, stage, REST, own=True)
    for child, inner in children.items():
        yield from _walk(f"{name}.{child}" if name else child, inner, stages)


def _role(name: str) -> str | None:
    parts = name.split(".")
    at_the_top = (role for role, names in _AT_THE_TOP.items() if parts[0] in names)
    return next(at_the_top, None) or next(
        (role for part in parts for role, names in _ANYWHERE.items() if part in names), None
    )


def gathered(parts: Iterable[Mapping[str, Any]], by: str) -> list[dict[str, Any]]:
    """One row for each role ("role", in the order of `ROLES`) or for each stage and role ("stage", in the model's).

    parts: with stage, role and numbers by name. Numbers add up; a sum is None where one of them is.
    Raises UserError for another `by`.
    """
    check_known("by", by, ("role", "stage"))
    keys = ("stage", "role") if by == "stage" else ("role",)
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for part in parts:
        groups.setdefault(tuple(part[key] for key in keys), []).append(part)
    rows = []
    for group in groups if by == "stage" else sorted(groups, key=lambda key: ROLES.index(key[0])):
        row, some = dict(zip(keys, group, strict=True)), groups[group]
        for name in (name for name in some[0] if name not in ("stage", "role")):
            values = [part[name] for part in some]
            row[name] = None if None in values else sum(values)
        rows.append(row)
    return rows


def rows_with_total(facts: dict, parts: Iterable[Mapping[str, Any]], by: str, whole: dict) -> list[dict[str, Any]]:
    """The `gathered` rows and that of the `whole`, whose role is "total"; each begins with the `facts`."""
    rows = gathered(parts, by)
    return [facts | row for row in (*rows, {**dict.fromkeys(rows[0], ""), "role": "total", **whole})]


# ---- a model, or one unit of it, at work: for time and memory --------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """A model and its batch, of images of `image_size` (height, width in pixels), on a device."""

    model: str
    device: str
    batch_size: int
    image_size: tuple[int, int]


def prepared(
    model: nn.Module,
    data: Data | None,
    device: str | torch.device | None,
    batch_size: int,
    image_size: int | None,
    seconds: float = 1.0,
) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    """A copy of the model on the device, one normalised batch (B, 3, H, W), and what results say of both.

    The batch holds the first images of `data`, repeated if they are too few; without data, noise of `image_size` or of
    the model's own size. Raises UserError for an unknown device, data that are no images, batch_size < 1, seconds <= 0.
    """
    if batch_size < 1 or not seconds > 0:
        raise UserError(f"batch_size = {batch_size}, seconds = {seconds}: expected batch_size >= 1 and seconds > 0")
    if data is None:
        height, width = (image_size, image_size) if image_size else input_size(model)
        data = torch.rand(batch_size, 3, height, width, generator=torch.Generator().manual_seed(0))
    pixels = as_images(data, model, image_size, limit=batch_size).pixels
    pixels = pixels[torch.arange(batch_size) % len(pixels)]
    device, size = device_of(model, device), tuple(pixels.shape[-2:])
    facts = {"model": model_name(model), "device": str(device), "batch_size": batch_size, "image_size": size}
    return copy.deepcopy(model).to(device), Normalize(model, device)(pixels), facts


def inputs_of_units(model: nn.Module, images: Tensor) -> list[tuple[Unit, tuple]]:
    """Each unit with a role that one pass calls, and its positional inputs, without a graph."""
    caught: dict[str, tuple] = {}
    parts = [unit for unit in units(model) if unit.role != REST]

    def catch(name: str, _: nn.Module, args: tuple) -> None:
        caught.setdefault(name, args)

    with ExitStack() as hooks, torch.no_grad():
        for unit in parts:
            hooks.enter_context(unit.module.register_forward_pre_hook(partial(catch, unit.name)))
        model(images)
    return [(unit, caught[unit.name]) for unit in parts if unit.name in caught]


def step_of(module: nn.Module, args: tuple, training: bool, loss: Callable | None = None) -> Callable[[], None]:
    """One call of a module: forward without gradients or, with `training`, forward and backward.

    loss: from the output, what the backward pass starts from, a number. Without it the gradient of the output is 1
    everywhere, and the inputs get gradients, too.
    """
    in_place = getattr(module, "inplace", False)  # then it gets a copy to overwrite

    def called(given: tuple) -> Any:
        return module(*tree_map_only(Tensor, torch.clone, given) if in_place else given)

    def forward() -> None:
        with torch.inference_mode():
            called(args)

    def forward_backward() -> None:
        module.zero_grad()
        if loss is not None:
            out = loss(called(args))
        else:
            leaves = tree_map_only(Tensor, lambda x: x.detach().requires_grad_(x.is_floating_point()), args)
            outputs = tree_leaves(called(leaves))
            out = next(part for part in outputs if isinstance(part, Tensor))
        if out.requires_grad:  # otherwise there is nothing to learn
            out.backward(torch.ones_like(out))

    return forward_backward if training else forward


def whole_step(model: nn.Module, images: Tensor, training: bool) -> Callable[[], None]:
    """`step_of` a model on normalised images; the loss is the mean square of the output."""
    return step_of(model, (images,), training, lambda out: out.float().square().mean())
