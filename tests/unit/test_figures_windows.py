"""The figure of shifted windows tells in words what it shows, step by step."""

import numpy as np
import pytest
import torch
from companions import companion

from stm_lab import UserError

OWN_04 = companion("04")


def image(height, width):
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0)).numpy().astype(float)


def test_without_the_mask_the_far_sides_meet():
    told = OWN_04.window_steps(image(12, 12), window=4, shift=2, place=(0, 0)).get_label()
    assert "with the mask it attends to 4 tokens, and takes 0% from tokens of other pieces, 0% from the padding" in told
    assert "25% of the pairs in its window" in told  # four pieces of four tokens
    told = OWN_04.window_steps(np.ones((12, 12, 3)), window=4, shift=2, place=(0, 0), masked=False).get_label()
    assert "without the mask it attends to 16 tokens, and takes 75% from tokens of other pieces" in told


def test_steps_are_drawn_one_after_the_other():
    for step in range(1, 7):
        axes = OWN_04.window_steps(image(9, 12), window=4, shift=2, place=(3, 3), step=step).axes
        assert [bool(one.images) for one in axes] == [number < step for number in range(6)]
    assert [one.get_title() for one in axes] == [
        "1. the map: 9x12 tokens",
        "2. the shifted grid: 12 pieces",
        "3. rolled by -2: 3x3 windows",
        "4. the mask of its window: 100% allowed",
        "5. attention of the framed token (%)",
        "6. shifted back: it attends to 16 tokens",
    ]


def test_a_small_map_is_one_window_wide_and_not_shifted():
    told = OWN_04.window_steps(image(3, 9), window=4, shift=2, place=(0, 8)).get_label()
    assert "windows of 3x3, shifted by 0, on 3x9 with the padding" in told


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shift": 4}, "shift=4 must be"),
        ({"place": (9, 0)}, "no token of a 8x8 map"),
        ({"step": 7}, "step=7 must be 1 to 6"),
        ({"image": np.zeros((8, 8))}, "expected"),
    ],
)
def test_refuses(change, says):
    given = {"image": image(8, 8), "window": 4, "shift": 2, "place": (0, 0), **change}
    with pytest.raises(UserError, match=says):
        OWN_04.window_steps(given.pop("image"), **given)
