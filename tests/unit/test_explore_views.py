"""The explorer of views: what is shown, what is told, clicks, own pictures, and the time that an answer takes."""

import itertools

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from speed import Stopwatch

import stm_lab
from stm_lab import explore, zoo
from stm_lab.measure.views import rescale, rotate, translate
from stm_lab.util.errors import UserError

MIXERS = ("halo", "swin", "pvt", "convnext", "dcn_v3", "identity")
STILL = {"image": 0, "right": 0, "down": 0, "turn": 0.0, "size": 1.0}


@pytest.fixture(scope="module")
def models():
    return {subject.name: subject.model for subject in zoo.load(MIXERS, "pretrained", device="cpu")}


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def explorer(models, images):
    return explore.views(models, images)


def panels(figure):
    """The arrays of all pictures in a figure, in order: two views, then two maps for each network."""
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


def test_without_a_move_both_rows_are_alike(explorer, images):
    figure = explorer.figure(**STILL)
    standard, moved, *maps = panels(figure)
    np.testing.assert_array_equal(standard, images[0].permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(moved, standard)
    assert len(maps) == 2 * len(MIXERS)
    for before, after in zip(maps[::2], maps[1::2], strict=True):
        np.testing.assert_array_equal(before, after)
    text = figure.get_label()
    assert "6 of 6 networks keep their answer" in text
    assert text.count("cosine 1.00") == 6


def test_the_view_is_turned_scaled_and_shifted(explorer, images):
    figure = explorer.figure(image=2, right=5, down=-3, turn=30.0, size=1.4)
    expected = translate(rescale(rotate(images[2:], 30), 1.4), -3, 5)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(panels(figure)[1], expected, atol=1e-6)
    text = figure.get_label()
    for part in ("turned by 30 degrees counter-clockwise", "5 pixels to the right", "3 pixels up", "1.40 times"):
        assert part in text


@pytest.mark.parametrize("stage", [1, 4])
def test_answers_and_features_are_those_of_the_model(models, images, stage):
    """Once more by the model itself, on the view; the whole network, and timm's own way to its features."""
    model, classes = models["swin"], list("abcdefghij")
    explorer = explore.views({"swin": model}, images, classes={"swin": classes}, stage=stage - 1)
    figure = explorer.figure(**{**STILL, "right": 9})
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    pooled, axis = [], []
    for view, drawn in zip((images[:1], translate(images[:1], 0, 9)), panels(figure)[2:], strict=True):
        with torch.inference_mode():
            batch = (view - mean) / std
            share, label = model(batch).softmax(1).max(1)
            (feature,) = model.forward_intermediates(batch, indices=[stage - 1], intermediates_only=True)
        assert f"{classes[label]} {100 * share.item():.0f}%" in figure.get_label()
        feature = feature[0].double().numpy()
        pooled.append(torch.from_numpy(feature.mean((1, 2))))
        if not axis:  # of the standard view: the eigenvector of the covariance of its cells
            middle = feature.mean((1, 2), keepdims=True)
            axis.append(np.linalg.eigh(np.cov(feature.reshape(len(feature), -1)))[1][:, -1])
        expected = np.tensordot(axis[0], feature - middle, 1)
        sign = np.sign((expected * drawn).sum())
        np.testing.assert_allclose(drawn, sign * expected, atol=1e-3 * np.abs(expected).max())
    cosine = pooled[0] @ pooled[1] / (pooled[0].norm() * pooled[1].norm())
    assert f"cosine {cosine:.2f}" in figure.get_label()


def test_features_of_convolutions_move_by_cells_with_the_picture(images):
    """A shift by the stem's stride moves the first map by one cell, away from the edges: where nothing else mixes."""
    model = stm_lab.build_model("identity", "nano", num_classes=10).eval()
    explorer = explore.views({"identity": model}, images, stage=0)
    _, _, before, after = panels(explorer.figure(**{**STILL, "right": 8, "down": 4}))
    np.testing.assert_allclose(after[4:-4, 5:-4], before[3:-5, 3:-6], atol=1e-5 * np.abs(before).max())


def test_an_answer_that_changes_is_framed_and_said(models, images):
    explorer = explore.views(models, images)
    figures = [explorer.figure(image=image, right=30, down=0, turn=0.0, size=2.0) for image in range(3)]
    changed = 0
    for figure in figures:
        frames = sum(not patch.get_fill() for patch in figure.axes[2].patches)
        assert frames == figure.get_label().count(", now ")
        assert f"{6 - frames} of 6 networks keep" in figure.get_label()
        changed += frames
    assert changed > 0


# ---- clicks and controls --------------------------------------------------------------------------------------------


def click(explorer, panel, x, y):
    picture, figure = explorer.widget.children[1], explorer.figure()
    figure.draw_without_rendering()
    across, up = figure.axes[panel].transData.transform((x, y))
    picture.clicked = [across / figure.bbox.width, 1 - up / figure.bbox.height, len(picture.clicked) + 1]


def is_in_the_middle(explorer):
    """Whether the bright spot is; its mirror images may be anywhere else."""
    view = panels(explorer.figure())[1][..., 0]
    return view[30:34, 30:34].max() > 0.8 * view.max()


@pytest.mark.parametrize("moves", [{}, {"turn": 90.0}, {"turn": -35.0, "size": 0.8}])
@pytest.mark.parametrize("place", [(40, 20), (31, 33), (10, 56)])
def test_a_click_takes_the_place_to_the_middle(place, moves):
    """In either picture; of a picture with one bright spot, that has been turned, made smaller, and moved before."""
    spot = torch.zeros(1, 3, 64, 64)
    spot[..., place[1] - 1 : place[1] + 2, place[0] - 1 : place[0] + 2] = 1
    explorer = explore.views({"identity": stm_lab.build_model("identity", "nano")}, spot)
    explorer.set(**{**STILL, **moves})
    click(explorer, 0, *place)
    assert is_in_the_middle(explorer)
    explorer.set(right=explorer.state["right"] - 4, down=explorer.state["down"] + 3)
    assert not is_in_the_middle(explorer)
    click(explorer, 1, 31.5 - 4, 31.5 + 3)
    assert is_in_the_middle(explorer)


def test_a_click_on_features_changes_nothing(explorer):
    explorer.set(right=3)
    before = explorer.state
    click(explorer, 2, 3, 2)
    assert explorer.state == before


@pytest.mark.soak
def test_every_state_answers_in_half_a_second(models, images):
    """All six networks, at nano; processor time, on one core, and new states only."""
    explorer = explore.views(models, images)
    picture, stopwatch = explorer.widget.children[1], Stopwatch()
    for right, turn, stage in itertools.product((3, -9), (0.0, 25.0), (1, 4)):
        before = picture.png
        stopwatch.time(explorer.set, right=right, turn=turn, stage=stage)
        assert picture.png != before
    assert stopwatch.median < 0.5, stopwatch.seconds


# ---- pictures of one's own, and refusals ----------------------------------------------------------------------------


def test_a_photograph_of_ones_own(models, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    by_path = explore.views({"swin": models["swin"]}, tmp_path / "photo.png")
    by_array = explore.views({"swin": models["swin"]}, pixels)
    by_floats = explore.views({"swin": models["swin"]}, pixels / 255)
    shown = panels(by_path.figure())[0]
    assert shown.shape == (64, 64, 3)
    for other in (by_array, by_floats):
        np.testing.assert_array_equal(panels(other.figure())[0], shown)
    assert panels(explore.views({"swin": models["swin"]}, pixels, image_size=96).figure())[0].shape == (96, 96, 3)


def test_any_timm_model(images):
    model = timm.create_model("test_resnet", num_classes=7).eval()
    figure = explore.views({"resnet": model}, images, stage=1).figure(right=4)
    assert "resnet: class " in figure.get_label()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"models": {}}, "no models"),
        ({"images": torch.zeros(0, 3, 64, 64)}, "no images"),
        ({"images": "nowhere.png"}, "nowhere.png"),
        ({"images": np.zeros((4, 4))}, r"shape \(4, 4\); expected \(H, W, 3\)"),
        ({"images": np.full((40, 40, 3), np.nan)}, "expected 0 to 1"),
        ({"images": np.zeros((40, 40, 3), int)}, "expected uint8"),
        ({"classes": {"swim": ["a"]}}, "did you mean 'swin'"),
        ({"stage": 7}, "stage"),
    ],
)
def test_refusals(models, images, given, message):
    given = {"models": {"swin": models["swin"]}, "images": images, **given}
    with pytest.raises(UserError, match=message) as error:
        explore.views(**given)
    assert "\n" not in str(error.value)


def test_a_model_without_classifier_is_told_when_drawn(images):
    explorer = explore.views({"resnet": timm.create_model("test_resnet", num_classes=0)}, images)
    with pytest.raises(UserError, match="no classifier"):
        explorer.figure()
