"""Explorers: figures that are drawn anew when a control is changed or the picture is clicked.

A front end is needed to change them by hand; without one they still draw. An explorer that a single notebook uses
stands in `notebooks/companions/NN.py`.
"""

from stm_lab.explore.layers import mixing_weights
from stm_lab.explore.mixers import mixer_cards
from stm_lab.explore.parts import picture
from stm_lab.explore.scores import pareto
from stm_lab.explore.shell import Explorer

__all__ = ["Explorer", "mixer_cards", "mixing_weights", "pareto", "picture"]
