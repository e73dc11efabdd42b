"""`bench data`: how many training views a core makes, beside how many images it trains. `bench train`: the loop's cost.

Of views there are two measures, each on one thread and without a worker process, from prepared images: 64x64 with
flips and crops, held in memory; and 224x224 with the published augmentation, decoded anew for every view. Seconds are
of the processor, so a shared machine reports nearly the same as an idle one.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import torch
from datasets import ClassLabel, Dataset, Features, Image

from stm_lab import data
from stm_lab.data.augmentation import Augmentation
from stm_lab.data.recipe import Recipe
from stm_lab.data.views import TrainingViews
from stm_lab.models import build_model
from stm_lab.train.config import load_config
from stm_lab.train.processes import isolated
from stm_lab.train.trainer import Trainer
from stm_lab.util.progress import progress


class Setting(NamedTuple):
    """What is measured at one image size; `prepared` is the shorter side of the stored images."""

    image_size: int
    prepared: int
    what: str
    augmentation: Augmentation
    scale: str  # of the model that trains on this size: convnext, the fastest mixer of the paper


PUBLISHED = Augmentation(flip=True, crop="resized", auto_augment="rand-m9-mstd0.5-inc1", erasing=0.25)
SETTINGS = (
    Setting(64, 64, "flips and crops", Augmentation(flip=True, crop="pad"), "nano"),
    Setting(224, 256, "the published augmentation", PUBLISHED, "micro"),
)
BATCH = 64


def view_rates(
    setting: Setting,
    recipe: Recipe | None = None,
    *,
    data_root: Path | None = None,
    repeats: int = 5,
    images: int = 512,
) -> list[float]:
    """Views a second and core, `repeats` times, of the training images (else the validation images) of a recipe.

    Without a recipe they are synthetic. Raises UserError as `data.load` does.
    """
    if recipe is None:
        stored = synthetic_photographs(min(images, 64), setting.prepared)
    else:
        split = "train" if "train" in recipe.counts else "validation"
        stored = data.load(recipe, split, data_root=data_root, image_size=setting.prepared)
        stored = data.take(stored, min(images, len(stored)))
    views = TrainingViews(stored, image_size=setting.image_size, augmentation=setting.augmentation)
    rows = np.arange(images) % len(views)

    def make_views(epoch: int) -> None:
        views.set_epoch(epoch)
        for start in range(0, images, BATCH):
            views.__getitems__(rows[start : start + BATCH])

    return _rates(make_views, repeats, images)


def trained_rate(setting: Setting) -> float:
    """Images a second and core on which a model trains: forward and backward."""
    model = build_model("convnext", setting.scale, num_classes=100).train()
    images = torch.rand(16, 3, setting.image_size, setting.image_size)

    def step(_: int) -> None:
        torch.nn.functional.cross_entropy(model(images), torch.zeros(16, dtype=torch.int64)).backward()

    return statistics.median(_rates(step, 3, 16))


def _rates(work: Callable[[int], None], repeats: int, images: int) -> list[float]:
    """Images a second of each repeat on one thread, after one that warms up."""
    threads, rates = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for repeat in range(repeats + 1):
            started = time.process_time()
            work(repeat)
            rates.append(images / (time.process_time() - started))
    finally:
        torch.set_num_threads(threads)
    return rates[1:]


def step_times(mixer: str, *, repeats: int = 8, steps: int = 16) -> list[tuple[float, float]]:
    """Milliseconds a step of the bare loop and of `fit`, `repeats` times: preset quick at nano, 32 pixels, batch 32.

    The bare loop is forward, backward and fused AdamW on one batch. Both take turns, in processor time on one thread,
    so that a machine that slows down slows both.
    """
    threads, device = torch.get_num_threads(), torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder, isolated(device):
        torch.set_num_threads(1)
        size = {"image_size": 32, "train_size": 32 * steps, "validation_size": 10, "epochs": repeats + 1}
        trainer = Trainer(load_config("quick", mixer=mixer, device="cpu", out=folder, **size))
        model = build_model(mixer, "nano", num_classes=trainer.num_classes, img_size=32).train()
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        images, labels = torch.rand(32, 3, 32, 32), torch.arange(32) % trainer.num_classes

        def bare() -> None:
            for _ in range(steps):
                torch.nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
                optimizer.step()
                optimizer.zero_grad()

        def seconds(work: Callable[[], object]) -> float:
            started = time.process_time()
            work()
            return time.process_time() - started

        try:
            with progress(trainer.steps, mixer, stream=io.StringIO()) as bar:
                times = [(seconds(bare), seconds(lambda: trainer.train_epoch(bar))) for _ in range(repeats + 1)]
        finally:
            trainer.folder.release()
            torch.set_num_threads(threads)
    return [(1e3 * alone / steps, 1e3 * whole / steps) for alone, whole in times[1:]]


def synthetic_photographs(number: int, shorter_side: int) -> Dataset:
    """JPEG images, 4:3, with smooth areas and fine noise; at 256 pixels about as many bytes as photographs have.

    Columns `image` and `label`, as `data.load` gives them; no two are alike.
    """
    draw = np.random.default_rng(0)
    size, rows = (shorter_side * 4 // 3, shorter_side), []
    for _ in range(number):
        coarse = PIL.Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8)).resize(size, PIL.Image.BICUBIC)
        pixels = np.asarray(coarse) + draw.normal(0, 8, (*size[::-1], 3))
        sink = io.BytesIO()
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(sink, "JPEG", quality=95, subsampling=0)
        rows.append({"bytes": sink.getvalue(), "path": None})
    features = Features({"image": Image(), "label": ClassLabel(names=["noise", "none"])})
    return Dataset.from_dict({"image": rows, "label": [0] * number}, features=features)
