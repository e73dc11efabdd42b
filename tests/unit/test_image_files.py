"""Opening images: every kind that Pillow reads comes out as its values say, or is refused by name in one line.

The truth is arithmetic on the values that were written; rare kinds of PNG and TIFF are written here, byte by byte.
"""

import colorsys
import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from stm_lab import UserError
from stm_lab.data.image_files import open_image, to_rgb
from stm_lab.explore.parts import picture

SHAPE = (5, 7)
RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (*SHAPE, 4), np.uint8)
ALPHA = BYTES[..., 3:] / 255


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3 or 1) and (H, W, 1) -> (H, W, 3)."""
    return np.broadcast_to(colour * alpha + 255 * (1 - alpha), (*SHAPE, 3))


def opened(content: bytes) -> np.ndarray:
    image = open_image(content)
    assert image.mode == "RGB"
    return np.asarray(image).astype(float)


def saved(mode: str, values: np.ndarray, file_format: str, **options) -> bytes:
    image = PIL.Image.frombytes(mode, values.shape[1::-1], values.tobytes())
    sink = io.BytesIO()
    image.save(sink, file_format, **options)
    return sink.getvalue()


# ---- what Pillow can write ------------------------------------------------------------------------------------------


def ycbcr(values: np.ndarray) -> np.ndarray:
    """JFIF's formulas."""
    y, cb, cr = np.moveaxis(values[..., :3].astype(float), -1, 0)
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    return np.stack([red, y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), blue], -1).clip(0, 255)


def hsv(values: np.ndarray) -> np.ndarray:
    return np.array([[colorsys.hsv_to_rgb(*(pixel[:3] / 255)) for pixel in row] for row in values]) * 255


def premultiplied(values: np.ndarray) -> np.ndarray:
    """Colours below their alpha, as they are in modes La and RGBa."""
    return np.concatenate([np.minimum(values[..., :-1], values[..., -1:]), values[..., -1:]], -1)


PALETTE = RNG.integers(0, 256, (256, 3), np.uint8)
L, LA, RGB = BYTES[..., 0], BYTES[..., 2:], BYTES[..., :3]
La, RGBa = premultiplied(LA), premultiplied(BYTES)
CMYK = (255 - BYTES[..., :3].astype(float)) * (255 - BYTES[..., 3:]) / 255
BITS = np.where(L > 127, 255, 0).astype(np.uint8)
KINDS = {  # mode -> values, what they look like, and how far conversion by whole numbers may be from it
    "L": (L, L[..., None], 0),
    "LA": (LA, on_white(LA[..., :1], ALPHA), 1),
    "La": (La, La[..., :1] + (255.0 - La[..., 1:]), 2),
    "RGB": (RGB, RGB, 0),
    "RGBX": (BYTES, RGB, 0),
    "RGBA": (BYTES, on_white(RGB, ALPHA), 1),
    "RGBa": (RGBa, RGBa[..., :3] + (255.0 - RGBa[..., 3:]), 2),
    "CMYK": (BYTES, CMYK, 1),
    "YCbCr": (RGB, ycbcr(RGB), 2),
    "HSV": (RGB, hsv(RGB), 8),  # a hue of 256 steps
}
FORMATS = {  # in which Pillow writes and reads the mode itself
    "L": ("PNG", "TIFF", "BMP", "PPM", "TGA", "JPEG2000"),
    "LA": ("PNG", "TIFF", "TGA", "JPEG2000"),
    "RGB": ("PNG", "TIFF", "BMP", "PPM", "TGA", "JPEG2000", "GIF"),
    "RGBA": ("PNG", "TIFF", "TGA", "JPEG2000"),
    "CMYK": ("TIFF", "JPEG2000"),
    "YCbCr": ("TIFF",),
}


@pytest.mark.parametrize("mode", KINDS)
def test_each_mode_of_whole_bytes_looks_as_its_values_say(mode):
    values, truth, tolerance = KINDS[mode]
    found = {"array": np.asarray(to_rgb(PIL.Image.frombytes(mode, SHAPE[::-1], values.tobytes()))).astype(float)}
    for file_format in FORMATS.get(mode, ()):
        found[file_format] = opened(saved(mode, values, file_format))
    if mode in ("RGB", "RGBA"):
        found["WEBP"] = opened(saved(mode, values, "WEBP", lossless=True, exact=True))
    for where, pixels in found.items():
        assert np.abs(pixels - truth).max() <= tolerance, where


