"""Decoding, and the views that training sees."""

import io
import random

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from torch.utils.data import DataLoader

from stm_lab.data import to_tensors
from stm_lab.data.views import Augmentation, TrainingViews, _posterize
from stm_lab.util.errors import UserError
from stm_lab.util.validation import validated

FEATURES = Features({"image": Image(), "label": ClassLabel(names=["even", "odd"])})
EVERYTHING = Augmentation(
    flip=True, crop="resized", auto_augment="rand-m9-mstd0.5-inc1", color_jitter=0.4, erasing=0.5
)  # fmt: skip


def stored(images: list[PIL.Image.Image | bytes]) -> Dataset:
    def png(image: PIL.Image.Image) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    rows = [{"bytes": i if isinstance(i, bytes) else png(i), "path": f"{k}.png"} for k, i in enumerate(images)]
    return Dataset.from_dict({"image": rows, "label": [k % 2 for k in range(len(rows))]}, features=FEATURES)


@pytest.fixture(scope="module")
def noise() -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    return stored([PIL.Image.fromarray(image) for image in pixels])


def views_of(dataset: Dataset, augmentation: Augmentation, seed: int = 0) -> TrainingViews:
    return TrainingViews(dataset, image_size=32, augmentation=augmentation, seed=seed)


def all_of(views: TrainingViews) -> torch.Tensor:
    return views.__getitems__(range(len(views)))[0]


# ---- to_tensors ------------------------------------------------------------------------------------------------------


def test_images_of_the_right_size_stay_as_they_are(noise):
    images, labels = to_tensors(noise, 32)
    assert (images.dtype, images.shape) == (torch.uint8, (40, 3, 32, 32))
    assert labels.dtype == torch.int64
    assert labels.tolist() == noise["label"][:]
    for image, row in zip(images, noise, strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(row["image"]))


def test_subsets_and_reorderings_decode_their_own_rows(noise):
    rows = [7, 3, 31, 3]
    assert torch.equal(to_tensors(noise.select(rows), 32)[0], to_tensors(noise, 32)[0][rows])


def test_shorter_side_is_resized_and_the_centre_cut_out():
    image = PIL.Image.new("RGB", (192, 64), (255, 0, 0))
    image.paste((0, 255, 0), (64, 0, 128, 64))  # the middle third is green
    for size in (32, 64):
        (wide, tall), _ = to_tensors(stored([image, image.transpose(PIL.Image.Transpose.ROTATE_90)]), size)
        for tensor in (wide, tall):
            inner = tensor[:, 4:-4, 4:-4]
            assert tensor.shape == (3, size, size)
            assert (inner[0] == 0).all()
            assert (inner[1] == 255).all()


def test_reducing_is_antialiased():
    checks = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    images, _ = to_tensors(stored([PIL.Image.fromarray(checks)]), 32)
    assert (images.float() - 127.5).abs().max() < 8


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA"])
def test_other_kinds_of_images_become_rgb(mode):
    images, _ = to_tensors(stored([PIL.Image.new("RGB", (32, 32), (255, 255, 255)).convert(mode)]), 32)
    assert (images == 255).all()


