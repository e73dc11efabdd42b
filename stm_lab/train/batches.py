"""Which images each step sees, on which process, and how they are mixed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from datasets import Dataset
from timm.data import Mixup
from torch.utils.data import Sampler

from stm_lab import data
from stm_lab.data import rng
from stm_lab.data.views import TrainingViews
from stm_lab.pixels import EvaluationView
from stm_lab.train.config import TrainConfig
from stm_lab.util.errors import UserError

_ORDER = 1  # sets these random numbers apart from those of views and steps


class Batches(Sampler[list[int]]):
    """Each epoch all rows in an order that depends on (seed, epoch) alone; an incomplete last step is left out.

    A step's images are dealt to `parts` (processes times accumulation); this sampler yields those of the `count` parts
    from `first` on. A part has pairs of the i-th image from the front and the i-th from the back: mixing pairs a batch
    with its mirror image, so the pairs are the same however the step is dealt out.

    Attributes:
        steps: in an epoch.
        epoch, start: the epoch, and its first step; set them before iterating.
    """

    def __init__(self, size: int, batch_size: int, seed: int, *, parts: int = 1, first: int = 0, count: int = 1):
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.parts, self.first, self.count = parts, first, count
        self.steps = size // batch_size
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return (self.steps - self.start) * self.count

    def __iter__(self) -> Iterator[list[int]]:
        draws = rng.words(self.seed, self.epoch, _ORDER, np.arange(self.size), count=1)[:, 0]
        order = np.argsort(draws, kind="stable").tolist()
        for step in range(self.start, self.steps):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            for part in range(self.first, self.first + self.count):
                yield self._part(batch, part)

    def _part(self, batch: list[int], part: int) -> list[int]:
        share = len(batch) // self.parts
        if share % 2:
            return batch[part * share : (part + 1) * share]
        half = share // 2
        back = len(batch) - part * half
        return batch[part * half : (part + 1) * half] + batch[back - half : back]


def load_splits(
    config: TrainConfig, view: EvaluationView, rank: int, world: int
) -> tuple[TrainingViews, tuple[torch.Tensor, torch.Tensor]]:
    """Training views, and this process's share of the validation images and labels, in memory.

    Raises UserError for data that are missing or too few.
    """
    train, validation = (
        data.take(data.load(config.recipe, split, data_root=config.data_root, image_size=view.resized_side), size)
        for split, size in (("train", config.train_size), ("validation", config.validation_size))
    )
    if config.batch_size > len(train):
        raise UserError(f"batch_size = {config.batch_size} is more than the {len(train)} training images")
    views = TrainingViews(train, image_size=view.image_size, augmentation=config.augmentation, seed=config.seed)
    return views, _share(validation, view, rank, world)


def _share(dataset: Dataset, view: EvaluationView, rank: int, world: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every `world`-th image from `rank` on. Collective operations need shares of equal length: a short one ends in an
    image whose label is -1, which does not count."""
    rows = list(range(rank, len(dataset), world))
    missing = -(-len(dataset) // world) - len(rows)
    images, labels = data.to_tensors(dataset.select(rows + [0] * missing), view)
    labels[len(rows) :] = -1
    return images, labels


def mixing(config: TrainConfig, num_classes: int) -> Mixup | None:
    """timm's mixup and cutmix for a batch, or None if both are off."""
    if not (config.mixup or config.cutmix):
        return None
    return Mixup(
        mixup_alpha=config.mixup,
        cutmix_alpha=config.cutmix,
        prob=config.mixup_prob,
        label_smoothing=config.label_smoothing,
        num_classes=num_classes,
    )
