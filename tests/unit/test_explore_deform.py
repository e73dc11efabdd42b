"""The explorers of deformable sampling: what they draw follows controls and clicks, and they answer in time."""


import numpy as np
import pytest
import torch
from speed import Stopwatch

import stm_lab
from stm_lab import UserError, explore, measure

IMAGES = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
PHOTO = torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    return stm_lab.build_model("dcn_v3", "nano", pretrained=True)


@pytest.fixture
def learned(model):
    return explore.sampling_points({"trained": model, "again": model}, IMAGES)


@pytest.fixture
def moved():
    return explore.moved_points({"photo": PHOTO, "bytes": (255 * PHOTO[0]).byte()})


def dots(axes):
    return np.asarray(axes.collections[-1].get_offsets())


def clicked(explorer, panel, place):
    explorer.widget  # draws  # noqa: B018
    across, up = explorer._drawn.axes[panel].transData.transform(place)
    box = explorer._drawn.bbox
    explorer._picture.clicked = [across / box.width, 1 - up / box.height, 1]


# ---- as it was learned ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "block", "group"), [(1, 1, 1), (2, 2, 2), (3, 4, 3), (4, 1, 8)])
def test_it_draws_the_points_of_the_mixer(learned, model, stage, block, group):
    layers = measure.sampling_points(model, IMAGES[1:2]).layers
    layer = next(one for one in layers if (one.stage, one.block) == (stage - 1, block - 1))
    figure = learned.figure(stage=stage, block=block, group=group, image=1, row=63, column=20)
    y, x = layer.map_size[0] - 1, 20 * layer.map_size[1] // 64
    np.testing.assert_allclose(dots(figure.axes[0]), layer.places[0, y, x, group - 1], atol=1e-5)
    if layer.groups > 1:
        np.testing.assert_allclose(dots(figure.axes[1]), layer.places[0, y, x].reshape(-1, 2), atol=1e-5)
    assert figure.get_label().startswith(f"trained, stage {stage}, block {block}: the token in row {y}, column {x} of")


def test_a_stage_with_fewer_blocks_and_groups_shows_its_last(learned):
    label = learned.figure(stage=1, block=4, group=8).get_label()
    assert "block 2" in label
    assert "group 1 of 1" in label


def test_a_click_chooses_a_token_in_either_panel(learned):
    learned.set(stage=2)
    for panel in (0, 1):
        clicked(learned, panel, (6, 1))
        assert "the token in row 1, column 6 of 8x8" in learned._picture.alt
        learned.set(row=32, column=32)
    assert learned._select(0, -1.2, 3) == {}  # outside there are no tokens
    assert learned._select(0, 3, 7.8) == {}


@pytest.mark.soak
def test_the_learned_ones_answer_in_time(learned):
    learned.widget  # the first one loads fonts  # noqa: B018
    stopwatch = Stopwatch()
    for stage in (1, 2, 3, 4):
        for image in (1, 2):
            stopwatch.time(learned.set, stage=stage, image=image, group=stage)
    assert stopwatch.median < 0.5, stopwatch.seconds


def test_learned_refuses(model):
    with pytest.raises(UserError, match="no models"):
        explore.sampling_points({}, IMAGES)
    with pytest.raises(UserError, match="no deformable mixer"):
        explore.sampling_points({"convnext": stm_lab.build_model("convnext", "nano")}, IMAGES)


# ---- moved by hand --------------------------------------------------------------------------------------------------


def nine(figure):
    """Places of the points; what is drawn after them is the ring round the chosen one."""
    places = np.asarray(figure.axes[0].collections[-2].get_offsets())
    assert places.shape == (9, 2)
    return places


def told(label, words):
    return float(label.split(words)[1].split()[0].rstrip(".,:;"))


