"""The shell of all explorers: a figure of its controls' values, drawn in place, clicked on, shown with no front end."""

import io

import ipywidgets as widgets
import pytest
from matplotlib.figure import Figure
from PIL import Image

from stm_lab import UserError
from stm_lab.explore import Explorer
from stm_lab.figures.style import described

calls = []


def draw(row, column, colour):
    calls.append((row, column, colour))
    if colour == "none":
        raise UserError("colour = 'none': nothing would be seen")
    figure = Figure(figsize=(4, 2), dpi=100)
    left, right = figure.subplots(1, 2)
    left.plot([column], [row], "o", color=colour)
    left.set(xlim=(0, 8), ylim=(8, 0))
    right.set(xlim=(0, 1), ylim=(0, 1))
    return described(figure, f"a {colour} dot in row {row}, column {column}")


def select(panel, x, y, now):
    clip = {"row": min(max(round(y), 0), 8), "column": min(max(round(x), 0), 8)}
    return clip if panel == 0 else {}


def made(**options):
    calls.clear()
    controls = {
        "row": widgets.IntSlider(2, 0, 8),
        "column": widgets.IntSlider(3, 0, 8, description="the column"),
        "colour": widgets.Dropdown(options=["red", "blue", "none"]),
    }
    return Explorer(draw, controls, select=select, **options)


@pytest.fixture
def explorer():
    return made()


def fractions(explorer, panel, place):
    """A place in a panel's coordinates -> as the front end tells it."""
    x, y = explorer.figure().axes[panel].transData.transform(place)  # from the lower left, in pixels
    return [x / 400, 1 - y / 200]


def test_nothing_is_drawn_before_it_is_shown(explorer):
    assert calls == []


def test_any_state_is_a_figure(explorer):
    assert explorer.figure().get_label() == "a red dot in row 2, column 3"
    assert explorer.figure(row=5, colour="blue").get_label() == "a blue dot in row 5, column 3"
    assert explorer.state == {"row": 2, "column": 3, "colour": "red"}
    with pytest.raises(UserError, match=r"control.*'colum'.*column"):
        explorer.figure(colum=1)


def test_one_bundle_of_view_and_still_picture(explorer):
    bundle, metadata = explorer._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert Image.open(io.BytesIO(bundle["image/png"])).size == (400, 200)
    assert metadata["image/png"]["alt"] == bundle["text/plain"] == "a red dot in row 2, column 3"


def test_a_control_draws_into_the_same_picture(explorer):
    picture = explorer.widget.children[1]
    before = picture.png
    row, column, _ = explorer.widget.children[0].children
    row.value = 7
    assert explorer.widget.children[1] is picture
    assert picture.png != before
    assert picture.alt == "a red dot in row 7, column 3"
    assert not row.continuous_update  # sliders send when they are let go
    assert (row.description, column.description) == ("row", "the column")


def test_a_click_is_looked_up_in_its_panel_and_drawn_once(explorer):
    picture = explorer.widget.children[1]
    place, beside = fractions(explorer, 0, (6, 5)), fractions(explorer, 1, (0.5, 0.5))
    calls.clear()
    picture.clicked = [*place, 1]
    assert explorer.state == {"row": 5, "column": 6, "colour": "red"}
    picture.clicked = [*beside, 2]
    picture.clicked = [0.001, 0.001, 3]  # between the panels
    assert calls == [(5, 6, "red")]
    explorer.click(0, 1.2, 7.1)
    assert calls[1:] == [(7, 1, "red")]


def test_a_drag_takes_hold_first_and_then_follows():
    taken = []
    own = made(grab=lambda panel, *place: None if panel else taken.append(place[:2]) or {"colour": "blue"})
    picture = own.widget.children[1]
    assert picture.draggable
    down, middle = fractions(own, 0, (3, 2)), fractions(own, 1, (0.5, 0.5))
    ways = [fractions(own, 0, place) for place in ((6, 5), (1, 7))]
    calls.clear()
    picture.dragged = [*down, *ways[0], 1, 1]
    assert own.state == {"row": 5, "column": 6, "colour": "blue"}
    assert (calls, picture.answered) == ([(5, 6, "blue")], 1)  # what it takes hold of and where it goes: drawn once
    picture.dragged = [*down, *ways[1], 1, 2]
    assert own.state == {"row": 7, "column": 1, "colour": "blue"}
    picture.dragged = [*down, *middle, 1, 3]  # over the other panel: as far as it goes
    assert own.state["column"] == 8
    assert taken == [pytest.approx((3, 2))]
    calls.clear()
    for event, end in enumerate([middle, ways[0]], start=4):  # from where there is nothing to hold
        picture.dragged = [*middle, *end, 2, event]
        assert picture.answered == event  # else the front end would wait for ever
    assert calls == []


def test_without_anything_to_grab_the_pointer_only_clicks(explorer):
    assert not explorer.widget.children[1].draggable


def test_values_that_follow_are_set_and_drawn_once():
    own = made(follow=lambda changed, now: {"column": 8 - now["row"]} if changed == "row" else {})
    own.widget  # draws  # noqa: B018
    calls.clear()
    own._controls["row"].value = 6
    own.set(row=1, column=5)  # what is given counts
    assert calls == [(6, 2, "red"), (1, 5, "red")]
    assert own.figure(row=3).get_label() == "a red dot in row 3, column 5"


def test_hints_are_places_in_the_picture():
    own = made(hints=lambda now: [(0, now["column"], now["row"], "here")])
    ((*place, text),) = own.widget.children[1].hints
    assert (place, text) == (pytest.approx(fractions(own, 0, (3, 2))), "here")


def test_what_cannot_be_drawn_is_said_and_the_picture_stays(explorer):
    _, picture, message = explorer.widget.children
    before = picture.png
    explorer.set(colour="none")
    assert "nothing would be seen" in message.value
    assert picture.png == before
    explorer.set(colour="blue")
    assert message.value == ""
    assert picture.png != before


def test_values_that_a_control_does_not_take_are_refused(explorer):
    with pytest.raises(UserError, match="colour = 'green'"):
        explorer.set(colour="green")
    for act in (explorer.set, explorer.figure):
        with pytest.raises(UserError, match="row=9 must be 0 to 8"):
            act(row=9)
