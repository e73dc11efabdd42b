"""Explorers for notebooks: a figure of some values that answers when they are changed.

It needs a front end to be changed by hand, and none to be drawn.
"""

from stm_lab.explore.answers import adversarial, corruption, views
from stm_lab.explore.layers import mixing_weights, query_map, receptive_field, sampling_points
from stm_lab.explore.mixers import mixer_bench, mixer_cards
from stm_lab.explore.networks import design_steps, shape_tracer
from stm_lab.explore.painted import kernel_painter, moved_points
from stm_lab.explore.pictures import picture
from stm_lab.explore.scores import pareto, seeds
from stm_lab.explore.shell import Explorer
from stm_lab.explore.windows import halo_painter, shifted_windows

__all__ = [
    "Explorer",
    "adversarial",
    "corruption",
    "design_steps",
    "halo_painter",
    "kernel_painter",
    "mixer_bench",
    "mixer_cards",
    "mixing_weights",
    "moved_points",
    "pareto",
    "picture",
    "query_map",
    "receptive_field",
    "sampling_points",
    "seeds",
    "shape_tracer",
    "shifted_windows",
    "views",
]
