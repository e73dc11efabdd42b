"""What every measure needs: checked images in batches, a model in evaluation that is left as it was, rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from stm_lab.pixels import EvaluationView, Normalize
from stm_lab.util.devices import resolve_device
from stm_lab.util.errors import UserError
from stm_lab.util.progress import progress

if TYPE_CHECKING:
    from datasets import Dataset

Data: TypeAlias = "Tensor | tuple[Tensor, Tensor] | Dataset"  # text: measuring tensors does not load `datasets`
See: TypeAlias = Callable[[Tensor], Tensor]  # pixels (B, 3, H, W) in [0, 1] -> logits (B, K)

_MANY = 4  # batches; progress is shown for more


class Batch(NamedTuple):
    """Some images on the model's device.

    places: (B,), their numbers in the data. pixels: (B, 3, H, W) float32 in [0, 1]. labels: (B,) int64, or None.
    """

    places: Tensor
    pixels: Tensor
    labels: Tensor | None


class Images(NamedTuple):
    """Decoded `pixels`, (N, 3, H, W), uint8 or float in [0, 1]; `labels`, (N,) int64, None where they are unknown."""

    pixels: Tensor
    labels: Tensor | None

    def parts(self, device: torch.device, batch_size: int, told: str = "") -> Iterator[Batch]:
        """The images in batches. `told`: what progress says about them; empty: nothing is shown.

        Raises UserError for batch_size < 1.
        """
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}, but a batch needs at least one image")
        chunks = torch.arange(len(self.pixels)).split(batch_size)
        for places in progress(chunks, told, unit="batch") if told and len(chunks) > _MANY else chunks:
            labels = None if self.labels is None else self.labels[places].to(device)
            yield Batch(places, as_pixels(self.pixels[places], device), labels)

    def batches(
        self, model: nn.Module, device: torch.device, batch_size: int, told: str = ""
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Normalised images (B, 3, H, W) on the device, with their labels; otherwise as `parts`."""
        normalise = Normalize(model, device)
        for _, pixels, labels in self.parts(device, batch_size, told):
            yield normalise(pixels), labels


def as_pixels(pixels: Tensor, device: torch.device) -> Tensor:
    """Bytes or floats (B, 3, H, W) as float32 in [0, 1] on the device."""
    scale = 255 if pixels.dtype == torch.uint8 else 1
    return (pixels.to(device).float() / scale).clamp(0, 1)


def as_images(data: Data, model: nn.Module, image_size: int | None = None, limit: int | None = None) -> Images:
    """Read `data`: images (N, 3, H, W), a pair (images, labels), or a Dataset with the columns image and label.

    A Dataset is decoded once, as the model is evaluated (`EvaluationView.of`), at `image_size` if that is given;
    tensors keep their size. `limit`: the largest number of images, from the first on; others are not decoded.
    Raises UserError for anything else, no images, a wrong shape, and values outside the range of pixels.
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
    _check(*images)
    return images


def _check(pixels: Tensor, labels: Tensor | None) -> None:
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


def check_classes(model: nn.Module, logits: Tensor, labels: Tensor | None, instead: str = "") -> None:
    """Raise UserError for a model without a classifier, and for labels that are none of its classes.

    instead: what images without labels can be used for; the message says so.
    """
    if logits.ndim != 2 or getattr(model, "num_classes", None) == 0:
        raise UserError(f"{model_name(model)} has no classifier: it gives {tuple(logits.shape[1:])} numbers an image")
    if labels is not None and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise UserError(
            f"data: labels from {labels.min()} to {labels.max()} for the {logits.shape[1]} classes of "
            f"{model_name(model)}" + (f"; give the images alone {instead}" if instead else "")
        )


def sight(model: nn.Module, device: torch.device) -> See:
    """The model with its own normalisation in front. Raises UserError, when called, for logits that are not finite."""
    normalise = Normalize(model, device)

    def sees(pixels: Tensor) -> Tensor:
        logits = model(normalise(pixels))
        if not logits.isfinite().all():
            raise UserError(f"{model_name(model)}: gives logits that are not finite; float32 may help")
        return logits

    return sees


def pretrained_cfg(model: nn.Module) -> dict:
    """timm's description of how the model was trained; empty for a module without one."""
    return getattr(model, "pretrained_cfg", None) or {}


def model_name(model: nn.Module) -> str:
    return pretrained_cfg(model).get("architecture") or type(model).__name__


def input_size(model: nn.Module) -> tuple[int, int]:
    """Height and width that the model was made for; 224x224 for a module that does not say."""
    return tuple(pretrained_cfg(model).get("input_size", (3, 224, 224))[-2:])


def model_device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def device_of(model: nn.Module, device: str | torch.device | None) -> torch.device:
    """`device`, or the model's own for None. Raises UserError for an unknown one."""
    return model_device(model) if device is None else resolve_device(device)


@contextmanager
def evaluating(model: nn.Module, device: str | torch.device | None, seed: int) -> Iterator[torch.device]:
    """Put the model in eval mode on `device` (None: where it is); restore each module's mode and device afterwards.

    `seed` is for models that draw random numbers in eval mode; the state of the global generators is restored.
    """
    home, device = model_device(model), device_of(model, device)
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


def rows_of(result: object, names: str, **columns: object) -> list[dict[str, Any]]:
    """The rows of a result, ready for JSON.

    names: attributes of the result, separated by spaces; `columns` are further values by name, in their order. An array
    has an entry for each row, where NaN becomes None; any other value is the same in all rows, a tuple as a list.
    """
    values = {name: getattr(result, name) for name in names.split()} | columns
    arrays = {name: value.tolist() for name, value in values.items() if isinstance(value, np.ndarray)}
    shared = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    rows = []
    for entries in zip(*arrays.values(), strict=True) if arrays else [()]:
        plain = [None if isinstance(entry, float) and math.isnan(entry) else entry for entry in entries]
        rows.append(shared | dict(zip(arrays, plain, strict=True)))
    return rows
