"""Notebook 19's own: one mixer on the bench, with its options on controls."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from stm_lab import figures
from stm_lab.designs import list_scales
from stm_lab.explore.mixers import SMALL, ChosenMixer, curve, facts, farthest, heard, map_controls, parameters, token
from stm_lab.explore.shell import Explorer
from stm_lab.mixers import get_mixer, list_mixers, option_names
from stm_lab.models import build_model
from stm_lab.util.errors import check_known

_BESIDE = ("halo", "swin", "pvt", "convnext", "dcn_v3")


def mixer_bench(mixer: str, *, scale: str = "nano") -> Explorer:
    """One mixer with its options on controls: which tokens the clicked one hears, and what it costs.

    Each option whose default is a whole number or a truth value is a control, except for `heads` and options called
    like one of the other controls (`row`, `column`, `side`). The curves are the formulas `macs(H, W)`.

    scale: of the network whose parameters are told: as designed, except for the options that were changed.
    Raises UserError for an unknown mixer or scale.
    """
    check_known("mixer", mixer, list_mixers(), "mixer_bench: ")
    check_known("scale", scale, list_scales(mixer), f"mixer_bench: {mixer}: ")
    first = {name: control.value for name, control in _option_controls(mixer).items()}
    others = {name: curve(ChosenMixer.of(name)) for name in _BESIDE if name != mixer}

    @lru_cache(maxsize=256)
    def in_network(**options: Any) -> int:
        """The parameters of the network."""
        changed = {name: value for name, value in options.items() if value != first[name]}  # others are set by stage
        return parameters(build_model(mixer, scale, device="meta", **changed))

    def draw(row: int, column: int, side: int, **options: Any) -> Figure:
        chosen = ChosenMixer.of(mixer, **options)
        curves = {mixer: curve(chosen), **others}
        near = heard(chosen, row, column)
        lines = {
            "heard": f"{(near > 0).sum()} of {near.size} tokens",
            "at most so far away": f"{farthest(near, row, column)} tokens",
            **facts(chosen, side),
            f"parameters of the network, {scale}": f"{in_network(**options):,}",
        }
        return figures.mixer_bench(mixer, near, (row, column), curves, side, lines)

    controls = {**_option_controls(mixer), **map_controls()}
    return Explorer(draw, controls, select=lambda panel, x, y, _: token(x, y) if panel == 0 else {})


def _option_controls(mixer: str) -> dict[str, widgets.Widget]:
    """A control for each option that can have one, at first a small window or the default."""
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
