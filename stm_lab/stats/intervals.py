"""Intervals of means of a few seeds by Student's t, and differences paired by seed."""

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
    from scipy import stats  # here, because it is slow to import

    error = stdev(map(float, values)) / math.sqrt(len(values))
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error


def paired_difference(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> dict[str, Any]:
    """The mean difference over the seeds that both have, with its 95% interval, in numbers and in words.

    ours, theirs: {seed: value}. The keys are `difference`, `low`, `high` and `statement`, as in `summary`; values that
    are equal for every seed are "identical", not "within the noise".
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
