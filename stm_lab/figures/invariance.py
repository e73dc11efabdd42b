"""Answers as the picture moves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stm_lab.errors import UserError
from stm_lab.figures.style import colours, legend_beside, plain, styles


def consistency_curves(curves: Mapping[str, object]) -> Figure:
    """How often the answer stays as the picture moves, by mixer.

    curves: for each mixer a result of `invariance`, or a pair (strengths, values): strengths (S,) in pixels, values in
    percent, (S,), or (runs, S), of which the mean is drawn and, shaded, the range.
    Raises UserError for no curves and for values that do not fit their strengths.
    """
    if not curves:
        raise UserError("consistency_curves: no curves")
    figure = Figure(figsize=(6.6, 3.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, style in styles(colours(curves)).items():
        strengths, values = _consistency(name, curves[name])
        axes.plot(strengths, values.mean(0), **style, linewidth=2, marker="o", markersize=3.5, label=name)
        if len(values) > 1:
            axes.fill_between(strengths, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0)
    axes.set(xlabel="shift (pixels along each moved axis)", ylabel="same answer as unshifted (%)")
    axes.set_xlim(left=0)
    axes.set_ylim(top=101)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    legend_beside(figure, axes)
    return figure


def _consistency(name: str, curve: object) -> tuple[np.ndarray, np.ndarray]:
    """Strengths (S,) and values (runs, S)."""
    if hasattr(curve, "consistency"):
        curve = (curve.strengths, curve.consistency)
    strengths, values = (np.asarray(part, dtype=float) for part in curve)
    values = np.atleast_2d(values)
    if strengths.shape != values.shape[1:]:
        raise UserError(f"consistency_curves: {name} has strengths {strengths.shape} for values {values.shape}")
    return strengths, values
