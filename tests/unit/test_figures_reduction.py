"""Spatial reduction as it is drawn: what the panels show, against loops, and what their texts tell."""

import re

import numpy as np
import pytest
from companions import companion

from stm_lab import UserError

OWN_03 = companion("03")

MAP = np.random.default_rng(0).random((11, 14, 3))


def naive_keys(image, R):
    rows, columns = image.shape[0] // R, image.shape[1] // R
    return np.array([
        [image[R * y : R * y + R, R * x : R * x + R].mean((0, 1)) for x in range(columns)] for y in range(rows)
    ])  # fmt: skip


@pytest.mark.parametrize("reduction", [1, 3, 4, 11])
def test_keys_are_mean_colours_and_their_weights_a_softmax(reduction):
    place = (7, 2)
    figure = OWN_03.reduction_steps(MAP, reduction=reduction, place=place)
    keys = naive_keys(MAP, reduction)
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), keys)
    weights = np.exp(-60 * ((keys - MAP[place]) ** 2).sum(2))
    shown = figure.axes[2].images[0].get_array()
    np.testing.assert_allclose(shown, weights / weights.sum())
    rows, columns = keys.shape[:2]
    left, right, bottom, top = figure.axes[3].images[1].get_extent()
    assert (left, right, bottom, top) == (-0.5, columns * reduction - 0.5, rows * reduction - 0.5, -0.5)
    remainder = 11 * 14 - rows * columns * reduction**2
    assert f"{rows}x{columns} keys, {remainder} tokens belong to none" in figure.get_label()
    best = np.unravel_index(shown.argmax(), shown.shape)
    assert figure.get_label().endswith(f"from the key in row {best[0]}, column {best[1]}.")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"image": MAP[..., :2]}, "the image has the shape"),
        ({"reduction": 12}, "reduction=12 must be 1 to 11"),
        ({"reduction": 0}, "reduction=0 must be 1"),
        ({"place": (11, 0)}, "no token of a 11x14 map"),
    ],
)
def test_steps_refuse(given, says):
    with pytest.raises(UserError, match=says):
        OWN_03.reduction_steps(**{"image": MAP, "reduction": 3, "place": (0, 0), **given})


def test_query_map_lays_every_key_over_its_patch():
    weights = np.arange(6.0).reshape(2, 3) / 15
    image = np.full((40, 56, 3), 0.5)
    figure = OWN_03.attention_over_image(
        image, {"head 1": weights}, (0.99, 0.0), tokens=(10, 14), reduction=4, title="pvt"
    )
    overlay = figure.axes[1].images[1]
    assert overlay.get_extent() == [0, 48, 32, 0]  # keys of 4 tokens of 4 pixels; the last two rows and columns of none
    np.testing.assert_allclose(overlay.get_array(), weights / weights.max())
    for axes in figure.axes:
        assert [patch.get_bbox().bounds for patch in axes.patches] == [(0, 36, 4, 4)] * 2  # the query, one token large


def test_query_map_tells_how_many_keys_the_weights_amount_to():
    maps = {"even": np.full((2, 2), 0.25), "one": np.array([[0, 0], [1.0, 0]]), "two": np.array([[0.5, 0], [0, 0.5]])}
    figure = OWN_03.attention_over_image(np.zeros((8, 8, 3)), maps, (0, 0), tokens=(4, 4), reduction=2, title="t")
    label = figure.get_label()
    assert [float(n) for n in re.findall(r"as if ([\d.]+) keys", label)] == [4, 1, 2]
    assert "one: at most 100%, as if 1.0 keys, most from the key in row 1, column 0" in label


@pytest.mark.parametrize("heads", [1, 5])
def test_query_map_has_a_panel_a_head_and_none_overlap(heads):
    maps = {f"head {number}": np.full((2, 2), 0.25) for number in range(heads)}
    figure = OWN_03.attention_over_image(np.zeros((8, 8, 3)), maps, (0, 0), tokens=(4, 4), reduction=2, title="t")
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == heads + 1
    for number, box in enumerate(boxes):
        assert min(box.x0, box.y0) >= 0
        assert max(box.x1, box.y1) <= 1
        for other in boxes[number + 1 :]:
            assert box.x1 <= other.x0 or box.y0 >= other.y1 or box.y1 <= other.y0 or other.x1 <= box.x0


def test_query_map_needs_heads():
    with pytest.raises(UserError, match="no heads"):
        OWN_03.attention_over_image(np.zeros((8, 8, 3)), {}, (0, 0), tokens=(4, 4), reduction=2, title="t")
