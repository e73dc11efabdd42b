"""From stored images to tensors: each decoded once, and one augmented view of each per epoch.

The view of an image is a function of (seed, epoch, row): it does not depend on the order of the batches, on the number
of workers or on what was drawn before, so a run can be resumed anywhere.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import PIL.Image
import torch
from datasets import Dataset
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from timm.data.auto_augment import posterize as timm_posterize
from timm.data.random_erasing import RandomErasing

from stm_lab.data import rng
from stm_lab.data.augmentation import Augmentation
from stm_lab.data.image_files import open_image, to_rgb
from stm_lab.data.sources import image_column, stored_bytes, stored_images, stored_labels
from stm_lab.pixels import EvaluationView
from stm_lab.util.errors import UserError, check_known

# ---- decoding -------------------------------------------------------------------------------------------------------


def decoded_images(dataset: Dataset, rows: Sequence[int] | None = None) -> Iterator[PIL.Image.Image]:
    """The images of a data set (or of some of its rows, in that order), one by one, as `open_image` has them: RGB.

    Raises UserError that names the image's row and file if one cannot be opened.
    """
    rows = range(len(dataset)) if rows is None else rows
    for row, image in zip(rows, stored_images(dataset, rows), strict=True):
        try:
            yield open_image(stored_bytes(image))
        except (OSError, UserError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(f"broken image in row {row} ({image['path'] or 'without a file name'}): {why}") from error


def check_image_size(image_size: int) -> None:
    """Raise UserError for a side of less than one pixel."""
    if image_size < 1:
        raise UserError(f"image_size {image_size} is too small; at least 1")


def to_tensors(dataset: Dataset, view: EvaluationView | int) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode every image once: uint8 images (N, 3, H, W), RGB, and int64 labels (N,).

    `dataset` has columns `image` and `label`. `view` says what is shown of each image, such as
    `EvaluationView.of(model)` or `zoo.LoadedModel.view`; a number S is `EvaluationView(S)`: the shorter side is resized
    to S (unless it is S), and the centre is cropped.

    Raises UserError for a broken image (its row and file are named), or a side of the view below 1 pixel.
    """
    view = EvaluationView(view) if isinstance(view, int) else view
    check_image_size(min(view.size))
    images = torch.empty(len(dataset), 3, *view.size, dtype=torch.uint8)
    for row, image in enumerate(decoded_images(dataset)):
        images[row] = view(image)
    return images, labels(dataset)


def labels(dataset: Dataset) -> torch.Tensor:
    """The classes of all images of a data set, (N,) int64, in its order; no image is decoded."""
    return torch.tensor(stored_labels(dataset), dtype=torch.int64)


PHOTOGRAPHS = {  # free to use, and in scikit-image's wheel, so they need no network
    "chelsea": "a cat's face (Stefan van der Walt, CC0)",
    "astronaut": "Eileen Collins in front of a model (NASA, public domain)",
    "coffee": "a cup on a table (Rachel Michetti, CC0)",
    "rocket": "a rocket that starts (SpaceX, public domain)",
    "camera": "a man with a camera, grey (Lav Varshney, CC0)",
}


def photograph(name: str = "chelsea", image_size: int = 224) -> torch.Tensor:
    """(1, 3, S, S) uint8: one of `PHOTOGRAPHS`; its shorter side is resized, and the centre is cropped.

    Raises UserError for an unknown name, for a size below 1, and without scikit-image.
    """
    check_known("photograph", name, PHOTOGRAPHS)
    check_image_size(image_size)
    try:
        from skimage import data
    except ImportError:
        raise UserError("photographs need scikit-image: pip install 'stm-lab[lab]'") from None
    pixels = getattr(data, name)()
    return EvaluationView(image_size)(to_rgb(PIL.Image.fromarray(pixels)))[None]


# ---- augmentation ---------------------------------------------------------------------------------------------------


