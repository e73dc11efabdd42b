"""Cost: hand-counted multiply-adds, known totals, and a clock that is known."""

import time

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import stm_lab
from stm_lab import figures
from stm_lab.measure import cost, throughput, time_by_part
from stm_lab.util.errors import UserError


class Attention(nn.Module):
    """8 tokens wide 12 in two heads: nothing but the fused kernel, whose products a counter does not see by itself."""

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2).reshape(len(x), -1, 2, 6).transpose(1, 2)  # (B, heads, N, d)
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), 16 * 16 * 8 * 3 * 9),
        (nn.Conv2d(3, 6, 5, groups=3), 28 * 28 * 6 * 25),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), 3 * 32 * 32 * 10),
        (nn.Sequential(nn.AdaptiveAvgPool2d((2, 16)), Attention()), 2 * 8 * 8 * 12),  # q.k and weights.v
        (nn.Sequential(nn.LayerNorm(32), nn.GELU(), nn.MaxPool2d(2)), 0),
    ],
)
def test_macs_by_hand(layer, macs):
    assert cost(layer, image_size=32).macs == macs


def test_known_totals():
    """ResNet-18 as everybody counts it; unified halo micro as the published code's counter does."""
    resnet, halo = cost(timm.create_model("resnet18")), cost(stm_lab.build_model("halo", "micro"))
    assert (resnet.parameters, resnet.macs, resnet.image_size) == (11_689_512, 1_814_073_344, (224, 224))
    assert (halo.parameters, halo.macs) == (4_389_672, 860_601_344)


@pytest.mark.parametrize("name", ["unified_swin_nano", "unified_dcn_v3_nano", "resnet18", "test_vit"])
def test_parts_add_up(name):
    model = timm.create_model(name)
    result = cost(model)
    assert sum(part.parameters for part in result.parts) == result.parameters
    assert sum(part.macs for part in result.parts) == result.macs
    assert {stage["module"] for stage in model.feature_info} - {"act1"} <= {part.name for part in result.parts}
    assert result.rows()[-1] == {
        "model": name,
        "part": "total",
        "parameters": result.parameters,
        "macs": result.macs,
        "macs_fvcore": result.macs_fvcore,
        "macs_formula": result.macs_formula,
    }


def test_size_from_data_and_scaling():
    model = nn.Conv2d(3, 4, 1)
    assert cost(model, torch.rand(2, 3, 75, 50)).macs == 75 * 50 * 12
    assert cost(model, torch.rand(2, 3, 75, 50), image_size=(40, 32)).macs == 40 * 32 * 12


def test_the_model_is_neither_run_nor_changed():
    class Tripwire(nn.Conv2d):
        def forward(self, x):
            assert x.is_meta
            return super().forward(x)

    model = nn.Sequential(Tripwire(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    cost(model, image_size=64)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


class Sleeper(nn.Module):
    """Takes 10 ms a batch, and 400 ms for each of the first two."""

    calls = 0

    def forward(self, x):
        Sleeper.calls += 1
        time.sleep(0.4 if Sleeper.calls <= 2 else 0.01)
        return x


@pytest.mark.slow
def test_throughput_is_that_of_the_clock_after_the_warm_up():
    Sleeper.calls = 0
    result = throughput(Sleeper(), torch.rand(3, 3, 32, 32), batch_size=8, seconds=0.3)
    assert 200 < result.images_per_second <= 800  # 8 images in 10 ms, on a busy machine a little longer
    assert result.repeats.min() > 60  # three batches, of which one took 400 ms
    low, high = result.quartiles
    assert low <= result.images_per_second <= high
    assert len(result.repeats) >= 3
    assert result.images_per_second == np.median(result.repeats)
    assert (result.batch_size, result.image_size, result.device) == (8, (32, 32), "cpu")


@pytest.mark.parametrize("training", [False, True])
def test_throughput_leaves_the_model_alone(training):
    model = stm_lab.build_model("identity", "nano").train(not training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = throughput(model, batch_size=2, image_size=32, seconds=0.01, training=training)
    assert result.rows()[0]["training"] is training
    assert model.training is not training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_training_costs_more():
    model = timm.create_model("test_resnet")
    rates = [throughput(model, batch_size=4, image_size=64, seconds=0.2, training=t) for t in (False, True)]
    assert rates[0].images_per_second > rates[1].images_per_second


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"seconds": 0}, "seconds > 0"),
        ({"device": "cdua"}, "did you mean 'cuda'"),
    ],
)
def test_throughput_refuses(options, message):
    with pytest.raises(UserError, match=message):
        throughput(nn.Conv2d(3, 4, 1), **options)


def test_figures():
    result = cost(stm_lab.build_model("pvt", "nano"))
    left, right = figures.of(result).axes
    assert [label.get_text() for label in left.get_yticklabels()] == [part.name for part in result.parts]
    assert ("parameters" in left.get_xlabel(), "MACs" in right.get_xlabel()) == (True, True)
    (axes,) = figures.of(throughput(nn.Conv2d(3, 4, 1), image_size=32, seconds=0.01)).axes
    assert axes.get_ylabel() == "images per second"


