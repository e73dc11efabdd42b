"""Image files as people have them: which files of a folder count, and the one way to open an image.

The result is always 8 bits, RGB, upright. Every reader of images in the package goes through `to_rgb`:

* Orientation: an image is turned as its camera noted (EXIF, or XMP).
* Transparency: composited on white, whether it is an alpha channel, a palette's alpha or one transparent colour.
* 16 bits a channel: the high byte, v >> 8 (12 bits: v >> 4), for grey images and for coloured ones.
* CMYK, YCbCr, LAB, HSV: converted by Pillow's formulas. Colour profiles (ICC) and gamma are ignored.
* Animations and files of several pages: the first image.
* Refused: 32-bit integers and floats, signed 16 bits (their range is not in the file), and 16-bit colour with a
  transparent colour (Pillow does not tell which pixels have it).
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

from stm_lab.util.errors import UserError
from stm_lab.util.files import read_bytes

_ICONS = ("ICNS", "ICO", "XBM", "XPM")
# The endings of the formats that Pillow opens and whose media type is an image: no documents (.pdf), films (.mpg) or
# containers of data (.h5)
IMAGE_FILES = frozenset(
    ending
    for ending, kind in PIL.Image.registered_extensions().items()
    if kind in PIL.Image.OPEN and PIL.Image.MIME.get(kind, "").startswith("image/") and kind not in _ICONS
)
_OF_SYSTEMS = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("__macosx", "@eadir", "lost+found"),
}


def is_leftover(name: str) -> bool:
    """Whether an operating system or a tool leaves files or folders of this name: hidden ones (macOS writes `._0.jpg`
    beside 0.jpg, and `.DS_Store`), `Thumbs.db`, `__MACOSX` and the like."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def has_image_ending(name: str) -> bool:
    """Whether a name ends like that of an image, in upper or lower case."""
    return f".{name.rpartition('.')[2]}".lower() in IMAGE_FILES


def is_image_file(name: str) -> bool:
    """Whether a file's name, without its folder, is that of an image of a set."""
    return has_image_ending(name) and not is_leftover(name)


def open_image(source: bytes | str | os.PathLike) -> PIL.Image.Image:
    """The pixels of an image, from its encoded bytes or its file: 8 bits, RGB, upright.

    Raises UserError, which does not name the file: it cannot be read, is not a whole image, is so large that it may be
    a decompression bomb, or its pixels are of a kind that this module refuses.
    """
    try:
        encoded = source if isinstance(source, bytes) else read_bytes(Path(source))
    except OSError as error:
        raise UserError(error.strerror or str(error)) from error
    try:
        with PIL.Image.open(io.BytesIO(encoded)) as image:
            packing = _packing(image)
            image.load()
            PIL.ImageOps.exif_transpose(image, in_place=True)  # a copy would not know its format
            return to_rgb(image, packing)
    except (UserError, MemoryError):  # running out of memory says nothing about the image
        raise
    except Exception as error:  # Pillow's readers raise a dozen types on broken files
        what = re.sub(r" ?<_io\.BytesIO.*?>", "", " ".join(str(error).split())) or type(error).__name__
        raise UserError(what if encoded else "no bytes, it is empty") from error


def _packing(image: PIL.Image.Image) -> str:
    """How an opened file packs its pixels, in Pillow's words, such as "L;4"; "" where Pillow does not say."""
    if image.format == "TIFF":
        bits, photometric = image.tag_v2.get(258, (1,)), image.tag_v2.get(262)
        return f"{image.mode};{bits[0]}{';inverted' if photometric == 0 else ''}"
    how = image.tile[0].args if image.tile else ""
    return how if isinstance(how, str) else ""


def to_rgb(image: PIL.Image.Image, packing: str = "") -> PIL.Image.Image:
    """An image of any mode that Pillow has as RGB, by the rules of this module; RGB itself is returned as it is.

    `packing`, from `_packing`, is how its file packs its pixels: it decides what mode and values do not tell.

    Raises UserError for modes that are refused.
    """
    key = image.info.get("transparency")
    if image.mode in ("I", "F") and not (image.mode == "I" and image.format in ("PNG", "PPM")):  # those are 0 .. 65535
        raise UserError(
            f"mode {image.mode} ({'32-bit floats' if image.mode == 'F' else 'integers of more than 16 bits, or signed'}"
            f"): the values have no known range; save it with 8 or 16 bits a channel"
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _sixteen_bit(image, key, packing)
    if key is not None and packing == "RGB;16B":
        raise UserError("16-bit colour with a transparent colour; save it with an alpha channel or with 8 bits")
    if key is not None and packing in ("L;2", "L;4"):  # Pillow spreads the values to 0 .. 255, but not the key
        image.info["transparency"] = key * 255 // (2 ** int(packing[-1]) - 1)
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image.convert("RGBA")
    white = PIL.Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white


def _sixteen_bit(image: PIL.Image.Image, key: int | None, packing: str) -> PIL.Image.Image:
    """Grey of 12 or 16 bits -> RGB of 8; pixels of the value `key` are transparent, so white."""
    values = np.asarray(image.convert("I"))  # (H, W) int32, whatever the order of the bytes
    grey = (values >> (4 if ";12" in packing else 8)).clip(0, 255).astype(np.uint8)
    if packing.endswith(";inverted"):  # TIFF's WhiteIsZero, which Pillow follows for 8 bits only
        grey = 255 - grey
    if key is not None:
        grey[values == key] = 255
    return PIL.Image.fromarray(grey).convert("RGB")