def test_tokens_are_the_mean_colours_of_their_patches():
    explorer = explore.moved_points({"photo": PHOTO}, side=10)
    shown = explorer.figure().axes[0].images[0].get_array()
    wanted = PHOTO[0].view(3, 10, 4, 10, 5).mean((2, 4)).permute(1, 2, 0)
    torch.testing.assert_close(torch.from_numpy(shown.data).float(), wanted, atol=1e-6, rtol=0)


def test_the_field_holds_all_points_and_the_sliders_the_chosen_one(moved):
    moved.set(point=2, x=1.5, y=-2.0, logit=3.0)
    moved.set(point=5)
    assert (moved.state["x"], moved.state["y"], moved.state["logit"]) == (0, 0, 0)
    assert moved.state["numbers"].splitlines()[2] == "1.5 -2 3"
    moved.set(point=2)
    assert (moved.state["x"], moved.state["y"], moved.state["logit"]) == (1.5, -2, 3)
    at = moved_point(moved)
    assert f"Point 2 lies at x {at[0]:.2f}, y {at[1]:.2f}" in moved.figure().get_label()


def moved_point(explorer):
    """Where the chosen point is, by the controls."""
    now = explorer.state
    x, y = now["point"] // 3 - 1, now["point"] % 3 - 1
    return now["column"] + x + now["x"], now["row"] + y + now["y"]


@pytest.mark.parametrize("other", [{"point": 3}, {"point": 3, "x": 1.5}, {"point": 7, "logit": 2}, {"y": -0.25}])
def test_the_figure_of_another_state_is_that_of_the_state(moved, other):
    """Another point has another line, of which nothing changes but what is given."""
    drawn = moved.figure(**other)
    moved.set(**other)
    assert moved.figure().get_label() == drawn.get_label()
    assert np.array_equal(nine(moved.figure()), nine(drawn))
    assert moved.figure(**moved.state).get_label() == drawn.get_label()


def test_a_figure_of_another_point_moves_none(moved):
    assert np.array_equal(nine(moved.figure(point=3)), nine(moved.figure()))
    assert "Point 3 lies at x 6.00, y 5.00" in moved.figure(point=3).get_label()


def test_numbers_that_are_typed_move_the_sliders(moved):
    lines = ["0 0 0"] * 9
    lines[7] = "-1 2.5 0.5"
    moved.set(numbers="\n".join(lines))
    assert (moved.state["x"], moved.state["y"], moved.state["logit"]) == (-1, 2.5, 0.5)


def test_a_click_on_the_map_puts_the_chosen_point_there(moved):
    moved.set(point=0)
    for panel, place in ((0, (3.25, 8.5)), (0, (-1.5, 4)), (1, (-1.2, 4.3))):
        clicked(moved, panel, place)
        np.testing.assert_allclose(moved_point(moved), place, atol=0.03)
        assert f"x {moved_point(moved)[0]:.2f}, y {moved_point(moved)[1]:.2f}" in moved._picture.alt


def dragged(explorer, panel, start, *way, drag=1):
    """From a place in a panel to others: the pointer goes down, and on, as the front end tells it."""
    explorer.widget  # draws  # noqa: B018
    figure = explorer._drawn
    tell = [explore.shell._place_of(figure, panel, *place) for place in (start, *way)]
    for place in tell[1:]:
        explorer._picture.dragged = [*tell[0], *place, drag, explorer._picture.answered + 1]


def test_the_point_nearest_to_the_pointer_follows_it(moved):
    before = moved.state["numbers"].splitlines()
    way = [(5.5, 6.5), (5.75, 4.5), (8.25, 8.5)]  # past others: it keeps hold of the one that it took
    dragged(moved, 0, (5.1, 6.2), *way)
    assert moved.state["point"] == 1
    np.testing.assert_allclose(moved_point(moved), way[-1], atol=0.03)
    after = moved.state["numbers"].splitlines()
    assert [number for number in range(9) if before[number] != after[number]] == [1]
    dragged(moved, 0, (8.2, 8.6), (-1, 3), drag=2)  # from where it lies now, to where there is no token
    assert moved.state["point"] == 1
    np.testing.assert_allclose(moved_point(moved), (-1, 3), atol=0.03)


