"""The figure of a measure's result, by the result's type."""

from __future__ import annotations

from functools import singledispatch

import numpy as np
from matplotlib.figure import Figure

from stm_lab.figures.attack import accuracy_by_epsilon
from stm_lab.figures.corruption import severity_curves
from stm_lab.figures.cost import cost_by_part, shares_by_role, throughput_repeats
from stm_lab.figures.draw import lines
from stm_lab.figures.invariance import consistency_curves
from stm_lab.figures.mixing import mixing_matrices
from stm_lab.figures.receptive import receptive_fields
from stm_lab.measure.attack import AdversarialAccuracy
from stm_lab.measure.attack_checks import AttackChecks
from stm_lab.measure.corruption import CorruptionError
from stm_lab.measure.cost import Cost
from stm_lab.measure.invariance import Invariance
from stm_lab.measure.memory import Memory
from stm_lab.measure.mixing import MixingMatrix
from stm_lab.measure.receptive import ReceptiveField
from stm_lab.measure.throughput import PartTimes, Throughput
from stm_lab.util.errors import UserError


@singledispatch
def of(result: object) -> Figure:
    """The figure of one result of `stm_lab.measure`: `figures.of(measure.cost(model))`.

    The functions of this package draw several results in one figure, and have options. Raises UserError for anything
    that is not a measure's result.
    """
    known = ", ".join(sorted(kind.__name__ for kind in of.registry if kind is not object))
    raise UserError(f"no figure of {type(result).__name__}; figures.of takes the results of measures: {known}")


@of.register
def _(result: AdversarialAccuracy) -> Figure:
    return accuracy_by_epsilon([{**row, "mixer": result.model, "seed": 0} for row in result.rows()])


@of.register
def _(result: AttackChecks) -> Figure:
    ways = np.atleast_2d(result.loss_by_step)
    names = [f"{result.model}, restart {i}" for i in range(1, 1 + len(ways))] if len(ways) > 1 else [result.model]
    curves = {name: dict(enumerate(way)) for name, way in zip(names, ways, strict=True)}
    return lines(curves, "steps of the attack", "cross-entropy, mean over images")


of.register(CorruptionError, lambda result: severity_curves({result.model: result}))
of.register(Cost, lambda result: cost_by_part(result.rows()))
of.register(Invariance, lambda result: consistency_curves({result.model: result}))
of.register(MixingMatrix, lambda result: mixing_matrices({f"{result.model}, {result.layer}": result}))
of.register(ReceptiveField, lambda result: receptive_fields({result.model: result.contribution}))
of.register(Throughput, lambda result: throughput_repeats(result.model, result.repeats))
of.register(Memory, lambda result: shares_by_role(result.rows(), "activations", "kept for the backward pass (%)"))
of.register(PartTimes, lambda result: shares_by_role(result.rows(), "milliseconds", "time for one image (%)"))
