"""Measures, one question a file: any timm model and images in, a frozen result with its rows out."""

from stm_lab.measure._sites import MixerLayer, mixer_layers
from stm_lab.measure.attack import (
    AdversarialAccuracy,
    AdversarialExamples,
    adversarial_accuracy,
    adversarial_examples,
)
from stm_lab.measure.attack_checks import AttackChecks, LossSurface, attack_checks, loss_surface
from stm_lab.measure.corruption import ALEXNET, Baseline, CorruptionError, corruption_error, corruption_errors
from stm_lab.measure.cost import Cost, PartCost, cost
from stm_lab.measure.equal import EqualWidth, equal_width
from stm_lab.measure.invariance import Invariance, invariance
from stm_lab.measure.memory import Memory, PartMemory, memory
from stm_lab.measure.mixing import MixingMatrix, mixing_matrix
from stm_lab.measure.receptive import (
    RadialProfile,
    ReceptiveField,
    contribution_radius,
    effective_receptive_field,
    high_contribution_area,
    radial_profile,
    replknet_rectangle,
)
from stm_lab.measure.sampling import LayerPoints, SamplingPoints, sampling_points
from stm_lab.measure.throughput import PartTime, PartTimes, Throughput, throughput, time_by_part
from stm_lab.measure.trace import ShapeTrace, TracedPart, TracedStage, trace
from stm_lab.measure.windows import Windows, colour_weights, token_window

__all__ = [
    "ALEXNET",
    "AdversarialAccuracy",
    "AdversarialExamples",
    "AttackChecks",
    "Baseline",
    "CorruptionError",
    "Cost",
    "EqualWidth",
    "Invariance",
    "LayerPoints",
    "LossSurface",
    "Memory",
    "MixerLayer",
    "MixingMatrix",
    "PartCost",
    "PartMemory",
    "PartTime",
    "PartTimes",
    "RadialProfile",
    "ReceptiveField",
    "SamplingPoints",
    "ShapeTrace",
    "Throughput",
    "TracedPart",
    "TracedStage",
    "Windows",
    "adversarial_accuracy",
    "adversarial_examples",
    "attack_checks",
    "colour_weights",
    "contribution_radius",
    "corruption_error",
    "corruption_errors",
    "cost",
    "effective_receptive_field",
    "equal_width",
    "high_contribution_area",
    "invariance",
    "loss_surface",
    "memory",
    "mixer_layers",
    "mixing_matrix",
    "radial_profile",
    "replknet_rectangle",
    "sampling_points",
    "throughput",
    "time_by_part",
    "token_window",
    "trace",
]
