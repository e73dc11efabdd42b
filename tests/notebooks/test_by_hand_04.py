"""The code by hand of notebook 04 against the package, at sizes that it does not show."""

import exercises
import pytest
import torch

from stm_lab.mixers import get_mixer
from stm_lab.mixers.swin import _layout, _window_and_shift

hand = exercises.by_hand("04")
CASES = [
    ((1, 9, 8, 4), 2, 3, 1),
    ((2, 7, 10, 6), 3, 5, 2),
    ((1, 5, 2, 4), 1, 4, 3),
    ((1, 1, 1, 2), 1, 2, 1),
    ((2, 6, 6, 4), 2, 3, 0),
]


@pytest.mark.parametrize(("shape", "heads", "window", "shift"), CASES)
def test_slow_and_fast_are_the_packages(shape, heads, window, shift):
    torch.manual_seed(0)
    mixer = get_mixer("swin")(shape[-1], heads=heads, window=window, shift=shift).double().requires_grad_(False)
    for parameter in mixer.parameters():
        parameter.normal_()
    x, (H, W) = torch.randn(shape, dtype=torch.float64), shape[1:3]
    torch.testing.assert_close(hand.swin_slow(x, mixer), mixer(x))
    torch.testing.assert_close(hand.swin_by_hand(x, mixer), mixer(x))
    parts = hand.parts(mixer, H, W)
    torch.testing.assert_close(hand.window_attention(x, mixer, **parts), mixer(x))
    w, s = hand.window_and_shift(H, W, window, shift)
    assert (w, s) == _window_and_shift(H, W, window, shift) == (parts["w"], parts["s"])
    *_, rows, hidden = _layout(H, W, window, shift, x.device)
    assert torch.equal(~hand.mask(H, W, w, s), torch.zeros_like(hand.mask(H, W, w, s)) if hidden is None else hidden)
    assert hand.pieces(H, W, w, s).shape == (-(-H // w) * w, -(-W // w) * w)
    assert torch.equal(hand.relative_index(w, window), rows)
    assert sum(hand.multiply_adds(H, W, shape[-1], window).values()) == mixer.macs(H, W)


@pytest.mark.parametrize(("height", "width", "window"), [(6, 4, 2), (3, 9, 3)])
def test_unite_undoes_partition(height, width, window):
    x = torch.randn(2, height, width, 3)
    windows = hand.partition(x, window)
    assert torch.equal(windows[0, 1], x[0, :window, window : 2 * window].reshape(-1, 3))
    assert torch.equal(hand.unite(windows, height, width), x)


def test_parts_are_made_where_the_weights_are():
    mixer = get_mixer("swin")(4, heads=2, window=3, shift=1).to("meta")
    parts = hand.parts(mixer, 7, 8)
    assert {value.device.type for value in parts.values() if isinstance(value, torch.Tensor)} == {"meta"}
    assert hand.swin_by_hand(torch.empty(2, 7, 8, 4, device="meta"), mixer).shape == (2, 7, 8, 4)
