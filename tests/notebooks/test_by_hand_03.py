"""The code by hand of notebook 03 against the package, at sizes that it does not show."""

import exercises
import pytest
import torch
import torch.nn.functional as F

from stm_lab.layers import resize_embedding
from stm_lab.mixers import get_mixer
from stm_lab.util import paths
from stm_lab.util.modules import beside

hand = exercises.by_hand("03")
own = beside(paths.shipped_notebooks_dir() / "companions", "03")
SIZES = [  # shape, heads, reduction
    ((1, 4, 4, 6), 1, 4),
    ((2, 7, 5, 6), 3, 2),
    ((1, 9, 4, 8), 2, 3),
    ((3, 2, 3, 4), 4, 1),
    ((1, 1, 1, 2), 1, 1),
]
each_size = pytest.mark.parametrize(("shape", "heads", "reduction"), SIZES)


def randomised(dim, heads, reduction):
    torch.manual_seed(0)
    mixer = get_mixer("pvt")(dim, heads=heads, reduction=reduction).double().requires_grad_(False)
    for parameter in mixer.parameters():
        parameter.normal_()
    return mixer


@each_size
def test_slow_and_fast_are_the_packages(shape, heads, reduction):
    mixer, x = randomised(shape[-1], heads, reduction), torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(hand.attention_slow(x, mixer), mixer(x))
    torch.testing.assert_close(hand.attention_fast(x, mixer), mixer(x))
    source = mixer.norm(mixer.reduce(x)) if reduction > 1 else x
    torch.testing.assert_close(hand.reduced_slow(x, mixer), source)
    torch.testing.assert_close(hand.reduced(x, mixer), source)
    torch.testing.assert_close(hand.listen(x, source, mixer), mixer(x))


@each_size
def test_patches_are_slices_in_the_order_of_a_kernel(shape, heads, reduction):
    x, R = torch.randn(shape), reduction
    found = hand.patches(x, R)
    B, H, W, C = shape
    assert found.shape == (B, H // R, W // R, C * R * R)
    for row in range(H // R):
        for column in range(W // R):
            patch = x[:, row * R : row * R + R, column * R : column * R + R]
            assert torch.equal(found[:, row, column], patch.permute(0, 3, 1, 2).flatten(1))


@each_size
def test_weights_are_those_of_which_the_output_is_made(shape, heads, reduction):
    mixer, x = randomised(shape[-1], heads, reduction), torch.randn(shape, dtype=torch.float64)
    weights = hand.key_weights(x, mixer)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    v = hand.split_into_heads(mixer.kv(hand.reduced(x, mixer)).chunk(2, -1)[1], heads)
    torch.testing.assert_close(mixer.proj((weights @ v).transpose(1, 2).reshape(shape)), mixer(x))
    torch.testing.assert_close(own.key_attention(mixer, x, reduction).flatten(2, 3).flatten(3), weights)


@pytest.mark.parametrize(("queries", "keys"), [(5, 3), (1, 7)])
def test_attend_is_torchs(queries, keys):
    q, k, v = (torch.randn(2, 3, size, 4, dtype=torch.float64) for size in (queries, keys, keys))
    torch.testing.assert_close(hand.attend(q, k, v), F.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("size", [(3, 5), (9, 4), (1, 6), (12, 1)])
def test_resized_is_the_packages(size):
    table = torch.randn(1, 5, 6, 3, dtype=torch.float64)
    torch.testing.assert_close(hand.resized(table, *size), resize_embedding(table, *size))
    one_place = table[:, :1, :1]
    torch.testing.assert_close(hand.resized(one_place, *size), resize_embedding(one_place, *size))
    rows = hand.stretched(5, size[0])
    torch.testing.assert_close(rows.sum(1), torch.ones(size[0], dtype=torch.float64))


def test_shuffled_moves_patches_and_their_tokens():
    x = torch.arange(24.0).view(1, 4, 6, 1)
    same, turned = torch.arange(6), torch.arange(4).flip(0)
    assert torch.equal(hand.shuffled(x, 2, same, torch.arange(4)), x)
    assert hand.shuffled(x, 2, same, turned)[0, :2, :2, 0].tolist() == [[7, 6], [1, 0]]
    assert hand.shuffled(x, 2, same.flip(0), torch.arange(4))[0, :2, :2, 0].tolist() == [[16, 17], [22, 23]]


def test_keys_in_use_counts_equal_ones():
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0, 0.5, 0], [0, 0, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(hand.keys_in_use(weights), torch.tensor([4.0, 2, 1], dtype=torch.float64))


@pytest.mark.parametrize("side", [1, 2, 4, 8])
@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_keys_of_another_side_are_those_of_a_resized_kernel(side, reduction):
    mixer, x = randomised(6, 2, reduction), torch.randn(2, 8, 16, 6, dtype=torch.float64)
    torch.testing.assert_close(hand.reduced_by(x, mixer, side), own.reduced_tokens(mixer, x, side))


@pytest.mark.parametrize(("height", "width", "dim", "reduction"), [(5, 9, 24, 2), (8, 8, 6, 8), (7, 3, 10, 1)])
def test_cost_is_the_formulas(height, width, dim, reduction):
    mixer = get_mixer("pvt")(dim, heads=1, reduction=reduction)
    assert sum(hand.multiply_adds(height, width, dim, reduction).values()) == mixer.macs(height, width)
