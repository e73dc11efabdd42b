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


@pytest.fixture
def explorer():
    calls.clear()
    controls = {
        "row": widgets.IntSlider(2, 0, 8, description="row"),
        "column": widgets.IntSlider(3, 0, 8, description="column"),
        "colour": widgets.Dropdown(options=["red", "blue", "none"], description="colour"),
    }
    place = {0: lambda x, y: {"row": round(y), "column": round(x)}}
    return Explorer(draw, controls, select=lambda panel, x, y: place[panel](x, y) if panel in place else {})


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
    explorer.widget.children[0].children[0].value = 7
    assert explorer.widget.children[1] is picture
    assert picture.png != before
    assert picture.alt == "a red dot in row 7, column 3"


def test_sliders_send_when_they_are_let_go(explorer):
    row, column, _ = explorer.widget.children[0].children
    assert not row.continuous_update
    assert not column.continuous_update


def test_a_click_is_looked_up_in_its_panel_and_drawn_once(explorer):
    figure = explorer.figure()
    picture = explorer.widget.children[1]
    calls.clear()
    x, y = figure.axes[0].transData.transform((6, 5))  # from the lower left, in pixels
    picture.clicked = [x / 400, 1 - y / 200, 1]
    assert explorer.state == {"row": 5, "column": 6, "colour": "red"}
    assert calls == [(5, 6, "red")]
    right = figure.axes[1].transData.transform((0.5, 0.5))
    picture.clicked = [right[0] / 400, 1 - right[1] / 200, 2]
    picture.clicked = [0.001, 0.001, 3]  # between the panels
    assert len(calls) == 1


def fractions(figure, panel, place):
    """A place in a panel's coordinates -> as the front end tells it."""
    x, y = figure.axes[panel].transData.transform(place)
    return [x / 400, 1 - y / 200]


def test_a_drag_takes_hold_first_and_then_follows(explorer):
    taken = []
    controls = explorer._controls
    select = {0: lambda x, y: {"row": min(max(round(y), 0), 8), "column": min(max(round(x), 0), 8)}}
    grab = {0: lambda *place: taken.append(place) or {"colour": "blue"}}
    own = Explorer(
        draw, controls, select=lambda panel, *place: select[panel](*place),
        grab=lambda panel, *place: grab[panel](*place) if panel in grab else None,
    )  # fmt: skip
    picture, figure = own.widget.children[1], own._drawn
    assert picture.draggable
    calls.clear()
    down = fractions(figure, 0, (3, 2))
    picture.dragged = [*down, *fractions(figure, 0, (6, 5)), 1, 1]
    assert own.state == {"row": 5, "column": 6, "colour": "blue"}
    assert (calls, picture.answered) == ([(5, 6, "blue")], 1)  # what it takes hold of and where it goes: drawn once
    picture.dragged = [*down, *fractions(figure, 0, (1, 7)), 1, 2]
    assert own.state == {"row": 7, "column": 1, "colour": "blue"}
    picture.dragged = [*down, *fractions(figure, 1, (0.5, 0.5)), 1, 3]  # over the other panel: as far as it goes
    assert own.state["column"] == 8
    assert len(taken) == 1
    assert taken[0] == pytest.approx((3, 2))
    calls.clear()
    for event, there in enumerate([(1, (0.1, 0.1)), (0, (2, 2))], start=4):  # from where there is nothing to hold
        picture.dragged = [*fractions(figure, 1, (0.5, 0.5)), *fractions(figure, *there), 2, event]
        assert picture.answered == event  # else the front end would wait for ever
    assert calls == []


def test_without_anything_to_grab_the_pointer_only_clicks(explorer):
    assert not explorer.widget.children[1].draggable


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
