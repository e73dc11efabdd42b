"""The figure of a measure's result, by the result's type."""

from __future__ import annotations

from functools import singledispatch

from matplotlib.figure import Figure

from stm_lab.figures.attack import accuracy_by_epsilon, loss_by_steps, loss_surfaces
from stm_lab.figures.corruption import severity_curves
from stm_lab.figures.cost import cost_by_part, shares_by_role, throughput_repeats
from stm_lab.figures.deform import sampling_by_stage
from stm_lab.figures.invariance import consistency_curves
from stm_lab.figures.mixing import mixing_matrices
from stm_lab.figures.receptive import receptive_fields
from stm_lab.figures.trace import shape_trace
from stm_lab.measure.attack import AdversarialAccuracy
from stm_lab.measure.attack_checks import AttackChecks, LossSurface
from stm_lab.measure.corruption import CorruptionError
from stm_lab.measure.cost import Cost
from stm_lab.measure.invariance import Invariance
from stm_lab.measure.memory import Memory
from stm_lab.measure.mixing import MixingMatrix
from stm_lab.measure.receptive import ReceptiveField
from stm_lab.measure.sampling import SamplingPoints
from stm_lab.measure.throughput import PartTimes, Throughput
from stm_lab.measure.trace import ShapeTrace
from stm_lab.util.errors import UserError


@singledispatch
def of(result: object) -> Figure:
    """The figure of one result of `stm_lab.measure`: `figures.of(measure.cost(model))`.

    Several results in one figure, or options, are what the functions of this package take. Raises UserError for
    anything that is not a measure's result.
    """
    known = ", ".join(sorted(kind.__name__ for kind in of.registry if kind is not object))
    raise UserError(f"no figure of {type(result).__name__}; figures.of takes the results of measures: {known}")


@of.register
def _(result: AdversarialAccuracy) -> Figure:
    return accuracy_by_epsilon([{**row, "mixer": result.model, "seed": 0} for row in result.rows()])


@of.register
def _(result: AttackChecks) -> Figure:
    return loss_by_steps({result.model: result.loss_by_step})


@of.register
def _(result: LossSurface) -> Figure:
    return loss_surfaces({result.model: result})


@of.register
def _(result: CorruptionError) -> Figure:
    return severity_curves({result.model: result})


@of.register
def _(result: Cost) -> Figure:
    return cost_by_part(result.rows())


@of.register
def _(result: Invariance) -> Figure:
    return consistency_curves({result.model: result})


@of.register
def _(result: Memory) -> Figure:
    return shares_by_role(result.rows(), "activations", "kept for the backward pass (%)")


@of.register
def _(result: MixingMatrix) -> Figure:
    return mixing_matrices({f"{result.model}, {result.layer}": result})


@of.register
def _(result: ReceptiveField) -> Figure:
    return receptive_fields({result.model: result.contribution})


@of.register
def _(result: SamplingPoints) -> Figure:
    return sampling_by_stage(result)


@of.register
def _(result: ShapeTrace) -> Figure:
    return shape_trace(result)


@of.register
def _(result: PartTimes) -> Figure:
    return shares_by_role(result.rows(), "milliseconds", "time for one image (%)")


@of.register
def _(result: Throughput) -> Figure:
    return throughput_repeats(result.model, result.repeats)
