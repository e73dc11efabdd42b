"""Explorers of painted numbers: what comes out follows the cells, the field, the sliders, clicks and drags."""

import numpy as np
import pytest
import torch
from companions import companion

from stm_lab import UserError
from stm_lab.explore import shell

OWN_02 = companion("02")
OWN_06 = companion("06")
kernel_painter = OWN_02.kernel_painter
moved_points = OWN_06.moved_points

PHOTO = torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(0))


def test_without_images_they_are_refused():
    for make in (kernel_painter, moved_points):
        with pytest.raises(UserError, match=f"{make.__name__}: no images"):
            make({})


@pytest.fixture
def painter():
    return kernel_painter({"grey": torch.full((1, 3, 20, 20), 0.5)}, {"trained": torch.eye(3)}, side=5)


def test_identity_changes_nothing_and_a_blur_keeps_the_inside(painter):
    assert "changes by 0.000 " in painter.figure(kernel="identity").get_label()
    shown = painter.figure(kernel="blur").axes[2].images[0].get_array()
    np.testing.assert_allclose(shown[4:-4, 4:-4], 0.5, atol=1e-6)
    assert shown[0, 0, 0] < 0.4  # zeros come in


def test_a_small_kernel_is_framed_with_zeros(painter):
    told = "Kernel 0 0 0 0 0 / 0 1 0 0 0 / 0 0 1 0 0 / 0 0 0 1 0 / 0 0 0 0 0"
    assert told in painter.figure(kernel="trained").get_label()


def test_a_click_paints_a_cell(painter):
    painter.set(kernel="identity", paint=-0.5)
    painter.click(0, 1, 1)  # the photograph is not painted
    assert painter.state["kernel"] == "identity"
    painter.click(1, 4.2, 0.1)  # row 0, column 4
    assert painter.state["kernel"] == "my own"
    assert painter.state["numbers"].splitlines()[0] == "0 0 0 0 -0.5"
    assert "Kernel 0 0 0 0 -0.5 / " in painter.figure().get_label()


def test_numbers_from_the_keyboard(painter):
    rows = "\n".join(" ".join("1" if i == j == 2 else "0" for i in range(5)) for j in range(5))
    assert "changes by 0.000 " in painter.figure(kernel="my own", numbers=rows).get_label()
    for numbers, says in (
        ("1 2", "5 lines of 5 numbers"),
        (rows.replace("1", "x"), "'x'"),
        (rows.replace("1", "99"), "-10 to 10"),
    ):
        with pytest.raises(UserError, match=says):
            painter.figure(kernel="my own", numbers=numbers)


def test_kernels_that_cannot_be_painted():
    for keywords, says in (({"side": 4}, "must be odd"), ({"kernels": {"k": torch.zeros(9, 9)}}, "odd square of 7")):
        with pytest.raises(UserError, match=says):
            kernel_painter({"a": PHOTO}, **keywords)


# ---- points ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def moved():
    return moved_points({"photo": PHOTO, "bytes": (255 * PHOTO[0]).byte()})


def nine(figure):
    """Places of the points; what is drawn after them is the ring round the chosen one."""
    places = np.asarray(figure.axes[0].collections[-2].get_offsets())
    assert places.shape == (9, 2)
    return places


def chosen(explorer):
    """Where the chosen point is, by the controls."""
    now = explorer.state
    x, y = now["point"] // 3 - 1, now["point"] % 3 - 1
    return now["column"] + x + now["x"], now["row"] + y + now["y"]


def line(explorer):
    return tuple(explorer.state[name] for name in ("x", "y", "logit"))


def test_the_field_holds_all_points_and_the_sliders_the_chosen_one(moved):
    moved.set(point=2, x=1.5, y=-2.0, logit=3.0)
    moved.set(point=5)
    assert line(moved) == (0, 0, 0)
    assert moved.state["numbers"].splitlines()[2] == "1.5 -2 3"
    moved.set(point=2)
    assert line(moved) == (1.5, -2, 3)
    x, y = chosen(moved)
    assert f"Point 2 lies at x {x:.2f}, y {y:.2f}" in moved.figure().get_label()


@pytest.mark.parametrize("other", [{"point": 3}, {"x": 1.5, "point": 3}, {"y": -0.25}])
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
    assert line(moved) == (-1, 2.5, 0.5)


