"""`shape-pairs`: 128x128 images of two forms far apart, drawn; the class is whether the two are the same.

Each form is a ring or a cross, with the same probability in both classes: which forms are present says nothing, only
the relation of two places does (an exclusive or). The forms lie in strips of 32 pixels along opposite sides, so no
window of 64 pixels holds parts of both. A network that sums over such windows cannot learn the class: that is identity
in our backbone, whose stem and downsampling see 63 pixels. A mixer has to bring the two together.

Drawn as `shapes` is: in integers, from (seed, split, row) only.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from datasets import ClassLabel, Features, Image, List, Value

from stm_lab.data import rng, shapes
from stm_lab.data.shapes import PIXEL, TURN

VERSION = 1
IMAGE_SIZE = 128
CLASSES = ("same", "different")
FORMS = ("ring", "cross")
STRIP = 32  # pixels along the side that hold a form, whole
REACH = 13  # neither form reaches further than 13/10 of the radius of the disc of its area

FEATURES = Features(
    {
        "id": Value("int64"),
        "image": Image(),
        "label": ClassLabel(names=list(CLASSES)),
        # of the form at the left or upper side, then of the other
        "forms": List(ClassLabel(names=list(FORMS)), length=2),
        "centers": List(List(Value("float32"), length=2), length=2),  # x, y in pixels
        "sizes": List(Value("float32"), length=2),  # pixels: radius of the disc of the form's area
        "angles": List(Value("float32"), length=2),  # degrees, clockwise
        "seed": Value("int64"),
    }
)


def factors(seed: int, split: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that determines images `rows` (N,), as integers; lengths in 1/24 pixel, angles in 1/1024 turn.

    By form (N, 2, ...): form (0 or 1), size, angle, centre (x, y); by layer (N, 3, ...), the ground first: texture,
    contrast, colour (RGB). label (N,).
    """
    roll = rng.rolls(rng.words(VERSION, seed, shapes.SPLITS[split], rows, count=64))
    label = rows % 2
    first = roll(0, 1, 1)[:, 0]
    size, angle = roll(8 * PIXEL, 12 * PIXEL, 2), roll(0, TURN - 1, 2)
    margin = size * REACH // 10 + 1
    across = roll(margin, STRIP * PIXEL - margin, 2)  # distance from the form's own side
    across[:, 1] = IMAGE_SIZE * PIXEL - across[:, 1]
    along = roll(margin, IMAGE_SIZE * PIXEL - margin, 2)
    upright = roll(0, 1, 1)[:, :, None] == 1  # strips at the upper and lower side, not left and right
    ground = roll(60, 110, 1)
    luminance = np.concatenate([ground, ground + roll(60, 120, 2)], axis=1)
    return {
        "label": label,
        "form": np.stack([first, first ^ label], axis=1),
        "size": size,
        "angle": angle,
        "centre": np.where(upright, np.stack([along, across], axis=-1), np.stack([across, along], axis=-1)),
        "texture": roll(0, len(shapes.TEXTURES) - 1, 3),
        "contrast": roll(4, 18, 3),
        "colour": (luminance[..., None] + roll(-25, 25, 9).reshape(-1, 3, 3)).clip(0, 255),
    }


def render(factor: dict[str, np.ndarray], i: int) -> np.ndarray:
    """Image (3, 128, 128), uint8, of item `i` of `factors`' answer."""

    def painted(layer: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        texture = shapes.texture_bank()[factor["texture"][i, layer], :height, :width]
        texture = texture * factor["contrast"][i, layer].astype(np.int16) >> 7
        return (factor["colour"][i, layer].astype(np.int16)[:, None, None] + texture).clip(0, 255)  # (3, height, width)

    image = painted(0, 0, 0, IMAGE_SIZE, IMAGE_SIZE)
    for k in range(2):
        form = shapes.CLASSES.index(FORMS[factor["form"][i, k]])
        where = (factor[name][i, k] for name in ("centre", "size", "angle"))
        shapes.lay(image, form, *where, partial(painted, k + 1))
    return image.astype(np.uint8)


def examples(seed: int, split: str, start: int, stop: int) -> Iterator[dict]:
    """Images start .. stop - 1 of a split, as rows of FEATURES."""
    rows = np.arange(start, stop)
    factor = factors(seed, split, rows)
    for i, row in enumerate(rows.tolist()):
        yield {
            "id": row,
            "image": shapes.png(render(factor, i).transpose(1, 2, 0)),  # (3, 128, 128) -> (128, 128, 3)
            "label": int(factor["label"][i]),
            "forms": factor["form"][i].tolist(),
            "centers": (factor["centre"][i] / PIXEL).tolist(),
            "sizes": (factor["size"][i] / PIXEL).tolist(),
            "angles": (factor["angle"][i] * 360 / TURN).tolist(),
            "seed": seed,
        }
