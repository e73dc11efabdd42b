"""Correlations of few numbers, with intervals and permutation tests.

numpy computes the coefficients: a permutation test takes up to 40,320 of them, and scipy's take ten times as long.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import numpy as np
from scipy import stats

from stm_lab.util.errors import UserError

EXACT = 8  # numbers up to which all orders are tried, 40,320 of them


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's correlation. Raises UserError as `kendall` does."""
    x, y = _checked(x, y)
    return float(np.corrcoef(x, y)[0, 1])


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation; tied values get their mean rank. Raises UserError as `kendall` does."""
    x, y = _checked(x, y)
    return pearson(_ranks(x), _ranks(y))


def spearman_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of Spearman's correlation by Fisher's transformation, for at least four pairs; approximate.

    The variance is (1 + r^2 / 2) / (n - 3), of Bonett and Wright (2000, Psychometrika 65). For as few numbers as there
    are mixers the interval is rough, and wide. For a perfect order the transformation is infinite; its interval begins
    where that of the next best order does, in which two neighbours are swapped. Raises UserError as `pearson_interval`.
    """
    if len(x) < 4:
        raise UserError(f"an interval of a correlation takes four pairs of numbers, not {len(x)}")
    n, r = len(x), spearman(x, y)
    most = 1 - 12 / (n * (n * n - 1))  # of orders with two neighbours swapped
    z = math.atanh(min(max(r, -most), most))
    half = NormalDist().inv_cdf(0.975) * math.sqrt((1 + min(abs(r), most) ** 2 / 2) / (n - 3))
    low, high = math.tanh(z - half), math.tanh(z + half)
    return (low, 1.0) if r > 1 - 1e-9 else (-1.0, high) if r < -1 + 1e-9 else (low, high)


def kendall(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-b: pairs in the same order minus pairs in opposite order, over all pairs that are not tied.

    Raises UserError for lists of different length, fewer than two numbers, or a list whose numbers are all the same.
    """
    x, y = _checked(x, y)
    i, j = np.triu_indices(len(x), 1)
    of_x, of_y = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
    return float((of_x * of_y).sum() / math.sqrt(np.abs(of_x).sum() * np.abs(of_y).sum()))


def pearson_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of Pearson's correlation by Fisher's transformation, for at least four pairs.

    Raises UserError as `kendall` does, and for fewer than four.
    """
    if len(x) < 4:
        raise UserError(f"an interval of a correlation takes four pairs of numbers, not {len(x)}")
    low, high = stats.pearsonr(x, y).confidence_interval()
    return float(low), float(high)


def chance_of(
    statistic: Callable[[Sequence[float], Sequence[float]], float],
    x: Sequence[float],
    y: Sequence[float],
    seed: int = 0,
) -> float:
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
    statistic: Callable[[Sequence[float], Sequence[float]], float],
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


def _ranks(values: np.ndarray) -> np.ndarray:
    order = np.unique(values, return_inverse=True)[1]
    last = np.cumsum(np.bincount(order))
    first = last - np.bincount(order)
    return ((first + last - 1) / 2)[order]
