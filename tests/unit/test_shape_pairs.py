"""Pairs of forms: exact, balanced, and unsolvable for whoever cannot bring two places together."""

import hashlib
import io

import numpy as np
import PIL.Image
import pytest
from scipy import stats

from stm_lab.data import shape_pairs, shapes
from stm_lab.train import fit

FACTORS = shape_pairs.factors(0, "train", np.arange(4000))


def decoded(example):
    return np.asarray(PIL.Image.open(io.BytesIO(example["image"]["bytes"])))


@pytest.fixture(scope="module")
def few():
    return list(shape_pairs.examples(0, "train", 0, 60))


def test_pixels_are_the_same_on_every_machine(few):
    pixels = hashlib.sha256(b"".join(decoded(example).tobytes() for example in few)).hexdigest()[:16]
    # Another value here means other images under the same version: count VERSION up, so that caches are not mixed.
    assert (shape_pairs.VERSION, pixels) == (1, "32014a21aa884b7c")


def test_an_image_depends_on_seed_split_and_number_alone(few):
    assert list(shape_pairs.examples(0, "train", 20, 30)) == few[20:30]
    assert next(shape_pairs.examples(1, "train", 0, 1))["image"] != few[0]["image"]
    assert next(shape_pairs.examples(0, "validation", 0, 1))["image"] != few[0]["image"]


def test_the_class_is_the_relation(few):
    for example in few:
        same = example["forms"][0] == example["forms"][1]
        assert shape_pairs.CLASSES[example["label"]] == ("same" if same else "different")
        assert decoded(example).shape == (128, 128, 3)


def test_what_is_present_says_nothing():
    """Neither form's kind, size, angle, place, texture or colour depends on the class."""
    label = FACTORS["label"]
    for name in ("form", "size", "angle", "centre", "texture", "contrast", "colour"):
        for column in FACTORS[name].reshape(len(label), -1).T:
            groups = [column[label == k] for k in (0, 1)]
            assert stats.kruskal(*groups).pvalue > 1e-4, name
    assert np.bincount(label).tolist() == [2000, 2000]


def test_no_window_of_63_pixels_holds_parts_of_both():
    reach = FACTORS["size"] * shape_pairs.REACH / 10
    low, high = FACTORS["centre"] - reach[..., None], FACTORS["centre"] + reach[..., None]
    gap = (low[:, 1] - high[:, 0]).max(axis=1) / shapes.PIXEL  # along the axis on which they are apart
    assert gap.min() >= 64
    assert (low >= 0).all()
    assert (high <= 128 * shapes.PIXEL).all()


def test_forms_stay_within_their_reach():
    axis = (np.arange(shapes.CELLS) + 0.5 - shapes.CELLS / 2) / shapes.UNIT
    distance = np.hypot(*np.meshgrid(axis, axis))
    for form in shape_pairs.FORMS:
        stencil = shapes.form_stencils()[shapes.CLASSES.index(form)].reshape(distance.shape)
        assert distance[stencil > 0].max() < shape_pairs.REACH / 10


@pytest.mark.soak
def test_identity_stays_at_chance_and_a_mixer_with_reach_does_not(tmp_path):
    short = {"train_size": 3000, "validation_size": 300, "epochs": 1.5, "device": "cpu"}
    top1 = {
        mixer: fit("pairs", mixer=mixer, **short, out=str(tmp_path / mixer)).metrics["top1_raw"]
        for mixer in ("identity", "swin")
    }
    assert abs(top1["identity"] - 50) < 10  # three standard deviations of 300 guesses are 8.7
    assert top1["swin"] > 70
