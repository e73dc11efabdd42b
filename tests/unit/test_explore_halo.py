"""The painter of blocks and halos: what it draws follows the controls, and a click chooses a token."""


import pytest
from speed import Stopwatch

from stm_lab import UserError, explore


@pytest.fixture
def painter():
    return explore.halo_painter()


def test_first_picture_frames_the_corner_that_four_blocks_hear(painter):
    assert "the token in row 6, column 6, of block (0, 0), hears 100 tokens" in painter.figure().get_label()
    assert "4 blocks hear it" in painter.figure().get_label()


def test_controls_change_the_map(painter):
    label = painter.figure(height=9, width=20, block=4, halo=1, row=0, column=19).get_label()
    assert label.startswith("9x20 tokens, blocks of 4, halo 1: the token in row 0, column 19, of block (0, 4)")
    assert "0 of the 49 keys" in painter.figure(height=21, width=21, halo=0, row=8).get_label()  # nothing is masked


def test_a_click_chooses_a_token_in_any_panel(painter):
    for panel in range(3):
        assert painter._select(panel, 2.4, 11.6) == {"row": 12, "column": 2}
    assert painter._select(0, -2, 3) == {}  # masked: there is nobody
    assert painter._select(0, 14, 3) == {}


def test_a_click_lands_on_the_token_that_is_seen_there(painter):
    painter.widget  # draws  # noqa: B018
    across, up = painter._drawn.axes[1].transData.transform((12, 3))
    box = painter._drawn.bbox
    painter._picture.clicked = [across / box.width, 1 - up / box.height, 1]
    assert (painter.state["row"], painter.state["column"]) == (3, 12)
    assert "the token in row 3, column 12" in painter._picture.alt


def test_a_token_beyond_a_smaller_map_becomes_the_last(painter):
    assert "the token in row 2, column 13" in painter.figure(height=3, row=30, column=39).get_label()


@pytest.mark.soak
def test_answers_within_half_a_second(painter):
    painter.widget  # the first picture: imports and fonts  # noqa: B018
    largest = {"height": 40, "width": 40}
    for state in ({"row": 0}, {"block": 2, "halo": 1}, {**largest, "block": 1, "halo": 16}, {**largest, "block": 5}):
        stopwatch = Stopwatch()
        for _ in range(3):
            painter.set(height=14, width=14, block=7, halo=3, row=6)
            before = painter._picture.png
            stopwatch.time(painter.set, **state)
            assert painter._picture.png != before, state
        assert stopwatch.median < 0.5, (state, stopwatch.seconds)


@pytest.mark.parametrize("given", [{"height": 0}, {"width": 41}, {"block": 0}, {"halo": -1}], ids=str)
def test_sizes_that_the_sliders_do_not_have(given):
    with pytest.raises(UserError, match=f"{next(iter(given))}={next(iter(given.values()))} must be"):
        explore.halo_painter(**given)