class TrainingViews(torch.utils.data.Dataset):
    """Augmented views of a data set's images, batch by batch; one new view of every image in each epoch.

    Give it to a DataLoader with any sampler and `collate_fn=TrainingViews.collate`; persistent workers see `set_epoch`.
    Images are decoded once and kept as uint8; for crop "resized", which needs the whole image, at each access.

    `dataset` has columns `image` and `label`; `image_size` is S; a view depends on (`seed`, epoch, row) only.

    Raises UserError for an image size below 1 and a broken image (its row and file are named).
    """

    def __init__(self, dataset: Dataset, *, image_size: int, augmentation: Augmentation, seed: int = 0):
        check_image_size(image_size)
        self.image_size, self.augmentation, self.seed = image_size, augmentation, seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by workers that are already running
        if augmentation.crop == "resized":
            self._dataset, self.labels = image_column(dataset), labels(dataset)
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
        self._draws = bool(self._colour or augmentation.erasing or augmentation.crop == "resized")  # as timm's steps do
        self._erase = RandomErasing(1.0, mode="pixel", device="cpu")  # of the views that are chosen for it

    def __len__(self) -> int:
        return len(self.labels)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose views are made."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, targets = self.__getitems__([index])
        return images[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Views (B, 3, S, S), float32 in [0, 1], and labels (B,), int64. Only erased pixels may leave [0, 1]."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        draws = rng.words(self.seed, int(self._epoch), rows.numpy(), count=5)
        flips = rng.below(draws[:, 2], 2 if self.augmentation.flip else 1) == 1
        seeds = (draws[:, 3] >> np.uint64(32)).tolist()
        with generators_kept() if self._draws else nullcontext():
            if self.augmentation.crop == "resized":
                images = self._resized_crops(rows.tolist(), draws[:, 0], flips, seeds)
            else:
                images = self._shifted(rows, draws[:, :2], torch.from_numpy(flips))  # (B, 3, S, S) uint8
                for image, seed in zip(images, seeds, strict=True) if self._colour else ():
                    pixels = image.permute(1, 2, 0).contiguous().numpy()
                    image.copy_(self._coloured(PIL.Image.fromarray(pixels), seed))
            views = images.float().div_(255)
            for i in np.flatnonzero(rng.below(draws[:, 4], 2**30) < self.augmentation.erasing * 2**30):
                seed_generators(seeds[i] + 1)
                # the noise is normal in normalised pixels, where timm and the published recipe put it
                views[i] = _MEAN + _STD * self._erase((views[i] - _MEAN) / _STD)
        return views, self.labels[rows]

    def _shifted(self, rows: torch.Tensor, draws: np.ndarray, flips: torch.Tensor) -> torch.Tensor:
        """Images in memory, shifted and flipped in one gathering of pixels."""
        size, padding = self.image_size, self.augmentation.crop_padding
        x = y = torch.arange(size).expand(len(rows), size)  # (B, S): the column and row that each pixel comes from
        if self.augmentation.crop == "pad":
            dy, dx = torch.from_numpy(rng.below(draws, 2 * padding + 1) - padding).unsqueeze(-1).unbind(1)
            mirrored = torch.from_numpy(np.pad(np.arange(size), padding, mode="reflect"))
            x, y = mirrored[x + dx + padding], mirrored[y + dy + padding]
        x = torch.where(flips[:, None], x.flip(1), x)
        place = (y[:, :, None] * size + x[:, None, :]).view(len(rows), 1, -1).expand(-1, 3, -1)  # (B, 3, S * S)
        return self._images[rows].flatten(2).gather(2, place).view(-1, 3, size, size)

    def _resized_crops(self, rows: list[int], draws: np.ndarray, flips: np.ndarray, seeds: list[int]) -> torch.Tensor:
        """Stored images, cropped, flipped and coloured while they are Pillow's."""
        images = torch.empty(len(rows), 3, self.image_size, self.image_size, dtype=torch.uint8)
        crop_seeds = (draws >> np.uint64(32)).tolist()
        for i, image in enumerate(decoded_images(self._dataset, rows)):
            seed_generators(crop_seeds[i])
            view = self._random_resized_crop(image)
            view = view.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT) if flips[i] else view
            images[i] = self._coloured(view, seeds[i])
        return images

    def _coloured(self, image: PIL.Image.Image, seed: int) -> torch.Tensor:
        """The pixels (3, H, W), uint8, with their colours changed."""
        seed_generators(seed)
        image = self._colour(image) if self._colour else image
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    @staticmethod
    def collate(batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """For DataLoader's `collate_fn`: `__getitems__` has made the batch already."""
        return batch


_MEAN = torch.tensor(IMAGENET_DEFAULT_MEAN)[:, None, None]
_STD = torch.tensor(IMAGENET_DEFAULT_STD)[:, None, None]


def _posterize(image: PIL.Image.Image, bits_to_keep: int, **options: object) -> PIL.Image.Image:
    # the policy may ask for 0 bits, which is black; Pillow 13 refuses it
    return timm_posterize(image, bits_to_keep, **options) if bits_to_keep >= 1 else image.point(lambda _: 0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the three global generators that timm's transforms draw from, and restore them afterwards."""
    with generators_kept():
        seed_generators(seed)
        yield


def seed_generators(seed: int) -> None:
    """Seed the three global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.random.default_generator.manual_seed(seed)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Restore the three global generators afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
