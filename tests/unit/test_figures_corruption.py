"""Figures of corruptions: what they draw and what they say, from numbers made up."""

import numpy as np
import pytest
import torch
from companions import companion

from stm_lab import figures
from stm_lab.figures.style import MIXER_COLOURS
from stm_lab.measure import Baseline, CorruptionError
from stm_lab.util.errors import UserError

OWN_13 = companion("13")


def made_up(error, clean=10, names=("fog", "contrast"), severities=(1, 5), table="imagenet-c"):
    return CorruptionError("made up", 10, table, names, severities, clean, np.array(error, float))


@pytest.fixture
def results():
    return {
        "swin": [made_up([[20, 40], [50, 70]], 10), made_up([[40, 60], [50, 70]], 20)],
        "identity": made_up([[40, 60], [50, 50]], 20),
    }


@pytest.fixture
def against(results):
    baseline = Baseline.of([results["identity"]])
    return {
        "swin": [run.against(baseline) for run in results["swin"]],
        "identity": results["identity"].against(baseline),
    }


def test_curves_are_means_over_seeds_with_their_range(results):
    figure = figures.severity_curves(results)
    fog, contrast = figure.axes
    np.testing.assert_allclose(fog.lines[0].get_xdata(), [0, 1, 5])
    np.testing.assert_allclose(fog.lines[0].get_ydata(), [15, 30, 50])
    np.testing.assert_allclose(contrast.lines[1].get_ydata(), [20, 50, 50])
    (shade,) = fog.collections  # of swin; identity has one seed
    heights = shade.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (10, 60)
    assert contrast.get_title() == "contrast"
    assert "swin: 15% clean, 60% at severity 5" in figure.get_label()
    assert fog.lines[0].get_color() == MIXER_COLOURS["swin"]


@pytest.mark.parametrize("count", [1, 7])
def test_every_corruption_has_a_panel(count):
    names = tuple(f"corruption_{i}" for i in range(count))
    figure = figures.severity_curves({"halo": made_up(np.full((count, 2), 30), names=names)})
    assert [axes.get_title() for axes in figure.axes] == [name.replace("_", " ") for name in names]


def test_the_table_in_colours_has_the_numbers(against):
    figure = OWN_13.corruption_heat(against)
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written == ["80", "120", "100", "100"]  # CE of swin: (60 + 100) / 2 and 120
    assert "swin 100, identity 100" in figure.get_label()
    assert [text.get_text() for text in OWN_13.corruption_heat(against, "mean_error").axes[0].texts][:2] == [
        "40",
        "60",
    ]


def test_what_is_undefined_is_left_white():
    nothing_lost = Baseline("b", 30.0, {"fog": 20.0, "contrast": 40.0}, severities=(1, 5))
    figure = OWN_13.corruption_heat({"swin": made_up([[20, 40], [50, 70]]).against(nothing_lost)}, "relative_ce")
    assert [text.get_text() for text in figure.axes[0].texts] == ["500"]
    dots = OWN_13.corruption_dots({"swin": made_up([[20, 40], [50, 70]]).against(nothing_lost)})
    assert "relative mCE (%): undefined" in dots.get_label()


def test_a_dot_a_seed(against):
    figure = OWN_13.corruption_dots(against)
    mce, relative = figure.axes
    np.testing.assert_allclose(mce.lines[0].get_xdata(), [90, 110])
    assert mce.lines[1].get_xdata()[0] == pytest.approx(100)  # the bar at their mean
    # by hand: (20 / 30 * 100 + 50 / 30 * 100) / 2 for the first seed
    assert relative.lines[0].get_xdata()[0] == pytest.approx((100 * 20 / 30 + 100 * 50 / 30) / 2)
    assert "mCE (%): swin 100, identity 100" in figure.get_label()


def answers(truth=None, **options):
    of = np.array([[0.9, 0.1, 0.0], [0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
    return OWN_13.corruption_answers(
        list(torch.rand(3, 3, 8, 8)),
        {"halo": of, "identity": of[::-1]},
        2,
        corruption="zoom_blur",
        truth=truth,
        **options,
    )


def test_answers_are_told_with_their_confidence():
    figure = answers(truth=1, classes=("disc", "star, five-pointed", "cross"))
    clean, view, bars, curves = figure.axes
    assert clean.get_title() == "clean: star, five-pointed"
    assert view.get_title() == "zoom blur, severity 2"
    assert [bar.get_width() for bar in bars.patches[:2]] == pytest.approx([60, 90])
    filled, hollow = (bar.get_facecolor()[:3] for bar in bars.patches[:2])
    assert filled != (1, 1, 1)
    assert hollow == (1, 1, 1)
    np.testing.assert_allclose(curves.lines[0].get_ydata(), [10, 30, 60])
    assert "halo star - right (60% sure)" in figure.get_label()
    assert "identity disc - wrong (90% sure)" in figure.get_label()


def test_without_a_right_answer_the_first_one_is_followed():
    figure = answers(classes=("only", "two"))  # names of other classes: numbers are shown
    np.testing.assert_allclose(figure.axes[3].lines[0].get_ydata(), [90, 50, 10])
    assert "first answer" in figure.axes[3].get_ylabel()
    assert "halo class 1 (60% sure)" in figure.get_label()
    assert "right" not in figure.get_label()


def test_bad_input(results):
    with pytest.raises(UserError, match="different"):
        figures.severity_curves({"a": made_up([[1, 2]], 1, ("fog",)), "b": made_up([[1, 2]], 1, ("snow",))})
    with pytest.raises(UserError, match="different"):
        figures.severity_curves({"a": made_up([[1, 2]], 1, ("fog",)), "b": made_up([[1, 2]], 1, ("fog",), table="b")})
    for draw in (figures.severity_curves, OWN_13.corruption_dots, OWN_13.corruption_heat):
        with pytest.raises(UserError, match="nothing to draw"):
            draw({})
        with pytest.raises(UserError, match="nothing to draw"):
            draw({"a": []})
    with pytest.raises(UserError, match="value 'mse'"):
        OWN_13.corruption_heat(results, "mse")
