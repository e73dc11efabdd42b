"""Accuracy and loss on a whole validation split."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from stm_lab.pixels import Normalize


def evaluate(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, batch_size: int = 256
) -> tuple[float, float]:
    """Top-1 accuracy in percent and mean cross-entropy, each image counted once. `model` is left in evaluation mode.

    Args:
        model: images (B, 3, S, S) -> logits (B, classes); on any device.
        images: uint8 (N, 3, S, S), as `stm_lab.data.to_tensors` gives them; normalised here as the model wants them.
        labels: int64 (N,).
    """
    normalized = Normalize(model, next(model.parameters()).device)
    correct, loss, number = count(model, images, labels, normalized, batch_size).tolist()
    return 100 * correct / number, loss / number


@torch.inference_mode()
def count(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, normalized: Normalize, batch_size: int
) -> torch.Tensor:
    """Correct answers, summed cross-entropy and number of images whose label is not -1: (3,) on the model's device."""
    device = normalized.device
    model.eval()
    counts = torch.zeros(3, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    for some, targets in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        logits = model(normalized(some)).float()
        targets = targets.to(device)
        loss = F.cross_entropy(logits, targets, reduction="sum", ignore_index=-1)
        counts += torch.stack([(logits.argmax(1) == targets).sum(), loss, (targets >= 0).sum()])
    return counts
