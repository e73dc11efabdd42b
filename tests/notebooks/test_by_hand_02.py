"""The code by hand of notebook 02 against the package, at sizes that it does not show."""

import exercises
import pytest
import torch
from kinds import once

from stm_lab import build_model, measure
from stm_lab.mixers import get_mixer

hand = exercises.by_hand("02")
SIZES = [(1, 1, 1, 2), (2, 1, 9, 3), once((3, 6, 5, 4)), (1, 17, 8, 5)]


def randomised(dim, kernel):
    torch.manual_seed(0)
    mixer = get_mixer("convnext")(dim, kernel=kernel).double().requires_grad_(False)
    for parameter in mixer.parameters():
        parameter.normal_()
    return mixer


@pytest.mark.parametrize("kernel", [1, 3, 9])
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_three_versions_are_the_packages(shape, kernel):
    mixer, x = randomised(shape[-1], kernel), torch.randn(shape, dtype=torch.float64)
    weight, bias = mixer.dwconv.weight[:, 0], mixer.dwconv.bias
    expected = mixer.dwconv(x)
    torch.testing.assert_close(hand.depthwise_slow(x, weight, bias), expected)
    torch.testing.assert_close(hand.depthwise_shifts(x, weight, bias), expected)
    torch.testing.assert_close(hand.depthwise_conv(x, weight, bias), expected)
    torch.testing.assert_close(hand.mixer_by_hand(x, mixer), mixer(x))


@pytest.mark.parametrize(("height", "width", "dim", "kernel"), [(5, 9, 24, 3), (1, 1, 7, 7), (28, 28, 64, 7)])
def test_cost_is_the_formulas(height, width, dim, kernel):
    mixer = get_mixer("convnext")(dim, kernel=kernel)
    assert sum(hand.multiply_adds(height, width, dim, kernel).values()) == mixer.macs(height, width)


def test_cost_is_the_counters_at_another_size():
    model = build_model("convnext", "nano")
    sides = [80 // 4, 80 // 8, 80 // 16, 3]
    by_hand = sum(
        len(stage.blocks) * sum(hand.multiply_adds(side, side, stage.blocks[0].mixer.dwconv.in_channels, 7).values())
        for stage, side in zip(model.stages, sides, strict=True)
    )
    rows = measure.cost(model, image_size=80).rows("role")
    assert next(row["macs"] for row in rows if row["role"] == "mixers") == by_hand
