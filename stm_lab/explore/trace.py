"""Follow the shapes through the backbone, for any image: every stage's map, padding and cost, and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
from matplotlib.figure import Figure

from stm_lab import measure
from stm_lab.backbone import UnifiedBackbone
from stm_lab.designs import SCALES, list_scales
from stm_lab.explore.shell import Explorer
from stm_lab.mixers import get_mixer, list_mixers
from stm_lab.util.errors import UserError, check_known

_LARGEST = 512  # pixels a side
_OPENED = ("stem", "stage 1", "stage 2", "stage 3", "stage 4", "head")


def shape_tracer(
    mixers: Sequence[str] | None = None, *, scale: str = "tiny", height: int = 224, width: int = 224
) -> Explorer:
    """An image on its way from stem to head: the map after every stage, what is padded, what it costs.

    Choose mixer, scale, and the image's height and width; click a stage, as a box or bar, or choose it in the list:
    its parts are shown with their shapes, parameters and multiply-adds. Nothing is run but arithmetic.

    mixers: to choose from; None: all that are registered. A scale that a mixer does not have is said below the picture.
    Raises UserError for no mixers, for names that are not there, and for sides that the sliders do not have: 1 to 512.
    """
    mixers = list_mixers() if mixers is None else list(mixers)
    if not mixers:
        raise UserError("shape_tracer: no mixers")
    for mixer in mixers:
        get_mixer(mixer)
    check_known("scale", scale, list_scales(mixers[0]), f"shape_tracer: {mixers[0]}: ")
    for name, value in (("height", height), ("width", width)):
        if not 1 <= value <= _LARGEST:
            raise UserError(f"shape_tracer: {name}={value} must be 1 to {_LARGEST}")

    def draw(mixer: str, scale: str, height: int, width: int, opened: str) -> Figure:
        from stm_lab.figures import shape_trace

        return shape_trace(measure.trace(_network(mixer, scale), image_size=(height, width)), opened)

    scales = [name for name in SCALES if any(name in list_scales(mixer) for mixer in mixers)]
    controls = {
        "mixer": widgets.Dropdown(options=mixers, value=mixers[0], description="mixer"),
        "scale": widgets.Dropdown(options=scales, value=scale, description="scale"),
        "height": widgets.IntSlider(height, 1, _LARGEST, description="height (pixels)"),
        "width": widgets.IntSlider(width, 1, _LARGEST, description="width (pixels)"),
        "opened": widgets.Dropdown(options=_OPENED, value="stage 1", description="opened"),
    }
    return Explorer(draw, controls, select=_stage_at)


def _stage_at(panel: int, x: float, y: float) -> Mapping[str, str]:
    """Boxes stand at 0 (the image), 1 (the stem) and so on; bars are lines from the stem on. The table says nothing."""
    place = round(x) - 1 if panel == 0 else round(y) if panel == 1 else -1
    return {"opened": _OPENED[place]} if 0 <= place < len(_OPENED) else {}


@lru_cache(maxsize=64)
def _network(mixer: str, scale: str) -> UnifiedBackbone:
    """Shapes alone, without memory."""
    from stm_lab.models import build_model  # here, because that module stands on what registers models

    check_known("scale", scale, list_scales(mixer), f"{mixer}: ")
    return build_model(mixer, scale, device="meta")
