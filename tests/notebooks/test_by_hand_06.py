"""The code by hand of notebook 06 against the package and others, at sizes that it does not show."""

import exercises
import pytest
import torch
import torch.nn.functional as F
from kinds import once
from torchvision.ops import deform_conv2d

from stm_lab.mixers import get_mixer
from stm_lab.mixers.dcn_v3 import _grid

hand = exercises.by_hand("06")
SIZES = [  # shape, groups
    ((1, 1, 1, 4), 1),
    once((2, 5, 3, 6), 3),
    ((1, 2, 11, 8), 2),
    ((3, 4, 4, 5), 1),
    ((1, 7, 6, 12), 4),
]
each_size = pytest.mark.parametrize(("shape", "groups"), SIZES, ids=str)


def randomised(dim, groups):
    torch.manual_seed(0)
    mixer = get_mixer("dcn_v3")(dim, heads=groups).double().requires_grad_(False)
    for parameter in mixer.parameters():
        parameter.normal_()
    return mixer


def drawn(shape, groups):
    torch.manual_seed(1)
    B, H, W, _ = shape
    value = torch.randn(shape, dtype=torch.float64)
    offsets = 2 * torch.randn(B, H, W, groups, 9, 2, dtype=torch.float64)
    return value, offsets, torch.randn(B, H, W, groups, 9, dtype=torch.float64).softmax(-1)


@each_size
def test_both_versions_are_the_packages(shape, groups):
    mixer, x = randomised(shape[-1], groups), torch.randn(shape, dtype=torch.float64)
    expected = mixer(x)
    torch.testing.assert_close(hand.dcn_slow(x, mixer), expected)
    torch.testing.assert_close(hand.dcn_fast(x, mixer), expected)


