"""The explorer of shifted windows: any state by its controls, a click in any panel finds the token, in time."""


import pytest
import torch
from speed import Stopwatch

from stm_lab import UserError, explore

PHOTO = torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def explorer():
    return explore.shifted_windows({"photo": PHOTO, "bytes": (255 * PHOTO[0]).byte()})


def test_without_the_mask_more_is_heard(explorer):
    assert "masked it hears 4 tokens" in explorer.figure().get_label()
    assert "without the mask it hears 16 tokens" in explorer.figure(masked=False).get_label()


def test_unshifted_windows_need_no_mask_where_nothing_is_padded(explorer):
    assert "100% of the pairs" in explorer.figure(shifted=False).get_label()


def test_tokens_are_the_mean_colours_of_their_patches(explorer):
    shown = explorer.figure(height=4, width=5, window=2).axes[0].images[0].get_array()
    wanted = PHOTO[0].view(3, 4, 10, 5, 10).mean((2, 4)).permute(1, 2, 0)
    torch.testing.assert_close(torch.from_numpy(shown.data), wanted.double(), atol=1e-6, rtol=0)


def test_a_place_outside_of_a_smaller_map_is_its_last(explorer):
    assert "row 5, column 3 of 6x4" in explorer.figure(height=6, width=4, row=20, column=20).get_label()


@pytest.mark.parametrize(
    ("panel", "x", "y", "wanted"),
    [
        (0, 3.2, 7.9, {"row": 8, "column": 3}),
        (1, 0, 0, {"row": 0, "column": 0}),
        (5, 11, 4, {"row": 4, "column": 11}),
        (2, 0, 0, {"row": 2, "column": 2}),  # what stands first after the roll
        (2, 11, 0, {"row": 2, "column": 1}),  # came round
        (3, 5, 15, {"row": 1, "column": 1}),  # the last query of the corner's window
        (4, 0, 0, {"row": 10, "column": 10}),  # its first
        (4, 3, 2, {"row": 0, "column": 1}),
    ],
)
def test_a_click_finds_the_token(explorer, panel, x, y, wanted):
    assert explorer._select(panel, x, y) == wanted


def test_clicks_that_say_nothing(explorer):
    explorer.set(height=9, step=4)
    assert explorer._select(1, 0, 11) == {}  # padding
    assert explorer._select(3, 0, 99) == {}
    assert explorer._select(4, 0, 0) == {}  # not drawn yet


@pytest.mark.soak
def test_it_answers_in_time(explorer):
    assert explorer.widget  # the first one loads fonts
    stopwatch = Stopwatch()
    for window in (2, 4, 7, 8):
        stopwatch.time(explorer.set, window=window, height=28, width=27, row=13)
    assert stopwatch.median < 0.5, stopwatch.seconds


@pytest.mark.parametrize(
    ("images", "sizes", "says"),
    [
        ({}, {}, "no images"),
        ({"a": PHOTO}, {"window": 9}, "window=9 must be 2 to 8"),
        ({"a": PHOTO}, {"step": 0}, "st"),
    ],
)
def test_refuses(images, sizes, says):
    with pytest.raises(UserError, match=says):
        explore.shifted_windows(images, **sizes)
