"""What explorers of images share: a picture of one's own, images as they are drawn, controls for a place in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from stm_lab.data.image_files import open_image
from stm_lab.data.views import check_image_size
from stm_lab.pixels import EvaluationView
from stm_lab.util.errors import UserError


def picture(source: str | Path | np.ndarray, view: EvaluationView | int) -> Tensor:
    """(1, 3, H, W) uint8: a photograph of one's own, resized and cropped.

    source: the path of a file, or an array (H, W, 3), uint8 or in [0, 1].
    view: what is shown of it, such as `EvaluationView.of(model)`; a number is `EvaluationView(number)`.
    Raises UserError for a file that is not there or is no image, an array that is none, and for a size that is none.
    """
    view = EvaluationView(view) if isinstance(view, int) else view
    check_image_size(min(view.size))
    if isinstance(source, np.ndarray):
        image = _of_array(source)
    else:
        try:
            image = open_image(source)
        except UserError as error:
            raise UserError(f"picture = {str(source)!r}: {error}") from error
    return view(image)[None]


def _of_array(pixels: np.ndarray) -> Image.Image:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise UserError(f"picture: an array of shape {pixels.shape}; expected (H, W, 3)")
    if np.issubdtype(pixels.dtype, np.floating):
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # nor NaN
            raise UserError(f"picture: values from {pixels.min():.3g} to {pixels.max():.3g}; expected 0 to 1, or uint8")
        pixels = (255 * pixels).round().astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise UserError(f"picture: an array of {pixels.dtype}; expected uint8, or floats in [0, 1]")
    return Image.fromarray(pixels)


def as_shown(image: Tensor) -> np.ndarray:
    """(3, H, W), uint8 or in [0, 1] -> (H, W, 3) in [0, 1]."""
    shown = image.permute(1, 2, 0).float().cpu().numpy()
    return (shown / 255 if image.dtype == torch.uint8 else shown).clip(0, 1)


def one_each(images: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By name, (3, H, W) or (1, 3, H, W) -> (3, H, W)."""
    return {name: image[0] if image.ndim == 4 else image for name, image in images.items()}


def mean_colours(image: Tensor, rows: int, columns: int) -> np.ndarray:
    """(3, H, W), uint8 or in [0, 1] -> (rows, columns, 3) in [0, 1]: the mean colour of each token's patch."""
    shown = torch.from_numpy(as_shown(image)).permute(2, 0, 1)
    return F.adaptive_avg_pool2d(shown, (rows, columns)).permute(1, 2, 0).numpy()


def token_at(row: int, column: int, size: tuple[int, int], cells: tuple[int, int]) -> tuple[int, int]:
    """The token in whose area the middle of a pixel lies: of `cells` (rows, columns) over an image of `size` pixels."""
    found = zip((row, column), size, cells, strict=True)
    return tuple((2 * at + 1) * count // (2 * pixels) for at, pixels, count in found)


def pixel_at(x: float, y: float, size: tuple[int, int]) -> dict[str, int]:
    """The controls of `place_controls` for a click, by its place in pixels; beside the image the nearest pixel."""
    return {"row": min(max(int(y), 0), size[0] - 1), "column": min(max(int(x), 0), size[1] - 1)}


def check_models(models: Mapping[str, nn.Module]) -> None:
    """Raises UserError unless there are some."""
    if not models:
        raise UserError("no models to choose from; give {name: model}")


def place_controls(images: int, size: tuple[int, int]) -> dict[str, widgets.Widget]:
    """Sliders for the image's number and for a pixel's row and column, the middle first."""
    return {
        "image": widgets.IntSlider(0, 0, images - 1, description="image"),
        "row": widgets.IntSlider(size[0] // 2, 0, size[0] - 1, description="row (pixel)"),
        "column": widgets.IntSlider(size[1] // 2, 0, size[1] - 1, description="column (pixel)"),
    }
