"""What explorers share: images as they are drawn, controls for a place in them, a network's layers, typed numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stm_lab.data.image_files import open_image
from stm_lab.data.views import check_image_size
from stm_lab.measure._batches import as_images, as_pixels, check_classes, evaluating, sight
from stm_lab.measure._sites import MixerLayer, Site, mixer_sites
from stm_lab.pixels import EvaluationView
from stm_lab.util.errors import UserError, check_known

Layer = TypeVar("Layer")  # anything with a stage

# ---- images and what networks say of them ---------------------------------------------------------------------------


def picture(path: str | Path, view: EvaluationView | int) -> Tensor:
    """(1, 3, H, W) uint8: a photograph of one's own, resized and cropped.

    view: how it is resized and cropped, such as `EvaluationView.of(model)`; a number means `EvaluationView(number)`.
    Raises UserError for a file that does not exist or is no image, and for an impossible size.
    """
    view = EvaluationView(view) if isinstance(view, int) else view
    check_image_size(min(view.size))
    try:
        return view(open_image(path))[None]
    except UserError as error:
        raise UserError(f"picture = {str(path)!r}: {error}") from error


def as_floats(images: Tensor) -> Tensor:
    """Images of any shape, uint8 or in [0, 1] -> float32 in [0, 1], on the CPU."""
    return as_pixels(images, torch.device("cpu"))


def as_shown(image: Tensor) -> np.ndarray:
    """(3, H, W), uint8 or in [0, 1] -> (H, W, 3) in [0, 1]."""
    return as_floats(image).permute(1, 2, 0).numpy()


def mean_colours(image: Tensor, rows: int, columns: int) -> np.ndarray:
    """(3, H, W), uint8 or in [0, 1] -> (rows, columns, 3) in [0, 1]: the mean colour of each token's patch."""
    return F.adaptive_avg_pool2d(as_floats(image), (rows, columns)).permute(1, 2, 0).numpy()


def single_images(images: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """By name, (3, H, W) or (1, 3, H, W) -> (3, H, W). Raises UserError, with `where`, for no images."""
    if not images:
        raise UserError(f"{where}: no images; give {{name: image}}")
    return {name: image[0] if image.ndim == 4 else image for name, image in images.items()}


def checked_pixels(models: Mapping[str, nn.Module], images: Tensor, labels: Tensor | None = None) -> Tensor:
    """The images, (N, 3, H, W).

    Raises UserError for no models or images, values that are no pixels, and another number of labels.
    """
    if not models:
        raise UserError("no models to choose from; give {name: model}")
    return as_images(images if labels is None else (images, labels), next(iter(models.values()))).pixels


def shares(model: nn.Module, images: Tensor, seed: int, labels: Tensor | None = None) -> Tensor:
    """Softmax of a model's logits for images in [0, 1], (B, classes), on the CPU.

    seed: for models that draw random numbers in eval mode.
    Raises UserError for a model without a classifier, or without classes for the `labels`.
    """
    with evaluating(model, None, seed) as device, torch.inference_mode():
        logits = sight(model, device)(images)
    check_classes(model, logits, labels, "to attack its own answers")
    return logits.float().softmax(1).cpu()


# ---- places in images -----------------------------------------------------------------------------------------------


def clipped(place: float, count: int) -> int:
    """The nearest of `count` places 0, 1, 2 ..."""
    return min(max(round(place), 0), count - 1)


def token_at(row: int, column: int, size: Sequence[int], cells: Sequence[int]) -> tuple[int, int]:
    """The token whose area holds the middle of a pixel: of `cells` (rows, columns) over an image of `size` pixels."""
    found = zip((row, column), size, cells, strict=True)
    return tuple((2 * at + 1) * count // (2 * pixels) for at, pixels, count in found)


def place_controls(images: int, size: Sequence[int]) -> dict[str, widgets.Widget]:
    """Sliders for the image's number and for a pixel's row and column, first the middle."""
    return {
        "image": widgets.IntSlider(0, 0, images - 1),
        "row": widgets.IntSlider(size[0] // 2, 0, size[0] - 1, description="row (pixel)"),
        "column": widgets.IntSlider(size[1] // 2, 0, size[1] - 1, description="column (pixel)"),
    }


def middle(row: int, column: int, size: Sequence[int], cells: Sequence[int]) -> tuple[float, float]:
    """The middle of the token at a pixel, as fractions of the image."""
    y, x = token_at(row, column, size, cells)
    return (y + 0.5) / cells[0], (x + 0.5) / cells[1]


def pixel(x: float, y: float, size: Sequence[int]) -> dict[str, int]:
    """The pixel at a place of an image whose first pixel begins at 0; beside the image the nearest one."""
    return {"row": clipped(int(y), size[0]), "column": clipped(int(x), size[1])}


# ---- layers of networks ---------------------------------------------------------------------------------------------


def by_stage(layers: Iterable[Layer]) -> dict[int, list[Layer]]:
    """Layers by their stage, from 1, in the order of their blocks."""
    found: dict[int, list[Layer]] = {}
    for layer in layers:
        found.setdefault((layer.stage or 0) + 1, []).append(layer)
    return found


def in_stage(name: str, layers: Mapping[int, list[Layer]], stage: int) -> list[Layer]:
    check_known("stage", stage, layers, f"{name}: ")
    return layers[stage]


def most_blocks(layers: Mapping[str, Mapping[int, Sequence]]) -> int:
    return max(len(here) for found in layers.values() for here in found.values())


def layer_controls(layers: Mapping[str, Mapping[int, Sequence]], stage: int) -> dict[str, widgets.Widget]:
    """Lists of the models and of all stages; `stage` is chosen first if there is one."""
    stages = sorted(set().union(*layers.values()))
    return {
        "model": widgets.Dropdown(options=list(layers)),
        "stage": widgets.Dropdown(options=stages, value=stage if stage in stages else stages[0]),
    }


def sites_of(model: nn.Module, image: Tensor, layers: Sequence[MixerLayer]) -> list[Site]:
    """Mixers with the tokens that reach them from an image, (1, 3, H, W)."""
    with evaluating(model, None, 0) as device:
        ((batch, _),) = as_images(image, model).batches(model, device, 1)
        return list(mixer_sites(model, batch, layers).values())


# ---- a small matrix that is typed, a row in each line ---------------------------------------------------------------


def matrix_field(values: np.ndarray, description: str, width: str) -> widgets.Textarea:
    return widgets.Textarea(
        matrix_text(values), description=description, rows=len(values), continuous_update=False, layout={"width": width}
    )


def matrix_text(values: np.ndarray) -> str:
    return "\n".join(" ".join(f"{value:.3g}" for value in row) for row in values)


def read_matrix(text: str, what: str, shape: tuple[int, int], largest: np.ndarray) -> np.ndarray:
    """The numbers of a field, a row in each line; `largest` absolute values by column.

    Raises UserError, for the line below the picture, for anything else.
    """
    rows = [line.split() for line in text.strip().splitlines()]
    if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
        raise UserError(f"{what}: {shape[0]} lines of {shape[1]} numbers are needed, with spaces between")
    try:
        values = np.array(rows, dtype=float)
    except ValueError as error:
        raise UserError(f"{what}: {error}") from None
    if not (np.abs(values) <= largest).all():  # nor NaN
        limits = ", ".join(f"-{most:g} to {most:g}" for most in dict.fromkeys(largest.tolist()))
        raise UserError(f"{what}: a number is too large; its columns hold {limits}")
    return values
