"""Follow one token through shifted windows: cut, rolled, masked, heard, and shifted back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from stm_lab.explore.pictures import mean_colours, one_each
from stm_lab.explore.shell import Explorer
from stm_lab.measure import token_window
from stm_lab.util.errors import UserError

_MOST = 28  # tokens a side: more are too small to be clicked
_RANGES = {"step": (1, 6), "height": (2, _MOST), "width": (2, _MOST), "window": (2, 8)}


def shifted_windows(
    images: Mapping[str, Tensor], *, height: int = 12, width: int = 12, window: int = 4, step: int = 6
) -> Explorer:
    """A photograph as a map of tokens, and one token's way: the map, the shifted grid, the roll, the mask of its
    window, its attention in there, and the same back on the map.

    Choose image, size of map and window; shift by half a window or not; take the mask away; go step by step; click a
    token in any panel, or move the sliders for its row and column (on a smaller map the last one is taken). The
    attention is by colours, without learned weights: those of a network are shown by `mixing_weights`.

    images: by name, each (3, H, W) or (1, 3, H, W), uint8 or in [0, 1].
    Raises UserError for no images, and for sizes that the sliders do not have: maps of 2 to 28 tokens a side, windows
    of 2 to 8, steps 1 to 6.
    """
    if not images:
        raise UserError("shifted_windows: no images; give {name: image}")
    sizes = _sliders(step=step, height=height, width=width, window=window)
    pictures = one_each(images)

    @lru_cache(maxsize=64)
    def tokens(name: str, height: int, width: int) -> np.ndarray:
        return mean_colours(pictures[name], height, width)

    def draw(
        image: str, step: int, height: int, width: int, window: int, shifted: bool, masked: bool, row: int, column: int
    ) -> Figure:
        from stm_lab.figures import window_steps

        place = min(row, height - 1), min(column, width - 1)
        shift = window // 2 if shifted else 0
        return window_steps(
            tokens(image, height, width), window=window, shift=shift, place=place, masked=masked, step=step
        )

    controls = {
        "image": widgets.Dropdown(options=list(pictures), description="image"),
        **sizes,
        "shifted": widgets.Checkbox(True, description="shifted by half a window"),
        "masked": widgets.Checkbox(True, description="masked"),
        "row": widgets.IntSlider(0, 0, _MOST - 1, description="row"),
        "column": widgets.IntSlider(0, 0, _MOST - 1, description="column"),
    }

    def select(panel: int, x: float, y: float) -> Mapping[str, int]:
        now = explorer.state
        place = _token(panel, round(x), round(y), now)
        if place is None or not (0 <= place[0] < now["height"] and 0 <= place[1] < now["width"]):
            return {}  # padding, or a panel that is not drawn yet
        return {"row": place[0], "column": place[1]}

    explorer = Explorer(draw, controls, select=select)
    return explorer


def _sliders(**values: int) -> dict[str, widgets.IntSlider]:
    """By name, at these values. Raises UserError for one that the slider does not have."""
    for name, value in values.items():
        low, high = _RANGES[name]
        if not low <= value <= high:
            raise UserError(f"shifted_windows: {name}={value} must be {low} to {high}")
    units = {"height": "height (tokens)", "width": "width (tokens)"}
    return {
        name: widgets.IntSlider(value, *_RANGES[name], description=units.get(name, name))
        for name, value in values.items()
    }


def _token(panel: int, x: int, y: int, now: Mapping) -> tuple[int, int] | None:
    """The token of the map that is shown at a place of a panel."""
    if panel >= now["step"]:
        return None
    if panel in (0, 1, 5):
        return y, x
    height, width, window = now["height"], now["width"], now["window"]
    place = min(now["row"], height - 1), min(now["column"], width - 1)
    found = token_window(height, width, window=window, shift=window // 2 if now["shifted"] else 0, place=place)
    if panel == 2:
        return (y + found.shift) % found.padded[0], (x + found.shift) % found.padded[1]
    cell = y if panel == 3 else y * found.side + x  # the mask has a row for each query
    if not 0 <= cell < found.side**2:
        return None
    return int(found.rows.flat[cell]), int(found.columns.flat[cell])