def test_bits_are_black_and_white():
    packed = PIL.Image.fromarray(BITS).convert("1")
    for file_format in ("PNG", "TIFF", "BMP", "PPM"):
        packed.save(sink := io.BytesIO(), file_format)
        np.testing.assert_array_equal(opened(sink.getvalue()), np.repeat(BITS[..., None], 3, -1))


def test_lab_is_that_of_the_cie_under_d50():
    """CIE's definition, D50 to D65 by Bradford, and sRGB's primaries and curve; of colours that sRGB has."""
    lab = np.stack([RNG.uniform(30, 80, SHAPE), *RNG.uniform(-20, 20, (2, *SHAPE))], -1)
    stored = np.stack([lab[..., 0] * 2.55, lab[..., 1] + 128, lab[..., 2] + 128], -1).round().astype(np.uint8)
    light, a, b = stored[..., 0] / 2.55, stored[..., 1] - 128.0, stored[..., 2] - 128.0
    y = (light + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1.0, 0.8249]
    matrix = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = (xyz @ np.array(matrix).T).clip(0, 1)
    truth = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    signed = stored.copy()
    signed[..., 1:] ^= 128  # Pillow's own bytes, of a mode whose values numpy sees unsigned
    image = PIL.Image.frombytes("LAB", SHAPE[::-1], signed.tobytes())
    image.save(sink := io.BytesIO(), "TIFF")
    assert np.abs(np.asarray(to_rgb(image)) - truth).max() <= 4
    assert np.abs(opened(sink.getvalue()) - truth).max() <= 4


def test_cmyk_jpegs_have_the_colours_of_their_inks():
    """Adobe's programs, and so everybody, store CMYK inverted in a JPEG."""
    inks = np.kron(np.array([[[0, 0, 0, 0], [255, 0, 0, 0]], [[0, 255, 255, 0], [0, 0, 0, 128]]]), np.ones((16, 16, 1)))
    content = saved("CMYK", inks.astype(np.uint8), "JPEG", quality=100, subsampling=0)
    truth = (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
    assert np.abs(opened(content) - truth).max() <= 4


@pytest.mark.parametrize("transparent", [None, 3, bytes([0, 100, 255])])
def test_palettes_with_and_without_transparency(transparent):
    alpha = np.full(256, 255.0)
    if transparent == 3:
        alpha[3] = 0
    elif transparent:
        alpha[: len(transparent)] = list(transparent)
    places = RNG.integers(0, 5, SHAPE, np.uint8)
    truth = on_white(PALETTE[places], alpha[places][..., None] / 255)
    image = PIL.Image.fromarray(places)
    image.putpalette(PALETTE.tobytes())
    options = {} if transparent is None else {"transparency": transparent}
    for file_format in ("PNG",) if isinstance(transparent, bytes) else ("PNG", "GIF"):
        image.save(sink := io.BytesIO(), file_format, **options)
        assert np.abs(opened(sink.getvalue()) - truth).max() <= 1, file_format
    with_alpha = PIL.Image.frombytes("PA", SHAPE[::-1], np.stack([places, BYTES[..., 3]], -1).tobytes())
    with_alpha.putpalette(PALETTE.tobytes())
    with_alpha = with_alpha if with_alpha.mode == "PA" else with_alpha.convert("PA")
    assert np.abs(np.asarray(to_rgb(with_alpha)) - on_white(PALETTE[places], ALPHA)).max() <= 1


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_images_in_a_file_the_first_is_taken(file_format):
    first, second = (PIL.Image.new("RGB", SHAPE, colour) for colour in ((250, 0, 0), (0, 0, 250)))
    options = {"lossless": True} if file_format == "WEBP" else {}
    first.save(sink := io.BytesIO(), file_format, save_all=True, append_images=[second], **options)
    assert PIL.Image.open(sink).n_frames == 2
    np.testing.assert_array_equal(opened(sink.getvalue()), np.asarray(first))


# ---- what it cannot write: PNG and TIFF by hand ----------------------------------------------------------------------


def png(depth: int, colour_type: int, values: np.ndarray, key: tuple[int, ...] = ()) -> bytes:
    """A PNG of values (H, W, C) of `depth` bits each, in which the colour `key` is transparent."""
    height, width, _ = values.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    bits = (values.reshape(height, -1)[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    lines = b"".join(b"\0" + np.packbits(line.astype(np.uint8).ravel()).tobytes() for line in bits)
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"tRNS", struct.pack(f">{len(key)}H", *key)), (b"IDAT", zlib.compress(lines))]
    if not key:
        del chunks[1]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in (*chunks, (b"IEND", b"")))


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(
    ("depth", "colour_type"), [*((depth, 0) for depth in (1, 2, 4, 8, 16)), (8, 2), (16, 2), (16, 4), (16, 6)]
)
def test_png_of_every_depth_with_and_without_a_transparent_colour(depth, colour_type, transparent):
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    values = RNG.integers(0, 2**depth, (*SHAPE, channels))
    values[0, :2] = values[1, :2]
    key = tuple(map(int, values[0, 0])) if transparent and colour_type in (0, 2) else ()
    content = png(depth, colour_type, values, key)
    if key and (depth, colour_type) == (16, 2):
        with pytest.raises(UserError, match="16-bit colour with a transparent colour"):
            open_image(content)
        return
    eight = values * 255 // (2**depth - 1) if depth < 16 else values // 256
    alpha = eight[..., -1:] / 255 if channels % 2 == 0 else np.ones((*SHAPE, 1))
    if key:
        alpha = (values != key).any(-1, keepdims=True).astype(float)
    truth = on_white(eight[..., : channels - (channels % 2 == 0)], alpha)
    assert np.abs(opened(content) - truth).max() <= (1 if channels % 2 == 0 else 0)


