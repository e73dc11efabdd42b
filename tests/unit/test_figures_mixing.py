"""Figures of what mixers mix: every number drawn is one that was given, and the text tells the main ones."""

import copy

import numpy as np
import pytest
import torch
from companions import companion
from torch import nn

from stm_lab import UserError, figures
from stm_lab.measure import mixing_matrix

OWN_15 = companion("15")

TOKENS = torch.randn(3, 5, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Average(nn.Module):
    """Of all positions."""

    def forward(self, x):
        return x.mean((1, 2), keepdim=True).expand_as(x)


class Right(nn.Module):
    """Each token is its right neighbour; the last of a row is itself."""

    def forward(self, x):
        return torch.cat([x[:, :, 1:], x[:, :, -1:]], 2)


MATRICES = {"halo": mixing_matrix(Average(), TOKENS), "identity": mixing_matrix(nn.Identity(), TOKENS)}
ROWS = [
    {"mixer": mixer, "stage": stage, "state": state, "reach": reach, "distance": 3 * reach,
     "shared": shared, "positional": 0.25, "dynamic": 0.75 - shared}
    for mixer, stage, state, reach, shared in (
        ("halo", 0, "trained", 0.3, 0.25), ("halo", 0, "trained", 0.5, 0.5), ("halo", 1, "trained", 0.8, 0.5),
        ("halo", 0, "random", 0.9, 0.75), ("identity", 0, "trained", 0.0, 0.755),
    )
]  # fmt: skip
PICTURE = np.full((20, 24, 3), 0.5)
MAPS = {"block 1": np.eye(5, 6), "block 2": np.ones((5, 6))}

DRAWINGS = {
    "mixing_matrices": (figures.mixing_matrices, [MATRICES]),
    "leans": (OWN_15.leans, [MATRICES]),
    "mixing_distances": (OWN_15.mixing_distances, [ROWS]),
    "inductive_biases": (figures.inductive_biases, [ROWS]),
    "mixing_over_image": (figures.mixing_over_image, [PICTURE, MAPS, (0.5, 0.5), "halo, stage 1"]),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_is_made_of_its_input_and_changes_nothing(name, tmp_path):
    draw, arguments = DRAWINGS[name]
    before = copy.deepcopy(arguments)
    figure = draw(*arguments)
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 2000
    assert repr(arguments) == repr(before)


def test_matrices_are_shares_of_inputs_in_outputs():
    everybody, nobody = (axes.images[0].get_array() for axes in figures.mixing_matrices(MATRICES).axes[:2])
    np.testing.assert_allclose(everybody, 1)
    np.testing.assert_allclose(nobody, np.maximum(np.eye(30), 1e-3))


def test_matrices_tell_distance_and_own_share():
    text = figures.mixing_matrices(MATRICES).get_label()
    assert f"halo {MATRICES['halo'].uniform_distance:.2f}, 3% from itself; identity 0.00, 100% from itself" in text


def test_leans_are_arrows_to_the_centre_of_what_a_token_is_made_of():
    figure = OWN_15.leans({"halo": MATRICES["halo"]})
    (arrows,) = figure.axes[0].collections
    tails = arrows.get_offsets()
    heads = tails + np.stack([arrows.U, arrows.V], 1)
    np.testing.assert_allclose(heads, np.broadcast_to([2.5, 2.0], heads.shape), atol=1e-6)  # the middle of 5 x 6


def test_leans_share_a_scale_and_tell_border_and_inside():
    figure = OWN_15.leans({"right": mixing_matrix(Right(), TOKENS), **MATRICES})
    scales = {(axes.images[0].norm.vmin, axes.images[0].norm.vmax) for axes in figure.axes[:3]}
    assert len(scales) == 1
    # 12 inner tokens lean by 1; of 18 outer ones the 5 of the last column do not.
    assert f"right: border {13 / 18:.2f}, inside 1.00; " in figure.get_label()
    assert "identity: border 0.00, inside 0.00" in figure.get_label()


def test_mixers_that_do_not_lean_are_drawn_all_the_same(tmp_path):
    OWN_15.leans({"identity": MATRICES["identity"]}).savefig(tmp_path / "figure.png")


def test_distances_are_means_by_stage_with_their_range():
    trained, random = OWN_15.mixing_distances(ROWS).axes
    assert (trained.get_title(), random.get_title()) == ("trained", "random")
    halo, identity = (line for line in trained.lines if line.get_marker() == "o")
    np.testing.assert_allclose(halo.get_xydata(), [[1, 0.4], [2, 0.8]])
    np.testing.assert_allclose(identity.get_xydata(), [[1, 0.0]])
    low, high = trained.collections[0].get_paths()[0].vertices[:, 1].min(), 0.8
    assert low == pytest.approx(0.3)
    assert trained.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(high)


@pytest.mark.parametrize("key", ["reach", "distance"])
def test_distances_in_other_units_have_another_axis(key):
    figure = OWN_15.mixing_distances(ROWS, key=key)
    assert ("tokens" in figure.axes[0].get_ylabel()) == (key == "distance")
    line = figure.axes[0].lines[0]
    assert line.get_ydata()[0] == pytest.approx(0.4 if key == "reach" else 1.2)


def test_bars_are_means_in_percent_and_add_up():
    trained, _ = figures.inductive_biases(ROWS).axes
    widths = [patch.get_width() for patch in trained.patches]
    np.testing.assert_allclose(widths[:3], [100 * 1.25 / 3, 25, 100 * (0.75 - 1.25 / 3)])
    text = figures.inductive_biases(ROWS).get_label()
    assert "trained: halo shared 42, positional 25, dynamic 33; identity shared 76" in text


def test_a_share_below_zero_is_no_bar_and_rows_without_shares_are_left_out():
    rows = [{"mixer": "swin", "state": "a", "shared": 1.01, "positional": 0.0, "dynamic": -0.01}]
    one_input = {"mixer": "halo", "state": "a", "shared": None, "positional": None, "dynamic": None}
    (axes,) = figures.inductive_biases([*rows, one_input]).axes
    assert min(patch.get_width() for patch in axes.patches) == 0
    assert [label.get_text() for label in axes.get_yticklabels()] == ["swin"]
    with pytest.raises(UserError, match="no rows"):
        figures.inductive_biases([one_input])


def test_weights_over_an_image_are_relative_to_their_largest_and_frame_the_token():
    figure = figures.mixing_over_image(PICTURE, {"block 1": 4 * MAPS["block 1"]}, (0.99, 0.5), "halo")
    np.testing.assert_allclose(figure.axes[1].images[1].get_array(), MAPS["block 1"])
    for axes in figure.axes:
        assert {(frame.get_x(), frame.get_y()) for frame in axes.patches} == {(12, 16)}  # column 3 of 6, row 4 of 5
    assert figure.get_label() == "halo. block 1: 0% from the token itself."


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.mixing_matrices({}), "nothing to draw"),
        (lambda: OWN_15.mixing_distances(ROWS, key="metres"), "no 'metres'"),
        (lambda: figures.inductive_biases([{"mixer": "halo", "dynamic": 1.0}]), "row 0: no 'state'"),
        (lambda: figures.mixing_over_image(PICTURE, {}, (0, 0), "t"), "no layers"),
    ],
)
def test_refuses(draw, message):
    with pytest.raises(UserError, match=message):
        draw()
