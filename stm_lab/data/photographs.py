"""A few photographs that anybody may use and that need no network: scikit-image's wheel carries them."""

from __future__ import annotations

import PIL.Image
from torch import Tensor

from stm_lab.data.image_files import to_rgb
from stm_lab.data.views import check_image_size
from stm_lab.pixels import EvaluationView
from stm_lab.util.errors import UserError, check_known

PHOTOGRAPHS = {
    "chelsea": "a cat's face (Stefan van der Walt, CC0)",
    "astronaut": "Eileen Collins in front of a model (NASA, public domain)",
    "coffee": "a cup on a table (Rachel Michetti, CC0)",
    "rocket": "a rocket that starts (SpaceX, public domain)",
    "camera": "a man with a camera, grey (Lav Varshney, CC0)",
}


def photograph(name: str = "chelsea", image_size: int = 224) -> Tensor:
    """(1, 3, S, S) uint8: one of `PHOTOGRAPHS`; its shorter side is resized, and the centre is cropped.

    Raises UserError for a name that is not among them, for a size that is none, and without scikit-image.
    """
    check_known("photograph", name, PHOTOGRAPHS)
    check_image_size(image_size)
    try:
        from skimage import data
    except ImportError:
        raise UserError("photographs need scikit-image: pip install 'stm-lab[lab]'") from None
    pixels = getattr(data, name)()
    return EvaluationView(image_size)(to_rgb(PIL.Image.fromarray(pixels)))[None]