def tiff(depth: int, values: np.ndarray, order: str, photometric: int = 1, sample_format: int = 1) -> bytes:
    """A grey TIFF of one strip; `order` is "<" or ">"."""
    height, width = values.shape
    if depth == 12:
        bits = (values[..., None] >> np.arange(11, -1, -1)) & 1
        pixels = b"".join(np.packbits(line.astype(np.uint8).ravel()).tobytes() for line in bits)
    else:
        pixels = values.astype(f"{order}{'uif'[sample_format - 1]}{depth // 8}").tobytes()
    tags = {256: width, 257: height, 258: depth, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height}
    tags |= {279: len(pixels), 339: sample_format}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(pixels))
    return head + pixels + directory


@pytest.mark.parametrize(  # photometric 0: white is zero
    ("depth", "order", "photometric"),
    [(8, "<", 0), (8, ">", 1), (12, "<", 1), (16, "<", 0), (16, "<", 1), (16, ">", 1)],  # what Pillow knows
)
def test_grey_tiffs_of_8_12_and_16_bits(depth, order, photometric):
    values = RNG.integers(0, 2**depth, (4, 6))
    grey = values >> (depth - 8)
    truth = grey if photometric else 255 - grey
    found = opened(tiff(depth, values, order, photometric))
    np.testing.assert_array_equal(found, np.repeat(truth[..., None], 3, -1))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_arrays_of_16_bits(mode):
    values = RNG.integers(0, 2**16, SHAPE)
    stored = values.astype(">u2" if mode.endswith("B") else "<u2")
    found = np.asarray(to_rgb(PIL.Image.frombytes(mode, SHAPE[::-1], stored.tobytes())))
    np.testing.assert_array_equal(found, np.repeat(values[..., None] // 256, 3, -1))


def test_a_grey_pgm_of_16_bits():
    values = RNG.integers(0, 2**16, SHAPE)
    content = b"P5 %d %d 65535 " % SHAPE[::-1] + values.astype(">u2").tobytes()
    np.testing.assert_array_equal(opened(content), np.repeat(values[..., None] // 256, 3, -1))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (tiff(32, RNG.integers(0, 2**31, SHAPE), "<"), "mode I "),
        (tiff(32, RNG.integers(0, 2**31, SHAPE), "<", sample_format=2), "mode I "),
        (tiff(16, RNG.integers(-(2**15), 2**15, SHAPE), "<", sample_format=2), "mode I "),
        (tiff(32, RNG.random(SHAPE), ">", sample_format=3), "mode F "),
        (b"Pf 7 5 -1.0 " + RNG.random(SHAPE).astype("<f4").tobytes(), "mode F "),
    ],
    ids=["uint32", "int32", "int16", "float", "pfm"],
)
def test_values_without_a_known_range_are_refused_by_name(content, named):
    with pytest.raises(UserError, match=named) as refused:
        open_image(content)
    assert "\n" not in str(refused.value)


# ---- the camera's side up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_upright_for_every_reader(orientation, tmp_path):
    """As EXIF defines them: the value says on which sides row 0 and column 0 of the stored image belong."""
    upright = RNG.integers(0, 256, (40, 48, 3), np.uint8)
    stored = upright if orientation < 5 else upright.swapaxes(0, 1)
    turned = {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1]}
    turned |= {5: stored, 6: stored[::-1], 7: stored[::-1, ::-1], 8: stored[:, ::-1]}
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(np.ascontiguousarray(turned[orientation])).save(tmp_path / "0.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "0.png")), upright)
    shown = picture(tmp_path / "0.png", 40)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(shown, upright[:, 4:44])
