"""Measures, one question a file: any timm model and images in, a frozen result with its rows and its figure out."""

from stm_lab.measure.cost import Cost, PartCost, Throughput, cost, throughput
from stm_lab.measure.invariance import Invariance, invariance
from stm_lab.measure.receptive import ReceptiveField, effective_receptive_field, high_contribution_area

__all__ = [
    "Cost",
    "Invariance",
    "PartCost",
    "ReceptiveField",
    "Throughput",
    "cost",
    "effective_receptive_field",
    "high_contribution_area",
    "invariance",
    "throughput",
]
