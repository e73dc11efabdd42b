"""A model taken apart: which of its modules are the stem, the token mixers, the MLPs, the downsampling, the head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

REST = "rest"  # norms, layer scale, position embeddings; and all that the names do not tell
ROLES = ("stem", "mixers", "MLPs", "downsampling", "head", REST)
OUTSIDE = ""  # the stage of what is in none: stem and head

# What the modules of our backbone and of timm's models are called. The outermost name that is known decides.
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
    """The model in units, in its order: together they hold each parameter and each operation once.

    A stage is called as timm's `feature_info` calls it; a model without that has none.
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
    for role, names in _AT_THE_TOP.items():
        if parts[0] in names:
            return role
    return next((role for part in parts for role, names in _ANYWHERE.items() if part in names), None)


def of_units(parts: Iterable[Unit], total: Callable[[str], int]) -> list[int]:
    """A number for each unit, given that of whole modules by name ("" is the model): no unit counts its children."""
    return [
        total(unit.name) - sum(total(f"{unit.name}.{child}".lstrip(".")) for child in _children(unit)) for unit in parts
    ]


def _children(unit: Unit) -> list[str]:
    return (
        [name for name, child in unit.module.named_children() if not isinstance(child, nn.Identity)] if unit.own else []
    )


def gathered(parts: Iterable[Any], by: tuple[str, ...], how: Mapping[str, Callable]) -> list[dict[str, Any]]:
    """One row for each stage and role (or one of them), in the order of the model, roles in that of `ROLES`.

    parts: dataclasses with a stage, a role and numbers. how: what makes one number of several, by the number's name;
    it is None where one of them is.
    """
    groups: dict[tuple, list[Any]] = {}
    for part in parts:
        groups.setdefault(tuple(getattr(part, key) for key in by), []).append(part)
    keys = sorted(groups, key=lambda key: ROLES.index(key[-1])) if by == ("role",) else list(groups)
    rows = []
    for key in keys:
        values = {name: [getattr(part, name) for part in groups[key]] for name in how}
        numbers = {name: None if None in values[name] else combine(values[name]) for name, combine in how.items()}
        rows.append(dict(zip(by, key, strict=True)) | numbers)
    return rows
