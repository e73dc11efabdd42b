"""Pixels as models want them; shared by training, which knows nothing of measures, and by measures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import PIL.Image
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, create_transform, resolve_model_data_config
from timm.data.transforms import center_crop_or_pad
from torch import Tensor, nn


@dataclass(frozen=True)
class EvaluationView:
    """How an image is resized and cropped before it is evaluated, shown or prepared: timm's evaluation transform.

    Attributes:
        image_size: side of the view, or its height and width, in pixels.
        crop_pct: share of the resized side that the view shows.
        interpolation: timm's name, "bicubic" or "bilinear"; both are antialiased.
        crop_mode: "center" (the shorter side is resized, and the centre is cropped), "squash" (both sides are resized)
            or "border" (the longer side is resized, and the rest is padded with the mean).
        mean: colour of the border, (3,) in [0, 1].
    """

    image_size: int | tuple[int, int]
    crop_pct: float = 1.0
    interpolation: str = "bicubic"
    crop_mode: str = "center"
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN

    @classmethod
    def of(cls, model: nn.Module, image_size: int | None = None, crop_pct: float | None = None) -> EvaluationView:
        """The view that timm resolves for a model; `image_size` and `crop_pct` replace its own.

        A module without timm's `pretrained_cfg` gets 224x224 pixels, with the whole shorter side.
        """
        if getattr(model, "pretrained_cfg", None):
            cfg = resolve_model_data_config(model)
            height, width = cfg["input_size"][1:]
            size = height if height == width else (height, width)
            own = cls(size, cfg["crop_pct"], cfg["interpolation"], cfg["crop_mode"], tuple(cfg["mean"]))
        else:
            own = cls(224)
        return replace(own, image_size=image_size or own.image_size, crop_pct=crop_pct or own.crop_pct)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the view."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)

    @property
    def resized_side(self) -> int:
        """The side, in pixels, that images are resized to before the crop."""
        return int(min(self.size) / self.crop_pct)

    @cached_property
    def _steps(self) -> list:
        return create_transform(
            self.size,
            crop_pct=self.crop_pct,
            interpolation=self.interpolation,
            crop_mode=self.crop_mode,
            mean=self.mean,
            normalize=False,
        ).transforms

    def __call__(self, image: PIL.Image.Image) -> Tensor:
        """An RGB image -> uint8 (3, H, W)."""
        for step in self._steps:
            image = step(image)
        return image

    def resized(self, image: PIL.Image.Image | Tensor) -> PIL.Image.Image | Tensor:
        """The whole image, or pixels (..., 3, h, w), as it is before the crop."""
        resize, crop, _ = self._steps
        image = resize(image)
        if isinstance(image, PIL.Image.Image) and self.crop_mode == "border":
            sides = [max(pair) for pair in zip(self.size, (image.height, image.width), strict=True)]
            image = center_crop_or_pad(image, sides, fill=crop.fill)
        return image


class Normalize:
    """Pixels (..., 3, H, W), uint8 or in [0, 1], anywhere -> the model's own mean, std and dtype, on `device`.

    A module without timm's `pretrained_cfg` gets pixels in [0, 1] as they are.
    """

    def __init__(self, model: nn.Module, device: torch.device):
        cfg = getattr(model, "pretrained_cfg", None) or {}
        self.device = device
        self.mean = torch.tensor(cfg.get("mean", (0.0, 0.0, 0.0)), device=device)[:, None, None]
        self.std = torch.tensor(cfg.get("std", (1.0, 1.0, 1.0)), device=device)[:, None, None]
        self.dtype = next((tensor.dtype for tensor in model.parameters()), torch.float32)

    def __call__(self, pixels: Tensor) -> Tensor:
        scale = 255 if pixels.dtype == torch.uint8 else 1
        pixels = pixels.to(self.device, non_blocking=True).float() / scale
        return ((pixels - self.mean) / self.std).to(self.dtype)
