"""Invariance: models whose answers to a moved picture are known without running the measure."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import timm
import torch
from companions import companion
from kinds import each_kind
from PIL import Image
from torch import nn

import stm_lab
from stm_lab import figures
from stm_lab.measure import invariance
from stm_lab.measure.invariance import DIRECTIONS, KINDS, PROTOCOLS
from stm_lab.measure.views import (
    Pictures,
    folded,
    keys_cubic,
    published_boxes,
    published_shift,
    scaled,
    turned,
    window,
)
from stm_lab.util.errors import UserError

OWN_12 = companion("12")
rescale, rotate, translate = OWN_12.rescale, OWN_12.rotate, OWN_12.translate
GOLDEN = Path(__file__).parents[1] / "golden" / "numbers" / "jitter_boxes.json"
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
            "protocol": "straight",
            "images": 3,
            "strength": strength,
            "true_strength": strength,
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


@each_kind
def test_every_kind_of_mixer_at_an_odd_size_is_left_as_it_was(mixer):
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
        (numbers(2), {"kind": "rotation_after"}, "did you mean 'rotation_after_crop'"),
        (numbers(2), {"protocol": "publised"}, "did you mean 'published'"),
        (numbers(2), {"kind": "rotation", "strengths": [181]}, "degrees, 0 to 180"),
        (numbers(2), {"kind": "scale", "strengths": [0]}, "factors, 0.1 to 10"),
        (numbers(2), {"kind": "scale", "strengths": [float("nan")]}, "factors, 0.1 to 10"),
        (numbers(2), {"kind": "scale", "protocol": "published", "strengths": [20]}, "crop ratios"),
        (numbers(2), {"image_size": 48}, "image_size is 48, but the images' side 32"),
        (numbers(2), {"crop_pct": 1.5}, "crop_pct is 1.5"),
        (numbers(2), {"batch_size": 0}, "at least one image"),
        (numbers(2), {"strengths": [0, 32]}, "whole pixels in images of side 32, 0 to 31"),
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
    (axes,) = figures.of(invariance(Constant(), numbers(2), strengths=[0, 3])).axes
    assert "%" in axes.get_ylabel()
    assert "pixels" in axes.get_xlabel()


# ---- views ----------------------------------------------------------------------------------------------------------


def ragged():
    """Three pictures of different sizes on one canvas, whose filling must never be seen."""
    sizes = torch.tensor([[20, 30], [25, 20], [20, 20]])
    pixels = torch.full((3, 3, 25, 30), torch.nan)
    for place, (height, width) in zip(pixels, sizes.tolist(), strict=True):
        place[:, :height, :width] = torch.from_numpy(RNG.random((3, height, width)))
    return Pictures(pixels, sizes)


@pytest.mark.parametrize("length", [1, 2, 3, 8])
def test_folded_places_are_those_of_numpy(length):
    places = np.pad(np.arange(length), 20, mode="reflect") if length > 1 else np.zeros(41, int)
    np.testing.assert_array_equal(folded(torch.arange(-20, length + 20), torch.tensor(length)).numpy(), places)


@pytest.mark.parametrize("mirror", [True, False])
def test_windows_of_pictures_of_different_sizes(mirror):
    pictures = ragged()
    start = torch.tensor([[-4, 3], [2, -7], [5, 9]])
    cut = window(pictures, start, (16, 18), mirror=mirror)
    for i, (height, width) in enumerate(pictures.sizes.tolist()):
        picture = pictures.pixels[i, :, :height, :width].numpy()
        padded = np.pad(picture, ((0, 0), (20, 20), (20, 20)), mode="reflect" if mirror else "constant")
        top, left = (start[i] + 20).tolist()
        np.testing.assert_array_equal(cut[i].numpy(), padded[:, top : top + 16, left : left + 18])


@pytest.mark.parametrize("shape", [(9, 9), (8, 8), (7, 11)])
def test_quarter_turns_are_exact(shape):
    images = torch.from_numpy(RNG.random((2, 3, *shape)))
    torch.testing.assert_close(rotate(images, 0), images, rtol=0, atol=0)
    torch.testing.assert_close(rotate(images, 180), images.rot90(2, (-2, -1)), rtol=0, atol=0)
    if shape[0] == shape[1]:
        for quarters in (-1, 1, 3):
            turned_by_torch = images.rot90(quarters, (-2, -1))
            torch.testing.assert_close(rotate(images, 90 * quarters), turned_by_torch, rtol=0, atol=0)


@pytest.mark.parametrize("degrees", [30, 90, 137, -50])
def test_turning_goes_counter_clockwise_about_the_middle(degrees):
    """A dot to the right of the middle is found where trigonometry says, within the pixel."""
    image = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    image[..., 20, 32] = 1
    # not by the exact path of quarter turns
    answer = turned(Pictures.alike(image), (41, 41), degrees + 1e-6, mirror=False)[0, 0].numpy()
    rows, columns = np.mgrid[:41, :41]
    angle = np.deg2rad(degrees)
    assert (answer * rows).sum() / answer.sum() == pytest.approx(20 - 12 * np.sin(angle), abs=0.15)
    assert (answer * columns).sum() / answer.sum() == pytest.approx(20 + 12 * np.cos(angle), abs=0.15)


def test_there_and_back_is_where_one_was():
    y, x = torch.meshgrid(torch.linspace(0, 3, 64), torch.linspace(0, 3, 64), indexing="ij")
    image = (0.5 + 0.4 * torch.sin(x) * torch.cos(y)).expand(1, 3, -1, -1)  # smooth
    there = rotate(rotate(image, 20), -20)[..., 16:-16, 16:-16]
    assert (there - image[..., 16:-16, 16:-16]).abs().max() < 2e-3
    back = rescale(rescale(image, 1.3), 1 / 1.3)[..., 16:-16, 16:-16]
    assert (back - image[..., 16:-16, 16:-16]).abs().max() < 2e-3


@pytest.mark.parametrize("mirror", [True, False])
def test_what_comes_in_when_a_picture_is_turned(mirror):
    white = Pictures.alike(torch.ones(1, 3, 32, 32))
    corners = turned(white, (32, 32), 45, mirror=mirror)[0, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == (1 if mirror else 0)).all()


def test_rotation_before_the_crop_has_the_pictures_own_corners_and_after_it_has_not():
    """White all round a black square: turned before the crop, white comes into the corners; after it, none does."""
    images = torch.ones(1, 3, 64, 64)
    images[..., 16:48, 16:48] = 0
    labels = torch.tensor([0])

    class White(nn.Module):
        def forward(self, x):
            return torch.stack([x.new_zeros(len(x)), x.amax((1, 2, 3)) - 0.5], 1)  # class 1: anything white

    for kind, kept in (("rotation", 0), ("rotation_after_crop", 100)):
        result = invariance(White(), (images, labels), kind=kind, strengths=[45], image_size=32)
        assert result.consistency == kept


@pytest.mark.parametrize("size", [(32, 32), (31, 24)])
def test_scale_one_is_the_identity_and_two_is_twice_as_large(size):
    images = torch.from_numpy(RNG.random((2, 3, *size)))
    torch.testing.assert_close(rescale(images, 1), images, rtol=0, atol=1e-12)
    block = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    block[..., 24:40, 28:36] = 1
    for factor in (0.5, 1.5, 2):
        area = scaled(Pictures.alike(block), (64, 64), factor, mirror=False).sum().item()
        assert area == pytest.approx(16 * 8 * factor**2, rel=0.02)


def test_scaling_down_does_not_alias():
    """Stripes one pixel wide, at half the size, are grey; without a wider kernel they would stay stripes."""
    stripes = (torch.arange(64) % 2).double().expand(1, 1, 64, 64)
    answer = rescale(stripes, 0.45)[..., 16:48, 16:48]
    assert (answer - 0.5).abs().max() < 0.06


@pytest.mark.parametrize("side", [45, 64, 90])
def test_scaling_is_pillows_bicubic(side):
    pixels = (64 + RNG.random((64, 64, 3)) * 128).astype(np.uint8)  # Pillow clips between rows and columns, too
    by_pillow = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)) / 255
    pictures = Pictures.alike(torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 255)
    ours = scaled(pictures, (side, side), side / 64, mirror=False, centre=torch.tensor([[32.0, 32.0]]))
    assert np.abs(ours[0].permute(1, 2, 0).numpy() - by_pillow).max() < 1.6 / 255  # it rounds twice to 8 bits


def test_keys_kernel():
    assert keys_cubic(torch.arange(-3.0, 4)).tolist() == [0, 0, 0, 1, 0, 0, 0]
    parts = keys_cubic(torch.tensor([-1.3, -0.3, 0.7, 1.7], dtype=torch.float64))
    assert parts.sum() == pytest.approx(1, abs=1e-12)


# ---- the published protocol -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text())["cases"])
def test_published_boxes_are_the_golden_ones(case):
    _, strength, _, mode = case.split()
    expected = json.loads(GOLDEN.read_text())["cases"][case]
    rows = torch.arange(1, 257.0)[:, None].expand(256, 256)
    pixels = torch.stack([rows, rows.T, torch.ones(256, 256)])[None]  # where each comes from, and that it does
    pictures = Pictures.alike(pixels)
    start, low, high = published_boxes(pictures.sizes, 224, int(strength), torch.tensor([int(mode)]))
    row, column, shown = window(pictures, start, (224, 224), mirror=False, within=(low, high))[0]
    assert list(shown.shape) == expected["out_shape"]
    lines, files = shown.amax(1).bool(), shown.amax(0).bool()
    bars = [[int(axis.long().argmax()), int(axis.flip(0).long().argmax())] for axis in (lines, files)]
    assert bars == [expected["zero_rows_top_bottom"], expected["zero_cols_left_right"]]
    assert [row[row > 0].min() - 1, column[column > 0].min() - 1] == expected["first_source_pixel_yx"]


def test_the_published_axis_is_bent():
    assert [published_shift(256, 224, s) for s in (0, 16, 20, 64)] == [0, 16, 18, 40]
    result = invariance(Constant(), torch.rand(1, 3, 224, 224), protocol="published")
    assert result.strengths.tolist() == list(range(0, 65, 4))
    assert result.true_strengths.tolist() == [s if s <= 16 else 16 + (s - 16) / 2 for s in range(0, 65, 4)]
    assert result.directions == ("one of seven",)


@pytest.mark.slow
def test_the_eighth_direction_never_comes():
    """A dot to the lower left of the middle gets to the upper right by the one direction that is not drawn, only."""
    images = torch.zeros(200, 3, 64, 64)
    images[..., 35:37, 26:28] = 1

    class Quarter(nn.Module):
        def forward(self, x):
            place = x[:, 0].flatten(1).argmax(1)
            return nn.functional.one_hot(2 * (place // 64 // 32) + (place % 64) // 32, 4).float()

    straight = invariance(Quarter(), (images, torch.ones(200, dtype=torch.int64)), strengths=[12])
    by = dict(zip(straight.directions, straight.accuracy_by_direction[0], strict=True))
    assert {name for name, percent in by.items() if percent} == {"up-right"}
    seen = [
        invariance(Quarter(), (images, torch.full((200,), n)), protocol="published", strengths=[12]).accuracy[0]
        for n in range(4)
    ]
    assert sum(seen) == pytest.approx(100)
    assert seen[1] == 0  # numbers: upper left, upper right, lower left, lower right
    assert min(seen[0], seen[2], seen[3]) > 10


def test_published_scales_and_angles():
    images = torch.rand(1, 3, 224, 224)
    scale = invariance(Constant(), images, kind="scale", protocol="published")
    assert scale.strengths.tolist() == [0.2, 0.325, 0.45, 0.575, 0.7, 0.825, 0.95, 1.075, 1.2, 1.325, 1.45, 1.575, 1.7,
                                        1.825, 1.95]  # fmt: skip
    np.testing.assert_allclose(scale.true_strengths, [int(224 / ratio) / 256 for ratio in scale.strengths])
    turns = invariance(Constant(), images, kind="rotation", protocol="published")
    assert turns.strengths.tolist() == list(range(0, 91, 5))
    assert turns.directions == ("counter-clockwise",)


def test_the_published_standard_view_is_that_of_pillow():
    """Resized to 256, the centre of 224 cut out: by the probe of a model that gives back its input's pixels."""
    pixels = (RNG.random((300, 400, 3)) * 255).astype(np.uint8)
    seen = []

    class Probe(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.new_zeros(len(x), 2)

    dataset = one_picture(pixels)
    invariance(Probe(), dataset, protocol="published", kind="scale", strengths=[1.95, 0.45], image_size=224)
    resized = Image.fromarray(pixels).resize((341, 256), Image.Resampling.BICUBIC)
    standard = np.asarray(resized)[16:240, 58:282] / 255
    np.testing.assert_allclose(seen[0][0].permute(1, 2, 0).numpy(), standard, atol=1e-6)
    small = np.asarray(resized.resize((153, 114), Image.Resampling.BICUBIC)) / 255
    framed = np.zeros((224, 224, 3))
    framed[55:169, 36:189] = small  # 224 / 1.95 = 114 rows, centred
    away = np.abs(seen[1][0].permute(1, 2, 0).numpy() - framed)
    assert np.median(away) < 0.02
    assert (seen[1][0, :, :54] == 0).all()
    assert (seen[1][0, :, :, :34] == 0).all()


def one_picture(pixels):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    return datasets.Dataset.from_dict({"image": [Image.fromarray(pixels)], "label": [0]}, features=features)


def test_a_wide_photograph_gives_real_context():
    """Twice as wide as high: a shift to the side shows the photograph's own pixels, not their mirror image."""
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, :32] = 255  # left of the standard view
    answers = []

    class Left(nn.Module):
        def forward(self, x):
            answers.append(x[0, 0, 32, 0].item())
            return x.new_zeros(len(x), 2)

    invariance(Left(), one_picture(pixels), strengths=[0, 8], image_size=64, crop_pct=1.0)
    names = dict(zip(DIRECTIONS, answers[1:], strict=True))
    assert answers[0] == 0
    assert {name for name, value in names.items() if value} == {"right", "up-right", "down-right"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_pools_over_equal_pixels_is_consistent(kind, protocol):
    """The brightest value of a picture with one bright colour that no view loses, against a fixed bound."""

    class Brightest(nn.Module):
        def forward(self, x):
            return x.amax((2, 3))

    plain = nn.functional.one_hot(torch.tensor([0, 2, 1]), 3).float()[:, :, None, None].expand(-1, -1, 40, 40)
    result = invariance(Brightest(), (plain, torch.tensor([0, 2, 1])), kind=kind, protocol=protocol)
    assert (result.consistency == 100).all()
    assert (result.accuracy == 100).all()


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_batches_change_nothing_in_any_view(kind, protocol):
    model = timm.create_model("test_resnet", num_classes=5).eval()
    images = torch.rand(7, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    how = {"kind": kind, "protocol": protocol, "strengths": [0.7, 1.5] if kind == "scale" else [4, 15], "seed": 3}
    one, other = (invariance(model, images, batch_size=size, **how) for size in (3, 7))
    np.testing.assert_array_equal(one.consistency_by_direction, other.consistency_by_direction)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_figure_with_its_unit(kind):
    figure = figures.of(invariance(Constant(), (numbers(2), torch.tensor([1, 1])), kind=kind))
    label = figure.axes[-1].get_xlabel()
    assert {"translation": "pixels", "scale": "times"}.get(kind, "degrees") in label
    assert "Constant" in figure.get_label()


def test_models_of_one_dataset_share_its_decoding(monkeypatch):
    from stm_lab.data import views

    calls, decode = [], views.decoded_images
    monkeypatch.setattr(views, "decoded_images", lambda *given: calls.append(given) or decode(*given))
    dataset = one_picture((RNG.random((40, 60, 3)) * 255).astype(np.uint8))
    first = invariance(ByColour(), dataset, strengths=[0, 3], image_size=32)
    again = invariance(ByColour(), dataset, strengths=[0, 3], image_size=32)
    np.testing.assert_array_equal(first.consistency, again.consistency)
    assert len(calls) == 1
    invariance(ByColour(), dataset, strengths=[0, 3], image_size=32, crop_pct=0.5)
    assert len(calls) == 2
    invariance(ByColour(), one_picture(np.zeros((40, 60, 3), np.uint8)), strengths=[0], image_size=32)
    assert len(calls) == 3
