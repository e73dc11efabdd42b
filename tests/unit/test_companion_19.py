"""Notebook 19's own: networks of equal cost: near the target, buildable, and nothing but the widths is touched."""

import pytest
import torch
from companions import companion
from kinds import each_kind

from stm_lab import UserError, build_model, measure
from stm_lab.designs import unified

equal_width = companion("19").equal_width

TARGET = 700_000


@each_kind
def test_parameters_come_within_a_percent(mixer):
    found = equal_width(mixer, "nano", TARGET, image_size=32)
    assert abs(found.off) < 1
    model = build_model(mixer, "nano", dims=found.dims, img_size=32).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == found.parameters
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 10)
    assert model.design == unified(mixer, "nano").override(dims=found.dims, img_size=32)


@pytest.mark.slow
@pytest.mark.parametrize("mixer", ["swin", "identity"])
def test_multiply_adds_come_within_two_percent(mixer):
    found = equal_width(mixer, "nano", 2_000_000, cost="macs", image_size=32)
    assert abs(found.off) < 2
    cost = measure.cost(build_model(mixer, "nano", dims=found.dims, img_size=32), image_size=32)
    assert cost.macs == found.macs
    assert cost.parameters == found.parameters


@pytest.mark.slow
def test_its_own_cost_gives_its_own_widths():
    design = unified("swin", "nano")
    own = sum(parameter.numel() for parameter in build_model("swin", "nano").parameters())
    found = equal_width("swin", "nano", own)
    assert found.dims == design.dims
    assert found.off == 0


@pytest.mark.slow
def test_no_other_second_width_is_nearer():
    found = equal_width("convnext", "nano", TARGET)
    first, second, third, fourth = found.dims
    others = [width for width in (second - 2, second + 2) if first <= width <= third]
    assert others
    for width in others:
        model = build_model("convnext", "nano", dims=(first, width, third, fourth), device="meta")
        other = sum(parameter.numel() for parameter in model.parameters())
        assert abs(other - TARGET) >= abs(found.parameters - TARGET)


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "target"), [("nano", 900_000), ("tiny", 18_000_000)])
def test_widths_are_even_and_heads_divide_them(scale, target):
    dims = equal_width("swin", scale, target).dims
    assert all(dim % 2 == 0 for dim in dims)
    heads = unified("swin", scale).stage_options["heads"]
    assert all(dim % head == 0 for dim, head in zip(dims, heads, strict=True))


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
