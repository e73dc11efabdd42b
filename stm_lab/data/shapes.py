"""`shapes`: drawn, never downloaded. 64x64 images of ten classes, told apart by the form of the one bright figure.

Place, size, angle, colours and textures of figure, ground and distractors are drawn without regard to the class. The
distractors are forms of the same ten classes; only they are darker than the ground, and the figure is brighter. All
forms have the same area and contours of about the same length. So averages of pixels, colours and local texture say
little, and the power spectrum, which does not know the sign of a contrast, cannot tell the figure from its distractors:
a network has to see which contours are the figure's, and how they join. Three groups of classes share their local
detail: curves (ring, arch, crescent), right angles (bar, cross, l_shape, t_shape), acute angles (triangle, star, dart).

Every number is an integer, from the random words to the antialiased edge, so the same seed gives the same pixels on any
machine. Image i of a split depends on (seed, split, i) only. While drawing, lengths are in 1/24 pixel and angles in
1/1024 turn; the columns give pixels and degrees.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np
import PIL.Image
from datasets import ClassLabel, Features, Image, List, Value

from stm_lab.data import rng

VERSION = 3  # counts up with every change of a pixel: it is part of the fingerprint
IMAGE_SIZE = 64
CLASSES = ("ring", "arch", "crescent", "bar", "cross", "l_shape", "t_shape", "triangle", "star", "dart")
SPLITS = {"train": 0, "validation": 1}  # each split has its own stream of random words

PIXEL = 24  # a pixel's side, in the unit of drawing
TURN = 1024  # a whole turn
ONE = 1 << 14  # 1 in the fixed point of sines, and of the way from pixels to stencil cells

# ---- stencils: every form once, large, as cells; images look them up, turned and scaled ------------------------------

CELLS = 384  # side of a stencil
UNIT = 56  # cells: radius of the disc that has a form's area; forms are given in thousandths of it
REACH = 18  # no form reaches further than 18/10 of that radius; its box's corners, turned, lie within the stencil

POLYGONS = {  # around the centre of the smallest enclosing circle, in any unit
    "bar": ((-350, -100), (350, -100), (350, 100), (-350, 100)),
    "cross": (
        (-100, -300), (100, -300), (100, -100), (300, -100), (300, 100), (100, 100),
        (100, 300), (-100, 300), (-100, 100), (-300, 100), (-300, -100), (-100, -100),
    ),
    "l_shape": ((-270, -270), (-70, -270), (-70, 70), (270, 70), (270, 270), (-270, 270)),
    "t_shape": (
        (-283, -221), (283, -221), (283, -21), (100, -21), (100, 345), (-100, 345), (-100, -21), (-283, -21),
    ),
    "triangle": ((0, -901), (500, 749), (-500, 749)),
    "star": (
        (0, -1000), (294, -405), (951, -309), (476, 155), (588, 809),
        (0, 500), (-588, 809), (-476, 155), (-951, -309), (-294, -405),
    ),
    "dart": ((0, -100), (90, 45), (0, 14), (-90, 45)),
}  # fmt: skip


@lru_cache
def sines() -> np.ndarray:
    """round(ONE * sin) of each 1/TURN turn. No value lies near a half, so any machine's sine rounds alike."""
    return np.array([round(ONE * math.sin(2 * math.pi * k / TURN)) for k in range(TURN)], np.int64)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """x (1, CELLS) and y (CELLS, 1) of the cells' centres, in thousandths of the unit from the middle, rounded down."""
    axis = (2 * np.arange(CELLS, dtype=np.int64) - (CELLS - 1)) * 1000 // (2 * UNIT)
    return axis[None, :], axis[:, None]


