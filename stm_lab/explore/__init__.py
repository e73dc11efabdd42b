"""Explorers for notebooks: a picture of some values that answers when they are changed. Needs a front end to be moved,
none to be seen."""

from stm_lab.explore.attack import adversarial
from stm_lab.explore.bench import mixer_bench
from stm_lab.explore.cards import mixer_cards
from stm_lab.explore.corruption import corruption
from stm_lab.explore.deform import moved_points, sampling_points
from stm_lab.explore.designs import design_steps
from stm_lab.explore.halo import halo_painter
from stm_lab.explore.kernels import kernel_painter
from stm_lab.explore.mixing import mixing_weights
from stm_lab.explore.pareto import pareto
from stm_lab.explore.pictures import picture
from stm_lab.explore.receptive import receptive_field
from stm_lab.explore.reduction import query_map
from stm_lab.explore.seeds import seeds
from stm_lab.explore.shell import Explorer
from stm_lab.explore.trace import shape_tracer
from stm_lab.explore.views import views
from stm_lab.explore.windows import shifted_windows

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
