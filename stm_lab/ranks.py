"""How alike are two orders, or two lists of numbers: correlations, and how much so few numbers can say of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

from stm_lab.errors import UserError

EXACT = 8  # up to so many numbers every order is tried, 40,320 of them


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's correlation: how near to one straight line. Raises UserError as `kendall` does."""
    x, y = _checked(x, y)
    return float(np.corrcoef(x, y)[0, 1])


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation: Pearson's of the ranks; ties have the mean of theirs. Raises as `kendall` does."""
    x, y = _checked(x, y)
    return pearson(_ranks(x), _ranks(y))


def spearman_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of Spearman's correlation, about normal after Fisher's transformation; it takes four pairs.

    With the variance (1 + r^2 / 2) / (n - 3) of Bonett and Wright (2000, Psychometrika 65). Of so few numbers as there
    are mixers it is a rough one, and wide. Raises UserError as `pearson_interval` does.
    """
    if len(x) < 4:
        raise UserError(f"an interval of a correlation takes four pairs of numbers, not {len(x)}")
    r = spearman(x, y)
    z = math.atanh(min(max(r, -1 + 1e-15), 1 - 1e-15))
    half = NormalDist().inv_cdf(0.975) * math.sqrt((1 + r * r / 2) / (len(x) - 3))
    return math.tanh(z - half), math.tanh(z + half)


def kendall(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-b: the pairs in one order, less those in opposite order, by all pairs that are not tied.

    Raises UserError for lists of different length, fewer than two numbers, or a list whose numbers are all the same.
    """
    x, y = _checked(x, y)
    i, j = np.triu_indices(len(x), 1)
    of_x, of_y = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
    return float((of_x * of_y).sum() / math.sqrt(np.abs(of_x).sum() * np.abs(of_y).sum()))


def pearson_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of Pearson's correlation by Fisher's transformation; it takes four pairs, about normal.

    Raises UserError as `kendall` does, and for fewer than four.
    """
    if len(x) < 4:
        raise UserError(f"an interval of a correlation takes four pairs of numbers, not {len(x)}")
    z, half = (
        math.atanh(min(max(pearson(x, y), -1 + 1e-15), 1 - 1e-15)),
        NormalDist().inv_cdf(0.975) / math.sqrt(len(x) - 3),
    )
    return math.tanh(z - half), math.tanh(z + half)


def chance_of(
    statistic: Callable[[Sequence[float], Sequence[float]], float],
    x: Sequence[float],
    y: Sequence[float],
    seed: int = 0,
) -> float:
    """How often a random order of `y` gives so large a correlation, of either sign: a permutation test.

    All orders for up to eight numbers, 10,000 drawn with `seed` beyond (theirs and ours counted, so never 0).
    """
    x, y = _checked(x, y)
    seen = abs(statistic(x, y)) - 1e-12
    if len(y) <= EXACT:
        hits = [abs(statistic(x, np.array(order))) >= seen for order in itertools.permutations(y)]
        return sum(hits) / len(hits)
    generator = np.random.default_rng(seed)
    hits = [abs(statistic(x, generator.permutation(y))) >= seen for _ in range(10_000)]
    return (1 + sum(hits)) / (1 + len(hits))


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
