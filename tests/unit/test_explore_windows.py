"""Explorers of windows and blocks: any state by its controls, and a click in any panel finds the token."""

import pytest
import torch
from companions import companion

from stm_lab import UserError

OWN_04 = companion("04")
OWN_05 = companion("05")

PHOTO = torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(0))


def place(explorer):
    return explorer.state["row"], explorer.state["column"]


@pytest.fixture
def windows():
    return OWN_04.shifted_windows({"photo": PHOTO, "bytes": (255 * PHOTO[0]).byte()})


def test_without_the_mask_more_is_heard(windows):
    assert "with the mask it attends to 4 tokens" in windows.figure().get_label()
    assert "without the mask it attends to 16 tokens" in windows.figure(masked=False).get_label()


def test_unshifted_windows_need_no_mask_where_nothing_is_padded(windows):
    assert "100% of the pairs" in windows.figure(shifted=False).get_label()


def test_tokens_are_the_mean_colours_of_their_patches(windows):
    shown = windows.figure(height=4, width=5, window=2).axes[0].images[0].get_array()
    wanted = PHOTO[0].view(3, 4, 10, 5, 10).mean((2, 4)).permute(1, 2, 0)
    torch.testing.assert_close(torch.from_numpy(shown.data), wanted.double(), atol=1e-6, rtol=0)


def test_a_place_outside_of_a_smaller_map_is_its_last(windows):
    assert "row 5, column 3 of 6x4" in windows.figure(height=6, width=4, row=20, column=20).get_label()


@pytest.mark.parametrize(
    ("panel", "x", "y", "wanted"),
    [
        (0, 3.2, 7.9, (8, 3)),
        (1, 2, 1, (1, 2)),
        (5, 11, 4, (4, 11)),
        (2, 0, 0, (2, 2)),  # what stands first after the roll
        (2, 11, 0, (2, 1)),  # came round
        (3, 5, 15, (1, 1)),  # the last query of the corner's window
        (4, 0, 0, (10, 10)),  # its first
        (4, 3, 2, (0, 1)),
    ],
)
def test_a_click_finds_the_token(windows, panel, x, y, wanted):
    windows.click(panel, x, y)
    assert place(windows) == wanted


def test_clicks_on_padding_or_panels_that_are_not_drawn_say_nothing(windows):
    windows.set(height=9, step=4)
    for panel, x, y in ((1, 0, 11), (3, 0, 99), (4, 3, 2)):
        windows.click(panel, x, y)
        assert place(windows) == (0, 0)


def test_without_images_there_are_no_windows():
    with pytest.raises(UserError, match="shifted_windows: no images"):
        OWN_04.shifted_windows({})


@pytest.fixture
def blocks():
    return OWN_05.halo_painter()


def test_first_picture_frames_the_corner_that_four_blocks_attend_to(blocks):
    assert "the token in row 6, column 6, of block (0, 0), attends to 100 tokens" in blocks.figure().get_label()
    assert "4 blocks attend to it" in blocks.figure().get_label()


def test_controls_change_the_map(blocks):
    label = blocks.figure(height=9, width=20, block=4, halo=1, row=0, column=19).get_label()
    assert label.startswith("9x20 tokens, blocks of 4, halo 1: the token in row 0, column 19, of block (0, 4)")
    assert "0 of the 49 keys" in blocks.figure(height=21, width=21, halo=0, row=8).get_label()  # nothing is masked
    assert "the token in row 2, column 13" in blocks.figure(height=3, row=30, column=39).get_label()


def test_a_click_on_the_map_chooses_a_token_in_any_panel(blocks):
    for panel in range(3):
        blocks.click(panel, 2.4 + panel, 11.6)
        assert place(blocks) == (12, 2 + panel)
    for outside in ((-2, 3), (14, 3)):
        blocks.click(0, *outside)
        assert place(blocks) == (12, 4)