def test_a_click_on_the_map_or_the_four_tokens_puts_the_chosen_point_there(moved):
    moved.set(point=0)
    for panel, place in ((0, (3.25, 8.5)), (0, (-1.5, 4)), (1, (-1.2, 4.3))):
        moved.click(panel, *place)
        np.testing.assert_allclose(chosen(moved), place, atol=0.03)
    moved.set(row=0, column=0)
    moved.click(0, 11, 11)
    assert line(moved)[:2] == (8, 8)  # no offset that the sliders lack


def test_a_click_on_a_bar_chooses_its_point_and_on_a_colour_none(moved):
    moved.click(2, 0.001, 3.2)
    assert moved.state["point"] == 3
    before = moved.state
    moved.click(3, 0.5, 0.5)
    assert moved.state == before


def dragged(explorer, panel, start, *way, drag=1):
    """From a place in a panel to others: the pointer goes down, and on, as the front end tells it."""
    picture, figure = explorer.widget.children[1], explorer.figure()
    figure.draw_without_rendering()  # places the panels
    tell = [shell._place_of(figure, panel, *place) for place in (start, *way)]
    for place in tell[1:]:
        picture.dragged = [*tell[0], *place, drag, picture.answered + 1]


def test_the_point_nearest_to_the_pointer_follows_it(moved):
    before = moved.state["numbers"].splitlines()
    way = [(5.5, 6.5), (5.75, 4.5), (8.25, 8.5)]  # past others: it keeps hold of the one that it took
    dragged(moved, 0, (5.1, 6.2), *way)
    assert moved.state["point"] == 1
    np.testing.assert_allclose(chosen(moved), way[-1], atol=0.03)
    after = moved.state["numbers"].splitlines()
    assert [number for number in range(9) if before[number] != after[number]] == [1]
    dragged(moved, 0, (8.2, 8.6), (-1, 3), drag=2)  # from where it lies now, to where there is no token
    assert moved.state["point"] == 1
    np.testing.assert_allclose(chosen(moved), (-1, 3), atol=0.03)


def test_a_drag_over_the_four_tokens_moves_the_chosen_point(moved):
    moved.set(point=3)
    dragged(moved, 1, (6.1, 5.2), (6.4, 5.7))
    assert moved.state["point"] == 3
    np.testing.assert_allclose(chosen(moved), (6.4, 5.7), atol=0.03)


def test_a_drag_over_bars_moves_none(moved):
    before = moved.state
    dragged(moved, 2, (0.001, 3), (0.001, 6))
    assert moved.state == before


def test_what_comes_out_follows_the_weights(moved):
    only = ["0 0 -4"] * 9
    only[4] = "0 0 4"
    label = moved.figure(numbers="\n".join(only), point=4).get_label()
    out, own = (float(label.split(words)[1].split()[0].rstrip(".,:;")) for words in ("together give ", "brightness "))
    assert out == pytest.approx(own, abs=2e-3)


@pytest.mark.parametrize(
    ("typed", "says"),
    [("1 2", "9 lines"), ("\n".join(["0 0 a"] * 9), "could not"), ("\n".join(["0 9 0"] * 9), "-8")],
)
def test_a_field_that_is_no_table_is_told_and_the_picture_stays(moved, typed, says):
    _, picture, message = moved.widget.children
    start = shell._place_of(moved.figure(), 0, 5, 6)
    before = picture.png
    moved.set(numbers=typed)
    assert says in message.value
    assert picture.png == before
    picture.dragged = [*start, 0.3, 0.3, 1, 1]
    assert (moved.state["numbers"], picture.answered) == (typed, 1)
    with pytest.raises(UserError, match=says):
        moved.figure()


def test_a_slider_its_line_and_the_picture_change_at_once(moved):
    controls, picture = moved._controls, moved.widget.children[1]
    seen = []
    picture.observe(lambda change: seen.append(moved.state), "png")
    controls["x"].value = 2.0
    controls["point"].value = 1
    controls["numbers"].value = "\n".join(["0 0 0"] * 8 + ["0 0 1"])
    assert len(seen) == 3
    assert seen[0]["numbers"].splitlines()[7].startswith("2 ")
    assert seen[1]["x"] == 0
