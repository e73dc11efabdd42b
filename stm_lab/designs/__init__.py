"""What networks look like, as data: `unified(mixer, scale)`, `original(mixer, scale)`, and the `steps` between them."""

from .design import Design
from .originals import Original, original, original_facts, original_scales
from .steps import CORNERS, LEVELS, START, Step, corners, step_names, steps
from .unified import SCALES, list_scales, unified

NETWORKS = {"unified": unified, "original": original}  # a design's name -> what makes it of a mixer and a scale

__all__ = [
    "CORNERS",
    "LEVELS",
    "NETWORKS",
    "SCALES",
    "START",
    "Design",
    "Original",
    "Step",
    "corners",
    "list_scales",
    "original",
    "original_facts",
    "original_scales",
    "step_names",
    "steps",
    "unified",
]
