"""Click a token of a map in windows or blocks, and see whom it hears: nothing but geometry and colours, no weights.

On a map that is smaller than the place of the token its last row or column is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from stm_lab import figures, measure
from stm_lab.explore.pictures import mean_colours, single_images
from stm_lab.explore.shell import Explorer, State


def shifted_windows(images: Mapping[str, Tensor]) -> Explorer:
    """A photograph as a map of tokens, and the clicked token's way: the map, the shifted grid, the roll, the mask of
    its window, its attention in there, and the same back on the map.

    The attention compares colours, without learned weights: `mixing_weights` shows those of a network.

    images: by name, each (3, H, W) or (1, 3, H, W), uint8 or in [0, 1]. Raises UserError for no images.
    """
    photographs = single_images(images, "shifted_windows")

    @lru_cache(maxsize=64)
    def tokens(name: str, height: int, width: int) -> np.ndarray:
        return mean_colours(photographs[name], height, width)

    def draw(
        image: str, step: int, height: int, width: int, window: int, shifted: bool, masked: bool, row: int, column: int
    ) -> Figure:
        place = min(row, height - 1), min(column, width - 1)
        shift = window // 2 if shifted else 0
        return figures.window_steps(
            tokens(image, height, width), window=window, shift=shift, place=place, masked=masked, step=step
        )

    most = 28  # tokens a side: a click needs some pixels for each
    controls = {
        "image": widgets.Dropdown(options=list(photographs)),
        "step": widgets.IntSlider(6, 1, 6),
        "height": widgets.IntSlider(12, 2, most, description="height (tokens)"),
        "width": widgets.IntSlider(12, 2, most, description="width (tokens)"),
        "window": widgets.IntSlider(4, 2, 8),
        "shifted": widgets.Checkbox(True, description="shifted by half a window"),
        "masked": widgets.Checkbox(True),
        "row": widgets.IntSlider(0, 0, most - 1),
        "column": widgets.IntSlider(0, 0, most - 1),
    }

    def select(panel: int, x: float, y: float, now: State) -> State:
        place = _token(panel, round(x), round(y), now)
        return {} if place is None else _on_map(*place, now)

    return Explorer(draw, controls, select=select)


def _token(panel: int, x: int, y: int, now: State) -> tuple[int, int] | None:
    """Row and column of the token that is shown at a place of a panel; None in a panel that is not drawn yet."""
    if panel >= now["step"]:
        return None
    if panel in (0, 1, 5):
        return y, x
    height, width, window = now["height"], now["width"], now["window"]
    place = min(now["row"], height - 1), min(now["column"], width - 1)
    shift = window // 2 if now["shifted"] else 0
    found = measure.token_window(height, width, window=window, shift=shift, place=place)
    if panel == 2:
        return (y + found.shift) % found.padded[0], (x + found.shift) % found.padded[1]
    cell = y if panel == 3 else y * found.side + x  # the mask has a row for each query
    if not 0 <= cell < found.side**2:
        return None
    return int(found.rows.flat[cell]), int(found.columns.flat[cell])


def halo_painter() -> Explorer:
    """A map cut into blocks with a halo: whom the clicked token hears, what of its window is masked at the edge, who
    hears it, and how many blocks do. If a side of the map is shorter than a block, the block shrinks to it."""
    def draw(height: int, width: int, block: int, halo: int, row: int, column: int) -> Figure:
        place = min(row, height - 1), min(column, width - 1)
        return figures.halo_blocks(height, width, block=block, halo=halo, place=place)

    most = 40  # tokens a side: a click needs some pixels for each
    controls = {
        "height": widgets.IntSlider(14, 1, most, description="height (tokens)"),
        "width": widgets.IntSlider(14, 1, most, description="width (tokens)"),
        "block": widgets.IntSlider(7, 1, 16),
        "halo": widgets.IntSlider(3, 0, 16),
        "row": widgets.IntSlider(6, 0, most - 1),
        "column": widgets.IntSlider(6, 0, most - 1),
    }
    return Explorer(draw, controls, select=lambda panel, x, y, now: _on_map(round(y), round(x), now))


def _on_map(row: int, column: int, now: State) -> State:
    """What a click on a token sets: nothing outside of the map, in its padding."""
    is_inside = 0 <= row < now["height"] and 0 <= column < now["width"]
    return {"row": row, "column": column} if is_inside else {}
