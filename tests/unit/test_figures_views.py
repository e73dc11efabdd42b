"""The figure of two views and several networks, from numbers made up."""

import numpy as np
import pytest
from companions import companion

from stm_lab.util.errors import UserError

OWN_12 = companion("12")
VIEWS = [np.zeros((8, 8, 3)), np.ones((8, 8, 3))]


def answers(name="swin", classes=("disc", "disc"), confidences=(90, 60), kept=60, maps=(1, 3)):
    filled = tuple(np.full((2, 2), float(value)) for value in maps)
    return OWN_12.Answers(name, classes, confidences, kept, filled, 0.5)


def test_what_it_says():
    of = [answers(), answers("halo", ("disc", "ring"), (80, 55), 30)]
    figure = OWN_12.views_compared(VIEWS, of, "Moved: a bit", "stage 2")
    text = figure.get_label()
    assert "1 of 2 networks keep their answer" in text
    assert "swin: disc 90%, still disc 60%" in text
    assert "halo: disc 80%, now ring 55%, disc 30%" in text
    assert "stage 2" in text


def test_the_two_maps_of_a_network_have_one_scale_about_zero():
    figure = OWN_12.views_compared(VIEWS, [answers(maps=(1, -3)), answers("halo", maps=(0, 0))], "", "")
    scales = [image.get_clim() for image in figure.axes[2].images]
    assert scales == [(-3, 3), (-3, 3), (-1, 1), (-1, 1)]


def test_bars_are_the_confidence_in_the_first_answer():
    figure = OWN_12.views_compared(VIEWS, [answers("halo", ("disc", "ring"), (80, 55), 30)], "", "")
    grounds_and_bars = [patch.get_width() for patch in figure.axes[2].patches if patch.get_fill()]
    whole, before, same, after = grounds_and_bars
    assert whole == same
    assert (100 * before / whole, 100 * after / whole) == pytest.approx((80, 30))
    assert "disc 80 to 30%" in [text.get_text() for text in figure.axes[2].texts]


@pytest.mark.parametrize("count", [1, 8])
def test_nothing_is_cut_off(count):
    """Every word lies inside of the picture, with few networks and with many, and with names as long as ImageNet's."""
    names = [f"mixer {number}" for number in range(count)]
    of = [answers(name, ("black and gold garden spider, Argiope", "disc"), (100, 100), 0) for name in names]
    figure = OWN_12.views_compared(VIEWS, of, "Moved: 3 pixels up", "features of stage 4")
    figure.draw_without_rendering()
    texts = [text for axes in figure.axes for text in (axes.title, *axes.texts)]
    for text in texts:
        box = text.get_window_extent()
        if text.get_text():
            assert box.x0 >= -1, text
            assert box.x1 <= figure.bbox.width + 1, text
            assert box.y0 >= -1, text
            assert box.y1 <= figure.bbox.height + 1, text


@pytest.mark.parametrize(("views", "of"), [(VIEWS, []), (VIEWS[:1], [answers()])])
def test_refuses(views, of):
    with pytest.raises(UserError, match="views_compared"):
        OWN_12.views_compared(views, of, "", "")
