"""Figures of receptive fields: every number drawn is one that was given, and the text tells the main ones."""

import copy

import numpy as np
import pytest
from companions import companion

from stm_lab import UserError, figures
from stm_lab.measure import contribution_radius, high_contribution_area, radial_profile

OWN_08 = companion("08")
OWN_11 = companion("11")

SQUARE = np.pad(np.ones((3, 3)), ((7, 6), (7, 6)))  # centred on pixel (8, 8) of 16 x 16
FLAT = np.ones((16, 16))
HILL = np.exp(-0.5 * np.hypot(*(np.indices((16, 16)) - 8)) ** 2 / 9)
GRID = {"halo": {"stage 1": SQUARE, "stage 2": HILL}, "identity": {"stage 1": SQUARE}}
PROFILES = {"halo": [radial_profile(HILL), radial_profile(FLAT)], "identity": [radial_profile(SQUARE)]}
AREAS = [
    {"mixer": mixer, "threshold": threshold, "area": area, "state": state}
    for mixer, state, pairs in (
        ("halo", "trained", ((0.5, 0.2), (0.99, 0.9))),
        ("halo", "trained", ((0.5, 0.3), (0.99, None))),
        ("halo", "untrained", ((0.5, 0.05), (0.99, 0.4))),
        ("identity", "trained", ((0.5, 0.03), (0.99, 0.1))),
    )
    for threshold, area in pairs
]
PICTURE = np.full((16, 16, 3), 0.5)

