"""Invariance: models whose answers to a moved picture are known without running the measure."""

import datasets
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import stm_lab
from stm_lab.errors import UserError
from stm_lab.measure import invariance
from stm_lab.measure.invariance import DIRECTIONS, translate

RNG = np.random.default_rng(0)


class ByPixel(nn.Module):
    """Answers with the number (0 to 9) painted on the middle pixel, as number / 10."""

    def forward(self, x):
        number = (x[:, 0, x.shape[2] // 2, x.shape[3] // 2] * 10).round().long()
        return nn.functional.one_hot(number, 10).float()


class ByColour(nn.Module):
    """Answers with the strongest colour of the picture's mean: red, green or blue."""

    def forward(self, x):
        return x.mean((2, 3))


class Constant(nn.Module):
    def forward(self, x):
        return x.new_tensor([0.0, 1.0, 0.0]).expand(len(x), 3)


def numbers(n=20, height=32, width=32):
    """Pictures of random numbers, (N, 3, H, W), number / 10."""
    return torch.from_numpy(RNG.integers(0, 10, (n, 1, height, width)) / 10).float().expand(-1, 3, -1, -1)


def moved_by_numpy(images, down, right):
    pad = max(abs(down), abs(right))
    padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="reflect")
    height, width = images.shape[2:]
    return padded[:, :, pad - down : pad - down + height, pad - right : pad - right + width]


@pytest.mark.parametrize("shape", [(8, 8), (7, 12)])
@pytest.mark.parametrize("direction", DIRECTIONS.values())
def test_translate_is_a_reflected_shift(shape, direction):
    images = RNG.random((2, 3, *shape))
    for strength in (0, 1, 3, 6):
        down, right = strength * direction[0], strength * direction[1]
        moved = translate(torch.from_numpy(images), down, right)
        np.testing.assert_array_equal(moved.numpy(), moved_by_numpy(images, down, right))


def test_directions_are_eight_and_named_by_where_the_content_goes():
    picture = torch.zeros(1, 1, 9, 9)
    picture[..., 4, 4] = 1
    assert len(set(DIRECTIONS.values())) == 8
    for name, direction in DIRECTIONS.items():
        ((row, column),) = np.argwhere(translate(picture, 2 * direction[0], 2 * direction[1])[0, 0].numpy())
        assert ("up" in name, "down" in name) == (row == 2, row == 6)
        assert ("left" in name, "right" in name) == (column == 2, column == 6)


def test_against_the_middle_pixel_read_by_hand():
    images = numbers()
    labels = (images[:, 0, 16, 16] * 10).round().long()
    labels[:5] = (labels[:5] + 1) % 10  # so that accuracy is not consistency
    result = invariance(ByPixel(), (images, labels), strengths=[0, 1, 5, 30], batch_size=7)
    for i, strength in enumerate([0, 1, 5, 30]):
        for j, (down, right) in enumerate(DIRECTIONS.values()):
            answers = (10 * moved_by_numpy(images.numpy(), strength * down, strength * right)[:, 0, 16, 16]).round()
            standard = (10 * images.numpy()[:, 0, 16, 16]).round()
            assert result.consistency_by_direction[i, j] == pytest.approx(100 * (answers == standard).mean())
            assert result.accuracy_by_direction[i, j] == pytest.approx(100 * (answers == labels.numpy()).mean())
    assert (result.consistency[0], result.accuracy[0]) == (100, 75)
    assert result.consistency[1] < 50
    np.testing.assert_allclose(result.consistency, result.consistency_by_direction.mean(1))


def test_a_constant_answer_never_changes():
    result = invariance(Constant(), (numbers(), torch.ones(20, dtype=torch.int64)))
    assert (result.consistency == 100).all()
    assert (result.accuracy == 100).all()


def test_no_bars_come_in():
    """A plain picture stays plain however far it moves: a model of the mean colour keeps its answer."""
    classes = torch.tensor([0, 1, 2, 1])
    plain = nn.functional.one_hot(classes, 3).float()[:, :, None, None].expand(-1, -1, 40, 40)
    result = invariance(ByColour(), (plain, classes), strengths=[0, 13, 39])
    assert (result.consistency == 100).all()
    assert (result.accuracy == 100).all()
    half_red = torch.zeros(1, 3, 40, 40)
    half_red[:, 0, :, :19], half_red[:, 1, :, 19:] = 1, 1  # to the right, the mirrored red outweighs green
    result = invariance(ByColour(), half_red, strengths=[5])
    changed = np.array(result.directions)[result.consistency_by_direction[0] == 0]
    assert set(changed) == {"right", "up-right", "down-right"}


def test_models_see_their_own_normalisation_of_bytes_and_floats():
    """Red is strongest in the pixels and in pixels over std, green in pixels less the mean, blue with both."""
    model, labels = ByColour(), torch.tensor([2])
    pixels = torch.tensor([0.6, 0.5, 0.2]).view(1, 3, 1, 1).expand(-1, -1, 32, 32)
    assert invariance(model, (pixels, labels), strengths=[0]).accuracy == 0
    model.pretrained_cfg = {"mean": (0.5, 0.3, 0.1), "std": (1.0, 1.0, 0.4)}
    for images in (pixels, (255 * pixels).round().to(torch.uint8)):
        assert invariance(model, (images, labels), strengths=[0]).accuracy == 100


@pytest.mark.parametrize(("size", "last"), [((224, 224), 64), ((64, 64), 18), ((75, 50), 14)])
def test_default_strengths_are_the_papers_range(size, last):
    strengths = invariance(Constant(), torch.rand(1, 3, *size)).strengths
    assert (strengths[0], strengths[-1], len(strengths)) == (0, last, 9)
    assert (np.diff(strengths) > 0).all()
    if size == (224, 224):
        assert strengths.tolist() == list(range(0, 65, 8))


def test_without_labels_there_is_no_accuracy():
    result = invariance(Constant(), numbers(3), strengths=[0, 2])
    assert result.accuracy is result.accuracy_by_direction is None
    assert result.rows() == [
        {
            "model": "Constant",
            "kind": "translation",
            "images": 3,
            "strength": strength,
            "consistency": 100.0,
            "accuracy": None,
        }
        for strength in (0, 2)
    ]


def test_a_dataset_is_decoded_with_its_labels():
    pictures = [Image.fromarray(np.full((40, 60, 3), 255 * np.eye(3)[label], np.uint8)) for label in (2, 0, 1)]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["red", "green", "blue"]))
    dataset = datasets.Dataset.from_dict({"image": pictures, "label": [2, 0, 0]}, features=features)
    result = invariance(ByColour(), dataset, strengths=[0, 9], image_size=32)
    assert result.consistency.tolist() == [100, 100]
    assert result.accuracy == pytest.approx([200 / 3, 200 / 3])


