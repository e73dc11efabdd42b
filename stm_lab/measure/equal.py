"""Networks of equal cost: a mixer's widths, chosen so that the whole network comes nearest to a given number.

Equal depth and width does not mean equal cost. Only the widths are adjusted here; depth, MLP ratios and the mixer's
options stay.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn

from stm_lab.designs import unified
from stm_lab.measure._batches import rows_of
from stm_lab.measure.cost import cost as cost_of_model
from stm_lab.mixers import list_mixers, option_names
from stm_lab.models import build_model
from stm_lab.util.errors import UserError, check_known

Dims = tuple[int, int, int, int]

COSTS = ("parameters", "macs")
_FINEST = 256  # the factor is a multiple of 1 / 256
_LOW, _HIGH = 1 / 8, 4.0  # factors that are tried
_STEPS = 3  # of a single width, to either side


@dataclass(frozen=True)
class EqualWidth:
    """A network, `build_model(mixer, scale, dims=dims, img_size=image_size, num_classes=num_classes)`, and its cost.

    dims: channels of the four stages. parameters: of the whole network. macs: multiply-adds for one image of
    `image_size` pixels. cost: the one of the two that should be equal. target: what it should be.
    """

    mixer: str
    scale: str
    dims: Dims
    image_size: int
    num_classes: int
    parameters: int
    macs: int
    cost: str
    target: int

    @property
    def off(self) -> float:
        """How far the cost is from the target, in percent of the target; negative: below."""
        return 100 * (getattr(self, self.cost) / self.target - 1)

    def rows(self) -> list[dict[str, Any]]:
        """One row: all of it."""
        return rows_of(self, " ".join((*self.__dataclass_fields__, "off")))


def equal_width(
    mixer: str, scale: str, target: int, *, cost: str = "parameters", image_size: int = 64, num_classes: int = 10
) -> EqualWidth:
    """Find the widths at which the unified network of `mixer` comes nearest to `target`.

    All four widths are multiplied by one factor and rounded: to even numbers, and to multiples of the design's heads.
    Then the third and the second are moved by at most three such steps to the nearest cost. The result is near, not
    equal: see `EqualWidth.off`. Nothing is computed; models are made without storage.

    mixer, scale, num_classes: as `build_model` takes them. target: parameters or, with `cost="macs"`, multiply-adds for
    one image. image_size: side in pixels, for multiply-adds and for the size of position embeddings.
    Raises UserError for an unknown mixer, scale or cost, and a target beyond an eighth to four times the widths.
    """
    check_known("cost", cost, COSTS, "equal_width: ")
    check_known("mixer", mixer, list_mixers(), "equal_width: ")
    design = unified(mixer, scale)
    has_heads = "heads" in option_names(mixer)
    units = [math.lcm(2, head) if has_heads else 2 for head in design.stage_options["heads"]]

    def network(dims: Dims) -> nn.Module:
        return build_model(mixer, scale, dims=dims, img_size=image_size, num_classes=num_classes, device="meta")

    @cache
    def cost_of(dims: Dims) -> int:
        model = network(dims)
        if cost == "parameters":
            return sum(parameter.numel() for parameter in model.parameters())
        return cost_of_model(model, image_size=image_size).macs

    def scaled(step: int) -> Dims:
        """All widths times step / 256."""
        pairs = zip(design.dims, units, strict=True)
        return tuple(unit * max(1, round(step / _FINEST * dim / unit)) for dim, unit in pairs)

    def nearest(candidates: list[Dims]) -> Dims:
        return min(candidates, key=lambda dims: abs(cost_of(dims) - target))

    steps = range(round(_LOW * _FINEST), round(_HIGH * _FINEST) + 1)
    low, high = (cost_of(scaled(step)) for step in (steps[0], steps[-1]))
    if not low <= target <= high:
        raise UserError(
            f"equal_width: no {mixer} network at {scale} has {target:,} {cost}; its widths give {low:,} to {high:,}"
        )
    above = bisect_right(steps, target, hi=len(steps) - 1, key=lambda step: cost_of(scaled(step)))
    dims = nearest([scaled(steps[above - 1]), scaled(steps[above])])
    for stage in (2, 1):  # by a step or two of the third width, then of the second, whose steps are smaller
        moves = (units[stage] * step for step in range(-_STEPS, _STEPS + 1))
        moved = [(*dims[:stage], dims[stage] + more, *dims[stage + 1 :]) for more in moves]
        dims = nearest([some for some in moved if dims[stage - 1] <= some[stage] <= dims[stage + 1]])
    found = cost_of_model(network(dims), image_size=image_size)
    return EqualWidth(mixer, scale, dims, image_size, num_classes, found.parameters, found.macs, cost, target)