DRAWINGS = {
    "receptive_grid": (OWN_11.receptive_grid, [GRID]),
    "radial_profiles": (OWN_11.radial_profiles, [PROFILES]),
    "area_ratios": (OWN_11.area_ratios, [AREAS]),
    "receptive_field_over_image": (OWN_11.receptive_field_over_image, [PICTURE, HILL, (8, 8), 5, "halo, stage 2"]),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_is_made_of_its_input_and_changes_nothing(name, tmp_path):
    draw, arguments = DRAWINGS[name]
    before = copy.deepcopy(arguments)
    figure = draw(*arguments)
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 2000
    assert repr(arguments) == repr(before)


def dots(axes, colour):
    """All places of the dots of one colour, by whether they are full."""
    found = {True: [], False: []}
    for line in axes.lines:
        if line.get_marker() == "o" and line.get_color() == colour:
            found[line.get_markerfacecolor() == colour] += [tuple(place) for place in line.get_xydata()]
    return found


# ---- grids ----------------------------------------------------------------------------------------------------------


def test_a_grid_has_a_row_a_name_and_leaves_out_what_a_name_lacks():
    figure = OWN_11.receptive_grid(GRID)
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 3
    assert [axes.get_title() for axes in figure.axes[:2]] == ["stage 1", "stage 2"]
    for axes, contribution in zip(shown, (SQUARE, HILL, SQUARE), strict=True):
        wanted = np.maximum(contribution / contribution.max(), 1e-4)
        np.testing.assert_allclose(axes.images[0].get_array(), wanted)
        assert axes.get_xlabel() == f"half in {100 * high_contribution_area(contribution, 0.5):.2g}%"


def test_a_grid_has_one_scale_of_colours():
    figure = OWN_11.receptive_grid(GRID)
    assert len({(image.norm.vmin, image.norm.vmax) for axes in figure.axes for image in axes.images}) == 1


def field(side: int = 32, spread: float = 4.0) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - side // 2
    return np.exp(-(x**2 + y**2) / (2 * spread**2))


FIELDS = {"forwards": {"original": field(), "stem": field(spread=2)}, "backwards": {"original": field()}}


def test_fields_are_shares_on_one_scale_and_the_number_is_the_squares():
    figure = OWN_08.design_fields(FIELDS)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len({(image.norm.vmin, image.norm.vmax) for image in images}) == 1
    assert images[0].norm.vmax == pytest.approx((field(spread=2) / field(spread=2).sum()).max())
    measured = {name: 100 * (side / 32) ** 2 for name, side in {"wide": 9, "narrow": 5}.items()}
    inside = {
        "wide": [field()[16 - r : 17 + r, 16 - r : 17 + r].sum() / field().sum() for r in (3, 4)],
        "narrow": [field(spread=2)[16 - r : 17 + r, 16 - r : 17 + r].sum() / field(spread=2).sum() for r in (1, 2)],
    }
    assert all(less < 0.5 <= more for less, more in inside.values()), "by hand: 9 and 5 pixels hold half"
    assert f"original {measured['wide']:.1f}%, stem {measured['narrow']:.1f}%" in figure.get_label()
    assert [axes.get_title() for axes in figure.axes[:3]] == ["original", "+ stem", "original"]


# ---- profiles -------------------------------------------------------------------------------------------------------


def test_profiles_are_means_over_networks_with_their_range():
    left, right = OWN_11.radial_profiles(PROFILES).axes
    hill, flat = PROFILES["halo"]
    (line, *_) = right.lines
    np.testing.assert_allclose(line.get_ydata(), 50 * (hill.held + flat.held))
    (line, *_) = left.lines
    np.testing.assert_allclose(line.get_ydata(), (hill.mean / hill.mean.max() + flat.mean / flat.mean.max()) / 2)
    assert len(left.collections) == len(right.collections) == 1  # identity has one network, and no range


@pytest.mark.parametrize("contribution", [SQUARE, HILL, FLAT])
def test_the_radii_that_are_told_are_those_of_the_map(contribution):
    told = OWN_11.radial_profiles({"swin": [radial_profile(contribution)]}).get_label()
    half, most = (int(word) for word in told.split("swin ")[1].rstrip(".").split(" and "))
    assert abs(half - contribution_radius(contribution, 0.5)) <= 0.5  # a ring is half a pixel thick to either side
    assert abs(most - contribution_radius(contribution, 0.9)) <= 0.5


# ---- areas ----------------------------------------------------------------------------------------------------------


def test_areas_are_dots_full_for_the_first_state_and_hollow_for_the_second():
    half, most = OWN_11.area_ratios(AREAS).axes
    colour = figures.colours(["halo"])["halo"]
    assert [x for x, _ in dots(half, colour)[True]] == pytest.approx([20, 30])
    assert [x for x, _ in dots(half, colour)[False]] == pytest.approx([5])
    assert [x for x, _ in dots(most, colour)[True]] == pytest.approx([90])  # None is no dot
    assert [label.get_text() for label in half.get_yticklabels()] == ["halo", "identity"]


def test_areas_are_told():
    text = OWN_11.area_ratios(AREAS).get_label()
    assert "50% of the contribution: halo 20, 30, 5; identity 3. 99%" in text


# ---- one image ------------------------------------------------------------------------------------------------------


def test_the_square_is_drawn_round_the_pixel_in_both_panels():
    figure = OWN_11.receptive_field_over_image(PICTURE, HILL, (8, 5), 7, "halo")
    for axes in figure.axes[:2]:
        (square,) = axes.patches
        assert (square.get_x() + 3.5, square.get_y() + 3.5) == (5, 8)
        assert square.get_width() == square.get_height() == 7
    assert "7 pixels at row 8, column 5" in figure.get_label()


def test_a_field_of_zeros_is_drawn_dark():
    figure = OWN_11.receptive_field_over_image(PICTURE, np.zeros((16, 16)), (8, 8), 1, "nothing")
    assert (figure.axes[1].images[0].get_array() == 1e-4).all()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: OWN_11.receptive_grid({}), "nothing to draw"),
        (lambda: OWN_08.design_fields({"forwards": {}}), "nothing to draw"),
        (lambda: OWN_08.design_fields({"forwards": {"original": np.zeros((4, 4))}}), "the receptive field is empty"),
        (lambda: OWN_11.receptive_grid({"halo": {"stage 1": np.zeros((4, 4))}}), "empty"),
        (lambda: OWN_11.radial_profiles({"halo": []}), "nothing to draw"),
        (lambda: OWN_11.area_ratios([{"mixer": "halo", "area": 1, "state": "a"}]), "row 0: no 'threshold'"),
        (lambda: OWN_11.area_ratios([{**AREAS[0], "state": state} for state in "abc"]), "states a, b, c"),
    ],
)
def test_refuses(draw, message):
    with pytest.raises(UserError, match=message):
        draw()
