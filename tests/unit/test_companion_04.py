"""The geometry of shifted windows is the mixer's own: order, mask, and who is heard."""

import itertools

import numpy as np
import pytest
import torch
from companions import companion

from stm_lab import UserError
from stm_lab.mixers import get_mixer
from stm_lab.mixers.swin import _layout, _window_and_shift

OWN_04 = companion("04")
SIZES = [(12, 12, 4, 2), (14, 14, 7, 3), (9, 13, 4, 2), (16, 10, 5, 1), (5, 11, 7, 3), (8, 8, 4, 0), (1, 6, 2, 1)]
each_size = pytest.mark.parametrize(("height", "width", "window", "shift"), SIZES)


def image(height, width):
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0)).numpy().astype(float)


@each_size
def test_mask_and_order_are_the_mixers(height, width, window, shift):
    w, s = _window_and_shift(height, width, window, shift)
    hidden = _layout(height, width, window, shift, torch.device("cpu"))[3]
    for row in range(height):
        for column in range(width):
            found = OWN_04.token_window(height, width, window=window, shift=shift, place=(row, column))
            assert (found.side, found.shift) == (w, s)
            across = found.padded[1] // w
            number = (row - s) % found.padded[0] // w * across + (column - s) % found.padded[1] // w
            np.testing.assert_array_equal(found.allowed, True if hidden is None else ~hidden[number])
            assert (found.rows.flat[found.query], found.columns.flat[found.query]) == (row, column)


@each_size
def test_whom_it_says_to_be_heard_is_whom_the_mixer_hears(height, width, window, shift):
    """By gradients of output tokens on maps of random numbers, in float64."""
    torch.manual_seed(0)
    mixer = get_mixer("swin")(4, heads=1, window=window, shift=shift).double()
    x = torch.randn(1, height, width, 4, dtype=torch.float64, requires_grad=True)
    out = mixer(x)[0].sum(-1)
    for row, column in itertools.product({0, height // 2, height - 1}, {0, width // 2, width - 1}):
        (gradient,) = torch.autograd.grad(out[row, column], x, retain_graph=True)
        found = OWN_04.token_window(height, width, window=window, shift=shift, place=(row, column))
        heard = np.zeros(found.padded, bool)
        heard[found.rows, found.columns] = found.allowed[found.query].reshape(found.side, found.side)
        np.testing.assert_array_equal(heard[:height, :width], gradient[0].abs().sum(-1).numpy() > 0)
        assert not heard[height:].any()
        assert not heard[:, width:].any()


def test_weights_are_shares_and_only_of_the_piece():
    picture = image(10, 13)
    found = OWN_04.token_window(10, 13, window=4, shift=2, place=(0, 12))
    weights = OWN_04.colour_weights(picture, found)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_array_equal(weights.ravel() > 0, found.allowed[found.query])
    assert (OWN_04.colour_weights(picture, found, masked=False) > 0).all()


@pytest.mark.parametrize(
    ("given", "says"), [({"shift": 4}, "shift=4 must be at least 0"), ({"place": (8, 0)}, "no token of a 8x9 map")]
)
def test_refuses(given, says):
    with pytest.raises(UserError, match=says):
        OWN_04.token_window(8, 9, **{"window": 4, "shift": 2, "place": (0, 0), **given})
