"""The explorer of receptive fields: any state by its controls, a click finds the cell, and it answers in time."""

import itertools
import re

import numpy as np
import pytest
import timm
import torch
from speed import Stopwatch

import stm_lab
from stm_lab import UserError, zoo
from stm_lab.explore import Explorer, picture, receptive_field
from stm_lab.measure import effective_receptive_field, high_contribution_area

MIXERS = ("halo", "swin", "pvt", "convnext", "dcn_v3", "identity")
IMAGES = torch.rand(3, 3, 128, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def models():
    return {mixer: stm_lab.build_model(mixer, "nano", pretrained=True) for mixer in MIXERS}


@pytest.fixture
def explorer(models):
    return receptive_field(models, IMAGES)


def told(figure):
    """Cell, side of the square, radius, and the place, from the alternative text."""
    return [int(number) for number in re.findall(r"\d+", figure.get_label().partition("cell")[2])]


def test_the_default_is_the_middle_of_the_last_stage_of_the_first_model(explorer):
    assert explorer.state == {"model": "halo", "stage": 4, "image": 0, "row": 64, "column": 48}
    assert "halo, stage 4, cell (2, 2) of 4x3" in explorer.figure().get_label()


@pytest.mark.slow
def test_with_no_front_end_there_is_the_picture(models):
    bundle, metadata = receptive_field(models, IMAGES)._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"].startswith("halo, stage 4")


@pytest.mark.parametrize("mixer", MIXERS)
def test_it_draws_the_measure_of_that_cell_in_that_image(explorer, models, mixer):
    figure = explorer.figure(model=mixer, stage=3, image=2, row=80, column=33)
    expected = effective_receptive_field(models[mixer], IMAGES[2:3], stage=2, cell=(5, 2))
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
    assert inside.size / expected.map.size == pytest.approx(high_contribution_area(expected.map, 0.5, (80, 32)))


def test_the_last_pixels_belong_to_the_last_cell(explorer):
    assert told(explorer.figure(model="identity", row=127, column=95))[:4] == [3, 2, 4, 3]


@pytest.mark.parametrize("panel", [0, 1])
def test_a_click_in_either_panel_sets_the_pixel(explorer, panel):
    image = explorer.widget.children[1]
    figure = explorer.figure()
    figure.draw_without_rendering()  # places the panels
    x, y = figure.axes[panel].transData.transform((20.2, 99.7))
    image.clicked = [x / 820, 1 - y / 400, 1]
    assert (explorer.state["row"], explorer.state["column"]) == (100, 20)
    assert "round row 96, column 32" in image.alt  # of the cell of stride 32 that is nearest


def test_a_click_on_the_scale_or_beside_the_panels_says_nothing(explorer):
    image, before = explorer.widget.children[1], explorer.state
    x, y = explorer.figure().axes[2].transAxes.transform((0.5, 0.5))
    image.clicked = [x / 820, 1 - y / 400, 1]
    image.clicked = [0.001, 0.001, 2]
    assert explorer.state == before


@pytest.mark.soak
def test_every_state_is_drawn_in_half_a_second(models):
    """At the size of the notebook, with a gradient for each new place; seen ones come from memory."""
    explorer = receptive_field(models, torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1)))
    image = explorer.widget.children[1]  # the first one loads fonts
    stopwatch = Stopwatch()
    for mixer, stage in zip(MIXERS, itertools.cycle((1, 4)), strict=False):
        before = image.png
        stopwatch.time(explorer.set, model=mixer, stage=stage, row=40 + stage, column=70)
        assert image.png != before
    assert stopwatch.median < 0.5, stopwatch.seconds


def test_a_stage_that_a_model_lacks_is_said_below_the_picture(models):
    explorer = receptive_field({"deep": timm.create_model("resnet18").eval(), "identity": models["identity"]}, IMAGES)
    _, image, message = explorer.widget.children
    assert explorer.state["stage"] == 5
    before = image.png
    explorer.set(model="identity")
    assert "no stage 4; known: 0 to 3" in message.value
    assert image.png == before
    explorer.set(stage=2)
    assert message.value == ""


def test_bytes_and_floats_are_the_same_picture(models):
    pixels = (255 * IMAGES).round().to(torch.uint8)
    one, other = (receptive_field({"pvt": models["pvt"]}, data) for data in (pixels, pixels / 255))
    assert one.figure().get_label() == other.figure().get_label()


def test_a_photograph_of_ones_own(models, tmp_path):
    from PIL import Image

    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)).save(path)
    own = receptive_field(models, picture(path, 64))
    assert isinstance(own, Explorer)
    assert own.state["row"] == 32
    with pytest.raises(UserError, match=r"nothing\.png"):
        picture(tmp_path / "nothing.png", 64)


def test_models_of_the_zoo_and_of_timm_are_taken():
    (subject,) = zoo.load(["test_convnext"], "none", device="cpu")
    assert "tiny, stage" in receptive_field({"tiny": subject.model}, IMAGES).figure().get_label()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda models, images: receptive_field({}, images), "no models"),
        (lambda models, images: receptive_field(models, images[:0]), "no images"),
        (lambda models, images: receptive_field(models, images[0]), "expected"),
        (lambda models, images: receptive_field(models, images * float("nan")), "expected pixels"),
        (lambda models, images: receptive_field(models, images, stage=4), "no stage 4"),
        (lambda models, images: receptive_field({"linear": torch.nn.Linear(2, 2)}, images), "no feature maps"),
    ],
)
def test_refuses(models, change, message):
    with pytest.raises(UserError, match=message):
        change(models, IMAGES)
