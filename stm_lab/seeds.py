"""What a handful of seeds can say: intervals of means by Student's t, and differences paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

CONFIDENCE = 0.95


def half_interval(values: Sequence[float]) -> float | None:
    """Half the 95% interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    return t_quantile((1 + CONFIDENCE) / 2, len(values) - 1) * stdev(map(float, values)) / math.sqrt(len(values))


def paired_difference(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> dict[str, Any]:
    """The mean difference over the seeds that both have, with its 95% interval, in numbers and in words.

    ours, theirs: {seed: value}. The keys are `difference`, `low`, `high` and `statement`, as in `summary`. Numbers that
    are the same for every seed are "identical": what never varied is no noise to be within.
    """
    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    n = len(differences)
    mean = fmean(differences) if n else math.nan
    if n < 2:
        statement = "one seed" if n else "no seed in common"
        return {"difference": mean, "low": math.nan, "high": math.nan, "statement": statement}
    half = half_interval(differences)
    low, high = mean - half, mean + half
    statement = "above" if low > 0 else "below" if high < 0 else "within the noise" if any(differences) else "identical"
    return {"difference": mean, "low": low, "high": high, "statement": statement}


def t_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t distribution with `freedom` degrees of freedom, for a `probability` in [0.5, 1).

    By bisection of the distribution function's closed form for whole degrees of freedom (Abramowitz & Stegun 26.7.3-4).
    """
    low, high = 0.0, 1.0
    while _t_within(high, freedom) < 2 * probability - 1:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, freedom) < 2 * probability - 1 else (low, middle)
    return (low + high) / 2


def _t_within(t: float, freedom: int) -> float:
    """P(-t < T < t). With theta = atan(t / sqrt(freedom)), a finite sum of powers of cos(theta)."""
    theta = math.atan(t / math.sqrt(freedom))
    cos, odd = math.cos(theta), freedom % 2
    term, total = cos if odd else 1.0, 0.0
    for k in range(1, freedom // 2 + 1):
        total += term
        term *= cos**2 * (2 * k - 1 + odd) / (2 * k + odd)
    total *= math.sin(theta)
    return 2 / math.pi * (theta + total) if odd else total