def test_the_batch_size_changes_nothing():
    model = timm.create_model("test_resnet", num_classes=5)
    images = torch.rand(9, 3, 64, 64)
    results = [invariance(model, images, strengths=[0, 4, 11], batch_size=size) for size in (4, 9)]
    np.testing.assert_array_equal(results[0].consistency_by_direction, results[1].consistency_by_direction)


@pytest.mark.parametrize("mixer", stm_lab.list_mixers())
def test_every_mixer_at_an_odd_size_is_left_as_it_was(mixer):
    model = stm_lab.build_model(mixer, "nano").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = invariance(model, (torch.rand(2, 3, 75, 50), torch.tensor([1, 2])), strengths=[0, 7])
    assert result.consistency[0] == 100
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (numbers(2), {"kind": "translatoin"}, "did you mean 'translation'"),
        (numbers(2), {"kind": "rotation"}, "translation"),
        (numbers(2), {"strengths": [0, 32]}, "0 to 31"),
        (numbers(2), {"strengths": [-1]}, "whole pixels"),
        (numbers(2), {"strengths": [1.5]}, "whole pixels"),
        (numbers(2), {"strengths": []}, "whole pixels"),
        (numbers(0), {}, "no images"),
        (10 * numbers(2), {}, "not yet normalised"),
        ((numbers(2), torch.tensor([1])), {}, r"\(1,\) labels for 2 images"),
        ((numbers(2), torch.tensor([3, 10])), {}, "labels from 3 to 10 for the 10 classes"),
        ([1, 2], {}, "a list"),
    ],
)
def test_bad_input(data, options, message):
    with pytest.raises(UserError, match=message) as error:
        invariance(ByPixel(), data, **options)
    assert "\n" not in str(error.value)


def test_a_model_without_classifier():
    with pytest.raises(UserError, match="no classifier"):
        invariance(timm.create_model("test_resnet", num_classes=0), torch.rand(1, 3, 64, 64))


def test_figure():
    (axes,) = invariance(Constant(), numbers(2), strengths=[0, 3]).figure().axes
    assert "%" in axes.get_ylabel()
    assert "pixels" in axes.get_xlabel()
