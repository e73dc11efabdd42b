"""The figure of a measure's result, by the result's type."""

from __future__ import annotations

from functools import singledispatch

import numpy as np
from matplotlib.figure import Figure

from stm_lab.figures import cost, maps, scores
from stm_lab.figures.draw import lines
from stm_lab.measure import CorruptionError, Invariance, ReceptiveField
from stm_lab.measure.attack import AdversarialAccuracy
from stm_lab.measure.attack_checks import AttackChecks
from stm_lab.measure.cost import Cost
from stm_lab.measure.memory import Memory
from stm_lab.measure.mixing import MixingMatrix
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
def _(result: AttackChecks) -> Figure:
    ways = np.atleast_2d(result.loss_by_step)
    names = [f"{result.model}, restart {i}" for i in range(1, 1 + len(ways))] if len(ways) > 1 else [result.model]
    curves = {name: dict(enumerate(way)) for name, way in zip(names, ways, strict=True)}
    return lines(curves, "steps of the attack", "cross-entropy, mean over images")


@of.register
def _(result: AdversarialAccuracy) -> Figure:
    return scores.accuracy_by_epsilon([{**row, "mixer": result.model, "seed": 0} for row in result.rows()])


of.register(CorruptionError, lambda result: scores.severity_curves({result.model: result}))
of.register(Cost, lambda result: cost.cost_by_part(result.rows()))
of.register(Invariance, lambda result: scores.consistency_curves({result.model: result}))
of.register(Memory, lambda result: cost.shares_by_role(result.rows(), "activations", "kept for the backward pass (%)"))
of.register(MixingMatrix, lambda result: maps.mixing_matrices({f"{result.model}, {result.layer}": result}))
of.register(PartTimes, lambda result: cost.shares_by_role(result.rows(), "milliseconds", "time for one image (%)"))
of.register(ReceptiveField, lambda result: maps.receptive_fields({result.model: result.contribution}))
of.register(Throughput, lambda result: cost.throughput_repeats(result.model, result.repeats))
