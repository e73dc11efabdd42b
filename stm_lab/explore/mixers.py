"""Which tokens one token hears in a mixer, and what the mixer costs: two mixers side by side."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab import figures
from stm_lab.explore.parts import clipped
from stm_lab.explore.shell import Explorer, State
from stm_lab.measure._sites import Site
from stm_lab.measure.mixing import mixing_matrix, token_weights
from stm_lab.mixers import get_mixer, list_mixers, option_names
from stm_lab.util.errors import UserError, check_known

_SIDE, _DIM = 14, 16  # of the map, tokens; channels
_COUNTED = 64  # channels that costs are counted for
_SIDES = (7, 14, 28, 56, 112)  # of maps whose cost is told
SMALL = {"heads": 1, "window": 4, "shift": 2, "block": 4, "halo": 2, "reduction": 2}  # so that borders are seen


class ChosenMixer(NamedTuple):
    """A mixer with some options, (name, value) each. `kind` tells apart mixers that are registered again by a name."""

    name: str
    kind: type[nn.Module]
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, name: str, **options: Any) -> ChosenMixer:
        return cls(name, get_mixer(name), tuple(options.items()))


def mixer_cards(*, left: str, right: str) -> Explorer:
    """Two mixers side by side: whom the clicked token hears, what they cost, and what share of the mixing is one kernel
    for all, differs by position, or changes with the input.

    Whom it hears is a row of the exact Jacobian of a mixer with random weights and small windows (4, shifted by 2; halo
    2; reduction 2) on 14 x 14 tokens: its geometry, not what it learns. Costs are counted at 64 channels.

    left, right: the first two. Raises UserError for a name that is not registered.
    """
    for name in (left, right):
        check_known("mixer", name, list_mixers(), "mixer_cards: ")

    def card(name: str, row: int, column: int, side: int) -> dict:
        mixer = ChosenMixer.of(name)
        near = heard(mixer, row, column)
        hears = f"{(near > 0).sum()} of {near.size} tokens, {farthest(near, row, column)} away at most"
        return {"name": name, "heard": near, "place": (row, column), "facts": {"hears": hears, **facts(mixer, side)}}

    def draw(left: str, right: str, row: int, column: int, side: int) -> Figure:
        return figures.mixer_cards([card(name, row, column, side) for name in (left, right)])

    controls = {
        "left": widgets.Dropdown(options=list_mixers(), value=left),
        "right": widgets.Dropdown(options=list_mixers(), value=right),
        **map_controls(),
    }
    return Explorer(draw, controls, select=lambda panel, x, y, _: token(x, y))


def map_controls() -> dict[str, widgets.Widget]:
    """Sliders for a token's row and column, and for the side of the map whose cost is shown."""
    return {
        "row": widgets.IntSlider(_SIDE // 2, 0, _SIDE - 1),
        "column": widgets.IntSlider(_SIDE // 2, 0, _SIDE - 1),
        "side": widgets.SelectionSlider(options=_SIDES, value=14, description="side of the map"),
    }


def token(x: float, y: float) -> State:
    """The token nearest to a place in the map."""
    return {"row": clipped(y, _SIDE), "column": clipped(x, _SIDE)}


@lru_cache(maxsize=256)
def made(chosen: ChosenMixer, channels: int) -> nn.Module:
    """The mixer, with random weights that are large enough that all of it is seen, after it was run once.

    Raises UserError for options that it refuses, whatever it raises, and for a map that changes its size.
    """
    name, kind, options = chosen
    given = {key: value for key, value in SMALL.items() if key in option_names(name)} | dict(options)
    if "heads" in given:
        given["heads"] = max(1, channels // 16)
    told = f"{name} with {', '.join(f'{key}={value}' for key, value in options) or 'its defaults'}"
    try:
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(0)
            mixer = kind(channels, **given).eval().requires_grad_(False)
            for parameter in mixer.parameters():
                std = 0.5 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
                parameter.copy_(std * torch.randn_like(parameter))
            out = mixer(torch.zeros(1, _SIDE, _SIDE, channels))
    except Exception as error:
        raise UserError(f"{told}: {(str(error).strip() or type(error).__name__).splitlines()[0]}") from error
    if out.shape != (1, _SIDE, _SIDE, channels):
        raise UserError(f"{told}: {_SIDE}x{_SIDE} tokens became {tuple(out.shape[1:3])}")
    return mixer


@lru_cache(maxsize=1024)
def heard(chosen: ChosenMixer, row: int, column: int) -> np.ndarray:
    """(14, 14): what each token gives to one, at random tokens of 16 channels; 0 where it is only rounding.

    Raises UserError if no token gives anything.
    """
    site = Site(made(chosen, _DIM), (_random_tokens(1, _SIDE, seed=1),), {}, "NHWC", None, 0)
    near = token_weights(site, row, column)[0]
    if not near.any():
        where = f"{chosen.name}: the token in row {row}, column {column}"
        raise UserError(f"{where} hears nobody; its output depends on no token")
    return np.where(near > 1e-9 * near.max(), near, 0)


def farthest(heard: np.ndarray, row: int, column: int) -> int:
    """Rows or columns to the token that is farthest away of those that are heard."""
    return np.abs(np.argwhere(heard > 0) - (row, column)).max()


def _random_tokens(count: int, side: int, *, seed: int) -> Tensor:
    return torch.randn(count, side, side, _DIM, generator=torch.Generator().manual_seed(seed))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def curve(chosen: ChosenMixer) -> dict[int, int]:
    """Multiply-adds by the side of the map; 0 without a formula."""
    mixer = made(chosen, _COUNTED)
    return {side: mixer.macs(side, side) if hasattr(mixer, "macs") else 0 for side in _SIDES}


@lru_cache(maxsize=256)
def facts(chosen: ChosenMixer, side: int) -> dict[str, str]:
    """In words: how its mixing divides, its parameters, and its multiply-adds on a map of this side."""
    found = mixing_matrix(made(chosen, _DIM), _random_tokens(3, 8, seed=2), probes=2)
    parts = (found.shared, found.positional, found.dynamic)
    counted = made(chosen, _COUNTED)
    macs = f"{curve(chosen)[side]:,}" if hasattr(counted, "macs") else "no formula"
    return {
        "shared / by position / by input": " / ".join(f"{max(0.0, 100 * part):.0f}%" for part in parts),
        f"parameters at {_COUNTED} channels": f"{parameters(counted):,}",
        f"multiply-adds, {side}x{side} tokens": macs,
    }
