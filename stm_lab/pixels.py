"""Pixels as models want them; shared by training, which knows nothing of measures, and by measures."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalize:
    """Pixels (..., 3, H, W), uint8 or in [0, 1], anywhere -> the model's own mean, std and dtype, on `device`.

    A module without timm's `pretrained_cfg` says nothing about normalisation and gets its pixels in [0, 1] as they are.
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


def mirrored(position: Tensor, size: int) -> Tensor:
    """Positions along an axis of `size` places, beyond its ends reflected there: -1 -> 1, size -> size - 2."""
    position = position.abs()
    return torch.where(position < size, position, 2 * (size - 1) - position)
