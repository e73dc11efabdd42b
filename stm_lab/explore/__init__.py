"""Explorers for notebooks: a picture of some values that answers when they are changed. Needs a front end to be moved,
none to be seen."""

from stm_lab.explore.pareto import pareto
from stm_lab.explore.shell import Explorer

__all__ = ["Explorer", "pareto"]
