"""Where deformable mixers take their samples: against a loop, and against networks whose points are known."""

import json
import math

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from companions import companion
from torch import nn

import stm_lab
from stm_lab import UserError
from stm_lab.mixers.dcn_v3 import GRID, _grid

OWN_06 = companion("06")
IMAGES = torch.rand(5, 3, 64, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    return stm_lab.build_model("dcn_v3", "nano", pretrained=True)


def told(offset=(0.0, 0.0), logits=None):
    """A network whose points are the same for every token: offset (x, y) for each, and its weights by logits."""
    torch.manual_seed(0)
    model = stm_lab.build_model("dcn_v3", "nano", num_classes=10)
    for module in model.modules():
        if hasattr(module, "sampling"):
            for linear in (module.offsets, module.weights):
                nn.init.zeros_(linear.weight)
            module.offsets.bias.data = torch.tensor(offset).repeat(module.heads * 9)
            module.weights.bias.data = (torch.zeros(9) if logits is None else logits).repeat(module.heads)
    return model


def test_all_layers_in_their_order_with_their_shapes(model):
    found = OWN_06.points_of(model, IMAGES, batch_size=2)
    assert [(layer.stage, layer.block) for layer in found.layers] == [
        (stage, block)
        for stage, depth in enumerate(len(stage.blocks) for stage in model.stages)
        for block in range(depth)
    ]
    for layer in found.layers:
        side = 2 ** (2 + layer.stage)
        assert layer.map_size == (-(-64 // side), -(-48 // side))
        assert layer.groups == model.get_submodule(layer.layer).heads
        assert layer.offsets.shape == (5, *layer.map_size, layer.groups, 9, 2)
        np.testing.assert_allclose(layer.weights.sum(-1), 1, rtol=1e-5)


def test_without_offsets_the_points_are_the_grid():
    for layer in OWN_06.points_of(told(), IMAGES).layers:
        y, x = layer.map_size[0] - 1, 1
        assert np.array_equal(layer.places[0, y, x, 0], np.array([x, y]) + GRID)
        assert layer.distance == pytest.approx((4 + 4 * math.sqrt(2)) / 9)
        assert layer.moving == 0
        assert layer.largest_weight == pytest.approx(1 / 9)


def test_the_grid_is_the_one_that_the_mixer_samples():
    """In the unit of its own sampling; x slow and y fast, as published."""
    places = _grid(torch.zeros(1, 3, 5, 1, 9, 2))[0].view(9, 3, 5, 2).permute(1, 2, 0, 3)
    unit = (places + 1) * torch.tensor([5, 3]) / 2 - 0.5
    np.testing.assert_allclose(unit[1, 2], GRID + np.array([2, 1]), atol=1e-6)
    assert GRID.tolist() == [[x, y] for x in (-1, 0, 1) for y in (-1, 0, 1)]


def test_finds_nothing_is_where_a_map_of_ones_gives_zero():
    places = 4 * torch.randn(400, 2, dtype=torch.float64) + 2
    grid = (2 * places + 1) / torch.tensor([5, 3]) - 1
    found = F.grid_sample(torch.ones(1, 1, 3, 5).double(), grid[None, None], align_corners=False)[0, 0, 0]
    assert np.array_equal(OWN_06.finds_nothing(places.numpy(), (3, 5)), (found == 0).numpy())


def test_far_offsets_find_nothing():
    for layer in OWN_06.points_of(told((40.0, 0.0)), IMAGES).layers:
        assert layer.outside == pytest.approx(1)


def test_share_outside_against_a_loop(model):
    for layer in OWN_06.points_of(model, IMAGES[:1]).layers:
        height, width = layer.map_size
        outside = distance = 0.0
        for y, x, group, n in np.ndindex(*layer.weights.shape[1:]):
            dx, dy = layer.offsets[0, y, x, group, n].tolist()
            at_x, at_y = x + n // 3 - 1 + dx, y + n % 3 - 1 + dy
            weight = float(layer.weights[0, y, x, group, n]) / (height * width * layer.groups)
            shares = [
                max(0, 1 - abs(at_x - i)) * max(0, 1 - abs(at_y - j)) for j in range(height) for i in range(width)
            ]
            outside += weight * (sum(shares) == 0)
            distance += weight * math.hypot(at_x - x, at_y - y)
        assert layer.outside == pytest.approx(outside, abs=1e-5)
        assert layer.distance == pytest.approx(distance, rel=1e-4)


def test_the_largest_weight_and_the_distance_follow_the_logits():
    logits = torch.zeros(9)
    logits[4] = 50.0  # the middle point
    for layer in OWN_06.points_of(told((0.5, 0.0), logits), IMAGES).layers:
        assert layer.largest_weight == pytest.approx(1)
        assert layer.distance == pytest.approx(0.5)


def test_batches_and_modes_change_nothing(model):
    model.train()
    one, many = (OWN_06.points_of(model, IMAGES, batch_size=size) for size in (1, 5))
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
    for first, second in zip(one.layers, many.layers, strict=True):
        np.testing.assert_allclose(first.offsets, second.offsets, atol=1e-4)
    model.eval()


def test_rows_are_plain_and_figure_tells_them(model):
    found = OWN_06.points_of(model, IMAGES)
    assert json.loads(json.dumps(found.rows())) == found.rows()
    assert {row["images"] for row in found.rows()} == {5}
    label = OWN_06.points_by_stage(found, 2, (0.0, 0.99)).get_label()
    assert label.startswith("unified_dcn_v3_nano")
    assert "stage 4: " in label
    with pytest.raises(UserError, match="image=5; there are 5"):
        OWN_06.points_by_stage(found, 5)


@pytest.mark.parametrize("place", [(1.0, 0.5), (0.5, 1.2), (-0.1, 0.5), (0.5, math.nan)])
def test_the_figure_refuses_a_place_outside_of_the_image(model, place):
    with pytest.raises(UserError, match=r"place=.*: shares of height and width, at least 0 and below 1"):
        OWN_06.points_by_stage(OWN_06.points_of(model, IMAGES[:1]), place=place)


@pytest.mark.parametrize(
    ("other", "data", "says"),
    [
        (lambda: stm_lab.build_model("convnext", "nano"), IMAGES, "no deformable mixer found"),
        (lambda: timm.create_model("resnet10t"), IMAGES, "resnet10t"),
        (lambda: told(), IMAGES[0], "expected"),
    ],
)
def test_refuses(other, data, says):
    with pytest.raises(UserError, match=says):
        OWN_06.points_of(other(), data)