def _fill(polygon: np.ndarray) -> np.ndarray:
    """Cells (CELLS, CELLS) inside a polygon (n, 2), by the even-odd rule in integers."""
    x, y = _grid()
    inside = np.zeros((CELLS, CELLS), bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        spans = (y0 <= y) != (y1 <= y)
        left = (x - x0) * (y1 - y0) < (x1 - x0) * (y - y0)
        inside ^= spans & (left == (y1 > y0))
    return inside


def _disc(radius: int, x0: int = 0, y0: int = 0) -> np.ndarray:
    x, y = _grid()
    return (x - x0) ** 2 + (y - y0) ** 2 <= radius**2


@lru_cache
def form_stencils() -> np.ndarray:
    """Stencils of the classes (10, CELLS * CELLS), uint8 0 or 1; all of one area, within 1%."""
    _, y = _grid()
    forms = {
        "ring": _disc(1102) & ~_disc(463),
        "arch": _disc(1584) & ~_disc(713) & (y < 0),
        "crescent": _disc(1381) & ~_disc(1174, 898),
    }
    for name, vertices in POLYGONS.items():
        corners = np.array(vertices, np.int64)
        following = np.roll(corners, -1, axis=0)
        twice_area = abs(int((corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]).sum()))
        # to the area of the disc of radius 1000, with pi as 355 / 113 and ten more bits for the root
        scale = math.isqrt((2 * 355 * 1000**2 << 20) // (113 * twice_area))
        forms[name] = _fill(corners * scale >> 10)
    return np.stack([forms[name] for name in CLASSES]).reshape(len(CLASSES), -1).astype(np.uint8)


# ---- textures: a fixed bank; images cut windows out of it ------------------------------------------------------------

BANK_SIZE = 128  # side of a texture; windows of IMAGE_SIZE are cut out of it
NOISE_SPECTRA = (  # weights of the octaves: lattices of spacing 1, 2, 4, 8, 16, 32 pixels
    (1, 0, 0, 0, 0, 0),
    (0, 1, 0, 0, 0, 0),
    (0, 0, 1, 0, 0, 0),
    (0, 0, 0, 1, 0, 0),
    (3, 2, 1, 0, 0, 0),
    (1, 1, 1, 1, 1, 1),
    (1, 2, 4, 8, 16, 32),
    (4, 0, 0, 0, 4, 8),
)
LIGHT_SPECTRA = ((0, 0, 0, 2, 1, 0), (0, 0, 0, 1, 1, 0), (0, 0, 0, 2, 2, 1), (0, 0, 0, 1, 2, 0))  # as coarse as figures
LIGHTS = 10 * len(LIGHT_SPECTRA)
FAMILIES = {  # family of textures -> how many there are, and how texture i is made
    "gradient": (8, lambda i: _wave((150 + 20 * i) * PIXEL, 37 + 128 * i)),
    "stripes": (8, lambda i: _wave((3, 4, 5, 7, 8, 10, 13, 17)[i] * PIXEL, 11 + 413 * i)),
    "bars": (8, lambda i: _bars((4, 5, 6, 7, 9, 11, 14, 18)[i] * PIXEL, 70 + 437 * i, (-64, 0, 64)[i % 3])),
    "checks": (8, lambda i: _checks((4, 5, 6, 8, 10, 12, 14, 18)[i] * PIXEL, 45 + 97 * i)),
    "speckle": (8, lambda i: _speckle(i)),
    "noise": (3 * len(NOISE_SPECTRA), lambda i: _octaves(NOISE_SPECTRA[i % len(NOISE_SPECTRA)], stream=3, number=i)),
}
TEXTURES = tuple(f"{family}_{i}" for family, (number, _) in FAMILIES.items() for i in range(number))


@lru_cache
def texture_bank() -> np.ndarray:
    """All textures (len(TEXTURES), BANK_SIZE, BANK_SIZE), int8: mean about 0, mean absolute value about 48."""
    return _bank([make(i) for number, make in FAMILIES.values() for i in range(number)])


@lru_cache
def light_bank() -> np.ndarray:
    """Patterns of light and shadow (LIGHTS, BANK_SIZE, BANK_SIZE), int8, as textures are."""
    return _bank([_octaves(LIGHT_SPECTRA[i % len(LIGHT_SPECTRA)], stream=4, number=i) for i in range(LIGHTS)])


def _bank(patterns: list[np.ndarray]) -> np.ndarray:
    bank = np.stack(patterns)  # (number, BANK_SIZE, BANK_SIZE) int64
    bank = (bank - bank.sum(axis=(1, 2), keepdims=True) // BANK_SIZE**2) * 256
    bank = bank * 48 // (abs(bank).sum(axis=(1, 2), keepdims=True) // BANK_SIZE**2)
    return bank.clip(-127, 127).astype(np.int8)


def _wave(period: int, angle: int) -> np.ndarray:
    """A triangle wave in [-128, 128] of `period`, in 1/24 pixel, along `angle`."""
    axis = np.arange(BANK_SIZE, dtype=np.int64) * PIXEL
    along = (axis[None, :] * sines()[(angle + TURN // 4) % TURN] + axis[:, None] * sines()[angle % TURN]) // ONE
    return abs(along * 512 // period % 512 - 256) - 128


def _bars(period: int, angle: int, duty: int) -> np.ndarray:
    return np.where(_wave(period, angle) < duty, -128, 128)


def _checks(period: int, angle: int) -> np.ndarray:
    return np.where((_wave(period, angle) < 0) ^ (_wave(period, angle + TURN // 4) < 0), -128, 128)


def _speckle(i: int) -> np.ndarray:
    one_in, radius = (6, 10, 16, 24, 40, 60, 90, 130)[i], 1 + i // 3
    seeds = rng.below(rng.words(VERSION, 2, i, count=BANK_SIZE**2).reshape(BANK_SIZE, BANK_SIZE), one_in) == 0
    dots = np.zeros_like(seeds)
    for dy in range(1 - radius, radius):
        for dx in range(1 - radius, radius):
            if dx * dx + dy * dy < radius * radius:
                dots |= np.roll(seeds, (dy, dx), axis=(0, 1))
    return np.where(dots, 128, -128) * (1 - 2 * (i % 2))


def _octaves(weights: tuple[int, ...], stream: int, number: int) -> np.ndarray:
    values = rng.below(rng.words(VERSION, stream, number, count=len(weights) * BANK_SIZE**2), 257) - 128
    octaves = zip(weights, values.reshape(len(weights), BANK_SIZE, BANK_SIZE), strict=True)
    return sum(weight * _lattice(value, 1 << k) for k, (weight, value) in enumerate(octaves) if weight)


def _lattice(values: np.ndarray, spacing: int) -> np.ndarray:
    """Random values on a lattice, periodic, with straight lines between (bilinear)."""
    texture = values[: BANK_SIZE // spacing, : BANK_SIZE // spacing]
    part = np.arange(BANK_SIZE) % spacing
    for _ in range(2):  # rows, then columns
        low, high = np.repeat(texture, spacing, axis=0), np.repeat(np.roll(texture, -1, axis=0), spacing, axis=0)
        texture = (low + (high - low) * part[:, None] // spacing).T
    return texture


# ---- factors ---------------------------------------------------------------------------------------------------------

LAYERS = 4  # ground, up to two distractors, figure


def factors(seed: int, split: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that determines images `rows` (N,) of a split, as integers.

    By layer (N, LAYERS, ...): texture, window (x, y in the bank), turn (0-7, the square's symmetries), colour (RGB),
    contrast (RGB); by placed layer (N, LAYERS - 1, ...): form, size, angle, centre (x, y). The last is the figure; its
    form is the label. By image: distractors (N,), how many are drawn; light (N,), light_window (N, 2) and
    light_contrast (N,).
    """
    roll = rng.rolls(rng.words(seed, SPLITS[split], rows, count=128))
    placed = LAYERS - 1
    texture, turn = roll(0, len(TEXTURES) - 1, LAYERS), roll(0, 7, LAYERS)
    window = roll(0, BANK_SIZE - IMAGE_SIZE, LAYERS, 2)
    # Distractors stand out from the ground more than the figure does, so that they rule the image's spectrum.
    ground = roll(140, 170, 1)
    luminance = np.concatenate([ground, ground - roll(110, 150, placed - 1), ground + roll(55, 80, 1)], axis=1)
    chroma = roll(-40, 40, LAYERS, 3)
    colour = (luminance[..., None] + chroma - chroma.sum(axis=-1, keepdims=True) // 3).clip(0, 255)
    contrast = roll(4, 18, LAYERS, 1) + roll(-12, 12, LAYERS, 3)
    form = np.concatenate([roll(0, len(CLASSES) - 1, placed - 1), (rows % len(CLASSES))[:, None]], axis=1)
    size, angle = roll(8 * PIXEL, 15 * PIXEL, placed), roll(0, TURN - 1, placed)
    # The figure is whole, at any place its size allows, the same for all classes; distractors may be cut off.
    margin = np.where(np.arange(placed) == placed - 1, size * REACH // 10, 0)[..., None]
    centre = roll(margin, IMAGE_SIZE * PIXEL - margin, placed, 2)
    return {
        "texture": texture, "turn": turn, "window": window, "colour": colour, "contrast": contrast,
        "form": form, "size": size, "angle": angle, "centre": centre, "distractors": roll(1, placed - 1, 1)[:, 0],
        "light": roll(0, LIGHTS - 1, 1)[:, 0], "light_window": roll(0, BANK_SIZE - IMAGE_SIZE, 2),
        "light_contrast": roll(0, 30, 1)[:, 0],
    }  # fmt: skip


# ---- drawing ---------------------------------------------------------------------------------------------------------

SAMPLES = 3  # along each side of a pixel: edges have ten levels
_STEP = PIXEL // SAMPLES


def coverage(
    stencil: np.ndarray, centre: np.ndarray, size: int, angle: int, image_size: int
) -> tuple[np.ndarray, int, int]:
    """How much of each pixel a turned and scaled stencil covers: (h, w) int16 in 0 .. 9, and the box's left and top.

    `size` is the radius of the disc of the form's area.
    """
    reach = size * REACH // 10
    first = np.maximum(centre - reach, 0) // PIXEL
    last = np.minimum((centre + reach) // PIXEL + 1, image_size)
    x, y = (
        np.arange(a * PIXEL + _STEP // 2, b * PIXEL, _STEP, dtype=np.int32) - np.int32(c)
        for a, b, c in zip(first.tolist(), last.tolist(), centre.tolist(), strict=True)
    )
    cosine, sine = (int(sines()[k % TURN]) * UNIT // size for k in (angle + TURN // 4, angle))
    middle = CELLS // 2 * ONE
    column = (middle + cosine * x)[None, :] + (sine * y)[:, None]  # (3h, 3w), cells in fixed point
    row = (middle - sine * x)[None, :] + (cosine * y)[:, None]
    column >>= 14
    row >>= 14
    row *= CELLS
    row += column
    inside = stencil.take(row)
    inside = inside[:, 0::3] + inside[:, 1::3] + inside[:, 2::3]
    inside = inside[0::3] + inside[1::3] + inside[2::3]
    return inside.astype(np.int16), int(first[0]), int(first[1])


def lay(
    image: np.ndarray, form: int, centre: np.ndarray, size: int, angle: int, paint: Callable[..., np.ndarray]
) -> tuple[np.ndarray, int, int]:
    """Lay a form of CLASSES over an image (3, S, S), as much of each pixel as it covers; what `coverage` gives.

    `paint(left, top, width, height)` gives the pixels (3, height, width) of the form's box.
    """
    covered, left, top = coverage(form_stencils()[form], centre, int(size), int(angle), image.shape[-1])
    height, width = covered.shape
    below = image[:, top : top + height, left : left + width]
    below += (paint(left, top, width, height) - below) * covered // SAMPLES**2
    return covered, left, top


def render(factor: dict[str, np.ndarray], i: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (3, 64, 64) and mask of the figure (64, 64), 0 or 255, both uint8, of item `i` of `factors`' answer."""
    bank = texture_bank()

    def painted(layer: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        u, v = factor["window"][i, layer].tolist()
        texture = bank[factor["texture"][i, layer], v : v + IMAGE_SIZE, u : u + IMAGE_SIZE]
        turn = int(factor["turn"][i, layer])
        texture = texture[:: 1 - 2 * (turn & 1), :: 1 - (turn & 2)]
        texture = (texture.T if turn & 4 else texture)[top : top + height, left : left + width]
        colour = texture * factor["contrast"][i, layer].astype(np.int16)[:, None, None]  # (3, height, width) int16
        colour >>= 7
        colour += factor["colour"][i, layer].astype(np.int16)[:, None, None]
        return colour.clip(0, 255, out=colour)

    image = painted(0, 0, 0, IMAGE_SIZE, IMAGE_SIZE)
    for placed in (*range(factor["distractors"][i]), LAYERS - 2):  # the figure comes last
        where = (factor[name][i, placed] for name in ("form", "centre", "size", "angle"))
        covered, left, top = lay(image, *where, partial(painted, placed + 1))
    u, v = factor["light_window"][i].tolist()
    light = light_bank()[factor["light"][i], v : v + IMAGE_SIZE, u : u + IMAGE_SIZE].astype(np.int16)
    image += light * factor["light_contrast"][i].astype(np.int16) >> 7
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    mask[top : top + covered.shape[0], left : left + covered.shape[1]] = np.where(2 * covered > SAMPLES**2, 255, 0)
    return image.clip(0, 255).astype(np.uint8), mask


def png(pixels: np.ndarray) -> dict[str, bytes]:
    """A PNG of (H, W) or (H, W, 3) uint8, without row filters: half of Pillow's time here, and smaller."""
    height, width = pixels.shape[:2]
    lines = np.zeros((height, 1 + pixels.size // height), np.uint8)  # each begins with its filter: 0, none
    lines[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    for tag, body in ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 1)), (b"IEND", b"")):
        png += struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))
    return {"bytes": png, "path": None}


_TEXTURE = ClassLabel(names=list(TEXTURES))
_RGB = List(Value("uint8"), length=3)
_PLACED = {  # columns of the figure, and of each distractor
    "center": List(Value("float32"), length=2),  # x, y in pixels, from the image's upper left corner
    "size": Value("float32"),  # pixels: radius of the disc that has the form's area
    "angle": Value("float32"),  # degrees, clockwise
    "texture": _TEXTURE,
    "color": _RGB,  # the mean that the texture varies about
}
FEATURES = Features(
    {
        "id": Value("int64"),  # the image's number in its split
        "image": Image(),
        "label": ClassLabel(names=list(CLASSES)),
        "mask": Image(),  # of the figure: 0 or 255
        "bbox": List(Value("int32"), length=4),  # of the mask, pixels: [x0, x1) x [y0, y1) as x0, y0, x1, y1
        **_PLACED,
        "ground_texture": _TEXTURE,
        "ground_color": _RGB,
        "distractors": List({"form": ClassLabel(names=list(CLASSES)), **_PLACED}),
        "light": Value("int32"),  # the pattern of light and shadow over the whole image
        "light_contrast": Value("int32"),
        "seed": Value("int64"),
    }
)


def examples(seed: int, split: str, start: int, stop: int) -> Iterator[dict]:
    """Images start .. stop - 1 of a split, as rows of FEATURES."""
    rows = np.arange(start, stop)
    factor = factors(seed, split, rows)
    columns = {
        "form": factor["form"],
        "center": factor["centre"] / PIXEL,
        "size": factor["size"] / PIXEL,
        "angle": factor["angle"] * 360 / TURN,
        "texture": factor["texture"][:, 1:],
        "color": factor["colour"][:, 1:],
    }
    for i, row in enumerate(rows.tolist()):
        image, mask = render(factor, i)
        placed = [{name: values[i, k].tolist() for name, values in columns.items()} for k in range(LAYERS - 1)]
        figure = placed.pop()
        yield {
            "id": row,
            "image": png(image.transpose(1, 2, 0)),  # (3, 64, 64) -> (64, 64, 3)
            "label": figure.pop("form"),
            "mask": png(mask),
            "bbox": list(PIL.Image.fromarray(mask).getbbox()),
            **figure,
            "ground_texture": int(factor["texture"][i, 0]),
            "ground_color": factor["colour"][i, 0].tolist(),
            "distractors": placed[: factor["distractors"][i]],
            "light": int(factor["light"][i]),
            "light_contrast": int(factor["light_contrast"][i]),
            "seed": seed,
        }
