"""Figures of deformable sampling: dots where the points are, numbers that another way of counting gives."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from companions import companion

from stm_lab import UserError
from stm_lab.mixers.dcn_v3 import GRID

OWN_06 = companion("06")

IMAGE = np.random.default_rng(0).random((24, 30, 3))
EQUAL = np.full(9, 1 / 9)


def dots(axes):
    """Offsets and areas of the scattered points."""
    found = axes.collections[-1]
    return np.asarray(found.get_offsets()), found.get_sizes()


def test_dots_lie_where_the_points_are_and_are_as_large_as_their_weights():
    places = GRID + np.array([2, 3]) + np.random.default_rng(1).normal(size=(9, 2))
    weights = np.arange(9) / 36
    figure = OWN_06.points_over_image(IMAGE, {"one": (places, weights)}, size=(8, 10), token=(3, 2))
    at, area = dots(figure.axes[0])
    np.testing.assert_allclose(at, places)
    assert np.all(np.diff(area) > 0)
    left, right = figure.axes[0].get_xlim()
    low, high = figure.axes[0].get_ylim()
    assert left < places[:, 0].min()
    assert right > places[:, 0].max()
    assert high < places[:, 1].min()
    assert low > places[:, 1].max()


def test_the_grid_is_told_and_nothing_is_outside():
    label = OWN_06.points_over_image(
        IMAGE, {"grid": (GRID + 4, EQUAL)}, size=(8, 10), token=(4, 4), title="a title"
    ).get_label()
    assert label == "a title. grid: 1.1 tokens away; 0% of the weight lies outside."


def test_weight_outside_is_told():
    weights = np.array([0.5, 0.3, 0.2, 0, 0, 0, 0, 0, 0])
    label = OWN_06.points_over_image(IMAGE, {"a": (GRID, weights)}, size=(8, 10), token=(0, 0)).get_label()
    assert "100% of the weight lies outside" in label  # the left column of the grid
    label = OWN_06.points_over_image(
        IMAGE, {"a": (GRID + np.array([0.5, 0]), weights)}, size=(8, 10), token=(0, 0)
    ).get_label()
    assert "50% of the weight lies outside" in label  # only what is above, too


def test_panels_may_have_maps_of_their_own():
    figure = OWN_06.points_over_image(
        IMAGE,
        {"a": (GRID, EQUAL), "b": (GRID + 1, EQUAL)},
        size={"a": (8, 10), "b": (2, 3)},
        token={"a": (0, 0), "b": (1, 1)},
    )
    assert [axes.images[0].get_extent() for axes in figure.axes] == [[-0.5, 9.5, 7.5, -0.5], [-0.5, 2.5, 1.5, -0.5]]


@pytest.mark.parametrize(
    ("panels", "token", "says"),
    [
        ({}, (0, 0), "nothing to draw"),
        ({"a": (GRID, EQUAL)}, (8, 0), "outside 8x10"),
        ({"a": (GRID[:4], EQUAL[:4])}, (0, 0), "'a' has places"),
        ({"a": (GRID, EQUAL[:4])}, (0, 0), "weights"),
    ],
)
def test_points_that_cannot_be(panels, token, says):
    with pytest.raises(UserError, match=says):
        OWN_06.points_over_image(IMAGE, panels, size=(8, 10), token=token)


def numbers(label, words):
    return float(label.split(words)[1].split()[0].rstrip(".,:;"))


@pytest.mark.parametrize(("token", "point"), [((0, 0), 4), ((3, 4), 0), ((5, 6), 7)])
def test_the_result_is_that_of_grid_sample(token, point):
    draw = np.random.default_rng(point)
    tokens, offsets, logits = draw.random((6, 7, 3)), 2 * draw.normal(size=(9, 2)), draw.normal(size=9)
    figure = OWN_06.sampled_value(tokens, offsets, logits, token=token, point=point)
    places = torch.tensor(GRID + offsets + [token[1], token[0]])
    grid = (2 * places + 1) / torch.tensor([7, 6]) - 1
    maps = torch.tensor(tokens).permute(2, 0, 1)[None]
    found = F.grid_sample(maps, grid[None, None], align_corners=False)[0, :, 0]  # (3, 9)
    weights = torch.tensor(logits).softmax(0)
    label = figure.get_label()
    assert numbers(label, "together give ") == pytest.approx((found @ weights).mean().item(), abs=6e-4)
    assert numbers(label, "finds ") == pytest.approx(found[:, point].mean().item(), abs=6e-4)
    bars = [patch.get_width() for patch in figure.axes[2].patches]
    np.testing.assert_allclose(bars, found.mean(0) * weights)


def test_the_four_tokens_are_told_with_their_shares():
    tokens = np.zeros((4, 4, 3))
    tokens[1, 2] = 0.8
    label = OWN_06.sampled_value(tokens, np.full((9, 2), 0.25), np.zeros(9), token=(1, 1), point=4).get_label()
    assert "x 1.25, y 1.25 and finds 0.150" in label  # 0.25 * 0.75 * 0.8
    assert "0.56 x 0.000, 0.19 x 0.800, 0.19 x 0.000, 0.06 x 0.000" in label


@pytest.mark.parametrize(
    "given",
    [{"token": (4, 0)}, {"token": (0, -1)}, {"point": 9}, {"offsets": np.zeros((8, 2))}, {"logits": np.zeros(8)}],
)
def test_values_that_cannot_be(given):
    right = {"offsets": np.zeros((9, 2)), "logits": np.zeros(9), "token": (0, 0), "point": 0}
    with pytest.raises(UserError, match="sampled_value"):
        OWN_06.sampled_value(np.zeros((4, 4, 3)), **{**right, **given})


def test_paths_tell_where_points_came_from_and_to():
    figure = OWN_06.point_paths(
        np.eye(5), {"up": np.array([[0, 4], [1.5, 2]]), "still": np.array([[-2, 0], [-2, 0]])}, title="Paths"
    )
    assert figure.get_label() == (
        "Paths. Points, [x, y] in tokens: up: from (0.0, 4.0) to (1.5, 2.0); still: from (-2.0, 0.0) to (-2.0, 0.0)."
    )
    assert figure.axes[0].get_xlim()[0] < -2
    with pytest.raises(UserError, match="nothing to draw"):
        OWN_06.point_paths(np.eye(3), {})


def test_every_path_is_drawn_and_told_apart():
    paths = {f"path {n}": np.array([[n, 0], [n, 2]]) for n in range(10)}
    figure = OWN_06.point_paths(np.eye(5), paths)
    lines = [line for line in figure.axes[0].lines if line.get_label() in paths]
    assert [line.get_label() for line in lines] == list(paths)
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 10
    assert "path 9: from (9.0, 0.0) to (9.0, 2.0)" in figure.get_label()
    assert figure.get_label().startswith("Points, [x, y] in tokens: path 0")
