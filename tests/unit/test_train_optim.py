"""Decay groups and the published learning rate."""

import json
import math
from pathlib import Path

import pytest
import torch

import stm_lab
from stm_lab.train.optim import WarmupCosine, make_optimizer

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
