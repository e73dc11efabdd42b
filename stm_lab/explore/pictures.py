"""What explorers of images share: a picture of one's own, images as they are drawn, controls for a place in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stm_lab.data.image_files import open_image
from stm_lab.data.views import check_image_size
from stm_lab.measure._batches import as_images
from stm_lab.pixels import EvaluationView
from stm_lab.util.errors import UserError


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


def as_shown(image: Tensor) -> np.ndarray:
    """(3, H, W), uint8 or in [0, 1] -> (H, W, 3) in [0, 1]."""
    shown = image.permute(1, 2, 0).float().cpu().numpy()
    return (shown / 255 if image.dtype == torch.uint8 else shown).clip(0, 1)


def mean_colours(image: Tensor, rows: int, columns: int) -> np.ndarray:
    """(3, H, W), uint8 or in [0, 1] -> (rows, columns, 3) in [0, 1]: the mean colour of each token's patch."""
    shown = torch.from_numpy(as_shown(image)).permute(2, 0, 1)
    return F.adaptive_avg_pool2d(shown, (rows, columns)).permute(1, 2, 0).numpy()


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
