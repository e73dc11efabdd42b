"""What every measure needs: images checked, batches as the model was trained to see them, the model left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from stm_lab.pixels import EvaluationView, Normalize
from stm_lab.util.devices import resolve_device
from stm_lab.util.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

Data: TypeAlias = "Tensor | tuple[Tensor, Tensor] | Dataset"  # text: measuring tensors does not load `datasets`


class Images(NamedTuple):
    """Decoded `pixels`, (N, 3, H, W), uint8 or float in [0, 1]; `labels`, (N,) int64, None where nobody knows them."""

    pixels: Tensor
    labels: Tensor | None

    def batches(
        self, model: nn.Module, device: torch.device, batch_size: int
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Normalised images on the device, with their labels."""
        check_batch_size(batch_size)
        normalise = Normalize(model, device)
        labels = [None] * len(self.pixels) if self.labels is None else self.labels.split(batch_size)
        for pixels, known in zip(self.pixels.split(batch_size), labels, strict=False):
            yield normalise(pixels), None if known is None else known.to(device)


def as_images(data: Data, model: nn.Module, image_size: int | None = None, limit: int | None = None) -> Images:
    """Read `data`: a tensor of images, a pair (images, labels), or a Dataset with the columns image and label.

    Only a Dataset is decoded, once, as the model is evaluated (`EvaluationView.of`), at `image_size` if that is given;
    tensors keep the size they have.
    `limit`: the first so many images, or all if there are fewer; the others are not decoded.
    Raises UserError for anything else, for no images, for a wrong shape and for values that are no pixels.
    """
    if isinstance(data, Tensor):
        images = Images(data[:limit], None)
    elif isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        images = Images(data[0][:limit], data[1][:limit])
    elif hasattr(data, "column_names"):
        from stm_lab.data import to_tensors  # here, so that measuring tensors does not load the datasets library

        some = data if limit is None else data.select(range(min(limit, len(data))))
        images = Images(*to_tensors(some, EvaluationView.of(model, image_size)))
    else:
        raise UserError(f"data: a {type(data).__name__}; expected images (N, 3, H, W), (images, labels) or a Dataset")
    _check(images)
    return images


def _check(images: Images) -> None:
    pixels, labels = images
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise UserError(f"data: images of shape {tuple(pixels.shape)}; expected (N, 3, H, W)")
    if not pixels.numel():
        raise UserError(f"data: no images (shape {tuple(pixels.shape)})")
    if pixels.is_floating_point():
        low, high = (value.item() for value in pixels.aminmax())  # NaN if there is one anywhere
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # interpolation may overshoot by a rounding error
            raise UserError(f"data: values from {low:.3g} to {high:.3g}; expected pixels in [0, 1], not yet normalised")
    elif pixels.dtype != torch.uint8:
        raise UserError(f"data: images of {pixels.dtype}; expected uint8, or floats in [0, 1]")
    if labels is not None and labels.shape != pixels.shape[:1]:
        raise UserError(f"data: {tuple(labels.shape)} labels for {len(pixels)} images")


def check_batch_size(batch_size: int) -> None:
    """Raise UserError for a batch of no images."""
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}, but a batch needs at least one image")


def check_classes(model: nn.Module, logits: Tensor, labels: Tensor | None, instead: str = "") -> None:
    """Raise UserError for a model without a classifier, and for labels that it has no class for.

    instead: what images without labels would be good for; the message says so.
    """
    if logits.ndim != 2 or getattr(model, "num_classes", None) == 0:
        raise UserError(f"{model_name(model)} has no classifier: it gives {tuple(logits.shape[1:])} numbers an image")
    if labels is not None and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise UserError(
            f"data: labels from {labels.min()} to {labels.max()} for the {logits.shape[1]} classes of "
            f"{model_name(model)}" + (f"; give the images alone {instead}" if instead else "")
        )


def pretrained_cfg(model: nn.Module) -> dict:
    """timm's description of how the model was trained; empty for a module that has none."""
    return getattr(model, "pretrained_cfg", None) or {}


def model_name(model: nn.Module) -> str:
    return pretrained_cfg(model).get("architecture") or type(model).__name__


def input_size(model: nn.Module) -> tuple[int, int]:
    """Height and width that the model was made for, 224x224 where it does not say."""
    return tuple(pretrained_cfg(model).get("input_size", (3, 224, 224))[-2:])


def model_device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


@contextmanager
def evaluating(model: nn.Module, device: str | torch.device | None, seed: int) -> Iterator[torch.device]:
    """The model in eval mode on `device` (None: where it is); afterwards every module has its mode and place again.

    `seed` is for models that draw random numbers even then; the global generators go on undisturbed.
    """
    home = model_device(model)
    device = home if device is None else resolve_device(device)
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            # Not torch.manual_seed, which would seed every device there is, and these are not restored.
            torch.random.default_generator.manual_seed(seed)
            if device.type == "cuda":
                torch.cuda.default_generators[device.index or 0].manual_seed(seed)
            if device != home:
                model.to(device)
            model.eval()
            yield device
    finally:
        if device != home:
            model.to(home)
        for module, training in modes:
            module.training = training