def test_a_drag_over_the_four_tokens_moves_the_chosen_point(moved):
    moved.set(point=3)
    dragged(moved, 1, (6.1, 5.2), (6.4, 5.7))
    assert moved.state["point"] == 3
    np.testing.assert_allclose(moved_point(moved), (6.4, 5.7), atol=0.03)


def test_a_drag_over_bars_or_with_a_field_that_is_no_table_moves_none(moved):
    before = moved.state
    dragged(moved, 2, (0.001, 3), (0.001, 6))
    assert moved.state == before
    moved.set(numbers="1 2")
    dragged(moved, 0, (5, 6), (7, 7), drag=2)
    assert moved.state["numbers"] == "1 2"
    assert moved._picture.answered == 2


@pytest.mark.slow
def test_a_click_on_a_bar_chooses_its_point(moved):
    clicked(moved, 2, (0.001, 3.2))
    assert moved.state["point"] == 3
    assert moved._picture.alt.count("Point 3 lies at") == 1


@pytest.mark.parametrize("panel", [3, 4])
def test_a_click_on_a_colour_changes_nothing(moved, panel):
    before = moved.state
    clicked(moved, panel, (0.5, 0.5))
    assert moved.state == before


def test_a_click_sets_no_offset_that_the_sliders_lack(moved):
    moved.set(row=0, column=0)
    assert moved._select(0, 11, 11) == {"x": 8.0, "y": 8.0}


def test_what_comes_out_follows_the_weights(moved):
    only = ["0 0 -4"] * 9
    only[4] = "0 0 4"
    label = moved.figure(numbers="\n".join(only), point=4).get_label()
    assert told(label, "together give ") == pytest.approx(told(label, "brightness "), abs=2e-3)


@pytest.mark.parametrize(
    ("typed", "says"),
    [("1 2", "nine lines"), ("\n".join(["0 0 a"] * 9), "could not"), ("\n".join(["0 9 0"] * 9), "-8")],
)
def test_a_field_that_is_no_table_is_told_and_the_picture_stays(moved, typed, says):
    moved.widget  # noqa: B018
    before = moved._picture.png
    moved.set(numbers=typed)
    assert says in moved._message.value
    assert moved._picture.png == before
    with pytest.raises(UserError, match=says):
        moved.figure()


def test_every_change_is_drawn_once(moved):
    moved.widget  # noqa: B018
    drawn = []
    moved._draw = lambda draw=moved._draw, **state: drawn.append(state) or draw(**state)
    controls = moved._controls
    controls["x"].value = 2.0
    controls["point"].value = 1
    controls["numbers"].value = "\n".join(["0 0 0"] * 9)
    assert len(drawn) == 3
    assert drawn[0]["numbers"].splitlines()[7].startswith("2 ")
    assert drawn[1]["x"] == 0


@pytest.mark.soak
def test_the_moved_ones_answer_in_time(moved):
    moved.widget  # noqa: B018
    stopwatch = Stopwatch()
    for point in range(6):
        stopwatch.time(moved.set, point=point, x=float(point), row=point)
    assert stopwatch.median < 0.5, stopwatch.seconds


@pytest.mark.parametrize(("images", "side", "says"), [({}, 12, "no images"), ({"a": PHOTO}, 1, "side=1 must be 2")])
def test_moved_refuses(images, side, says):
    with pytest.raises(UserError, match=says):
        explore.moved_points(images, side=side)


@pytest.mark.parametrize(
    ("state", "says"),
    [({"point": 9}, "point=9"), ({"point": 9, "x": 1.0}, "point=9"), ({"x": 9.0}, "-8"), ({"z": 1.0}, "z")],
)
def test_states_that_cannot_be(moved, state, says):
    with pytest.raises(UserError, match=says):
        moved.figure(**state)
