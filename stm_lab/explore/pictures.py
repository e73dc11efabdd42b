"""What explorers of images share: a picture of one's own, images as they are drawn, controls for a place in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn

from stm_lab.data.views import check_image_size, resize_and_crop
from stm_lab.errors import UserError


def picture(path: str | Path, image_size: int) -> Tensor:
    """(1, 3, S, S) uint8: a photograph of one's own, its shorter side resized and its middle cut out.

    Raises UserError for a file that is not there or is no image, and for a size that is none.
    """
    check_image_size(image_size)
    try:
        with Image.open(path) as image:
            pixels = np.array(resize_and_crop(image.convert("RGB"), image_size))
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"picture = {str(path)!r}: {str(error).splitlines()[0]}") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def as_shown(image: Tensor) -> np.ndarray:
    """(3, H, W), uint8 or in [0, 1] -> (H, W, 3) in [0, 1]."""
    shown = image.permute(1, 2, 0).float().cpu().numpy()
    return (shown / 255 if image.dtype == torch.uint8 else shown).clip(0, 1)


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
