"""Statistics of few numbers: intervals of means, differences paired by seed, correlations.

numpy computes the correlations: a permutation test takes up to 40,320 of them, and scipy's take ten times as long.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from stm_lab.util.errors import UserError

EXACT = 8  # numbers up to which a permutation test tries all orders, 40,320 of them
Correlation = Callable[[Sequence[float], Sequence[float]], float]


def half_interval(values: Sequence[float]) -> float | None:
    """Half the 95% interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy import stats  # here, because it is slow to import

    error = stdev(map(float, values)) / math.sqrt(len(values))
    return float(stats.t.ppf(0.975, len(values) - 1)) * error


def paired_difference(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> dict[str, Any]:
    """The mean difference over the seeds that both have, with its 95% interval, in numbers and in words.

    ours, theirs: {seed: value}. The keys are `difference`, `low`, `high` and `statement`, as in `summary`; values that
    are equal for every seed are "identical", not "within the noise".
    """
    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    mean, half = fmean(differences) if differences else math.nan, half_interval(differences)
    if half is None:
        statement = "one seed" if differences else "no seed in common"
        return {"difference": mean, "low": math.nan, "high": math.nan, "statement": statement}
    low, high = mean - half, mean + half
    statement = "above" if low > 0 else "below" if high < 0 else "within the noise" if any(differences) else "identical"
    return {"difference": mean, "low": low, "high": high, "statement": statement}


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's correlation. Raises UserError as `kendall` does."""
    return float(np.corrcoef(*_checked(x, y))[0, 1])


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation; tied values get their mean rank. Raises UserError as `kendall` does."""
    ranks = [(v[:, None] > v).sum(1) + ((v[:, None] == v).sum(1) - 1) / 2 for v in _checked(x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


def kendall(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-b: pairs in the same order minus pairs in opposite order, over all pairs that are not tied.

    Raises UserError for lists of different length, fewer than two numbers, or a list whose numbers are all the same.
    """
    of_x, of_y = (np.sign(np.subtract.outer(v, v)) for v in _checked(x, y))
    return float((of_x * of_y).sum() / math.sqrt(np.abs(of_x).sum() * np.abs(of_y).sum()))


def chance_of(statistic: Correlation, x: Sequence[float], y: Sequence[float], seed: int = 0) -> float:
    """The share of orders of `y` with as large a correlation, of either sign: the p-value of a permutation test.

    All orders for up to eight numbers; beyond, 10,000 drawn with `seed` and the one that was seen, so it is never 0.
    """
    x, y = _checked(x, y)
    seen = abs(statistic(x, y)) - 1e-12
    if len(y) <= EXACT:
        hits = [abs(statistic(x, np.array(order))) >= seen for order in itertools.permutations(y)]
        return sum(hits) / len(hits)
    generator = np.random.default_rng(seed)
    hits = [abs(statistic(x, generator.permutation(y))) >= seen for _ in range(10_000)]
    return (1 + sum(hits)) / (1 + len(hits))


def interval_over_seeds(
    statistic: Correlation,
    reference: Mapping[str, float],
    scores: Mapping[str, Mapping[int, float]],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95% interval of a correlation between `reference` and the means of `scores`, given the spread over seeds.

    Each mean is drawn `draws` times as mean + t * spread / sqrt(n), with Student's t of n - 1 degrees of freedom; the
    interval leaves out 2.5% of the draws' correlations on either side. Names are drawn independently, as if they did
    not share seeds; `reference` is taken as exact.

    scores: {name: {seed: value}}; names of both are compared. Raises UserError for fewer than two such names, a name
    with fewer than two seeds, and draws < 1.
    """
    names = [name for name in reference if name in scores]
    single = [name for name in names if len(scores[name]) < 2]
    if len(names) < 2 or single or draws < 1:
        what = f"{single[0]!r} has one seed" if single else f"{len(names)} names in common, {draws} draws"
        raise UserError(f"an interval over seeds takes two names at least, two seeds of each, and a draw; {what}")
    values = [np.array(list(scores[name].values()), dtype=float) for name in names]
    generator = np.random.default_rng(seed)
    drawn = np.stack(
        [v.mean() + v.std(ddof=1) / math.sqrt(len(v)) * generator.standard_t(len(v) - 1, draws) for v in values], axis=1
    )
    wanted = [reference[name] for name in names]
    found = [statistic(wanted, means) for means in drawn if np.ptp(means) > 0]
    low, high = np.quantile(found, (0.025, 0.975)) if found else (math.nan, math.nan)
    return float(low), float(high)


def _checked(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise UserError(f"a correlation takes two lists of as many numbers, two at least; not {x.shape} and {y.shape}")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise UserError("a correlation takes numbers that differ: one of the lists has a single value")
    return x, y
