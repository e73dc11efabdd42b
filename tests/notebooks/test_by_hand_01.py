"""The code by hand of notebook 01 against the package, at sizes that it does not show."""

import exercises
import pytest
import torch
import torch.nn.functional as F
from kinds import once
from torch.utils.flop_counter import FlopCounterMode

from stm_lab import build_model, measure
from stm_lab.mixers import get_mixer

hand = exercises.by_hand("01")
SIZES = [(1, 1, 1, 2), (2, 1, 7, 3), once((3, 6, 4, 5)), (1, 3, 9, 1)]


def tokens(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("patch", [2, 5])
def test_tokens_are_mean_colours(patch):
    image = torch.rand(2, 3, 20, 20, dtype=torch.float64)
    torch.testing.assert_close(hand.tokens_of(image, patch).permute(0, 3, 1, 2), F.avg_pool2d(image, patch))


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_matrix_products_are_one(shape):
    count = shape[1] * shape[2]
    A, x = tokens((count, count)), tokens(shape)
    torch.testing.assert_close(hand.mix_slow(A, x), hand.mix(A, x))
    torch.testing.assert_close(hand.mix(A, x), (A @ x.flatten(1, 2)).view(shape))


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_pooling_and_identity_are_the_packages(shape):
    x, size = tokens(shape), shape[1:3]
    expected = get_mixer("pooling")(shape[-1])(x)
    for mine in (hand.pooling(x), hand.pooling_slow(x), hand.mix(hand.pooling_matrix(*size), x)):
        torch.testing.assert_close(mine, expected)
    inside = F.conv2d(x.permute(0, 3, 1, 2), torch.ones(shape[-1], 1, 3, 3).double(), padding=1, groups=shape[-1])
    torch.testing.assert_close(hand.nine_shifts(x), inside.permute(0, 2, 3, 1))
    torch.testing.assert_close(hand.mix(hand.identity_matrix(*size), x), get_mixer("identity")(shape[-1])(x))
    torch.testing.assert_close(hand.mix(hand.average_matrix(*size), x), x.mean((1, 2), keepdim=True).expand_as(x))


def test_costs_are_the_counters():
    with FlopCounterMode(display=False) as counter:
        hand.mix(tokens((35, 35)), tokens((1, 5, 7, 6)))
    assert hand.matrix_cost(5, 7, 6) == counter.get_total_flops() // 2

    model = build_model("identity", "nano")
    rows = measure.cost(model, image_size=96).rows("role")
    mlps = sum(
        len(stage.blocks) * hand.mlp_cost(side, side, stage.blocks[0].mlp.fc1.in_features)
        for stage, side in zip(model.stages, (24, 12, 6, 3), strict=True)
    )
    assert next(row["macs"] for row in rows if row["role"] == "MLPs") == mlps
