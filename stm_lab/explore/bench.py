"""One token mixer on the bench: its options on sliders, who a token hears, and what it costs beside the others."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from stm_lab.designs import list_scales
from stm_lab.explore.cards import DESIGNED, DIM, SIDE, SIDES, heard_tokens, parts_of_mixing, randomised
from stm_lab.explore.shell import Explorer
from stm_lab.mixers import get_mixer, list_mixers, option_names
from stm_lab.util.errors import UserError, check_known

_BESIDE = ("halo", "swin", "pvt", "convnext", "dcn_v3")


def mixer_bench(mixer: str, *, beside: Sequence[str] = _BESIDE, dim: int = 64, scale: str = "nano") -> Explorer:
    """Turn a mixer's options, click a token (or set its row and column), and see whom it hears and what that costs.

    Each option of the signature whose default is a whole number or a truth value is a control, but `heads`, and what is
    called as one of the other controls (`row`, `column`, `side`). As in
    `mixer_cards` the map shows one row of the exact Jacobian on 14 x 14 tokens, with random weights. The curves are the
    formulas `macs(H, W)` at `dim` channels over the side of the map; a mixer without one has none. Options that the
    mixer refuses are said below the picture.

    Args:
        mixer: a registered name.
        beside: others whose cost is drawn, with window 4, shift 2, block 4, halo 2, reduction 2.
        dim: channels that are counted for.
        scale: of the network whose parameters are told: as designed, but for the options that were changed.

    Raises UserError for a mixer or scale that is not there.
    """
    for name in (mixer, *beside):
        check_known("mixer", name, list_mixers(), "mixer_bench: ")
    check_known("scale", scale, list_scales(mixer), f"mixer_bench: {mixer}: ")
    names = list(dict.fromkeys([mixer, *beside]))
    turned = _turned(mixer)

    @lru_cache(maxsize=256)
    def made(channels: int, options: tuple) -> nn.Module:
        return _tried(mixer, channels, dict(options))

    @lru_cache(maxsize=1024)
    def heard(row: int, column: int, options: tuple) -> np.ndarray:
        return heard_tokens(made(DIM, options), mixer, row, column)

    @lru_cache(maxsize=256)
    def parts(options: tuple) -> str:
        return parts_of_mixing(made(DIM, options))

    @lru_cache(maxsize=256)
    def network(options: tuple) -> int:
        from stm_lab.models import build_model  # here, since it stands above

        changed = {name: value for name, value in options if value != turned[name]}  # else the design's, by stage
        model = build_model(mixer, scale, device="meta", **changed)
        return sum(parameter.numel() for parameter in model.parameters())

    others = {name: _curve(_tried(name, dim, {})) for name in names if name != mixer}

    def draw(row: int, column: int, side: int, **chosen: Any) -> Figure:
        from stm_lab.figures import mixer_bench as figure

        options = tuple(chosen.items())
        module, near = made(dim, options), heard(row, column, options)
        farthest = np.argwhere(near > 1e-9 * near.max()) - (row, column)
        curve = _curve(module)
        facts = {
            "heard": f"{len(farthest)} of {near.size} tokens",
            "at most so far away": f"{np.abs(farthest).max()} tokens",
            "shared / by position / by input": parts(options),
            f"parameters at {dim} channels": f"{sum(p.numel() for p in module.parameters()):,}",
            f"multiply-adds, {side}x{side} tokens": f"{curve[side]:,}" if hasattr(module, "macs") else "no formula",
            f"parameters of the network, {scale}": f"{network(options):,}",
        }
        return figure(mixer, near, (row, column), {mixer: curve, **others}, side, facts)

    def select(panel: int, x: float, y: float) -> Mapping[str, int]:
        if panel != 0:
            return {}
        return {"row": min(max(round(y), 0), SIDE - 1), "column": min(max(round(x), 0), SIDE - 1)}

    controls = {
        **{name: _control(name, default) for name, default in turned.items()},
        "row": widgets.IntSlider(SIDE // 2, 0, SIDE - 1, description="row"),
        "column": widgets.IntSlider(SIDE // 2, 0, SIDE - 1, description="column"),
        "side": widgets.SelectionSlider(options=SIDES, value=14, description="side of the map"),
    }
    return Explorer(draw, controls, select=select)


def _turned(mixer: str) -> dict[str, int | bool]:
    """The options that are controls, with their first values: small ones for windows, else the defaults."""
    parameters = inspect.signature(get_mixer(mixer)).parameters
    defaults = {name: DESIGNED.get(name, parameters[name].default) for name in option_names(mixer) if name != "heads"}
    taken = {"row", "column", "side"}
    return {name: value for name, value in defaults.items() if isinstance(value, int) and name not in taken}


def _control(name: str, value: int | bool) -> widgets.Widget:
    if isinstance(value, bool):
        return widgets.Checkbox(value, description=name, indent=False)
    return widgets.IntSlider(value, min(0, value), max(15, 2 * value + 1), description=name)


def _tried(mixer: str, channels: int, options: Mapping[str, Any]) -> nn.Module:
    """The mixer with these options, run once; what it refuses is a UserError, whatever it raises."""
    try:
        module = randomised(mixer, channels, options)
        out = module(torch.zeros(1, SIDE, SIDE, channels))
    except Exception as error:
        told = ", ".join(f"{name}={value}" for name, value in options.items())
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{mixer} with {told or 'its defaults'}: {text}") from error
    if out.shape != (1, SIDE, SIDE, channels):
        told = ", ".join(f"{name}={value}" for name, value in options.items())
        raise UserError(f"{mixer} with {told}: {SIDE}x{SIDE} tokens became {tuple(out.shape[1:3])}")
    return module


def _curve(module: nn.Module) -> dict[int, int]:
    """Multiply-adds by the side of the map; 0 without a formula."""
    return {side: module.macs(side, side) if hasattr(module, "macs") else 0 for side in SIDES}
