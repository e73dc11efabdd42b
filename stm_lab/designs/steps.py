"""From an original network to the unified one, one change at a time.

A step changes one part of a design and nothing else. Parts act on each other, so the effect of a step depends on the
order in which they are taken, which can be given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from ..util.errors import UserError, check_known
from .design import Design
from .originals import original
from .unified import unified

START = "original"
LEVELS = ("network", "block", "size")
CORNERS = ("original", "network", "block", "unified")

# step: (its level, the fields of the design that it changes), in the order of the network, from the image on
_STEPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "stem": ("network", ("stem",)),
    "downsampling": ("network", ("downsample",)),
    "stage norms": ("network", ("stage_norms",)),
    "head": ("network", ("head",)),
    "branches": ("block", ("branches",)),
    "projections": ("block", ("options",)),  # of convnext, the only option that differs
    "layer scale": ("block", ("layer_scale",)),
    "norm eps": ("block", ("norm_eps", "embed_eps", "stage_eps")),  # most norms are in blocks
    "depths": ("size", ("depths",)),
    "mlp ratios": ("size", ("mlp_ratios",)),
}


@dataclass(frozen=True, slots=True)
class Step:
    """A design on the way, and its last change; `build_model(mixer, scale, design=step.design)` builds it.

    Attributes:
        name: of the step; "original" for the first design, which has no change.
        level: "network" (between and around the blocks), "block", or "size"; None for the first.
        scale: of the design.
        design: with this step and all before it.
        before, after: the changed fields or options, with their values.
        options: of `build_model(mixer, scale, design="original", **options)`, which builds the same.
    """

    name: str
    level: str | None
    scale: str
    design: Design
    before: Mapping[str, object]
    after: Mapping[str, object]
    options: Mapping[str, object]

    @property
    def change(self) -> str:
        """The step's change in one line; empty for the first design."""
        return ", ".join(f"{name}: {self.before[name]} -> {self.after[name]}" for name in self.after)


def step_names(mixer: str, scale: str = "tiny", *, level: str | None = None) -> list[str]:
    """The steps between a mixer's original and its unified design; of one level if it is named.

    Raises UserError for unknown names.
    """
    if level is not None:
        check_known("level", level, LEVELS)
    start, end = original(mixer, scale), unified(mixer, scale)
    return [
        name
        for name, (its_level, changing) in _STEPS.items()
        if level in (None, its_level) and any(getattr(start, field) != getattr(end, field) for field in changing)
    ]


def steps(mixer: str, scale: str = "tiny", *, order: Sequence[str] | None = None, reverse: bool = False) -> list[Step]:
    """The original design, then one design for each step, every one with the steps before it.

    Args:
        mixer: a name of `list_mixers()`.
        scale: one that has an original, see `original_scales`.
        order: names of `step_names(mixer, scale)`, all or some; None takes all in that order. With all of them the last
            design is the unified one.
        reverse: take them in the opposite order.

    Raises:
        UserError: unknown names, a step named twice.
    """
    known = step_names(mixer, scale)
    names = list(known if order is None else order)
    for name in names:
        check_known("step", name, known, where=f"{mixer}, {scale}: ")
        if names.count(name) > 1:
            raise UserError(f"{mixer}, {scale}: the step {name!r} is named twice")
    design, end = original(mixer, scale), unified(mixer, scale)
    taken, options = [Step(START, None, scale, design, {}, {}, {})], {}
    for name in reversed(names) if reverse else names:
        level, changing = _STEPS[name]
        changed = replace(design, **{field: getattr(end, field) for field in changing})
        before, after = _difference(design, changed)
        options = {**options, **after}
        design = changed
        taken.append(Step(name, level, scale, design, before, after, options))
    return taken


def corners(mixer: str, scale: str = "tiny") -> dict[str, Step]:
    """The four designs on the two ways from the original to the unified one, by the names of `CORNERS`.

    "network" is the original with every step of the network level, "block" with every other one, size included. If an
    original is unified already in one of the two, two corners are the same. Raises UserError as `steps` does.
    """
    network = step_names(mixer, scale, level="network")
    block = [name for name in step_names(mixer, scale) if name not in network]
    orders = dict(zip(CORNERS, ((), network, block, None), strict=True))
    return {name: steps(mixer, scale, order=order)[-1] for name, order in orders.items()}


def _difference(one: Design, other: Design) -> tuple[dict[str, object], dict[str, object]]:
    """What differs between two designs of one mixer, by the names that `Design.override` takes."""
    own = [field.name for field in fields(Design) if field.name != "options"]
    first, second = ({name: getattr(design, name) for name in own} | dict(design.options) for design in (one, other))
    names = [name for name in first if first[name] != second[name]]
    return {name: first[name] for name in names}, {name: second[name] for name in names}
