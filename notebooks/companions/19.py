"""For notebook 19: networks of equal cost, and the bench, which shows a mixer with its options on controls."""

from __future__ import annotations

import inspect
import math
from bisect import bisect_right
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple

import ipywidgets as widgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from stm_lab import measure
from stm_lab.designs import list_scales, unified
from stm_lab.explore.mixers import SMALL, ChosenMixer, curve, facts, farthest, heard, map_controls, parameters, token
from stm_lab.explore.shell import Explorer
from stm_lab.figures.draw import placed
from stm_lab.figures.maps import heard as draw_heard
from stm_lab.figures.style import described, drawing, number, plain, styles
from stm_lab.mixers import get_mixer, list_mixers, option_names
from stm_lab.models import build_model
from stm_lab.util.errors import UserError, check_known

# ---- networks of equal cost ------------------------------------------------------------------------------------------

Dims = tuple[int, int, int, int]

COSTS = ("parameters", "macs")
_FINEST = 256  # the factor is a multiple of 1 / 256
_LOW, _HIGH = 1 / 8, 4.0  # factors to try
_STEPS = 3  # of one width, in each direction


class EqualWidth(NamedTuple):
    """A network, `build_model(mixer, scale, dims=dims, img_size=image_size, num_classes=num_classes)`, and its cost.

    dims: channels of the four stages. parameters: of the whole network. macs: multiply-adds for one image of
    `image_size` pixels. cost: which of the two is matched. target: its wanted value.
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


def equal_width(
    mixer: str, scale: str, target: int, *, cost: str = "parameters", image_size: int = 64, num_classes: int = 10
) -> EqualWidth:
    """Find the widths at which the unified network of `mixer` comes nearest to `target`.

    All four widths are multiplied by one factor and rounded: to even numbers, and to multiples of the design's heads.
    Then the third and the second width move by at most three such steps to the nearest cost. Depth stays. The result is
    near, not equal: see `EqualWidth.off`. Models are built without storage and nothing is computed.

    mixer, scale, num_classes: as `build_model` takes them. target: parameters or, with `cost="macs"`, multiply-adds for
    one image. image_size: side in pixels, for multiply-adds and for the size of position embeddings.
    Raises UserError for an unknown mixer, scale or cost, and a target that no factor from 1/8 to 4 reaches.
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
        return measure.cost(model, image_size=image_size).macs

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
    for stage in (2, 1):  # third width first, then the second in smaller steps
        moves = (units[stage] * step for step in range(-_STEPS, _STEPS + 1))
        moved = [(*dims[:stage], dims[stage] + more, *dims[stage + 1 :]) for more in moves]
        dims = nearest([some for some in moved if dims[stage - 1] <= some[stage] <= dims[stage + 1]])
    found = measure.cost(network(dims), image_size=image_size)
    return EqualWidth(mixer, scale, dims, image_size, num_classes, found.parameters, found.macs, cost, target)


# ---- the bench -------------------------------------------------------------------------------------------------------


@drawing
def bench_figure(
    name: str,
    contributions: np.ndarray,
    place: tuple[int, int],
    curves: Mapping[str, Mapping[int, int]],
    side: int,
    facts: Mapping[str, str],
) -> Figure:
    """A mixer with some options: the inputs of the framed token; cost by side of the map, with others; facts.

    Args:
        name: the mixer's, one of those of `curves`.
        contributions: (H, W), to the token, not negative. place: its row and column.
        curves: {mixer: {side of the map: multiply-adds}}; zeros are not drawn, the axes are logarithmic.
        side: the marked one.
        facts: {what: text}, to the right.

    Raises UserError if `curves` lacks the mixer.
    """
    if name not in curves:
        raise UserError(f"bench_figure: no curve of {name!r}")
    figure, (left, middle) = placed((10.4, 3.7), [(0.02, 0.06, 0.3, 0.84), (0.405, 0.15, 0.235, 0.75)])
    tokens = draw_heard(left, contributions, place)
    left.set_title(f"{name}: inputs of the framed token", fontsize=10)
    _costs(middle, name, curves, side)
    for line, (what, text) in enumerate(facts.items()):
        figure.text(0.765, 0.88 - 0.128 * line, what, fontsize=8, color="0.35", va="top")
        figure.text(0.765, 0.833 - 0.128 * line, text, fontsize=9, va="top")
    told = ", ".join(f"{what}: {text}" for what, text in facts.items())
    return described(
        figure,
        f"{name}: the token in row {place[0]}, column {place[1]} hears {tokens} of {contributions.size}. {told}. "
        f"Multiply-adds at side {side}: {'; '.join(f'{other} {number(of[side])}' for other, of in curves.items())}.",
    )


