"""Figures of invariance: what they draw and what they say, from numbers made up."""

import numpy as np
import pytest
from companions import companion

from stm_lab import figures
from stm_lab.measure import Invariance
from stm_lab.util.errors import UserError

OWN_12 = companion("12")


def result(kind="translation", protocol="straight", consistency=(100, 80, 60), accuracy=(90, 70, 50), true=(0, 4, 8)):
    column = np.array(consistency, float)[:, None]
    return Invariance(
        model="made up",
        kind=kind,
        images=10,
        strengths=np.array([0, 4, 16]) if protocol == "published" else np.array(true),
        directions=("one",),
        consistency_by_direction=column,
        accuracy_by_direction=None if accuracy is None else np.array(accuracy, float)[:, None],
        protocol=protocol,
        true_strengths=np.array(true, float),
    )


def test_mean_and_range_over_seeds():
    figure = OWN_12.invariance_curves({"swin": [result(), result(consistency=(100, 90, 80))], "halo": result()})
    accuracy, consistency = figure.axes
    np.testing.assert_allclose(consistency.lines[0].get_ydata(), [100, 85, 70])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [90, 70, 50])
    assert len(consistency.collections) == 1  # the range of swin; halo has one seed
    assert "swin: 100 at 0, 85 at 4, 70 at 8" in figure.get_label()


def test_without_labels_there_is_one_panel():
    figure = OWN_12.invariance_curves({"swin": result(accuracy=None)}, chance=10)
    assert len(figure.axes) == 1


def test_published_results_are_drawn_where_the_picture_was():
    published = result(protocol="published")
    (axes,) = figures.consistency_curves({"swin": published}).axes
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0, 4, 8])
    figure = OWN_12.protocols_compared({"swin": published}, {"swin": result()})
    nominal, true, straight = figure.axes[0].lines[:3]
    assert list(nominal.get_xdata()) == [0, 4, 16]
    assert list(true.get_xdata()) == list(straight.get_xdata()) == [0, 4, 8]
    assert "on its own axis: 100 at 0, 80 at 4, 60 at 16" in figure.get_label()


def test_no_panel_cuts_off_a_curve():
    """The panels share their axes: the lowest curve of all decides, wherever it stands."""
    high, low = (
        {protocol: result(protocol=protocol, consistency=(100, 99, end)) for protocol in ("published", "straight")}
        for end in (98, 3)
    )
    of = {protocol: {"swin": high[protocol], "halo": low[protocol]} for protocol in ("published", "straight")}
    figure = OWN_12.protocols_compared(of["published"], of["straight"])
    for axes in figure.axes:
        bottom, top = axes.get_ylim()
        assert all(bottom <= value <= top for line in axes.lines for value in line.get_ydata())


def test_bad_input():
    with pytest.raises(UserError, match="nothing to draw"):
        OWN_12.invariance_curves({})
    with pytest.raises(UserError, match="different kind: rotation, translation"):
        OWN_12.invariance_curves({"a": result(), "b": result(kind="rotation")})
    with pytest.raises(UserError, match="published a; straight b"):
        OWN_12.protocols_compared({"a": result()}, {"b": result()})
