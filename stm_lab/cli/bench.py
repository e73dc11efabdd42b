"""`bench data`: how many training views a core makes, and what share of a model's demand that is.

Two measures, each on one thread and without a worker process, from prepared images: 64x64 with flips and crops, held in
memory; and 224x224 with the published augmentation, decoded anew for every view. Seconds are of the processor, so a
shared machine tells nearly the same as an idle one. The demand is what a model trains on this same core at that size,
so that the ratio means something on any machine: above 1, one core of loading feeds more than one core of training.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from datasets import ClassLabel, Dataset, Features, Image

from stm_lab.data.loading import load, take
from stm_lab.data.recipe import Recipe
from stm_lab.data.views import Augmentation, TrainingViews
from stm_lab.models import build_model

SETTINGS = {  # image size -> (name, augmentation, shorter side of the images that are prepared for it)
    64: ("flips and crops", Augmentation(flip=True, crop="pad"), 64),
    224: (
        "the published augmentation",
        Augmentation(flip=True, crop="resized", auto_augment="rand-m9-mstd0.5-inc1", erasing=0.25),
        256,
    ),
}
BATCH = 64


@dataclass(frozen=True)
class Rate:
    """Images a second and core: the median of some repeats, their smallest and largest, and the ratio to the demand."""

    image_size: int
    what: str
    images_per_second: float
    lowest: float
    highest: float
    demand: float  # images a second and core that the model trains

    @property
    def ratio(self) -> float:
        return self.images_per_second / self.demand


def bench_data(
    recipe: Recipe | None = None, *, data_root: Path | None = None, repeats: int = 5, images: int = 512
) -> list[Rate]:
    """The rates of SETTINGS on the training images (else the validation images) of a recipe, or on synthetic ones.

    Args:
        repeats: how often each is measured, after one run that warms up.
        images: how many views make a repeat.

    Raises UserError as `load` does.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_rate(size, recipe, data_root, repeats, images) for size in SETTINGS]
    finally:
        torch.set_num_threads(threads)


def _rate(size: int, recipe: Recipe | None, data_root: Path | None, repeats: int, images: int) -> Rate:
    what, augmentation, prepared = SETTINGS[size]
    if recipe is None:
        stored = synthetic_photographs(min(images, 64), prepared)
    else:
        split = "train" if "train" in recipe.counts else "validation"
        stored = load(recipe, split, data_root=data_root, image_size=prepared)
        stored = take(stored, min(images, len(stored)))
    views = TrainingViews(stored, image_size=size, augmentation=augmentation)
    rows = np.arange(images) % len(views)

    def make_views(epoch: int) -> None:
        views.set_epoch(epoch)
        for start in range(0, images, BATCH):
            views.__getitems__(rows[start : start + BATCH])

    rates = _rates(make_views, repeats, images)
    return Rate(size, what, statistics.median(rates), min(rates), max(rates), _demand(size))


def _rates(work: Callable[[int], None], repeats: int, images: int) -> list[float]:
    rates = []
    for repeat in range(repeats + 1):
        started = time.process_time()
        work(repeat)
        rates.append(images / (time.process_time() - started))
    return rates[1:]


def _demand(size: int) -> float:
    """Images a second that convnext, the quickest mixer of the paper, trains: nano at 64 pixels, micro at 224."""
    model = build_model("convnext", "nano" if size == 64 else "micro", num_classes=100).train()
    images = torch.rand(16, 3, size, size)

    def step(_: int) -> None:
        torch.nn.functional.cross_entropy(model(images), torch.zeros(16, dtype=torch.int64)).backward()

    return statistics.median(_rates(step, 3, 16))


def synthetic_photographs(number: int, shorter_side: int, seed: int = 0) -> Dataset:
    """JPEG images like photographs: 4:3, and noise with about their spectrum (1/f); rather heavier than most in bytes.

    Columns `image` and `label`, as `load` gives them; no two are alike.
    """
    draw = np.random.default_rng(seed)
    height, width = shorter_side, shorter_side * 4 // 3
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    rows = []
    for _ in range(number):
        noise = draw.standard_normal((4, height, width))
        noise = noise[:1] + noise[1:] / 4  # mostly the same in all three colours
        pixels = np.fft.irfft2(np.fft.rfft2(noise) / frequency**1.2, s=(height, width))
        pixels = 128 + 50 * (pixels - pixels.mean()) / pixels.std()
        sink = io.BytesIO()
        picture = PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
        picture.save(sink, "JPEG", quality=95, subsampling=0)
        rows.append({"bytes": sink.getvalue(), "path": None})
    features = Features({"image": Image(), "label": ClassLabel(names=["noise", "none"])})
    return Dataset.from_dict({"image": rows, "label": [0] * number}, features=features)
