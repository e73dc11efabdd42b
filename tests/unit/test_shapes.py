"""The drawn data set: exact, free of short cuts, and what its columns say."""

import functools
import hashlib
import io
import math

import numpy as np
import PIL.Image
import pytest
from scipy import ndimage, stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from speed import Stopwatch

from stm_lab.data import rng, shapes

CHANCE_OF_A_FALSE_ALARM = 1e-4


def decoded(example: dict, column: str = "image") -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(example[column]["bytes"])))


@pytest.fixture(scope="module")
def few() -> list[dict]:
    return list(shapes.examples(0, "train", 0, 200))


@functools.cache
def drawn(split: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 64, 64, 3) uint8 and labels (N,)."""
    factor = shapes.factors(0, split, np.arange(number))
    images = np.stack([shapes.render(factor, i)[0] for i in range(number)])
    return images.transpose(0, 2, 3, 1), factor["form"][:, -1]


# ---- exact -----------------------------------------------------------------------------------------------------------


def test_random_words_are_splitmix64():
    # the generator's published first outputs from state 0
    assert rng.words(count=3)[0].tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_random_words_depend_on_their_own_item_alone():
    together = rng.words(5, 1, np.arange(10), count=4)
    assert np.array_equal(rng.words(5, 1, np.array([7, 2]), count=4), together[[7, 2]])
    assert len(np.unique(rng.words(np.arange(100), count=10))) == 1000
    assert not np.array_equal(rng.words(1, 2, count=4), rng.words(2, 1, count=4))


def test_bounded_words_are_uniform():
    draws = rng.below(rng.words(0, np.arange(1000), count=60).ravel(), 6)
    assert stats.chisquare(np.bincount(draws, minlength=6)).pvalue > CHANCE_OF_A_FALSE_ALARM


def test_rounded_sines_do_not_hang_on_the_last_bit_of_a_machines_sine():
    exact = [shapes.ONE * math.sin(2 * math.pi * k / shapes.TURN) for k in range(shapes.TURN)]
    assert min(abs(abs(value) % 1 - 0.5) for value in exact) > 1e-6


def test_everything_is_drawn_in_integers():
    banks = (shapes.sines, shapes.form_stencils, shapes.texture_bank, shapes.light_bank)
    for array in [*(bank() for bank in banks), *shapes.factors(0, "train", np.arange(10)).values()]:
        assert array.dtype.kind in "iu"


def test_pixels_are_the_same_on_every_machine(few):
    pixels = hashlib.sha256(b"".join(decoded(example).tobytes() for example in few)).hexdigest()[:16]
    # Another value here means other images under the same version: count VERSION up, so that caches are not mixed.
    assert (shapes.VERSION, pixels) == (3, "095776c442638fb7")


def test_an_image_depends_on_seed_split_and_number_alone(few):
    assert list(shapes.examples(0, "train", 50, 60)) == few[50:60]
    assert next(shapes.examples(1, "train", 0, 1))["image"] != few[0]["image"]


def test_splits_and_images_differ(few):
    validation = shapes.examples(0, "validation", 0, 200)
    assert len({example["image"]["bytes"] for example in [*few, *validation]}) == 400


# ---- what the columns say --------------------------------------------------------------------------------------------


def test_columns_are_those_of_the_features(few):
    assert all(set(example) == set(shapes.FEATURES) for example in few)
    assert np.bincount([example["label"] for example in few]).tolist() == [20] * 10
    assert {len(example["distractors"]) for example in few} == {1, 2}


def test_images_are_valid_png(few):
    for example in few[:20]:
        assert decoded(example).shape == (64, 64, 3)
        assert set(np.unique(decoded(example, "mask"))) == {0, 255}
        PIL.Image.open(io.BytesIO(example["image"]["bytes"])).verify()


def test_mask_box_size_and_centre_agree(few):
    for example in few:
        mask = decoded(example, "mask")
        assert tuple(example["bbox"]) == PIL.Image.fromarray(mask).getbbox()
        assert (mask > 0).sum() == pytest.approx(math.pi * example["size"] ** 2, rel=0.06)
        y, x = np.nonzero(mask)
        furthest = np.hypot(x + 0.5 - example["center"][0], y + 0.5 - example["center"][1]).max()
        assert furthest < shapes.REACH / 10 * example["size"] + 1


def test_figures_lie_whole_within_the_image():
    factor = shapes.factors(0, "train", np.arange(5000))
    reach = (factor["size"][:, -1] * shapes.REACH // 10)[:, None]
    centre = factor["centre"][:, -1]
    assert (centre - reach >= 0).all()
    assert (centre + reach <= shapes.IMAGE_SIZE * shapes.PIXEL).all()


def test_angles_are_degrees_clockwise(few):
    triangle = shapes.CLASSES.index("triangle")  # its apex, the point furthest from the centre of mass, is up at 0
    for example in (example for example in few if example["label"] == triangle):
        y, x = np.nonzero(decoded(example, "mask"))
        x, y = x - x.mean(), y - y.mean()
        apex = np.hypot(x, y).argmax()
        angle = math.degrees(math.atan2(x[apex], -y[apex]))
        assert abs((angle - example["angle"] + 180) % 360 - 180) < 10


def test_the_figure_is_brighter_than_its_ground_and_distractors_are_darker(few):
    for example in few:
        ground = np.mean(example["ground_color"])
        assert np.mean(example["color"]) - ground > 40
        assert all(ground - np.mean(distractor["color"]) > 80 for distractor in example["distractors"])


# ---- no short cuts ---------------------------------------------------------------------------------------------------


def test_forms_have_one_area_and_stay_within_reach():
    axis = (np.arange(shapes.CELLS) + 0.5 - shapes.CELLS / 2) / shapes.UNIT
    distance = np.hypot(*np.meshgrid(axis, axis))
    for name, stencil in zip(shapes.CLASSES, shapes.form_stencils(), strict=True):
        stencil = stencil.reshape(distance.shape)
        assert stencil.sum() / shapes.UNIT**2 == pytest.approx(math.pi, rel=0.01), name
        assert distance[stencil > 0].max() < shapes.REACH / 10, name


def test_forms_have_contours_of_about_one_length():
    lengths = []
    for stencil in shapes.form_stencils().reshape(-1, shapes.CELLS, shapes.CELLS):
        # the slope across an edge, summed, is its length, whatever its direction
        slopes = np.gradient(ndimage.gaussian_filter(stencil.astype(float), 2))
        lengths.append(np.hypot(*slopes).sum() / shapes.UNIT)
    assert max(lengths) < 1.2 * min(lengths)


def test_boxes_turned_by_any_angle_stay_within_the_stencil():
    for size in (8 * shapes.PIXEL, 11 * shapes.PIXEL, 15 * shapes.PIXEL):
        for angle in range(0, shapes.TURN, 8):
            shapes.coverage(shapes.form_stencils()[0], np.array([700, 801]), size, angle, shapes.IMAGE_SIZE)


def test_no_factor_knows_the_class():
    factor = shapes.factors(0, "train", np.arange(20_000))
    label = factor.pop("form")[:, -1]
    factor.pop("distractors"), factor.pop("light")
    for name, values in factor.items():
        for column in values.reshape(len(label), -1).T:
            groups = [column[label == k] for k in range(10)]
            assert stats.kruskal(*groups).pvalue > CHANCE_OF_A_FALSE_ALARM, name
    for layer in (0, -1):
        table = np.zeros((10, len(shapes.TEXTURES)))
        np.add.at(table, (label, factor["texture"][:, layer]), 1)
        assert stats.chi2_contingency(table).pvalue > CHANCE_OF_A_FALSE_ALARM


def pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), 16, 4, 16, 4, 3).mean(axis=(2, 4)).reshape(len(images), -1)


def raw_pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32)


def colours(images: np.ndarray) -> np.ndarray:
    """Histograms: joint, of 6 levels a channel, and 32 levels of each channel."""
    level = images.astype(int) * 6 // 256
    joint = [np.bincount(image.ravel(), minlength=216) for image in level @ [36, 6, 1]]
    single = [[np.bincount(channel.ravel() // 8, minlength=32) for channel in np.moveaxis(i, -1, 0)] for i in images]
    return np.sqrt(np.concatenate([joint, np.reshape(single, (len(images), -1))], axis=1))


def textures(images: np.ndarray) -> np.ndarray:
    """Statistics that know neither place nor direction: local spread, local binary patterns."""
    grey = images.astype(np.float32).mean(axis=-1)
    columns = []
    for size in (2, 4, 8, 16):
        spread = grey.reshape(len(grey), 64 // size, size, 64 // size, size).std(axis=(2, 4)).reshape(len(grey), -1)
        columns.append(np.quantile(spread, (0.1, 0.25, 0.5, 0.75, 0.9, 0.97), axis=1).T)
        columns.append(spread.mean(axis=1, keepdims=True))
    for d in (1, 2, 4):
        circle = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
        around = [grey[:, d + y * d : 64 - d + y * d, d + x * d : 64 - d + x * d] for y, x in circle]
        above = np.stack(around) >= grey[:, d:-d, d:-d]
        uniform = (above != np.roll(above, 1, axis=0)).sum(axis=0) <= 2
        code = np.where(uniform, above.sum(axis=0), 9)
        columns.append([np.bincount(one.ravel(), minlength=10) for one in code])
    return np.concatenate(columns, axis=1)


def spectrum(images: np.ndarray) -> np.ndarray:
    """The whole image's power by frequency, on rings: this sees outlines too, not only textures."""
    grey = images.astype(np.float32).mean(axis=-1)
    frequency = np.fft.fftfreq(64) * 64
    ring = np.hypot(*np.meshgrid(frequency, frequency)).round().astype(int).ravel()
    power = abs(np.fft.fft2(grey - grey.mean(axis=(1, 2), keepdims=True))) ** 2
    return np.log1p([np.bincount(ring, one.ravel())[1:] for one in power])


def probe(features, train: int, validation: int, regularisation: float) -> float:
    """Accuracy of a linear classifier on the validation split."""
    (images, labels), (unseen, answers) = drawn("train", train), drawn("validation", validation)
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=regularisation, max_iter=100))
    return judge.fit(features(images), labels).score(features(unseen), answers)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize("features", [pixels, colours, textures, spectrum])
def test_linear_probes_find_little(features):
    assert probe(features, 1500, 1000, 1e-3) <= 0.2


PROBES = [(raw_pixels, 1e-5), (colours, 1e-2), (textures, 1e-2), (spectrum, 1e-2)]


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize(("features", "regularisation"), PROBES)
def test_linear_probes_find_little_in_thousands_of_images(features, regularisation):
    assert probe(features, 6000, 2000, regularisation) <= 0.2


# ---- speed -----------------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_a_thousand_images_a_second():
    """Of an idle core, as the promise says."""
    list(shapes.examples(0, "train", 0, 10))  # the banks are made once
    stopwatch = Stopwatch()
    for start in range(0, 2000, 200):
        stopwatch.time(lambda start=start: list(shapes.examples(0, "train", start, start + 200)))
    assert 200 / stopwatch.median > 1000, stopwatch.seconds