# ---- the paper's column, roles, formulas -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "charge"),
    [
        (nn.LayerNorm(32), 5 * 3 * 32 * 32),
        (nn.LayerNorm(32, elementwise_affine=False), 4 * 3 * 32 * 32),
        (nn.GroupNorm(3, 3), 5 * 3 * 32 * 32),
        (nn.BatchNorm2d(3), 2 * 3 * 32 * 32),
        (nn.BatchNorm2d(3, affine=False), 1 * 3 * 32 * 32),
        (nn.AdaptiveAvgPool2d(1), 3 * 32 * 32),
        (nn.Sequential(nn.GELU(), nn.Softmax(-1), nn.AvgPool2d(2), nn.MaxPool2d(2)), 0),
    ],
)
def test_what_fvcore_charges_by_hand(layer, charge):
    result = cost(layer, image_size=32)
    assert (result.macs, result.macs_fvcore) == (0, charge)


def test_sampling_is_charged_four_for_each_value():
    class Sample(nn.Module):
        def forward(self, x):
            return F.grid_sample(x, torch.zeros(1, 7, 9, 2, device=x.device), align_corners=False)

    assert cost(Sample(), image_size=32).macs_fvcore == 4 * 3 * 7 * 9


@pytest.mark.parametrize("mixer", stm_lab.list_mixers())
def test_formulas_equal_the_counter(mixer):
    """The mixers' own formulas and those of the layers round them, whole and layer by layer, at an odd size."""
    result = cost(stm_lab.build_model(mixer, "nano"), image_size=(75, 50))
    assert result.macs_formula == result.macs
    assert [layer.macs_formula for layer in result.layers] == [layer.macs for layer in result.layers]


@pytest.mark.parametrize("name", ["unified_dcn_v3_nano", "test_vit", "test_convnext", "pvt_v2_b0", "resnet18"])
def test_every_cut_adds_up(name):
    with torch.device("meta"):
        result = cost(timm.create_model(name))
    for by in ("layer", "role", "stage"):
        *rows, total = result.rows(by)
        for key in ("parameters", "macs", "macs_fvcore"):
            assert sum(row[key] for row in rows) == total[key]
            assert all(row[key] >= 0 for row in rows)


def test_roles_are_what_the_names_say():
    model = stm_lab.build_model("swin", "nano")
    rows = {row["part"]: row for row in cost(model).rows("role")}
    assert list(rows) == ["stem", "mixers", "MLPs", "downsampling", "head", "rest", "total"]
    blocks = [block for stage in model.stages for block in stage.blocks]
    assert rows["mixers"]["macs"] == sum(
        block.mixer.macs(size, size)
        for stage, size in zip(model.stages, (16, 8, 4, 2), strict=True)
        for block in stage.blocks
    )
    assert rows["MLPs"]["parameters"] == sum(p.numel() for block in blocks for p in block.mlp.parameters())
    assert rows["rest"]["macs"] == 0  # norms, layer scale
    stages = {(row["stage"], row["role"]): row for row in cost(model).rows("stage")[:-1]}
    assert stages["stages.1", "mixers"]["macs"] == 2 * model.stages[1].blocks[0].mixer.macs(8, 8)
    with pytest.raises(UserError, match="unknown by 'roles'; did you mean 'role'"):
        cost(model).rows("roles")


def test_products_without_a_formula_have_none():
    model = timm.create_model("test_vit")
    rows = {row["part"]: row["macs_formula"] for row in cost(model).rows("role")}
    assert rows["mixers"] is None
    assert rows["total"] is None
    assert rows["MLPs"] == {row["part"]: row["macs"] for row in cost(model).rows("role")}["MLPs"]


# ---- where the time goes ---------------------------------------------------------------------------------------------


class Spinner(nn.Module):
    """Burns `milliseconds` of processor time a call."""

    def __init__(self, milliseconds):
        super().__init__()
        self.milliseconds = milliseconds

    def forward(self, x):
        end = time.process_time() + self.milliseconds / 1e3
        while time.process_time() < end:
            pass
        return x


class Spinning(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.attn, self.mlp, self.norm = Spinner(4), Spinner(12), Spinner(2), Spinner(6)

    def forward(self, x):
        return self.norm(self.mlp(self.attn(self.attn(self.stem(x)))))  # attn is called twice, and timed once


@pytest.mark.slow
def test_time_by_part_is_that_of_the_clock():
    result = time_by_part(Spinning(), torch.rand(2, 3, 32, 32), batch_size=2, seconds=0.2)
    times = {row["role"]: 2 * row["milliseconds"] for row in result.rows()}
    assert times["stem"] == pytest.approx(4, rel=0.3)
    assert times["mixers"] == pytest.approx(12, rel=0.3)
    assert times["total"] == pytest.approx(36, rel=0.3)
    assert times["rest"] == pytest.approx(18, rel=0.3)


@pytest.mark.parametrize("training", [False, True])
def test_time_by_part_adds_up_and_leaves_the_model_alone(training):
    model = stm_lab.build_model("dcn_v3", "nano").train(not training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = time_by_part(model, batch_size=2, image_size=32, seconds=0.01, training=training)
    *rows, total = result.rows("stage")
    assert sum(row["milliseconds"] for row in rows) == pytest.approx(total["milliseconds"])
    assert {row["role"] for row in rows} == {"stem", "mixers", "MLPs", "downsampling", "head", "rest"}
    assert model.training is not training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert len(figures.of(result).axes) == 1
