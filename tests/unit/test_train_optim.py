"""Decay groups, the published learning rate, clipping, and the average of the weights."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from timm.utils import ModelEmaV3

import stm_lab
from stm_lab.train.optim import WarmupCosine, WeightAverage, clip_gradients, make_optimizer

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "numbers" / "lr_schedule.json").read_text())


def test_learning_rate_is_the_published_one():
    args = GOLDEN["args"]
    per_epoch = args["niter_per_ep"]
    rate = WarmupCosine(GOLDEN["length"], args["warmup_epochs"] * per_epoch, args["start"], args["base"], args["final"])
    for step, expected in GOLDEN["values"].items():
        assert rate(int(step)) == pytest.approx(expected, rel=1e-12), step


@pytest.mark.parametrize("warmup", [0, 1, 2, 50, 99])
def test_schedule_rises_to_its_peak_and_falls_towards_its_end(warmup):
    rate = WarmupCosine(100, warmup, 1e-6, 1e-3, 1e-5)
    rates = [rate(step) for step in range(100)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[warmup] == max(rates) == pytest.approx(1e-3)
    assert min(rates[warmup:]) > 1e-5 or warmup == 99
    assert all(math.isfinite(value) for value in rates)


@pytest.mark.parametrize("mixer", stm_lab.list_mixers())
def test_what_decays_is_every_matrix_but_those_the_model_spares(mixer):
    model = stm_lab.build_model(mixer, "nano", num_classes=10)
    optimizer = make_optimizer(model, 1e-3, 0.05)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decays) == sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        is_table = "relative_position_bias_table" in name  # swin's, which the published code spares
        expected = 0.0 if parameter.ndim < 2 or name.endswith("bias") or is_table else 0.05
        assert decays[id(parameter)] == expected, name


def test_optimizer_is_adamw_with_the_published_constants():
    optimizer = make_optimizer(stm_lab.build_model("identity", "nano"), 1e-3, 0.05)
    assert type(optimizer) is torch.optim.AdamW
    assert all(group["betas"] == (0.9, 0.999) and group["eps"] == 1e-8 for group in optimizer.param_groups)


class Counting(torch.nn.Module):
    """Weights, a buffer that the module itself replaces, one of whole numbers, and one that is not saved."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 2))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


def test_the_average_is_timms():
    model = Counting()
    ours, timms = WeightAverage(model, 0.9), ModelEmaV3(model, decay=0.9, use_warmup=True)
    for step in range(1, 30):
        with torch.no_grad():
            model.weight += torch.randn(3, 2)
        model.mean = model.mean + torch.randn(2)
        model.count += 1
        for average in (ours, timms):
            average.update(model, step=step)
        for name, tensor in timms.module.state_dict().items():
            assert torch.equal(ours.module.state_dict()[name], tensor), (step, name)


@pytest.mark.parametrize("largest", [None, 0.1, 5.0, 1e3])
def test_gradients_are_clipped_as_torch_clips_them(largest):
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 3))
    frozen = torch.nn.Parameter(torch.zeros(2))  # has no gradient
    model(torch.randn(4, 7)).square().sum().backward()
    ours, theirs = [*model.parameters(), frozen], [*copy.deepcopy(model).parameters(), frozen]
    for one, other in zip(ours, theirs, strict=True):
        other.grad = None if one.grad is None else one.grad.clone()
    expected = torch.nn.utils.clip_grad_norm_(theirs, largest or math.inf)
    torch.testing.assert_close(clip_gradients(ours, largest), expected)
    for one, other in zip(ours[:-1], theirs, strict=False):
        torch.testing.assert_close(one.grad, other.grad)
