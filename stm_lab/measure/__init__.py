"""Measures, one question a file: any timm model and images in, a frozen result with its rows and its figure out."""

from stm_lab.measure.attack import (
    AdversarialAccuracy,
    AdversarialExamples,
    adversarial_accuracy,
    adversarial_examples,
)
from stm_lab.measure.attack_checks import AttackChecks, LossSurface, attack_checks, loss_surface
from stm_lab.measure.cost import Cost, PartCost, cost
from stm_lab.measure.invariance import Invariance, invariance
from stm_lab.measure.memory import Memory, PartMemory, memory
from stm_lab.measure.receptive import ReceptiveField, effective_receptive_field, high_contribution_area
from stm_lab.measure.throughput import PartTime, PartTimes, Throughput, throughput, time_by_part

__all__ = [
    "AdversarialAccuracy",
    "AdversarialExamples",
    "AttackChecks",
    "Cost",
    "Invariance",
    "LossSurface",
    "Memory",
    "PartCost",
    "PartMemory",
    "PartTime",
    "PartTimes",
    "ReceptiveField",
    "Throughput",
    "adversarial_accuracy",
    "adversarial_examples",
    "attack_checks",
    "cost",
    "effective_receptive_field",
    "high_contribution_area",
    "invariance",
    "loss_surface",
    "memory",
    "throughput",
    "time_by_part",
]
