"""The geometry of shifted windows is the mixer's own, and the figure tells it in words."""

import numpy as np
import pytest
import torch

from stm_lab import UserError, figures
from stm_lab.figures.windows import colour_weights, token_window
from stm_lab.mixers import get_mixer

SIZES = [(12, 12, 4, 2), (14, 14, 7, 3), (9, 13, 4, 2), (16, 10, 5, 1), (5, 11, 7, 3), (8, 8, 4, 0), (1, 6, 2, 1)]
each_size = pytest.mark.parametrize(("height", "width", "window", "shift"), SIZES)


def image(height, width):
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0)).numpy().astype(float)


@each_size
def test_mask_and_order_are_the_mixers(height, width, window, shift):
    mixer = get_mixer("swin")(4, heads=1, window=window, shift=shift)
    w, s = mixer._window_and_shift(height, width)
    masks = mixer._allowed(height, width, w, s, torch.device("cpu")).numpy()
    for row in range(height):
        for column in range(width):
            found = token_window(height, width, window=window, shift=shift, place=(row, column))
            assert (found.side, found.shift) == (w, s)
            across = found.padded[1] // w
            number = (row - s) % found.padded[0] // w * across + (column - s) % found.padded[1] // w
            np.testing.assert_array_equal(found.allowed, masks[number])
            assert (found.rows.flat[found.query], found.columns.flat[found.query]) == (row, column)


@each_size
def test_who_is_heard_is_whom_the_mixer_hears(height, width, window, shift):
    """By the gradient of one output token, in float64."""
    torch.manual_seed(0)
    mixer = get_mixer("swin")(4, heads=1, window=window, shift=shift).double()
    x = torch.randn(1, height, width, 4, dtype=torch.float64, requires_grad=True)
    row, column = height - 1, width // 2
    (gradient,) = torch.autograd.grad(mixer(x)[0, row, column].sum(), x)
    found = token_window(height, width, window=window, shift=shift, place=(row, column))
    heard = np.zeros(found.padded, bool)
    heard[found.rows, found.columns] = found.allowed[found.query].reshape(found.side, found.side)
    np.testing.assert_array_equal(heard[:height, :width], gradient[0].abs().sum(-1).numpy() > 0)
    assert not heard[height:].any()
    assert not heard[:, width:].any()


def test_weights_are_shares_and_only_of_the_piece():
    picture = image(10, 13)
    found = token_window(10, 13, window=4, shift=2, place=(0, 12))
    weights = colour_weights(picture, found)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_array_equal(weights.ravel() > 0, found.allowed[found.query])
    assert (colour_weights(picture, found, masked=False) > 0).all()


def test_without_the_mask_the_far_sides_meet():
    told = figures.window_steps(image(12, 12), window=4, shift=2, place=(0, 0)).get_label()
    assert "masked it hears 4 tokens, and takes 0% from tokens of other pieces, 0% from the padding" in told
    assert "25% of the pairs in its window" in told  # four pieces of four tokens
    told = figures.window_steps(np.ones((12, 12, 3)), window=4, shift=2, place=(0, 0), masked=False).get_label()
    assert "without the mask it hears 16 tokens, and takes 75% from tokens of other pieces" in told


def test_steps_are_drawn_one_after_the_other():
    for step in range(1, 7):
        axes = figures.window_steps(image(9, 12), window=4, shift=2, place=(3, 3), step=step).axes
        assert [bool(one.images) for one in axes] == [number < step for number in range(6)]
    assert [one.get_title() for one in axes] == [
        "1. the map: 9x12 tokens",
        "2. the shifted grid: 12 pieces",
        "3. rolled by -2: 3x3 windows",
        "4. the mask of its window: 100% allowed",
        "5. attention of the framed token (%)",
        "6. shifted back: it hears 16 tokens",
    ]


def test_a_small_map_is_one_window_wide_and_not_shifted():
    told = figures.window_steps(image(3, 9), window=4, shift=2, place=(0, 8)).get_label()
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
        figures.window_steps(given.pop("image"), **given)
