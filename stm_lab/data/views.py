"""From stored images to tensors: each decoded once, and one augmented view of each per epoch.

The view of an image is a function of (seed, epoch, row): it does not depend on the order of the batches, on the number
of workers or on what was drawn before, so a run can be resumed anywhere.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import PIL.Image
import torch
from datasets import Dataset
from pydantic import BaseModel, ConfigDict, Field, field_validator
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from timm.data.auto_augment import posterize as timm_posterize
from timm.data.random_erasing import RandomErasing
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from stm_lab.data import rng
from stm_lab.errors import UserError

MIN_IMAGE_SIZE = 32  # four halvings and a stem's stride leave one token at 32 pixels


# ---- decoding -------------------------------------------------------------------------------------------------------


def resize_and_crop(image: PIL.Image.Image, size: int) -> PIL.Image.Image:
    """The central `size` x `size` of an image whose shorter side is resized to `size` (bicubic, antialiased)."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    left, top = (width - size) // 2, (height - size) // 2
    image = image.resize((width, height), PIL.Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def decoded_images(dataset: Dataset, rows: Sequence[int] | None = None, chunk: int = 1000) -> Iterator[PIL.Image.Image]:
    """The images of a data set (or of some of its rows, in that order), decoded one by one, RGB.

    Raises UserError that names the image's row and file if one cannot be decoded.
    """
    feature, stored = dataset.features["image"], dataset.select_columns("image").with_format("arrow")
    rows = range(len(dataset)) if rows is None else rows
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        for row, value in zip(part, stored[part]["image"].to_pylist(), strict=True):
            try:
                yield feature.decode_example(value).convert("RGB")
            except Exception as error:  # Pillow's readers raise a dozen types on broken files
                name = value.get("path") or "without a file name"
                raise UserError(f"broken image in row {row} ({name}): {' '.join(str(error).split())}") from error


def check_image_size(image_size: int) -> None:
    """Raise UserError for image sizes that no backbone here takes."""
    if image_size < MIN_IMAGE_SIZE:
        raise UserError(f"image_size {image_size} is too small; at least {MIN_IMAGE_SIZE}")


def to_tensors(dataset: Dataset, image_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode every image once: uint8 images (N, 3, S, S), RGB, and int64 labels (N,).

    The shorter side is resized to S = `image_size` (antialiased) and the centre cut out; images of that size stay as
    they are. Raises UserError that names the row and file of a broken image, or for an `image_size` below 32.
    """
    check_image_size(image_size)
    images = torch.empty(len(dataset), image_size, image_size, 3, dtype=torch.uint8)
    for row, image in enumerate(decoded_images(dataset)):
        images[row] = torch.from_numpy(np.array(resize_and_crop(image, image_size)))
    return images.permute(0, 3, 1, 2).contiguous(), labels(dataset)  # (N, S, S, 3) -> (N, 3, S, S)


def labels(dataset: Dataset) -> torch.Tensor:
    return torch.tensor(dataset.with_format("arrow")[:]["label"].to_numpy(), dtype=torch.int64)


# ---- augmentation ---------------------------------------------------------------------------------------------------


class Augmentation(BaseModel):
    """What happens to a training image before it is batched; the default is nothing at all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip: bool = False  # left-right, for half of the views
    crop: Literal["none", "pad", "resized"] = "none"  # pad: shift by up to crop_padding; resized: 8-100% of the area
    crop_padding: int = Field(4, ge=1, le=32)  # pixels, mirrored at the border; for crop "pad"
    auto_augment: str | None = None  # RandAugment in timm's syntax, such as rand-m9-mstd0.5-inc1
    color_jitter: float = Field(0.0, ge=0, le=1)  # brightness, contrast, saturation; as in timm not beside auto_augment
    erasing: float = Field(0.0, ge=0, le=1)  # probability that one rectangle becomes normal noise

    @field_validator("auto_augment")
    @classmethod
    def _is_randaugment(cls, value: str | None) -> str | None:
        # timm skips over what it cannot read; a policy that is not applied must be an error
        if value is not None and not re.fullmatch(r"rand(-(m\d+|n\d+|mmax\d+|inc[01]|(p|mstd)\d+(\.\d+)?))*", value):
            raise ValueError(f"{value!r} is not RandAugment in timm's syntax, such as 'rand-m9-mstd0.5-inc1'")
        return value


class TrainingViews(torch.utils.data.Dataset):
    """Augmented views of a data set's images, batch by batch; one new view of every image in each epoch.

    Give it to a DataLoader with any sampler and `collate_fn=TrainingViews.collate`; persistent workers see `set_epoch`.
    Images are decoded once and kept as uint8 (but for crop "resized", which needs the whole image: at each access).

    Args:
        dataset: columns `image` and `label`, as from `stm_lab.data.load`.
        image_size: S, at least 32.
        augmentation: what to do to each view.
        seed: a view depends on (seed, epoch, row) alone.

    Raises:
        UserError: an image size below 32, a broken image (its row and file named).
    """

    def __init__(self, dataset: Dataset, *, image_size: int, augmentation: Augmentation, seed: int = 0):
        check_image_size(image_size)
        self.image_size, self.augmentation, self.seed = image_size, augmentation, seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by workers that are already running
        if augmentation.crop == "resized":
            self._dataset, self.labels = dataset, labels(dataset)
        else:
            self._images, self.labels = to_tensors(dataset, image_size)
        geometry, colour, _ = create_transform(
            image_size,
            is_training=True,
            separate=True,
            hflip=0.0,  # done for the whole batch at once
            interpolation="bicubic",
            auto_augment=augmentation.auto_augment,
            color_jitter=augmentation.color_jitter or None,
        )
        for operation in (op for policy in colour.transforms for op in getattr(policy, "ops", ())):
            if operation.aug_fn is timm_posterize:
                operation.aug_fn = _posterize
        self._random_resized_crop = geometry
        self._colour = colour if colour.transforms else None
        self._erase = RandomErasing(augmentation.erasing, mode="pixel", device="cpu") if augmentation.erasing else None

    def __len__(self) -> int:
        return len(self.labels)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose views are handed out."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, targets = self.__getitems__([index])
        return images[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Views (B, 3, S, S), float32 in [0, 1], and labels (B,), int64. Erased pixels alone may leave [0, 1]."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        draws = rng.words(self.seed, int(self._epoch), rows.numpy(), count=4)
        images = self._crop_and_flip(rows, draws[:, :3])  # (B, 3, S, S) uint8
        seeds = (draws[:, 3] >> np.uint64(32)).tolist()
        if self._colour:
            for image, seed in zip(images, seeds, strict=True):
                with seeded(seed):
                    image.copy_(pil_to_tensor(self._colour(to_pil_image(image))))
        views = images.float().div_(255)
        if self._erase:
            for view, seed in zip(views, seeds, strict=True):
                with seeded(seed + 1):
                    # the noise is normal in normalised pixels, where timm and the published recipe put it
                    view.copy_(_MEAN + _STD * self._erase((view - _MEAN) / _STD))
        return views, self.labels[rows]

    def _crop_and_flip(self, rows: torch.Tensor, draws: np.ndarray) -> torch.Tensor:
        size, padding = self.image_size, self.augmentation.crop_padding
        x = y = torch.arange(size).expand(len(rows), size)  # (B, S): the column and row that each pixel comes from
        if self.augmentation.crop == "pad":
            dy, dx = torch.from_numpy(rng.below(draws[:, :2], 2 * padding + 1) - padding).unsqueeze(-1).unbind(1)
            x, y = _mirrored(x + dx, size), _mirrored(y + dy, size)
        if self.augmentation.flip:
            flipped = torch.from_numpy(rng.below(draws[:, 2], 2) == 1)
            x = torch.where(flipped[:, None], x.flip(1), x)
        if self.augmentation.crop == "resized":
            source, batch = self._resized_crops(rows, draws[:, 0]), torch.arange(len(rows))
        else:
            source, batch = self._images, rows
        channel = torch.arange(3)[:, None, None]
        return source[batch[:, None, None, None], channel, y[:, None, :, None], x[:, None, None, :]]

    def _resized_crops(self, rows: torch.Tensor, draws: np.ndarray) -> torch.Tensor:
        crops = torch.empty(len(rows), 3, self.image_size, self.image_size, dtype=torch.uint8)
        seeds = (draws >> np.uint64(32)).tolist()
        for crop, image, seed in zip(crops, decoded_images(self._dataset, rows.tolist()), seeds, strict=True):
            with seeded(seed):
                crop.copy_(pil_to_tensor(self._random_resized_crop(image)))
        return crops

    @staticmethod
    def collate(batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """For DataLoader's `collate_fn`: `__getitems__` has made the batch already."""
        return batch


_MEAN = torch.tensor(IMAGENET_DEFAULT_MEAN)[:, None, None]
_STD = torch.tensor(IMAGENET_DEFAULT_STD)[:, None, None]


def _mirrored(position: torch.Tensor, size: int) -> torch.Tensor:
    """Positions beyond 0 and size - 1 reflected there: -1 -> 1, size -> size - 2."""
    position = position.abs()
    return torch.where(position < size, position, 2 * (size - 1) - position)


def _posterize(image: PIL.Image.Image, bits_to_keep: int, **options: object) -> PIL.Image.Image:
    # the policy may ask for no bits at all, that is black; Pillow 13 refuses what older ones did
    return timm_posterize(image, bits_to_keep, **options) if bits_to_keep >= 1 else image.point(lambda _: 0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the three global generators that timm's transforms draw from, and put them back as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.random.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
