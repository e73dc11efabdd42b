"""Intervals against printed tables of Student's t, correlations of few numbers against scipy's."""

from statistics import NormalDist

import numpy as np
import pytest
import scipy.stats
from companions import companion

from stm_lab import stats
from stm_lab.util.errors import UserError

OWN_12, OWN_21 = companion("12"), companion("21")

generator = np.random.default_rng(0)
PAIRS = [
    (generator.normal(size=n), generator.normal(size=n) + k * np.arange(n)) for n in (4, 5, 9, 20) for k in (0, 0.3)
] + [([1, 2, 2, 3, 5], [2, 2, 1, 4, 4])]


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.7062), (2, 4.30265), (4, 2.77645), (9, 2.26216), (29, 2.04523)])
def test_half_an_interval_is_that_of_printed_tables(freedom, t):
    values = generator.normal(size=freedom + 1)
    error = np.std(values, ddof=1) / np.sqrt(freedom + 1)
    assert stats.half_interval(values.tolist()) == pytest.approx(t * error, rel=1e-5)
    assert stats.half_interval([1.0]) is None


@pytest.mark.parametrize(("x", "y"), PAIRS)
def test_equal_to_scipy(x, y):
    assert stats.kendall(x, y) == pytest.approx(scipy.stats.kendalltau(x, y).statistic)
    assert stats.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert stats.pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
    interval = scipy.stats.pearsonr(x, y).confidence_interval(0.95)
    assert OWN_21.pearson_interval(x, y) == pytest.approx(tuple(interval))


def test_a_perfect_order():
    assert stats.kendall([1, 2, 3], [10, 20, 90]) == 1
    assert stats.kendall([1, 2, 3], [3, 2, 1]) == -1
    assert OWN_21.pearson_interval([1, 2, 3, 4], [2, 4, 6, 8]) == pytest.approx((1, 1), abs=1e-3)


def test_chance_of_an_order():
    """Of the 120 orders of five, two are as far from chance as the perfect one: it and its reverse."""
    assert stats.chance_of(stats.kendall, range(5), range(5)) == pytest.approx(2 / 120)
    x, y = generator.normal(size=(2, 5))
    assert stats.chance_of(stats.kendall, x, y) == pytest.approx(scipy.stats.kendalltau(x, y, method="exact").pvalue)
    many = range(12)
    assert stats.chance_of(stats.kendall, many, many) == pytest.approx(1 / 10_001)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [([1], [1], "two at least"), ([1, 2], [1, 2, 3], "two lists"), ([1, 1], [1, 2], "single value")],
)
def test_refuses(x, y, message):
    with pytest.raises(UserError, match=message):
        stats.kendall(x, y)


def test_an_interval_takes_four():
    with pytest.raises(UserError, match="four pairs"):
        OWN_21.pearson_interval([1, 2, 3], [1, 3, 2])


@pytest.mark.parametrize(("x", "y"), PAIRS)
def test_the_interval_of_a_rank_correlation(x, y):
    """It holds the correlation, turns round with an order, and is wider than Pearson's of the stats."""
    low, high = OWN_12.spearman_interval(x, y)
    assert low <= stats.spearman(x, y) <= high
    assert OWN_12.spearman_interval(x, -np.asarray(y)) == pytest.approx((-high, -low))
    inner = OWN_21.pearson_interval(scipy.stats.rankdata(x), scipy.stats.rankdata(y))
    assert low - 1e-12 <= inner[0] <= inner[1] <= high + 1e-12  # equal where the correlation is 0


def test_a_perfect_order_of_five_is_not_certain():
    low, high = OWN_12.spearman_interval(range(5), range(5))
    swapped, above = OWN_12.spearman_interval(range(5), [1, 0, 2, 3, 4])
    assert (low, high) == pytest.approx((swapped, 1))
    assert low < 0 < above < 1
    assert OWN_12.spearman_interval(range(5), range(5, 0, -1)) == pytest.approx((-1, -low))


def test_the_interval_by_hand():
    x, y = range(7), [1, 0, 3, 2, 5, 4, 6]  # squares of rank differences: 6, so r = 1 - 6 * 6 / (7 * 48) = 0.892857
    z, half = np.arctanh(0.892857), 1.959964 * np.sqrt((1 + 0.892857**2 / 2) / 4)
    assert OWN_12.spearman_interval(x, y) == pytest.approx((np.tanh(z - half), np.tanh(z + half)), rel=1e-5)
    with pytest.raises(UserError, match="four pairs"):
        OWN_12.spearman_interval([1, 2, 3], [1, 3, 2])


def _around(mean, deviation, n=50):
    """n values with exactly that mean and standard deviation."""
    values = np.linspace(-1, 1, n)
    return dict(enumerate(mean + deviation * (values - values.mean()) / values.std(ddof=1)))


@pytest.mark.parametrize(("flips", "expected"), [(0.005, (1, 1)), (0.15, (-1, 1))])
def test_interval_over_seeds_of_two_names_by_hand(flips, expected):
    """Two means with a standard error of 1/sqrt(2) each: their order turns with the probability of a normal tail."""
    apart = -NormalDist().inv_cdf(flips)
    scores = {"a": _around(apart, (50 / 2) ** 0.5), "b": _around(0, (50 / 2) ** 0.5)}
    assert stats.interval_over_seeds(stats.kendall, {"a": 2, "b": 1}, scores, draws=4000) == expected


@pytest.mark.slow
def test_interval_over_seeds_widens_with_the_spread_and_repeats():
    reference = {name: place for place, name in enumerate("abcde")}
    widths = []
    for spread in (0.01, 1.0, 10.0):
        scores = {name: {0: place - spread, 1: place + spread, 2: place} for name, place in reference.items()}
        low, high = stats.interval_over_seeds(stats.spearman, reference, scores)
        assert -1 <= low <= high <= 1 + 1e-9
        widths.append(high - low)
        assert stats.interval_over_seeds(stats.spearman, reference, scores) == (low, high)
    assert widths == sorted(widths)
    assert widths[0] == pytest.approx(0)


@pytest.mark.parametrize(
    ("scores", "message"),
    [({"a": {0: 1.0}, "b": {0: 1.0, 1: 2.0}}, "'a' has one seed"), ({"b": {0: 1.0, 1: 2.0}}, "1 names in common")],
)
def test_interval_over_seeds_refuses(scores, message):
    with pytest.raises(UserError, match=message):
        stats.interval_over_seeds(stats.kendall, {"a": 1, "b": 2}, scores)
