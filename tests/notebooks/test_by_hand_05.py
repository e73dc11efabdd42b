"""The code by hand of notebook 05 against the package, at sizes that it does not show."""

import exercises
import pytest
import torch
import torch.nn.functional as F

from stm_lab.mixers import get_mixer
from stm_lab.mixers.halo import _keys, _relative_logits

hand = exercises.by_hand("05")
SIZES = [  # shape, heads, block, halo
    ((1, 1, 1, 4), 1, 7, 3),
    ((2, 5, 9, 6), 2, 4, 1),
    ((1, 8, 3, 6), 3, 2, 3),
    ((3, 6, 6, 4), 1, 3, 0),
    ((1, 10, 7, 8), 2, 7, 3),
]
each_size = pytest.mark.parametrize(("shape", "heads", "block", "halo"), SIZES)


def randomised(dim, heads, block, halo):
    torch.manual_seed(0)
    mixer = get_mixer("halo")(dim, heads=heads, block=block, halo=halo).double().requires_grad_(False)
    for parameter in mixer.parameters():
        parameter.normal_()
    return mixer


@each_size
def test_both_versions_are_the_packages(shape, heads, block, halo):
    mixer, x = randomised(shape[-1], heads, block, halo), torch.randn(shape, dtype=torch.float64)
    expected = mixer(x)
    torch.testing.assert_close(hand.halo_slow(x, mixer), expected)
    torch.testing.assert_close(hand.halo_fast(x, mixer), expected)


@each_size
def test_windows_are_slices_of_the_map(shape, heads, block, halo):
    B, H, W, C = shape
    x, w = torch.randn(shape), block + 2 * halo
    found, known = hand.windows(x, block, halo), hand.inside(H, W, block, halo)
    padded = F.pad(x, (0, 0, halo, w, halo, w))
    assert found.shape == (B, -(-H // block), -(-W // block), w * w, C)
    for row in range(found.shape[1]):
        for column in range(found.shape[2]):
            top, left = row * block, column * block
            assert torch.equal(found[:, row, column], padded[:, top : top + w, left : left + w].reshape(B, w * w, C))
            places = [(top - halo + j, left - halo + i) for j in range(w) for i in range(w)]
            assert known[row, column].tolist() == [0 <= y < H and 0 <= z < W for y, z in places]
    assert torch.equal(hand.laid_back(hand.windows(x, block, 0), H, W, block), x)


@each_size
def test_relative_term_is_the_packages(shape, heads, block, halo):
    mixer = randomised(shape[-1], heads, block, halo)
    q = torch.randn(3, heads, block * block, shape[-1] // heads, dtype=torch.float64)
    found = hand.relative(q, mixer.height_rel, mixer.width_rel, block, halo)
    rows_of = _keys(block, block, block, halo, q.device)[-1]
    tables = torch.cat([mixer.height_rel, mixer.width_rel])
    torch.testing.assert_close(found, _relative_logits(q.unflatten(2, (block, block)), tables, rows_of, mixer.window))


@each_size
def test_queries_keys_and_values_are_the_projections(shape, heads, block, halo):
    mixer, x = randomised(shape[-1], heads, block, halo), torch.randn(shape, dtype=torch.float64)
    _, H, W, C = shape
    q, k, v = hand.queries_keys_values(x, mixer)
    whole = hand.laid_back(q.transpose(-3, -2).flatten(-2), H, W, block)
    torch.testing.assert_close(whole, mixer.q(x))
    kv = mixer.kv(x).view(*shape[:3], heads, 2, C // heads)
    for found, expected in ((k, kv[..., 0, :]), (v, kv[..., 1, :])):
        cut = hand.windows(expected.flatten(3), block, halo)
        torch.testing.assert_close(found.transpose(-3, -2).flatten(-2), cut)


@pytest.mark.parametrize(
    ("height", "width", "dim", "block", "halo"), [(5, 9, 24, 3, 1), (1, 1, 7, 7, 3), (28, 28, 64, 7, 3)]
)
def test_cost_is_the_formulas(height, width, dim, block, halo):
    mixer = get_mixer("halo")(dim, heads=1, block=block, halo=halo)
    assert sum(hand.multiply_adds(height, width, dim, block, halo).values()) == mixer.macs(height, width)
