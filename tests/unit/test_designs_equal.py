"""Networks of equal cost: near the target, buildable, and nothing but the widths is touched."""

import pytest
import torch

from stm_lab import UserError, build_model, list_mixers, measure
from stm_lab.designs import equal_width, unified

TARGET = 700_000


@pytest.mark.parametrize("mixer", ["halo", "swin", "pvt", "pvt_v2", "convnext", "dcn_v3", "identity", "pooling"])
def test_parameters_come_within_a_percent(mixer):
    found = equal_width(mixer, "nano", TARGET, image_size=32)
    assert abs(found.off) < 1
    model = build_model(mixer, "nano", dims=found.dims, img_size=32).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == found.parameters
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 10)
    assert model.design == unified(mixer, "nano").override(dims=found.dims, img_size=32)


@pytest.mark.slow
@pytest.mark.parametrize("mixer", ["swin", "pvt", "identity"])
def test_multiply_adds_come_within_two_percent(mixer):
    found = equal_width(mixer, "nano", 2_000_000, cost="macs", image_size=32)
    assert abs(found.off) < 2
    cost = measure.cost(build_model(mixer, "nano", dims=found.dims, img_size=32), image_size=32)
    assert cost.macs == found.macs
    assert cost.parameters == found.parameters


def test_its_own_cost_gives_its_own_widths():
    design = unified("swin", "nano")
    own = sum(parameter.numel() for parameter in build_model("swin", "nano").parameters())
    found = equal_width("swin", "nano", own)
    assert found.dims == design.dims
    assert found.off == 0


def test_nothing_near_by_is_nearer():
    found = equal_width("convnext", "nano", TARGET)
    for stage in (1, 2):
        for step in (-2, 2):
            dims = (*found.dims[:stage], found.dims[stage] + step, *found.dims[stage + 1 :])
            other = sum(p.numel() for p in build_model("convnext", "nano", dims=dims, device="meta").parameters())
            if dims[0] <= dims[1] <= dims[2] <= dims[3] and stage == 1:
                assert abs(other - TARGET) >= abs(found.parameters - TARGET)


def test_heads_divide_the_widths():
    for target in (300_000, 500_000, 900_000, 2_000_000):
        dims = equal_width("swin", "nano", target).dims
        assert all(dim % heads == 0 for dim, heads in zip(dims, (1, 2, 4, 8), strict=True))
        assert dims[0] % 2 == 0


def test_row_has_it_all():
    (row,) = equal_width("identity", "nano", 400_000).rows()
    assert row["mixer"] == "identity"
    assert row["cost"] == "parameters"
    assert row["target"] == 400_000
    assert row["off"] == pytest.approx(100 * (row["parameters"] / 400_000 - 1))
    assert isinstance(row["dims"], list)


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (("swim", "nano", TARGET), {}, "unknown mixer 'swim'; did you mean 'swin'"),
        (("swin", "nanno", TARGET), {}, "did you mean 'nano'"),
        (("swin", "nano", TARGET), {"cost": "mac"}, "unknown cost 'mac'; did you mean 'macs'"),
        (("swin", "nano", 10), {}, r"no swin network at nano has 10 parameters; its widths give [\d,]+ to [\d,]+"),
        (("swin", "nano", 10**9), {}, "no swin network at nano has 1,000,000,000 parameters"),
    ],
)
def test_refuses(arguments, options, says):
    with pytest.raises(UserError, match=says):
        equal_width(*arguments, **options)
    assert "swim" not in list_mixers()
