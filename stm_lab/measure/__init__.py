"""Measures, one question a file: any timm model and images in, a frozen result with its rows out.

The functions are listed here; the results' classes that nobody constructs are documented beside them.
"""

from stm_lab.measure._sites import mixer_layers
from stm_lab.measure.attack import adversarial_accuracy, adversarial_examples
from stm_lab.measure.attack_checks import attack_checks
from stm_lab.measure.corruption import ALEXNET, Baseline, CorruptionError, corruption_errors
from stm_lab.measure.cost import cost
from stm_lab.measure.invariance import Invariance, invariance
from stm_lab.measure.memory import memory
from stm_lab.measure.mixing import mixing_matrix
from stm_lab.measure.receptive import (
    ReceptiveField,
    contribution_radius,
    effective_receptive_field,
    high_contribution_area,
    radial_profile,
    replknet_rectangle,
)
from stm_lab.measure.throughput import throughput, time_by_part

__all__ = [
    "ALEXNET",
    "Baseline",
    "CorruptionError",
    "Invariance",
    "ReceptiveField",
    "adversarial_accuracy",
    "adversarial_examples",
    "attack_checks",
    "contribution_radius",
    "corruption_errors",
    "cost",
    "effective_receptive_field",
    "high_contribution_area",
    "invariance",
    "memory",
    "mixer_layers",
    "mixing_matrix",
    "radial_profile",
    "replknet_rectangle",
    "throughput",
    "time_by_part",
]
