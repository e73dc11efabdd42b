"""Two token mixers side by side: who a token hears, what it costs, what of the mixing is shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from stm_lab.explore.shell import Explorer
from stm_lab.measure._sites import Site
from stm_lab.measure.mixing import mixing_matrix, token_weights
from stm_lab.mixers import get_mixer, list_mixers, option_names
from stm_lab.util.errors import UserError, check_known

SIDE, DIM = 14, 16  # of the map, tokens; channels
SIDES = (7, 14, 28, 56, 112)  # of maps whose cost is told
DESIGNED = {"heads": 1, "window": 4, "shift": 2, "block": 4, "halo": 2, "reduction": 2}  # small, so that edges are seen


def mixer_cards(
    mixers: Sequence[str] | None = None, *, left: str | None = None, right: str | None = None, dim: int = 64
) -> Explorer:
    """Choose two mixers, click a token (or set its row and column), and compare.

    The maps show who the framed token hears on a map of 14 x 14 tokens, by one row of the exact Jacobian of a mixer
    with random weights and small windows (4, shifted by 2; halo 2; reduction 2): its geometry, not what it learns. Grey
    tokens are not heard at all. The facts below: parameters and multiply-adds at `dim` channels on a map of the chosen
    side, and what share of the mixing is one kernel for all, differs by position, or changes with the input.

    Args:
        mixers: to choose from; default: all that are registered.
        left, right: the first two.
        dim: channels that parameters and multiply-adds are counted for.

    Raises UserError for a name that is not registered, and for fewer than one.
    """
    names = list_mixers() if mixers is None else list(mixers)
    if not names:
        raise UserError("mixer_cards: no mixers to choose from")
    for name in (*names, *filter(None, (left, right))):
        check_known("mixer", name, list_mixers(), "mixer_cards: ")

    @lru_cache(maxsize=64)
    def made(name: str, channels: int) -> nn.Module:
        return randomised(name, channels)

    @lru_cache(maxsize=1024)
    def heard(name: str, row: int, column: int) -> np.ndarray:
        return heard_tokens(made(name, DIM), name, row, column)

    @lru_cache(maxsize=64)
    def parts(name: str) -> str:
        return parts_of_mixing(made(name, DIM))

    def card(name: str, row: int, column: int, side: int) -> dict:
        mixer, near = made(name, dim), heard(name, row, column)
        farthest = np.argwhere(near > 1e-9 * near.max()) - (row, column)
        macs = f"{mixer.macs(side, side):,}" if hasattr(mixer, "macs") else "no formula"
        facts = {
            "hears": f"{len(farthest)} of {near.size} tokens, {np.abs(farthest).max()} away at most",
            "shared / by position / by input": parts(name),
            f"parameters at {dim} channels": f"{sum(p.numel() for p in mixer.parameters()):,}",
            f"multiply-adds, {side}x{side} tokens": macs,
        }
        return {"name": name, "heard": near, "place": (row, column), "facts": facts}

    def draw(left: str, right: str, row: int, column: int, side: int) -> Figure:
        from stm_lab.figures import mixer_cards as figure

        return figure([card(name, row, column, side) for name in (left, right)])

    controls = {
        "left": widgets.Dropdown(options=names, value=left or names[0], description="left"),
        "right": widgets.Dropdown(options=names, value=right or names[-1], description="right"),
        "row": widgets.IntSlider(SIDE // 2, 0, SIDE - 1, description="row"),
        "column": widgets.IntSlider(SIDE // 2, 0, SIDE - 1, description="column"),
        "side": widgets.SelectionSlider(options=SIDES, value=14, description="side of the map"),
    }

    def select(panel: int, x: float, y: float) -> Mapping[str, int]:
        return {"row": min(max(round(y), 0), SIDE - 1), "column": min(max(round(x), 0), SIDE - 1)}

    return Explorer(draw, controls, select=select)


def heard_tokens(mixer: nn.Module, name: str, row: int, column: int) -> np.ndarray:
    """(14, 14): what each token gives to one, at random tokens of 16 channels. Raises UserError if no token does."""
    tokens = torch.randn(1, SIDE, SIDE, DIM, generator=torch.Generator().manual_seed(1))
    near = token_weights(Site(mixer, (tokens,), {}, "NHWC", None, 0), row, column)[0]
    if not near.any():
        raise UserError(f"{name}: the token in row {row}, column {column} hears nobody; its output depends on no token")
    return near


def parts_of_mixing(mixer: nn.Module) -> str:
    """What of the mixing is one kernel for all, differs by position, changes with the input: "60% / 0% / 40%"."""
    tokens = torch.randn(3, 8, 8, DIM, generator=torch.Generator().manual_seed(2))
    found = mixing_matrix(mixer, tokens, probes=2)
    return " / ".join(f"{max(0.0, 100 * part):.0f}%" for part in (found.shared, found.positional, found.dynamic))


def randomised(name: str, channels: int, given: Mapping[str, object] | None = None) -> nn.Module:
    """A mixer whose weights are large enough that all of it is seen. given: options, over those of the design."""
    options = {key: value for key, value in DESIGNED.items() if key in option_names(name)} | dict(given or {})
    if "heads" in options:
        options["heads"] = max(1, channels // 16)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        mixer = get_mixer(name)(channels, **options).eval()
        with torch.no_grad():
            for parameter in mixer.parameters():
                std = 0.5 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
                parameter.copy_(std * torch.randn_like(parameter))
    return mixer.requires_grad_(False)
