"""Figures of what seeds tell: winners are ringed, intervals are Student's, every value is where it belongs."""

import copy
import math

import numpy as np
import pytest
from companions import companion
from matplotlib.figure import Figure

from stm_lab.util.errors import UserError

OWN_20 = companion("20")

T_95 = {2: 12.7062047, 3: 4.30265273, 4: 3.18244631}  # quantiles of Student's t, by number of seeds (tables)


def line_of(axes, label):
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return line


DRAWINGS = {
    "interval_by_seeds": (OWN_20.interval_by_seeds, [[1.0, -2.0, 3.0]]),
    "lucky_leads": (OWN_20.lucky_leads, [{"1 seed": np.arange(100.0)}, {"1 seed": 40.0}, "lead (points)"]),
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


def test_intervals_are_students_and_marked_when_clear_of_zero():
    differences = [2.0, 3.0, 2.5, 2.2]
    (axes,) = OWN_20.interval_by_seeds(differences).axes
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
    (axes,) = OWN_20.interval_by_seeds([0.0, 4.0, 1.0, 2.0]).axes
    low, high = axes.get_ylim()
    assert low == -high
    assert 4 < high < 2 + T_95[2] * 2  # that of two ends at 2 + 25.4


def test_luck_is_a_histogram_of_percents_with_a_line_at_what_was_seen():
    leads = {"1 seed": np.linspace(0, 10, 400), "3 seeds": np.linspace(0, 5, 400)}
    figure = OWN_20.lucky_leads(leads, {"1 seed": 12.0}, "lead (points)")
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
        (lambda: OWN_20.interval_by_seeds([1.0]), "1 differences; an interval takes two"),
        (lambda: OWN_20.interval_by_seeds([]), "nothing to draw"),
    ],
)
def test_bad_input(draw, message):
    with pytest.raises(UserError, match=message):
        draw()
