"""The query map: its weights are those that the mixer mixes by, for any ratio; controls, clicks, time."""


import numpy as np
import pytest
import torch
import torch.nn.functional as F
from speed import Stopwatch

from stm_lab import UserError, build_model, explore
from stm_lab.explore.reduction import key_attention, reduced_tokens
from stm_lab.mixers import get_mixer

IMAGES = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    found = {name: build_model(name, "nano").eval() for name in ("pvt", "pvt_v2")}
    for model in found.values():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return found


@pytest.fixture
def explorer(models):
    return explore.query_map(models, IMAGES)


def randomised(dim, heads, reduction):
    torch.manual_seed(0)
    mixer = get_mixer("pvt")(dim, heads=heads, reduction=reduction).double().requires_grad_(False)
    for parameter in mixer.parameters():
        parameter.normal_()
    return mixer


@pytest.mark.parametrize(("height", "width", "heads", "reduction"), [(8, 8, 2, 4), (7, 5, 1, 2), (3, 4, 3, 1)])
def test_values_mixed_by_the_weights_are_the_mixers_output(height, width, heads, reduction):
    mixer, x = randomised(6, heads, reduction), torch.randn(2, height, width, 6, dtype=torch.float64)
    weights = key_attention(mixer, x, reduction)
    assert weights.shape == (2, heads, height, width, height // reduction, width // reduction)
    v = mixer.kv(reduced_tokens(mixer, x, reduction))[..., 6:].unflatten(-1, (heads, -1))
    mixed = torch.einsum("bhyxji,bjihd->byxhd", weights, v).flatten(3)
    torch.testing.assert_close(mixer.proj(mixed), mixer(x))


@pytest.mark.parametrize("reduction", [1, 2, 3, 4])
@pytest.mark.parametrize("ratio", [1, 2, 3, 5, 6])
def test_a_map_of_one_colour_gives_the_same_keys_at_every_ratio(reduction, ratio):
    mixer = randomised(6, 2, reduction)
    x = torch.randn(1, 1, 1, 6, dtype=torch.float64).expand(1, 12, 13, 6)
    found, own = reduced_tokens(mixer, x, ratio), reduced_tokens(mixer, x, reduction)
    assert found.shape == (1, 12 // ratio, 13 // ratio, 6)
    torch.testing.assert_close(found, own[:, :1, :1].expand_as(found))


def test_twice_the_ratio_is_the_same_kernel_on_a_map_of_half_the_size():
    mixer, x = randomised(6, 2, 2), torch.randn(1, 8, 12, 6, dtype=torch.float64)
    half = F.avg_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    torch.testing.assert_close(reduced_tokens(mixer, x, 4), mixer.norm(mixer.reduce(half)))


def test_a_ratio_beyond_the_map_leaves_one_key():
    mixer, x = randomised(6, 2, 2), torch.randn(1, 5, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(reduced_tokens(mixer, x, 16), reduced_tokens(mixer, x, 5))
    assert (key_attention(mixer, x, 16) == 1).all()


def test_the_picture_shows_the_weights_of_the_query_that_is_framed(explorer, models):
    given = {}
    mixer = models["pvt"].stages[1].blocks[1].mixer
    hook = mixer.register_forward_pre_hook(lambda _, inputs: given.update(x=inputs[0]))
    explorer.figure(stage=2, block=2, head="2", row=40, column=9)  # computed while the hook is there
    hook.remove()
    with torch.no_grad():
        weights = key_attention(mixer, given["x"], 2)[0, 1, 5, 1].numpy()  # 8 pixels a token
    shown = explorer.figure(stage=2, block=2, head="2", row=40, column=9).axes[1].images[1].get_array()
    np.testing.assert_allclose(shown, weights / weights.max(), atol=1e-6)


@pytest.mark.parametrize("row", [7, 14, 15, 30, 38, 46])
def test_where_tokens_do_not_divide_the_side_the_framed_one_is_the_one_that_asks(models, row):
    """13 tokens on 100 pixels."""
    given = {}
    mixer = models["pvt_v2"].stages[1].blocks[0].mixer
    explorer = explore.query_map({"pvt_v2": models["pvt_v2"]}, torch.rand(1, 3, 100, 100))
    hook = mixer.register_forward_pre_hook(lambda _, inputs: given.update(x=inputs[0]))
    axes = explorer.figure(stage=2, row=row, column=50).axes[1]
    hook.remove()
    with torch.no_grad():
        weights = key_attention(mixer, given["x"], mixer.reduction)[0, 0].numpy()
    frame = axes.patches[0]
    framed = round(frame.get_y() * 13 / 100), round(frame.get_x() * 13 / 100)
    assert weights.shape[:2] == (13, 13)
    assert framed[0] * 100 / 13 <= row + 0.5 <= (framed[0] + 1) * 100 / 13  # the middle of the pixel is in the frame
    shown = weights[framed]
    np.testing.assert_allclose(axes.images[1].get_array(), shown / shown.max(), atol=1e-6)


def test_controls_change_keys_heads_and_queries(explorer):
    first = explorer.figure().get_label()
    assert first.startswith("pvt, stage 1, block 1: 16x16 queries, 4x4 keys of patches 4x4. head 1: at most")
    assert "8x8 keys of patches 2x2 (trained with 4x4)" in explorer.figure(ratio=2).get_label()
    assert "1x1 keys of patches 16x16" in explorer.figure(ratio=16).get_label()
    assert "2x2 keys of patches 7x7" in explorer.figure(model="pvt_v2", ratio=7).get_label()
    assert len(explorer.figure(stage=3).axes) == 6
    assert "mean of 5 heads" in explorer.figure(stage=3, head="mean").get_label()
    assert explorer.figure(image=1).get_label() != first


@pytest.mark.parametrize(
    ("state", "says"),
    [({"head": "3"}, "pvt, stage 1 has 1 head, not 3"), ({"block": 4}, "pvt: stage 1 has 2 blocks")],
)
def test_what_a_stage_has_not_is_said_below_the_picture(explorer, state, says):
    with pytest.raises(UserError, match=says):
        explorer.figure(**state)
    before = explorer.widget and explorer._picture.png
    explorer.set(**state)
    assert says in explorer._message.value
    assert explorer._picture.png == before


def test_a_click_chooses_the_query_in_any_panel(explorer):
    for panel in (0, 1):
        assert explorer._select(panel, 12.7, 40.2) == {"row": 40, "column": 12}
    assert explorer._select(0, 64.0, -0.1) == {"row": 0, "column": 63}
    explorer.widget  # draws  # noqa: B018
    across, up = explorer._drawn.axes[1].transData.transform((30.5, 50.5))
    box = explorer._drawn.bbox
    explorer._picture.clicked = [across / box.width, 1 - up / box.height, 1]
    assert (explorer.state["row"], explorer.state["column"]) == (50, 30)


def test_models_come_back_as_they_were(models):
    models["pvt"].train()
    explore.query_map(models, IMAGES).figure()
    assert all(module.training for module in models["pvt"].modules())
    assert not any(module._forward_pre_hooks for module in models["pvt"].modules())
    models["pvt"].eval()


def test_other_mixers_are_refused(models):
    with pytest.raises(UserError, match=r"swin mixes by .*; only pvt and pvt_v2 reduce their keys"):
        explore.query_map({"swin": build_model("swin", "nano")}, IMAGES)
    with pytest.raises(UserError, match="no models"):
        explore.query_map({}, IMAGES)


@pytest.mark.soak
@pytest.mark.parametrize("state", [{"stage": 4}, {"ratio": 1}, {"stage": 3, "model": "pvt_v2"}], ids=str)
def test_answers_in_half_a_second_of_an_idle_core(models, state):
    """A state that was never seen, its forward pass included, and the picture of it."""
    explorer = explore.query_map(models, IMAGES)
    explorer.widget  # draws  # noqa: B018
    stopwatch = Stopwatch()
    stopwatch.time(explorer.set, **state, image=2)
    assert stopwatch.median < 0.5
