"""Paint blocks and halos on a map, and ask one token whom it hears."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets as widgets
from matplotlib.figure import Figure

from stm_lab.explore.shell import Explorer
from stm_lab.util.errors import UserError

_LARGEST = 40  # tokens a side: more are too small to be clicked


def halo_painter(height: int = 14, width: int = 14, *, block: int = 7, halo: int = 3) -> Explorer:
    """A map cut into blocks with a halo: whom the framed token hears, what of its window is masked at the edge, who
    hears it, and how many blocks do.

    Choose the sizes of map, block and halo; click a token in any panel, or move the sliders for its row and column. On
    a smaller map than that the last row or column is taken. A map with a side shorter than a block is one block along
    it, of that length. Nothing is computed but the geometry: no weights.

    Raises UserError for sizes that the sliders do not have: a map of 1 to 40 tokens a side, blocks of 1 to 16, halos of
    0 to 16.
    """
    for name, value, low, high in (
        ("height", height, 1, _LARGEST),
        ("width", width, 1, _LARGEST),
        ("block", block, 1, 16),
        ("halo", halo, 0, 16),
    ):
        if not low <= value <= high:
            raise UserError(f"halo_painter: {name}={value} must be {low} to {high}")

    def draw(height: int, width: int, block: int, halo: int, row: int, column: int) -> Figure:
        from stm_lab.figures import halo_blocks

        place = min(row, height - 1), min(column, width - 1)
        return halo_blocks(height, width, block=block, halo=halo, place=place)

    controls = {
        "height": widgets.IntSlider(height, 1, _LARGEST, description="height (tokens)"),
        "width": widgets.IntSlider(width, 1, _LARGEST, description="width (tokens)"),
        "block": widgets.IntSlider(block, 1, 16, description="block"),
        "halo": widgets.IntSlider(halo, 0, 16, description="halo"),
        "row": widgets.IntSlider(min(block, height) - 1, 0, _LARGEST - 1, description="row"),
        "column": widgets.IntSlider(min(block, width) - 1, 0, _LARGEST - 1, description="column"),
    }

    def select(panel: int, x: float, y: float) -> Mapping[str, int]:
        row, column, now = round(y), round(x), explorer.state
        if not (0 <= row < now["height"] and 0 <= column < now["width"]):
            return {}  # outside of the map there are no tokens
        return {"row": row, "column": column}

    explorer = Explorer(draw, controls, select=select)
    return explorer