@each_size
def test_offsets_and_logits_are_the_packages(shape, groups):
    mixer, x = randomised(shape[-1], groups), torch.randn(shape, dtype=torch.float64)
    offsets, logits = hand.look(x, mixer)
    for found, expected in zip((offsets, logits.softmax(-1)), mixer.sampling(x), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(hand.as_grid(hand.places_of(offsets)), packages_grid(offsets))


def packages_grid(offsets):
    """(B, H, W, h, 9, 2), which the package has as (B * h, H * W, 9, 2)."""
    B, H, W, h = offsets.shape[:4]
    return _grid(offsets).view(B, h, 9, H, W, 2).permute(0, 3, 4, 1, 2, 5)


@each_size
def test_slow_fast_and_torchvision_agree(shape, groups):
    value, offsets, weights = drawn(shape, groups)
    slow = hand.aggregate_slow(value, offsets, weights)
    torch.testing.assert_close(hand.aggregate_fast(value, offsets, weights), slow)
    torch.testing.assert_close(hand.by_torchvision(value, offsets, weights), slow)


@each_size
def test_torchvision_asked_group_by_group_and_point_by_point(shape, groups):
    """The order of points and groups by an index each, not by axes that are moved."""
    value, offsets, weights = drawn(shape, groups)
    B, H, W, C = shape
    theirs, mask = torch.zeros(B, groups * 18, H, W).double(), torch.zeros(B, groups * 9, H, W).double()
    for g in range(groups):
        for n, (x, y) in enumerate(hand.POINTS):
            there = g * 9 + (y + 1) * 3 + (x + 1)
            theirs[:, 2 * there] = offsets[..., g, n, 1]
            theirs[:, 2 * there + 1] = offsets[..., g, n, 0]
            mask[:, there] = weights[..., g, n]
    ones = torch.ones(C, 1, 3, 3).double()
    found = deform_conv2d(value.permute(0, 3, 1, 2).contiguous(), theirs, ones, padding=1, mask=mask)
    torch.testing.assert_close(hand.aggregate_fast(value, offsets, weights), found.permute(0, 2, 3, 1))


def test_a_value_between_tokens_is_linear_along_each_axis():
    down, across = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    tokens = torch.stack((3 * across - down, across * down), -1).double()
    for x, y in [(0.3, 0.9), (5.99, 3.5), (2, 1), (4.25, 3.0)]:
        torch.testing.assert_close(hand.bilinear(tokens, x, y), torch.tensor([3 * x - y, x * y]).double())


@pytest.mark.parametrize(("x", "y"), [(-1, 0), (7, 2), (3, -1.5), (2, 5), (-9, -9)])
def test_a_token_outside_of_the_map_there_is_nothing(x, y):
    assert torch.equal(hand.bilinear(torch.ones(5, 7, 2), x, y), torch.zeros(2))


@pytest.mark.parametrize(("x", "y", "left"), [(-0.5, 2, 0.5), (6.25, 1, 0.75), (-0.5, -0.5, 0.25), (3, 4.9, 0.1)])
def test_at_the_edge_a_share_is_left(x, y, left):
    assert hand.bilinear(torch.ones(5, 7, 1).double(), x, y).item() == pytest.approx(left)


def test_samples_are_the_values_at_the_points():
    value, offsets, _ = drawn((1, 5, 6, 2), 1)
    found = hand.samples(value[0], 3, 1, offsets[0, 3, 1, 0])
    grid = hand.as_grid(hand.places_of(offsets))
    torch.testing.assert_close(hand.sampled(value, grid)[0, 3, 1, 0], found)
    first = hand.bilinear(value[0], 1 - 1 + offsets[0, 3, 1, 0, 0, 0].item(), 3 - 1 + offsets[0, 3, 1, 0, 0, 1].item())
    torch.testing.assert_close(found[0], first)


def test_grid_has_the_edges_of_the_map_at_minus_one_and_one():
    places = torch.tensor([[-0.5, -0.5], [6.5, 4.5], [3.0, 2.0]]).expand(1, 5, 7, 1, 3, 2)
    torch.testing.assert_close(hand.as_grid(places)[0, 0, 0, 0], torch.tensor([[-1.0, -1], [1, 1], [0, 0]]))


@each_size
def test_whole_offsets_shift_the_map(shape, groups):
    value, offsets, weights = drawn(shape, groups)
    middle = torch.zeros_like(weights)
    middle[..., 4] = 1
    _, H, W, _ = shape
    padded = F.pad(value, (0, 0, 9, 9, 9, 9))
    for x, y in [(1, 0), (0, -2), (-3, 4)]:
        found = hand.aggregate_fast(value, torch.tensor([x, y]).double().expand_as(offsets), middle)
        torch.testing.assert_close(found, padded[:, 9 + y : 9 + y + H, 9 + x : 9 + x + W])


def test_a_point_climbs_and_one_outside_stays():
    down, across = torch.meshgrid(torch.arange(9.0), torch.arange(8.0), indexing="ij")
    hill = torch.exp(-((across - 5) ** 2 + (down - 3) ** 2) / 8)[..., None].double()
    path = hand.climb(hill, 2.3, 6.2, steps=80, rate=1.0)
    assert path.shape == (81, 2)
    assert (path[-1] - torch.tensor([5.0, 3.0])).abs().max() < 0.6
    assert hand.bilinear(hill, *path[-1].tolist()) > 5 * hand.bilinear(hill, *path[0].tolist())
    assert torch.equal(hand.climb(hill, -2.5, 3.0)[-1], torch.tensor([-2.5, 3.0]).double())


@pytest.mark.parametrize(("height", "width", "dim", "groups"), [(5, 9, 24, 3), (1, 1, 7, 1), (28, 28, 64, 4)])
def test_cost_is_the_formulas(height, width, dim, groups):
    parts = hand.multiply_adds(height, width, dim, groups)
    not_counted = parts.pop("sampling (not counted)")
    assert sum(parts.values()) == get_mixer("dcn_v3")(dim, heads=groups).macs(height, width)
    assert not_counted == height * width * dim * 9 * (4 + 1)