def test_broken_image_is_named(noise):
    whole = noise.with_format("arrow")[5]["image"][0].as_py()["bytes"]
    pieces = stored([PIL.Image.new("RGB", (32, 32)), whole[: len(whole) // 2]])
    with pytest.raises(UserError, match=r"^broken image in row 1 \(1\.png\): [^\n]+$"):
        to_tensors(pieces, 32)
    with pytest.raises(UserError, match=r"row 1 \(1\.png\)"):
        views_of(pieces, Augmentation())
    late = views_of(pieces, Augmentation(crop="resized"))
    late.__getitems__([0])
    with pytest.raises(UserError, match=r"row 1 \(1\.png\)"):
        late.__getitems__([0, 1])
    with pytest.raises(UserError, match=r"row 0 \(0\.png\)"):
        to_tensors(stored([b"not an image"]), 32)


def test_too_small_a_size_is_refused(noise):
    with pytest.raises(UserError, match="image_size 0 is too small; at least 1"):
        to_tensors(noise, 0)
    with pytest.raises(UserError, match="image_size 0"):
        TrainingViews(noise, image_size=0, augmentation=Augmentation())


# ---- what a view is --------------------------------------------------------------------------------------------------


def test_without_augmentation_views_are_the_images(noise):
    views = views_of(noise, Augmentation())
    images, labels = views.__getitems__([3, 0, 3])
    expected, expected_labels = to_tensors(noise, 32)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert torch.equal(images, expected[[3, 0, 3]].float() / 255)
    assert torch.equal(labels, expected_labels[[3, 0, 3]])
    assert torch.equal(views[5][0], expected[5].float() / 255)


def test_flips_turn_about_half_of_the_images(noise):
    views, plain = views_of(noise, Augmentation(flip=True)), all_of(views_of(noise, Augmentation()))
    flipped = 0
    for epoch in range(10):
        views.set_epoch(epoch)
        for view, image in zip(all_of(views), plain, strict=True):
            mirrored = torch.equal(view, image.flip(-1))
            assert mirrored or torch.equal(view, image)
            flipped += mirrored
    assert 150 < flipped < 250  # 400 fair coins: five standard deviations are 50


def test_padded_crops_are_shifts_of_the_mirrored_image(noise):
    padding = 3
    views = views_of(noise, Augmentation(crop="pad", crop_padding=padding))
    plain = all_of(views_of(noise, Augmentation()))
    padded = np.pad(plain.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)), mode="reflect")
    seen = set()
    for epoch in range(10):
        views.set_epoch(epoch)
        for view, image in zip(all_of(views).numpy(), padded, strict=True):
            shifts = [
                (y, x)
                for y in range(2 * padding + 1)
                for x in range(2 * padding + 1)
                if np.array_equal(image[:, y : y + 32, x : x + 32], view)
            ]
            assert len(shifts) == 1
            seen.update(shifts)
    assert len(seen) == (2 * padding + 1) ** 2


def test_resized_crops_show_parts_of_large_images():
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    views = TrainingViews(
        stored([PIL.Image.fromarray(ramp.copy())] * 20), image_size=48, augmentation=Augmentation(crop="resized")
    )
    images = all_of(views) * 255
    assert images.shape == (20, 3, 48, 48)
    spans = images[:, 0, 24, -1] - images[:, 0, 24, 0]
    assert (spans > 5).all()
    assert spans.max() - spans.min() > 20


def test_erasing_puts_noise_into_one_rectangle(noise):
    views, plain = all_of(views_of(noise, Augmentation(erasing=1.0))), all_of(views_of(noise, Augmentation()))
    changed = ((views - plain).abs() > 1e-5).all(1)  # (N, 32, 32)
    for mask in changed:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert 0.95 * area <= mask.sum() <= area <= 0.4 * 32 * 32
    assert torch.equal(all_of(views_of(noise, Augmentation(erasing=0.0))), plain)


def test_randaugment_may_ask_for_no_bits_at_all(noise):
    image = noise[0]["image"]
    assert not np.asarray(_posterize(image, 0)).any()
    assert np.array_equal(np.asarray(_posterize(image, 3)), np.asarray(image) & 0b11100000)
    strong = views_of(noise, Augmentation(auto_augment="rand-m10-n4-p1.0-mstd0.5-inc1"))
    for epoch in range(5):
        strong.set_epoch(epoch)
        assert all_of(strong).isfinite().all()


# ---- what a view depends on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", [Augmentation(flip=True, crop="pad"), EVERYTHING], ids=["fast", "everything"])
def test_a_view_depends_on_seed_epoch_and_row_alone(noise, augmentation):
    views = views_of(noise, augmentation)
    views.set_epoch(2)
    together = all_of(views)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    order = torch.randperm(40)
    for rows in order.split(7):
        assert torch.equal(views.__getitems__(rows.tolist())[0], together[rows])
    again = views_of(noise, augmentation)
    again.set_epoch(2)
    assert torch.equal(all_of(again), together)
    again.set_epoch(3)
    assert not torch.equal(all_of(again), together)
    other = views_of(noise, augmentation, seed=1)
    other.set_epoch(2)
    assert not torch.equal(all_of(other), together)


def test_the_global_generators_are_left_as_they_were(noise):
    views = views_of(noise, EVERYTHING)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    all_of(views)
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_hands_out_the_same_views_and_its_workers_see_the_epoch(noise, workers):
    views = views_of(noise, Augmentation(flip=True, crop="pad", color_jitter=0.3))
    loader = DataLoader(
        views, batch_size=16, collate_fn=TrainingViews.collate, num_workers=workers, persistent_workers=workers > 0
    )
    expected = views_of(noise, Augmentation(flip=True, crop="pad", color_jitter=0.3))
    for epoch in (0, 1):
        views.set_epoch(epoch)
        expected.set_epoch(epoch)
        batches = list(loader)
        assert [len(labels) for _, labels in batches] == [16, 16, 8]
        assert torch.equal(torch.cat([images for images, _ in batches]), all_of(expected))
        assert torch.equal(torch.cat([labels for _, labels in batches]), expected.labels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"flips": True}, "did you mean 'flip'"),
        ({"crop": "padd"}, "did you mean 'pad'"),
        ({"crop_padding": 0}, "crop_padding"),
        ({"erasing": 1.5}, "erasing"),
        ({"erasing": True}, "erasing = True"),
        ({"erasing": "0.5"}, "erasing = '0.5'"),
        ({"color_jitter": float("nan")}, "color_jitter = nan"),
        ({"flip": "yes"}, "flip = 'yes'"),
        ({"flip": 1}, "flip = 1"),
        ({"crop_padding": 4.0}, r"crop_padding = 4\.0"),
        ({"auto_augment": "rand-m9-foo"}, "rand-m9-mstd0.5-inc1"),
        ({"auto_augment": "randaugment"}, "rand-m9-mstd0.5-inc1"),
    ],
)
def test_faulty_augmentation_is_refused(change, words):
    with pytest.raises(UserError, match=words):
        validated(Augmentation, change, "augmentation")
