"""The explorer of corruptions: it shows what the measure would count, and answers in time."""

import numpy as np
import pytest
import timm
import torch
from speed import Stopwatch

import stm_lab
from stm_lab import UserError, measure
from stm_lab.explore import corruption
from stm_lab.measure.corruptions import CORRUPTIONS

MIXERS = ("halo", "swin", "pvt", "convnext", "dcn_v3", "identity")


@pytest.fixture(scope="module")
def models():
    return {mixer: stm_lab.build_model(mixer, "nano", pretrained=True) for mixer in MIXERS}


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def explorer(models, images):
    return corruption(models, images, torch.tensor([4, 2, -1]), classes=[f"form {i}" for i in range(10)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["glass_blur", "fog", "jpeg_compression"])
def test_right_and_wrong_are_those_of_the_measure(models, images, explorer, name):
    data = (images[:2], torch.tensor([4, 2]))
    counted = measure.corruption_errors(models, data, corruptions=[name])
    for severity in range(1, 6):
        labels = [explorer.figure(corruption=name, severity=severity, image=i).get_label() for i in (0, 1)]
        for mixer in MIXERS:
            told = [label.split(f"{mixer} form ")[1].split("(")[0] for label in labels]
            wrong = 50 * sum("wrong" in text for text in told)
            assert wrong == pytest.approx(counted[mixer].error[0, severity - 1]), (mixer, severity)


def test_severity_0_is_the_picture(explorer, images):
    for name in ("snow", "contrast"):
        clean, view, *_ = explorer.figure(corruption=name, severity=0).axes
        np.testing.assert_allclose(view.images[0].get_array(), images[0].permute(1, 2, 0))
        np.testing.assert_allclose(clean.images[0].get_array(), view.images[0].get_array())
        assert view.get_title() == "clean"


def test_a_picture_of_ones_own_has_no_right_answer(explorer):
    label = explorer.figure(image=2).get_label()
    assert "right" not in label
    assert "wrong" not in label
    assert "halo form" in label


def test_models_of_other_classes_show_numbers(images):
    other = {"b": timm.create_model("test_resnet", num_classes=4)}
    explorer = corruption(other, images[:1], torch.tensor([3]), classes=[f"form {i}" for i in range(10)])
    assert "b class " in explorer.figure().get_label()
    with pytest.raises(UserError, match="label 9, which not every model"):
        corruption(other, images[:1], torch.tensor([9])).figure()


@pytest.mark.soak
def test_every_control_changes_the_picture_in_half_a_second(explorer):
    picture = explorer.widget.children[1]  # the first one loads fonts
    stopwatch = Stopwatch()
    for name in CORRUPTIONS:
        for severity in (1, 5):
            before = picture.png
            stopwatch.time(explorer.set, corruption=name, severity=severity, image=severity % 3)
            assert picture.png != before
    assert stopwatch.median < 0.5, stopwatch.seconds


def test_a_click_into_the_curves_sets_the_severity(explorer):
    picture, figure = explorer.widget.children[1], explorer.figure()
    figure.draw_without_rendering()
    across, up = figure.axes[3].transData.transform((4.2, 50))
    picture.clicked = [across / figure.bbox.width, 1 - up / figure.bbox.height, 1]
    assert explorer.state == {"corruption": "gaussian_noise", "severity": 4, "image": 0}
    across, up = figure.axes[2].transData.transform((50, 1))
    picture.clicked = [across / figure.bbox.width, 1 - up / figure.bbox.height, 2]
    assert explorer.state["severity"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {}}, "no models"),
        ({"images": torch.zeros(0, 3, 64, 64)}, "no images"),
        ({"images": torch.full((1, 3, 64, 64), torch.nan)}, "nan"),
        ({"labels": torch.tensor([1])}, "1 labels for 3 images"),
        ({"classes": ["a", "b"]}, "label 4, but 2 names"),
        ({"corruptions": ["fogg"]}, "did you mean 'fog'"),
        ({"corruptions": []}, "no corruptions"),
    ],
)
def test_bad_input(models, images, change, message):
    given = {"models": models, "images": images, "labels": torch.tensor([4, 2, 0]), **change}
    with pytest.raises(UserError, match=message) as error:
        corruption(given.pop("models"), given.pop("images"), given.pop("labels"), **given)
    assert "\n" not in str(error.value)


def test_a_model_without_a_classifier_is_told(images):
    with pytest.raises(UserError, match="no classifier"):
        corruption({"a": timm.create_model("test_resnet", num_classes=0)}, images).figure()
