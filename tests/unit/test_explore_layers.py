"""Explorers of layers: each draws what the measure finds at the clicked place, in any state."""

import re

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from companions import companion
from kinds import KINDS, each_kind
from torch import nn

import stm_lab
from stm_lab import UserError, explore, measure, zoo
from stm_lab.mixers import get_mixer

OWN_03 = companion("03")
OWN_06 = companion("06")
OWN_11 = companion("11")
key_attention, reduced_tokens = OWN_03.key_attention, OWN_03.reduced_tokens

IMAGES = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
WIDE = torch.rand(3, 3, 128, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def models():
    names = (*KINDS, "pvt_v2", "identity")
    return {mixer: stm_lab.build_model(mixer, "nano", pretrained=True) for mixer in names}


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def place(explorer):
    return explorer.state["row"], explorer.state["column"]


def is_said(explorer, text, **state):
    """Whether a state that cannot be drawn is said below the picture, which stays."""
    _, image, message = explorer.widget.children
    before = image.png
    explorer.set(**state)
    return text in message.value and image.png == before


@pytest.mark.parametrize(
    ("make", "of"),
    [
        (explore.mixing_weights, "convnext"),
        (OWN_03.query_map, "pvt"),
        (OWN_06.sampling_points, "dcn_v3"),
        (OWN_11.receptive_field, "convnext"),
    ],
)
def test_without_models_images_or_layers_they_are_refused(models, make, of):
    one = {of: models[of]}
    for given, says in (
        (({}, IMAGES), "no models"),
        ((one, IMAGES[:0]), "no images"),
        ((one, IMAGES[0]), "expected"),
        ((one, IMAGES * float("nan")), "expected pixels"),
        (({"linear": nn.Linear(2, 2)}, IMAGES), "no token mixer|no feature maps"),
    ):
        with pytest.raises(UserError, match=says):
            make(*given)


# ---- mixing weights -------------------------------------------------------------------------------------------------


@pytest.fixture
def mixing(models):
    return explore.mixing_weights(models, IMAGES)


def test_the_default_is_the_middle_token_of_stage_one(mixing):
    assert mixing.state == {"model": "halo", "stage": 1, "panels": None, "image": 0, "row": 32, "column": 32}
    figure = mixing.figure()
    assert titles(figure) == ["the image", "block 1", "block 2"]
    assert "what each of 16x16 tokens gives to the framed one" in figure.get_label()


@each_kind
def test_it_draws_the_row_of_the_exact_mixing_matrix(mixing, models, mixer):
    figure = mixing.figure(model=mixer, stage=3, image=2, row=20, column=63)
    assert titles(figure)[1:] == ["block 1", "block 2", "block 3", "block 4"]
    for block, axes in enumerate(figure.axes[1:]):
        matrix = measure.mixing_matrix(models[mixer], IMAGES[2:3], stage=2, block=block).matrix[0]
        wanted = matrix[1 * 4 + 3].reshape(4, 4)  # 16 pixels a token
        shown = axes.images[1].get_array()  # over the grey image
        np.testing.assert_allclose(shown, wanted / wanted.max(), rtol=1e-3, atol=1e-5)
        assert {(patch.get_x(), patch.get_y()) for patch in axes.patches} == {(48, 16)}


@pytest.mark.parametrize("row", [7, 14, 46, 99])
def test_where_tokens_do_not_divide_the_side_the_framed_one_is_the_one_that_is_shown(models, row):
    """13 tokens on 100 pixels; each mixer of identity gives all of a token to itself."""
    images = torch.rand(1, 3, 100, 100)
    figure = explore.mixing_weights({"identity": models["identity"]}, images).figure(stage=2, row=row, column=99 - row)
    axes = figure.axes[1]
    shown = np.asarray(axes.images[1].get_array())
    assert shown.shape == (13, 13)
    own = np.unravel_index(shown.argmax(), shown.shape)
    frame = axes.patches[0]
    np.testing.assert_allclose((frame.get_y() * 13 / 100, frame.get_x() * 13 / 100), own, atol=1e-9)
    assert "100% from the token itself" in figure.get_label()


@pytest.mark.parametrize("mixer", ["halo", "pvt", "dcn_v3"])
def test_heads_of_a_block_have_panels_of_their_own(mixing, mixer):
    heads = mixing.figure(model=mixer, stage=2, panels=2, row=30, column=30)
    assert titles(heads)[1:] == ["block 2, head 1", "block 2, head 2"]
    one, other = (axes.images[1].get_array() for axes in heads.axes[1:])
    assert abs(one - other).max() > 0.01


def test_of_many_panels_four_are_shown_and_of_missing_blocks_the_last(mixing):
    assert len(titles(mixing.figure(model="pvt", stage=4, panels=1))) == 5  # four of eight heads
    assert titles(mixing.figure(model="halo", stage=1, panels=4))[1] == "block 2, head 1"
    deep = stm_lab.build_model("convnext", "nano", depths=(1, 1, 9, 1))
    blocks = titles(explore.mixing_weights({"deep": deep}, IMAGES).figure(stage=3))[1:]
    assert blocks == ["block 1", "block 4", "block 6", "block 9"]


def test_mixers_without_heads_are_said_below_the_picture(mixing):
    assert is_said(mixing, "convnext: its mixers have no heads; choose the blocks", model="convnext", panels=1)


def test_a_convolution_does_not_look_at_the_image_and_attention_does(mixing):
    def weights(model, image):
        return mixing.figure(model=model, image=image).axes[1].images[1].get_array()

    np.testing.assert_allclose(weights("convnext", 0), weights("convnext", 1), atol=1e-5)
    assert abs(weights("pvt", 0) - weights("pvt", 1)).max() > 0.01


class Pooled(nn.Module):
    """One mixer, and no stages."""

    def __init__(self):
        super().__init__()
        self.mixer = stm_lab.mixers.Pooling(3)

    def forward(self, x):
        return self.mixer(nn.functional.avg_pool2d(x, 8).permute(0, 2, 3, 1))


def test_a_stage_without_mixers_is_said_below_the_picture(models):
    explorer = explore.mixing_weights({"identity": models["identity"], "pooled": Pooled().eval()}, IMAGES, stage=2)
    assert is_said(explorer, "pooled: unknown stage 2; known: 1", model="pooled")
    explorer.set(stage=1)
    assert explorer.widget.children[2].value == ""


@pytest.mark.parametrize("make", [explore.mixing_weights, OWN_03.query_map])
def test_a_click_in_any_panel_sets_the_pixel(models, make):
    explorer = make({"pvt": models["pvt"]}, IMAGES)
    for panel in (0, 1):
        explorer.click(panel, 12.7, 40.2)
        assert place(explorer) == (40, 12)
    explorer.click(0, 64.0, -0.1)
    assert place(explorer) == (0, 63)


# ---- attention over reduced keys ------------------------------------------------------------------------------------


@pytest.fixture
def query(models):
    return OWN_03.query_map({name: models[name] for name in ("pvt", "pvt_v2")}, IMAGES)


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


@pytest.mark.parametrize("row", [7, 14, 46])
def test_the_picture_shows_the_weights_of_the_query_that_is_framed(models, row):
    """13 tokens on 100 pixels."""
    given = {}
    mixer = models["pvt_v2"].stages[1].blocks[1].mixer
    explorer = OWN_03.query_map({"pvt_v2": models["pvt_v2"]}, torch.rand(1, 3, 100, 100))
    hook = mixer.register_forward_pre_hook(lambda _, inputs: given.update(x=inputs[0]))
    axes = explorer.figure(stage=2, block=2, head="2", row=row, column=50).axes[1]
    hook.remove()
    with torch.no_grad():
        weights = key_attention(mixer, given["x"], mixer.reduction)[0, 1].numpy()
    frame = axes.patches[0]
    framed = round(frame.get_y() * 13 / 100), round(frame.get_x() * 13 / 100)
    assert weights.shape[:2] == (13, 13)
    assert framed[0] * 100 / 13 <= row + 0.5 <= (framed[0] + 1) * 100 / 13  # the middle of the pixel is in the frame
    shown = weights[framed]
    np.testing.assert_allclose(axes.images[1].get_array(), shown / shown.max(), atol=1e-6)


def test_controls_change_keys_heads_and_queries(query):
    first = query.figure().get_label()
    assert first.startswith("pvt, stage 1, block 1: 16x16 queries, 4x4 keys of patches 4x4. head 1: at most")
    assert "8x8 keys of patches 2x2 (trained with 4x4)" in query.figure(ratio=2).get_label()
    assert "1x1 keys of patches 16x16" in query.figure(ratio=16).get_label()
    assert "2x2 keys of patches 7x7" in query.figure(model="pvt_v2", ratio=7).get_label()
    assert len(query.figure(stage=3).axes) == 6
    assert "mean of 5 heads" in query.figure(stage=3, head="mean").get_label()
    assert query.figure(image=1).get_label() != first
    assert "pvt, stage 1, block 2: " in query.figure(block=4).get_label()  # the last block and head
    assert query.figure(head="3").get_label().count("head 1: at most") == 1


def test_models_come_back_as_they_were(models):
    model = models["pvt"].train()
    OWN_03.query_map({"pvt": model}, IMAGES).figure()
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
    model.eval()


def test_mixers_without_reduced_keys_are_refused(models):
    with pytest.raises(UserError, match=r"halo mixes by .*; only pvt and pvt_v2 reduce their keys"):
        OWN_03.query_map({"halo": models["halo"]}, IMAGES)


# ---- sampling points ------------------------------------------------------------------------------------------------


@pytest.fixture
def sampling(models):
    return OWN_06.sampling_points({"trained": models["dcn_v3"], "again": models["dcn_v3"]}, IMAGES)


def dots(axes):
    return np.asarray(axes.collections[-1].get_offsets())


@pytest.mark.parametrize(("stage", "block", "group"), [(1, 1, 1), (3, 4, 3), (4, 1, 8)])
def test_it_draws_the_points_of_the_mixer(sampling, models, stage, block, group):
    layers = OWN_06.points_of(models["dcn_v3"], IMAGES[1:2]).layers
    layer = next(one for one in layers if (one.stage, one.block) == (stage - 1, block - 1))
    figure = sampling.figure(stage=stage, block=block, group=group, image=1, row=63, column=20)
    y, x = layer.map_size[0] - 1, 20 * layer.map_size[1] // 64
    np.testing.assert_allclose(dots(figure.axes[0]), layer.places[0, y, x, group - 1], atol=1e-5)
    if layer.groups > 1:
        np.testing.assert_allclose(dots(figure.axes[1]), layer.places[0, y, x].reshape(-1, 2), atol=1e-5)
    assert figure.get_label().startswith(f"trained, stage {stage}, block {block}: the token in row {y}, column {x} of")


def test_a_stage_with_fewer_blocks_and_groups_shows_its_last(sampling):
    label = sampling.figure(stage=1, block=4, group=8).get_label()
    assert "block 2" in label
    assert "group 1 of 1" in label


def test_a_click_chooses_a_token_in_either_panel(sampling):
    sampling.set(stage=2)
    for panel in (0, 1):
        sampling.click(panel, 6, 1)
        assert "the token in row 1, column 6 of 8x8" in sampling.figure().get_label()
        sampling.set(row=32, column=32)
    for outside in ((-1.2, 3), (3, 7.8)):
        sampling.click(0, *outside)
        assert place(sampling) == (32, 32)


# ---- receptive fields -----------------------------------------------------------------------------------------------


@pytest.fixture
def field(models):
    return OWN_11.receptive_field({mixer: models[mixer] for mixer in (*KINDS, "identity")}, WIDE)


def told(figure):
    """Cell, side of the square, radius, and the place, from the alternative text."""
    return [int(number) for number in re.findall(r"\d+", figure.get_label().partition("cell")[2])]


def test_the_default_is_the_middle_of_the_last_stage_of_the_first_model(field):
    assert field.state == {"model": "halo", "stage": 4, "image": 0, "row": 64, "column": 48}
    assert "halo, stage 4, cell (2, 2) of 4x3" in field.figure().get_label()


@each_kind
def test_it_draws_the_measure_of_that_cell_in_that_image(field, models, mixer):
    figure = field.figure(model=mixer, stage=3, image=2, row=80, column=33)
    expected = measure.effective_receptive_field(models[mixer], WIDE[2:3], stage=2, cell=(5, 2))
    shown = figure.axes[1].images[0].get_array()
    wanted = np.maximum(expected.map / expected.map.max(), 1e-4)
    np.testing.assert_allclose(shown, wanted, rtol=1e-3, atol=1e-5)
    row, column, _, _, side, again, *_ = told(figure)
    assert (row, column, side) == (5, 2, again)
    square = figure.axes[1].patches[0]
    assert square.get_width() == side
    centre = square.get_y() + side / 2, square.get_x() + side / 2
    assert centre == expected.centre == (80, 32)
    top, bottom, left, right = 80 - side // 2, 80 + side // 2 + 1, 32 - side // 2, 32 + side // 2 + 1
    inside = expected.map[max(top, 0) : bottom, max(left, 0) : right]
    assert inside.sum() >= 0.5 * expected.map.sum()
    assert inside.size / expected.map.size == pytest.approx(measure.high_contribution_area(expected.map, 0.5, (80, 32)))


def test_the_last_pixels_belong_to_the_last_cell(field):
    assert told(field.figure(model="identity", row=127, column=95))[:4] == [3, 2, 4, 3]


def test_a_click_in_either_panel_but_not_on_the_scale_sets_the_pixel(field):
    for panel, wanted in ((0, (100, 20)), (1, (90, 21)), (2, (90, 21))):
        field.click(panel, wanted[1] + 0.2, wanted[0] - 0.3)
        assert place(field) == wanted
    field.click(2, 0.5, 0.5)
    assert place(field) == (90, 21)


def test_a_stage_that_a_model_lacks_is_said_below_the_picture(models):
    deep = timm.create_model("resnet18").eval()
    explorer = OWN_11.receptive_field({"deep": deep, "identity": models["identity"]}, WIDE)
    assert explorer.state["stage"] == 5
    assert is_said(explorer, "no stage 4; known: 0 to 3", model="identity")
    explorer.set(stage=2)
    assert explorer.widget.children[2].value == ""


def test_bytes_and_floats_are_the_same_picture(models):
    pixels = (255 * WIDE).round().to(torch.uint8)
    one, other = (OWN_11.receptive_field({"pvt": models["pvt"]}, data) for data in (pixels, pixels / 255))
    assert one.figure().get_label() == other.figure().get_label()


def test_models_of_the_zoo_and_of_timm_are_taken():
    (subject,) = zoo.load(["test_convnext"], "none", device="cpu")
    assert "tiny, stage" in OWN_11.receptive_field({"tiny": subject.model}, WIDE).figure().get_label()
