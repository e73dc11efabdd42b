"""The explorer of mixing weights: any state by its controls, a click finds the token, and it answers in time."""

import itertools

import numpy as np
import pytest
import torch
from speed import Stopwatch
from torch import nn

import stm_lab
from stm_lab import UserError
from stm_lab.explore import mixing_weights
from stm_lab.measure import mixing_matrix

MIXERS = ("halo", "swin", "pvt", "convnext", "dcn_v3", "identity")
IMAGES = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def models():
    return {mixer: stm_lab.build_model(mixer, "nano", pretrained=True) for mixer in MIXERS}


@pytest.fixture
def explorer(models):
    return mixing_weights(models, IMAGES)


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def test_the_default_is_the_middle_token_of_stage_one(explorer):
    assert explorer.state == {"model": "halo", "stage": 1, "panels": None, "image": 0, "row": 32, "column": 32}
    figure = explorer.figure()
    assert titles(figure) == ["the image", "block 1", "block 2"]
    assert "what each of 16x16 tokens gives to the framed one" in figure.get_label()


def test_with_no_front_end_there_is_the_picture(explorer):
    bundle, metadata = explorer._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"].startswith("halo, stage 1")


@pytest.mark.parametrize("mixer", MIXERS)
def test_it_draws_the_row_of_the_exact_mixing_matrix(explorer, models, mixer):
    figure = explorer.figure(model=mixer, stage=3, image=2, row=20, column=63)
    assert titles(figure)[1:] == ["block 1", "block 2", "block 3", "block 4"]
    for block, axes in enumerate(figure.axes[1:]):
        matrix = mixing_matrix(models[mixer], IMAGES[2:3], stage=2, block=block).matrix[0]
        wanted = matrix[1 * 4 + 3].reshape(4, 4)  # 16 pixels a token
        shown = axes.images[1].get_array()  # over the grey image
        np.testing.assert_allclose(shown, wanted / wanted.max(), rtol=1e-3, atol=1e-5)
        assert {(patch.get_x(), patch.get_y()) for patch in axes.patches} == {(48, 16)}


@pytest.mark.parametrize("row", [7, 14, 15, 22, 30, 38, 46, 99])
def test_where_tokens_do_not_divide_the_side_the_framed_one_is_the_one_that_is_shown(row):
    """13 tokens on 100 pixels; each mixer of identity gives all of a token to itself."""
    model = stm_lab.build_model("identity", "nano")
    figure = mixing_weights({"identity": model}, torch.rand(1, 3, 100, 100)).figure(stage=2, row=row, column=99 - row)
    axes = figure.axes[1]
    shown = np.asarray(axes.images[1].get_array())
    assert shown.shape == (13, 13)
    own = np.unravel_index(shown.argmax(), shown.shape)
    frame = axes.patches[0]
    np.testing.assert_allclose((frame.get_y() * 13 / 100, frame.get_x() * 13 / 100), own, atol=1e-9)
    assert "100% from the token itself" in figure.get_label()


@pytest.mark.parametrize("mixer", [mixer for mixer in MIXERS if mixer not in ("convnext", "identity")])
def test_heads_of_a_block_have_panels_of_their_own(explorer, mixer):
    heads = explorer.figure(model=mixer, stage=2, panels=2, row=30, column=30)
    assert titles(heads)[1:] == ["block 2, head 1", "block 2, head 2"]
    one, other = (axes.images[1].get_array() for axes in heads.axes[1:])
    assert abs(one - other).max() > 0.01
    assert len(titles(explorer.figure(model=mixer, stage=4, panels=1))) == 5  # four of eight


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"model": "convnext", "panels": 1}, "convnext: its mixers have no heads; choose the blocks"),
        ({"model": "halo", "stage": 1, "panels": 4}, "halo has 2 blocks in stage 1, and no block 4"),
    ],
)
def test_heads_that_are_not_there_are_said_below_the_picture(explorer, state, said):
    _, image, message = explorer.widget.children
    before = image.png
    explorer.set(**state)
    assert said in message.value
    assert image.png == before


def test_identity_gives_all_to_itself(explorer):
    assert "block 1: 100% from the token itself" in explorer.figure(model="identity").get_label()


def test_a_convolution_does_not_look_at_the_image_and_attention_does(explorer):
    def weights(model, image):
        return explorer.figure(model=model, image=image).axes[1].images[1].get_array()

    np.testing.assert_allclose(weights("convnext", 0), weights("convnext", 1), atol=1e-5)
    assert abs(weights("pvt", 0) - weights("pvt", 1)).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("panel", [0, 1, 2])
def test_a_click_in_any_panel_sets_the_pixel(explorer, panel):
    image, figure = explorer.widget.children[1], explorer.figure()
    figure.draw_without_rendering()  # places the panels
    x, y = figure.axes[panel].transData.transform((50.5, 9.5))
    image.clicked = [x / figure.bbox.width, 1 - y / figure.bbox.height, 1]
    assert (explorer.state["row"], explorer.state["column"]) == (9, 50)
    image.clicked = [0.001, 0.001, 2]
    assert (explorer.state["row"], explorer.state["column"]) == (9, 50)


@pytest.mark.soak
def test_every_state_is_drawn_in_half_a_second(explorer):
    image = explorer.widget.children[1]  # the first one loads fonts
    stopwatch = Stopwatch()
    for mixer, stage in zip(MIXERS, itertools.cycle((3, 1)), strict=False):
        before = image.png
        stopwatch.time(explorer.set, model=mixer, stage=stage, row=11 + stage, column=40)
        assert image.png != before
    assert stopwatch.median < 0.5, stopwatch.seconds


def test_a_deep_stage_shows_four_of_its_blocks():
    deep = stm_lab.build_model("convnext", "nano", depths=(1, 1, 9, 1))
    assert titles(mixing_weights({"deep": deep}, IMAGES).figure(stage=3))[1:] == [
        "block 1", "block 4", "block 6", "block 9",
    ]  # fmt: skip


class Pooled(nn.Module):
    """One mixer, and no stages."""

    def __init__(self):
        super().__init__()
        self.mixer = stm_lab.mixers.Pooling(3)

    def forward(self, x):
        return self.mixer(nn.functional.avg_pool2d(x, 8).permute(0, 2, 3, 1))


def test_a_stage_without_mixers_is_said_below_the_picture(models):
    explorer = mixing_weights({"identity": models["identity"], "pooled": Pooled().eval()}, IMAGES, stage=2)
    _, image, message = explorer.widget.children
    before = image.png
    explorer.set(model="pooled")
    assert "pooled has no mixers in stage 2; known: 1" in message.value
    assert image.png == before
    explorer.set(stage=1)
    assert message.value == ""
    assert image.png != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda models, images: mixing_weights({}, images), "no models"),
        (lambda models, images: mixing_weights(models, images[:0]), "no images"),
        (lambda models, images: mixing_weights(models, images * float("nan")), "expected pixels"),
        (lambda models, images: mixing_weights({"linear": nn.Linear(2, 2)}, images), "no token mixer"),
    ],
)
def test_refuses(models, change, message):
    with pytest.raises(UserError, match=message):
        change(models, IMAGES)
