"""Notebook 07's own: an image on its way through a network."""

from __future__ import annotations

from functools import lru_cache

import ipywidgets as widgets
from matplotlib.figure import Figure

from stm_lab import figures, measure
from stm_lab.designs import SCALES, list_scales
from stm_lab.explore.shell import Explorer, State
from stm_lab.mixers import list_mixers
from stm_lab.models import build_model
from stm_lab.util.errors import check_known

_OPENED = ("stem", "stage 1", "stage 2", "stage 3", "stage 4", "head")


def shape_tracer() -> Explorer:
    """An image on its way from stem to head: the map after every stage, what is padded, what it costs, and the parts
    of the clicked stage."""

    @lru_cache(maxsize=64)
    def network(mixer: str, scale: str):
        check_known("scale", scale, list_scales(mixer), f"{mixer}: ")
        return build_model(mixer, scale, device="meta")

    def draw(mixer: str, scale: str, height: int, width: int, opened: str) -> Figure:
        return figures.shape_trace(measure.trace(network(mixer, scale), image_size=(height, width)), opened)

    def select(panel: int, x: float, y: float, _: State) -> State:
        """Boxes stand at 0 (the image), 1 (the stem) and so on; bars are lines from the stem on; then the table."""
        place = (round(x) - 1, round(y), -1)[panel]
        return {"opened": _OPENED[place]} if 0 <= place < len(_OPENED) else {}

    controls = {
        "mixer": widgets.Dropdown(options=list_mixers()),
        "scale": widgets.Dropdown(options=SCALES, value="tiny"),
        "height": widgets.IntSlider(224, 1, 512, description="height (pixels)"),
        "width": widgets.IntSlider(224, 1, 512, description="width (pixels)"),
        "opened": widgets.Dropdown(options=_OPENED, value="stage 1"),
    }
    return Explorer(draw, controls, select=select)
