"""Explorers for notebooks: a figure of some values that answers when they are changed.

It needs a front end to be changed by hand, and none to be drawn.
"""

from stm_lab.explore.answers import adversarial, corruption, views
from stm_lab.explore.layers import mixing_weights, receptive_field
from stm_lab.explore.mixers import mixer_bench, mixer_cards
from stm_lab.explore.pictures import picture
from stm_lab.explore.scores import pareto
from stm_lab.explore.shell import Explorer

__all__ = [
    "Explorer",
    "adversarial",
    "corruption",
    "mixer_bench",
    "mixer_cards",
    "mixing_weights",
    "pareto",
    "picture",
    "receptive_field",
    "views",
]
