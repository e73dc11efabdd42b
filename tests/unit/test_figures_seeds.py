"""Figures of what seeds tell: winners are ringed, intervals are Student's, every value is where it belongs."""

import copy
import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from stm_lab import figures
from stm_lab.util.errors import UserError

SCORES = {"halo": {0: 20.0, 1: 25.0, 2: 21.0}, "swin": {0: 26.0, 1: 24.0, 2: 22.0}, "mine": {0: 19.0, 2: 23.0}}
T_95 = {2: 12.7062047, 3: 4.30265273, 4: 3.18244631}  # quantiles of Student's t, by number of seeds (tables)


def line_of(axes, label):
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return line


DRAWINGS = {
    "leaders_by_seed": (figures.leaders_by_seed, [SCORES]),
    "interval_by_seeds": (figures.interval_by_seeds, [[1.0, -2.0, 3.0]]),
    "shares_by_seeds": (figures.shares_by_seeds, [{"told apart": {1: 0.0, 2: 40.0}, "wrong": {1: 9.0, 2: 5.0}}]),
    "seeds_needed": (figures.seeds_needed, [{"paired": {1.0: 30, 5.0: 3}, "not paired": {1.0: 60, 5.0: 5}}]),
    "paired_scores": (figures.paired_scores, [SCORES["halo"], SCORES["swin"], ("halo", "swin")]),
    "lucky_leads": (figures.lucky_leads, [{"1 seed": np.arange(100.0)}, {"1 seed": 40.0}, "lead (points)"]),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_is_made_of_its_input_and_changes_nothing(name, tmp_path):
    draw, arguments = DRAWINGS[name]
    before = copy.deepcopy(arguments)
    figure = draw(*arguments)
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "figure.png")
    assert repr(arguments) == repr(before)
    assert figure.get_supxlabel() or all(axes.get_xlabel() for axes in figure.axes)
    assert figure.axes[0].get_ylabel()


@pytest.mark.parametrize(("highest", "best"), [(True, [26, 25, 23]), (False, [19, 24, 21])])
def test_each_seeds_winner_has_a_ring(highest, best):
    (axes,) = figures.leaders_by_seed(SCORES, "accuracy", highest=highest).axes
    (rings,) = [line for line in axes.lines if line.get_markersize() == 16]
    assert list(rings.get_xdata()) == [0, 1, 2]
    assert list(rings.get_ydata()) == best
    assert axes.get_ylabel() == "accuracy"


def test_each_name_has_a_line_through_its_own_seeds():
    (axes,) = figures.leaders_by_seed(SCORES).axes
    for name, by_seed in SCORES.items():
        line = line_of(axes, name)
        assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == by_seed
    assert line_of(axes, "halo").get_color() == figures.MIXER_COLOURS["halo"]
    markers = {line_of(axes, name).get_marker() for name in SCORES}
    assert len(markers) == len(SCORES)  # told apart without colours


def test_intervals_are_students_and_marked_when_clear_of_zero():
    differences = [2.0, 3.0, 2.5, 2.2]
    (axes,) = figures.interval_by_seeds(differences).axes
    means = line_of(axes, "mean so far, with its 95% interval")
    np.testing.assert_allclose(means.get_ydata(), [np.mean(differences[:n]) for n in range(1, 5)])
    np.testing.assert_allclose(line_of(axes, "this seed's own difference").get_ydata(), differences)
    bars = {int(line.get_xdata()[0]): line for line in axes.lines if line.get_linewidth() == 5}
    assert sorted(bars) == [2, 3, 4]
    for n, bar in bars.items():
        half = T_95[n] * np.std(differences[:n], ddof=1) / math.sqrt(n)
        mean = np.mean(differences[:n])
        np.testing.assert_allclose(sorted(bar.get_ydata()), [mean - half, mean + half], rtol=1e-5)
        assert (bar.get_color() == "#D55E00") == (half < mean)
    assert {bar.get_color() for bar in bars.values()} == {"#D55E00", "#0072B2"}  # two seeds are not clear, four are


def test_the_interval_of_two_seeds_does_not_set_the_axis():
    (axes,) = figures.interval_by_seeds([0.0, 4.0, 1.0, 2.0]).axes
    low, high = axes.get_ylim()
    assert low == -high
    assert 4 < high < 2 + T_95[2] * 2  # that of two ends at 2 + 25.4


def test_shares_are_drawn_whole():
    shares = DRAWINGS["shares_by_seeds"][1][0]
    (axes,) = figures.shares_by_seeds(shares).axes
    for name, by_count in shares.items():
        line = line_of(axes, name)
        assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == by_count
    assert axes.get_ylim()[0] <= 0 < 100 <= axes.get_ylim()[1]


def test_seeds_needed_are_on_logarithmic_axes_with_what_there_is():
    needed = DRAWINGS["seeds_needed"][1][0]
    (axes,) = figures.seeds_needed(needed, 8, unit="percent").axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert "percent" in axes.get_xlabel()
    for name, by_size in needed.items():
        line = line_of(axes, name)
        assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == by_size
    assert set(line_of(axes, "the 8 seeds that we have").get_ydata()) == {8}
    without = [line.get_label() for line in figures.seeds_needed(needed).axes[0].lines]
    assert without == list(needed)


def test_only_seeds_of_both_are_paired():
    (axes,) = figures.paired_scores(SCORES["mine"], SCORES["swin"], ("mine", "swin")).axes
    dots = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "o"}
    assert dots == {(26, 19), (22, 23)}  # theirs to the right, ours upwards
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("swin", "mine")
    assert axes.get_xlim() == axes.get_ylim()
    (diagonal,) = [line for line in axes.lines if line.get_marker() == "None"]
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())


def test_luck_is_a_histogram_of_percents_with_a_line_at_what_was_seen():
    leads = {"1 seed": np.linspace(0, 10, 400), "3 seeds": np.linspace(0, 5, 400)}
    figure = figures.lucky_leads(leads, {"1 seed": 12.0}, "lead (points)")
    one, three = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["1 seed", "3 seeds"]
    for axes in figure.axes:
        assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(100, abs=1)
    assert [list(line.get_xdata()) for line in one.lines] == [[12, 12]]
    assert not three.lines
    assert one.get_xlim()[1] > 12


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.leaders_by_seed({}), "no scores"),
        (lambda: figures.leaders_by_seed({"halo": {}}), "no scores"),
        (lambda: figures.interval_by_seeds([1.0]), "1 differences; an interval takes two"),
    ],
)
def test_bad_input(draw, message):
    with pytest.raises(UserError, match=message):
        draw()
