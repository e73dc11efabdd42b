"""A few photographs that anybody may use and that need no network: scikit-image's wheel carries them."""

from __future__ import annotations

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from stm_lab.data.views import check_image_size, resize_and_crop
from stm_lab.errors import UserError, check_known

PHOTOGRAPHS = {
    "chelsea": "a cat's face (Stefan van der Walt, CC0)",
    "astronaut": "Eileen Collins in front of a model (NASA, public domain)",
    "coffee": "a cup on a table (Rachel Michetti, CC0)",
    "rocket": "a rocket that starts (SpaceX, public domain)",
    "camera": "a man with a camera, grey (Lav Varshney, CC0)",
}


def photograph(name: str = "chelsea", image_size: int = 224) -> Tensor:
    """(1, 3, S, S) uint8: one of `PHOTOGRAPHS`, its shorter side resized and its middle cut out.

    Raises UserError for a name that is not among them, for a size that is none, and without scikit-image.
    """
    check_known("photograph", name, PHOTOGRAPHS)
    check_image_size(image_size)
    try:
        from skimage import data
    except ImportError:
        raise UserError("photographs need scikit-image: pip install 'stm-lab[lab]'") from None
    pixels = getattr(data, name)()
    image = resize_and_crop(PIL.Image.fromarray(pixels).convert("RGB"), image_size)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