def _costs(axes: Axes, name: str, curves: Mapping[str, Mapping[int, int]], side: int) -> None:
    drawn = styles(curves)
    for other, of in curves.items():
        points = {side: macs for side, macs in of.items() if macs > 0}
        if points:
            width = 3.2 if other == name else 1.3
            axes.plot(list(points), list(points.values()), **drawn[other], linewidth=width, label=other)
    if curves[name][side] > 0:
        axes.plot(side, curves[name][side], "o", color=drawn[name]["color"], markersize=8)
    sides = sorted({one for of in curves.values() for one in of})
    axes.set(xscale="log", yscale="log", xlabel="side of the map (tokens)")
    axes.set_title("multiply-adds", fontsize=10)
    axes.set_xticks(sides, [str(one) for one in sides])
    axes.minorticks_off()
    axes.tick_params(labelsize=8)
    plain(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8, handlelength=1.3)


_BESIDE = ("halo", "swin", "pvt", "convnext", "dcn_v3")


def mixer_bench(mixer: str, *, scale: str = "nano") -> Explorer:
    """One mixer with its options on controls: which tokens the clicked one depends on, and the cost.

    Each option whose default is an integer or a bool is a control, except `heads` and options with the name of another
    control (`row`, `column`, `side`). The curves are the formulas `macs(H, W)`.

    scale: of the network whose parameters are shown: as designed, except for changed options.
    Raises UserError for an unknown mixer or scale.
    """
    check_known("mixer", mixer, list_mixers(), "mixer_bench: ")
    check_known("scale", scale, list_scales(mixer), f"mixer_bench: {mixer}: ")
    first = {name: control.value for name, control in _option_controls(mixer).items()}
    others = {name: curve(ChosenMixer.of(name)) for name in _BESIDE if name != mixer}

    @lru_cache(maxsize=256)
    def in_network(**options: Any) -> int:
        """The parameters of the network."""
        changed = {name: value for name, value in options.items() if value != first[name]}  # the design sets the others
        return parameters(build_model(mixer, scale, device="meta", **changed))

    def draw(row: int, column: int, side: int, **options: Any) -> Figure:
        chosen = ChosenMixer.of(mixer, **options)
        curves = {mixer: curve(chosen), **others}
        near = heard(chosen, row, column)
        lines = {
            "depends on": f"{(near > 0).sum()} of {near.size} tokens",
            "farthest of them": f"{farthest(near, row, column)} tokens away",
            **facts(chosen, side),
            f"parameters of the network, {scale}": f"{in_network(**options):,}",
        }
        return bench_figure(mixer, near, (row, column), curves, side, lines)

    controls = {**_option_controls(mixer), **map_controls()}
    return Explorer(draw, controls, select=lambda panel, x, y, _: token(x, y) if panel == 0 else {})


def _option_controls(mixer: str) -> dict[str, widgets.Widget]:
    """A control for each option that can have one, set to a small window or the default."""
    controls, signature = {}, inspect.signature(get_mixer(mixer))
    for name in option_names(mixer):
        if name in ("heads", "row", "column", "side"):
            continue
        value = SMALL.get(name, signature.parameters[name].default)
        if isinstance(value, bool):
            controls[name] = widgets.Checkbox(value, indent=False)
        elif isinstance(value, int):
            controls[name] = widgets.IntSlider(value, min(0, value), max(15, 2 * value + 1))
    return controls
