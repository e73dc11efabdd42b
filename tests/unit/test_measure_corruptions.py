"""The 15 corruptions: held against an independent library's numbers, scipy, Pillow and closed formulas."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from companions import companion
from PIL import Image
from scipy import ndimage

from stm_lab.measure.corruptions import CORRUPTIONS, SEVERITIES, TABLES, blur, corrupt, digital, weather
from stm_lab.measure.corruptions.noise import drawn
from stm_lab.util.errors import UserError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "numbers" / "corruptions.json").read_text())


def draws(count, seed=0):
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def golden_picture():
    """The picture of the golden numbers: waves and a pattern, uint8 (1, 3, 64, 64)."""
    y, x, c = np.mgrid[:64, :64, :3]
    waves = 127.5 + 90 * np.sin(0.23 * x + 0.11 * y + c) + 30 * ((37 * x + 91 * y + 53 * c) % 17 / 8 - 1)
    return torch.from_numpy(np.clip(np.round(waves), 0, 255).astype(np.uint8)).permute(2, 0, 1)[None]


def pictures(side=64, count=2, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


# ---- all of them -----------------------------------------------------------------------------------------------------


def test_the_tables_are_complete():
    assert len(CORRUPTIONS) == 15
    assert set(companion("13").MEANING) == set(CORRUPTIONS)
    for table in TABLES.values():
        assert list(table) == list(CORRUPTIONS)
        assert all(len(values) == 5 for values in table.values())


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_pixels_stay_pixels_and_chance_belongs_to_the_image(name, table):
    images = pictures(count=3)
    before = images.clone()
    all_at_once = corrupt(images, name, 3, seed=1, table=table)
    assert all_at_once.shape == images.shape
    assert all_at_once.dtype == torch.float32
    assert 0 <= all_at_once.min() <= all_at_once.max() <= 1
    assert torch.equal(images, before)
    # an image's corruption is its own: of another batch, from another place in it
    torch.testing.assert_close(corrupt(images[2:3], name, 3, seed=1, first=2, table=table), all_at_once[2:3])
    torch.testing.assert_close(corrupt(images, name, 3, seed=1, table=table), all_at_once, rtol=0, atol=0)
    other = corrupt(images, name, 3, seed=2, table=table)
    is_random = name not in {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
    assert torch.equal(other, all_at_once) != is_random
    bytes_ = (images * 255).round().byte()
    torch.testing.assert_close(
        corrupt(bytes_, name, 3, seed=1, table=table), corrupt(bytes_.float() / 255, name, 3, seed=1, table=table)
    )


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_any_size_is_taken(name):
    for shape in ((33, 47), (64, 40)):
        images = torch.rand(1, 3, *shape)
        assert corrupt(images, name, 5).shape == images.shape
        assert corrupt(images, name, 5, table="imagenet-c").isfinite().all()


@pytest.mark.parametrize("side", [64, 224])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severities_grow(name, side):
    """The distance to the picture, of a smooth one with details: from each severity to the next but one."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    image = torch.stack([0.5 + 0.3 * torch.sin(x / 7 + c) * torch.cos(y / (5 + c)) for c in range(3)])[None]
    image = (image + 0.1 * torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    images = image.expand(3, -1, -1, -1)
    away = [(corrupt(images, name, severity) - images).abs().mean().item() for severity in SEVERITIES]
    if name == "elastic_transform":  # published: from wide and slow to small and rough, no growing distance
        assert min(away) > 0
        return
    if name == "frost":  # the image's weight falls, too: it is its share of what is seen that gets less
        views = [corrupt(images, name, severity).flatten() for severity in SEVERITIES]
        away = [1 - torch.corrcoef(torch.stack([view, images.flatten()]))[0, 1].item() for view in views]
    assert all(later > earlier for earlier, later in zip(away, away[2:], strict=False)), away


@pytest.mark.parametrize("name", GOLDEN["values"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_against_an_independent_library(name, severity):
    """Numbers of imagecorruptions 1.1.2, fed with our random numbers."""
    ours = 255 * corrupt(golden_picture(), name, severity, table="imagenet-c")[0].permute(1, 2, 0).numpy()
    at_points = np.array([ours[tuple(point)] for point in GOLDEN["points"]])
    # pixelate and jpeg_compression are kept in bytes there; another libjpeg may round another way
    bound = {"pixelate": 1.01, "jpeg_compression": 4}.get(name, 0.02)
    np.testing.assert_allclose(at_points, GOLDEN["values"][name][severity - 1], atol=bound)


# ---- noise ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_published_moments(severity):
    grey = torch.full((4, 3, 128, 128), 0.5)
    sigma = TABLES["tiny-imagenet-c"]["gaussian_noise"][severity - 1]  # at most .18: hardly anything is clipped
    noisy = corrupt(grey, "gaussian_noise", severity, table="tiny-imagenet-c") - grey
    assert noisy.mean().item() == pytest.approx(0, abs=2e-3)
    assert noisy.std().item() == pytest.approx(sigma, rel=0.02)
    photons = TABLES["tiny-imagenet-c"]["shot_noise"][severity - 1]
    shot = corrupt(grey * 0.5, "shot_noise", severity, table="tiny-imagenet-c")
    assert shot.mean().item() == pytest.approx(0.25, rel=0.02)
    assert shot.var().item() == pytest.approx(0.25 / photons, rel=0.06 if severity < 5 else 0.1)
    share = TABLES["imagenet-c"]["impulse_noise"][severity - 1]
    impulses = corrupt(grey, "impulse_noise", severity, table="imagenet-c")
    assert (impulses == 1).float().mean().item() == pytest.approx(share / 2, rel=0.05)
    assert (impulses == 0).float().mean().item() == pytest.approx(share / 2, rel=0.05)
    assert set(impulses.unique().tolist()) == {0, 0.5, 1}


def test_images_and_colours_have_their_own_noise():
    noise = corrupt(torch.full((2, 3, 64, 64), 0.5), "gaussian_noise", 1).flatten(0, 1).flatten(1) - 0.5
    correlation = torch.corrcoef(noise) - torch.eye(6)
    assert correlation.abs().max() < 0.06  # 4096 pixels: four standard errors


# ---- blur -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("radius", "edge"), sorted({p for t in TABLES.values() for p in t["defocus_blur"]}))
def test_the_disk(radius, edge):
    kernel = blur.disk(radius, edge).numpy()
    y, x = np.mgrid[-(len(kernel) // 2) : len(kernel) // 2 + 1, -(len(kernel) // 2) : len(kernel) // 2 + 1]
    assert kernel.sum() == pytest.approx(1.013 if radius == 8 else 1.011 if radius == 10 else 1, abs=1e-3)
    inside = x**2 + y**2 <= radius**2
    line = np.exp(-(np.arange(-1, 2) ** 2) / (2 * edge**2))
    of_edge = 2 * line[2] / line.sum()  # variance of the small blur, along one axis
    if radius < 8:  # variances add
        second = (kernel * (x**2 + y**2)).sum()
        assert second == pytest.approx((x**2 + y**2)[inside].mean() + 2 * of_edge, abs=1e-9)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-15)
    np.testing.assert_allclose(kernel, kernel[::-1], atol=1e-15)


@pytest.mark.parametrize(("border", "mode"), [("edge", "nearest"), ("symmetric", "reflect")])
@pytest.mark.parametrize(("sigma", "truncate"), [(0.1, 4), (0.7, 4), (2.4, 3), (30, 3)])
def test_the_gaussian_filter_is_scipys(sigma, truncate, border, mode):
    image = pictures(40, 1)[0, 0].double()
    ours = blur.gaussian_filter(image, sigma, truncate, border).numpy()
    np.testing.assert_allclose(ours, ndimage.gaussian_filter(image.numpy(), sigma, mode=mode, truncate=truncate))


def test_glass_copies_from_within_reach_and_leaves_the_frame():
    places = blur.copied_places(20, 30, 2, 1, draws(3))
    y, x = np.divmod(np.arange(600), 30)
    frame = (y < 3) | (y > 18) | (x < 3) | (x > 28)
    assert (places[:, frame] == np.arange(600)[frame]).all()
    assert (places[:, ~frame] != np.arange(600)[~frame]).mean() > 0.5
    assert not (places[0] == places[1]).all()
    # naive: one image, one pixel at a time
    steps = torch.randint(-2, 2, (1, 16, 26, 2), generator=draws(1)[0]).numpy()[0]
    naive = np.arange(600).reshape(20, 30)
    for i, h in enumerate(range(18, 2, -1)):
        for j, w in enumerate(range(28, 2, -1)):
            naive[h, w] = naive[h + steps[i, j, 0], w + steps[i, j, 1]]
    assert (blur.copied_places(20, 30, 2, 1, draws(1))[0] == naive.ravel()).all()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_glass_shows_a_flat_place_as_it_is(severity, table):
    """It keeps bytes by cutting off: a rounding error below a whole number must not cost one."""
    flat = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32)[::5]
    seen = 255 * corrupt(flat, "glass_blur", severity, table=table)
    torch.testing.assert_close(seen, flat.float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("table", TABLES)
def test_defocus_is_a_correlation_with_the_disk(severity, table):
    image = pictures(40, 1)
    kernel = blur.disk(*TABLES[table]["defocus_blur"][severity - 1]).numpy()
    expected = [ndimage.correlate(colour.double().numpy(), kernel, mode="mirror") for colour in image[0]]
    ours = corrupt(image, "defocus_blur", severity, table=table)[0]
    np.testing.assert_allclose(ours, np.clip(expected, 0, 1), atol=2e-6)


@pytest.mark.parametrize(("angle", "towards"), [(0, (0, -1)), (90, (-1, 0)), (-90, (1, 0)), (45, (-1, -1))])
def test_a_trail_of_a_dot(angle, towards):
    """A dot becomes half a Gaussian, its sum kept, its mean and its direction by the formula."""
    image = torch.zeros(1, 1, 65, 65, dtype=torch.float64)
    image[..., 32, 32] = 1
    trail = blur.trails(image, 10, 3, [angle])[0, 0].numpy()
    weights = np.exp(-(np.arange(21) ** 2) / 18)
    weights /= weights.sum()
    assert trail.sum() == pytest.approx(1)
    assert blur.trail_weights(10, 3).numpy() == pytest.approx(weights)
    y, x = np.mgrid[:65, :65] - 32
    length = (weights * np.arange(21)).sum()
    scale = length if 0 in towards else length / math.sqrt(2)
    assert (trail * y).sum() == pytest.approx(scale * towards[0], abs=0.35)
    assert (trail * x).sum() == pytest.approx(scale * towards[1], abs=0.35)


@pytest.mark.parametrize("factor", [1, 1.06, 1.3, 2.25])
def test_enlarging_is_scipys_zoom(factor):
    image = pictures(64, 1)[0, 0].double()
    kept = math.ceil(64 / factor)
    start = (64 - kept) // 2
    by_scipy = ndimage.zoom(image.numpy()[start : start + kept, start : start + kept], factor, order=1)
    trim = (len(by_scipy) - 64) // 2
    ours = blur.enlarged(image[None, None], factor)[0, 0].numpy()
    np.testing.assert_allclose(ours, by_scipy[trim : trim + 64, trim : trim + 64], atol=1e-12)


def test_zoom_blur_is_a_mean_with_the_picture_in_it():
    image = pictures(64, 1).double()
    first, last, step = TABLES["tiny-imagenet-c"]["zoom_blur"][1]
    factors = np.arange(first, last, step)
    expected = (image + sum(blur.enlarged(image, factor) for factor in factors)) / (len(factors) + 1)
    torch.testing.assert_close(blur.zoom_blur(image, (first, last, step), []), expected)
    flat = torch.full((1, 3, 64, 64), 0.4)
    torch.testing.assert_close(corrupt(flat, "zoom_blur", 5), flat)


# ---- weather --------------------------------------------------------------------------------------------------------


def test_snow_by_hand():
    image, parameters = pictures(64, 1), TABLES["imagenet-c"]["snow"][0]
    mean, deviation, size, threshold, radius, sigma, kept = parameters
    generator = draws(1)[0]
    angle = -135 + 90 * torch.rand((), generator=generator).item()
    layer = (mean + deviation * torch.randn((1, 64, 64), generator=generator)).numpy()[0]
    side = math.ceil(64 / size)
    start = (64 - side) // 2
    layer = ndimage.zoom(layer[start : start + side, start : start + side], size, order=1)
    trim = (len(layer) - 64) // 2
    layer = layer[trim : trim + 64, trim : trim + 64]
    layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1)
    layer = blur.trails(torch.from_numpy(layer)[None, None].float(), radius, sigma, [angle])[0, 0].numpy()
    x = image[0].numpy()
    grey = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    x = kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5)
    expected = np.clip(x + layer + np.rot90(layer, 2), 0, 1)
    np.testing.assert_allclose(weather.snow(image, parameters, draws(1))[0].numpy(), expected, atol=1e-5)


def test_snow_falls_and_whitens():
    dark = torch.full((4, 3, 64, 64), 0.2)
    snowy = corrupt(dark, "snow", 5)
    assert snowy.mean() > dark.mean() + 0.1
    grey = snowy.std(1).max()
    assert grey < 1e-6  # snow is white on grey


def test_frost_is_drawn_with_the_measured_moments():
    textures = weather.frost_textures((224, 224), draws(12))
    grey = (textures * torch.tensor(weather.GREY)[:, None, None]).sum(1)
    means = textures.mean((2, 3))
    low, high = torch.tensor(weather.FROST_COLOURS)
    assert (means > low - 0.03).all()
    assert (means < high + 0.03).all()
    assert (means[:, 0] < means[:, 1]).all()
    assert (means[:, 1] < means[:, 2]).all()  # bluish
    assert grey.std((1, 2)).mean().item() == pytest.approx(weather.FROST_DEVIATION, abs=0.02)
    assert textures[0].sub(textures[1]).abs().mean() > 0.05


def test_frost_is_the_published_sum():
    image = pictures(64, 2)
    texture = weather.frost_textures((64, 64), draws(2))
    expected = (0.8 * image + 0.45 * texture).clamp(0, 1)
    torch.testing.assert_close(weather.frost(image, (0.8, 0.45), draws(2)), expected)


@pytest.mark.parametrize("decay", [1.4, 2, 3])
def test_plasma_by_loops(decay):
    """The diamond-square algorithm on a torus of 8, one point at a time."""
    generator, side = draws(1)[0], 8
    field, step, wobble = np.zeros((side, side)), side, 100.0
    while step > 1:
        half, cells = step // 2, side // step
        noise = wobble**2 * (2 * torch.rand((3, cells, cells), generator=generator).double().numpy() - 1)
        old = field.copy()
        for i in range(cells):
            for j in range(cells):
                y, x = i * step, j * step
                corners = [old[(y + a) % side, (x + b) % side] for a in (0, step) for b in (0, step)]
                field[y + half, x + half] = np.mean(corners) + noise[0, i, j]
        middles = field.copy()
        for i in range(cells):
            for j in range(cells):
                y, x = i * step, j * step
                ends = [old[y, x], old[y, (x + step) % side], middles[y + half, x + half], middles[y - half, x + half]]
                field[y, x + half] = np.mean(ends) + noise[1, i, j]
                ends = [old[y, x], old[(y + step) % side, x], middles[y + half, x + half], middles[y + half, x - half]]
                field[y + half, x] = np.mean(ends) + noise[2, i, j]
        step, wobble = half, wobble / decay
    expected = (field - field.min()) / np.ptp(field)
    np.testing.assert_allclose(weather.plasma(8, decay, draws(1))[0].numpy(), expected, atol=1e-9)


def test_fog_keeps_the_brightest_white_and_lifts_black():
    image = torch.zeros(1, 3, 64, 64)
    image[..., 0, 0] = 1
    foggy = corrupt(image, "fog", 5)
    thickness = TABLES["tiny-imagenet-c"]["fog"][4][0]
    assert foggy.max().item() == pytest.approx(thickness / (1 + thickness), abs=0.35)
    assert foggy.mean() > 0.2


def test_brightness_adds_to_the_value_alone():
    import colorsys

    image = pictures(40, 1)
    image[0, :, 0, 0] = 0
    image[0, :, 0, 1] = 1
    for severity in SEVERITIES:
        brighter = corrupt(image, "brightness", severity)[0].numpy()
        for row, column in [(0, 0), (0, 1), (3, 7), (20, 20), (39, 5)]:
            hue, saturation, value = colorsys.rgb_to_hsv(*image[0, :, row, column].double().tolist())
            expected = colorsys.hsv_to_rgb(hue, saturation, min(value + severity / 10, 1))
            np.testing.assert_allclose(brighter[:, row, column], expected, atol=1e-5)


# ---- digital --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_is_its_formula(severity):
    image = pictures(50, 2)
    kept = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    low = corrupt(image, "contrast", severity)
    torch.testing.assert_close(low.mean((2, 3)), image.mean((2, 3)))
    torch.testing.assert_close(low.std((2, 3)), kept * image.std((2, 3)))


def test_the_affine_map_moves_the_three_points():
    moves = torch.tensor([[[3.0, -2], [0, 4], [-5, 1]]]).double()
    places = digital.affine_places(64, 64, moves)[0]
    middle, reach = 32, 21
    points = [(middle + reach, middle + reach), (middle + reach, middle - reach), (middle - reach, middle - reach)]
    for (x, y), (dx, dy) in zip(points, moves[0].tolist(), strict=True):
        got = places[:, int(y + dy), int(x + dx)]  # where the moved point comes from
        assert got.tolist() == pytest.approx([x, y], abs=1e-9)


@pytest.mark.parametrize("border", ["reflect", "symmetric"])
def test_sampling_is_scipys(border):
    image = pictures(32, 1).double()
    places = -10 + 50 * torch.rand(1, 2, 32, 32, dtype=torch.float64, generator=draws(1)[0])
    ours = digital._sampled(image, places, border)[0, 1].numpy()
    mode = {"reflect": "mirror", "symmetric": "reflect"}[border]
    by_scipy = ndimage.map_coordinates(image[0, 1].numpy(), places[0].flip(0).numpy(), order=1, mode=mode)
    np.testing.assert_allclose(ours, by_scipy, atol=1e-9)


def test_elastic_by_scipy():
    image, (strength, sigma, reach) = pictures(64, 1).double(), (6.4, 5.12, 3.84)
    generator = draws(1)[0]
    moves = reach * (2 * torch.rand((3, 2), generator=generator).double() - 1)
    field = (2 * torch.rand((2, 64, 64), generator=generator).double() - 1).numpy()
    x, y = digital.affine_places(64, 64, moves[None])[0].numpy()
    warped = ndimage.map_coordinates(image[0, 0].numpy(), [y, x], order=1, mode="mirror")
    dx, dy = (strength * ndimage.gaussian_filter(part, sigma, mode="reflect", truncate=3) for part in field)
    rows, columns = np.mgrid[:64, :64]
    expected = ndimage.map_coordinates(warped, [rows + dy, columns + dx], order=1, mode="reflect")
    ours = digital.elastic_transform(image, (strength, sigma, reach), draws(1))[0, 0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-9)


@pytest.mark.parametrize("side", [64, 75, 224])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_is_pillows_box(side, severity):
    pixels = (pictures(side, 1)[0] * 255).round().byte()
    share = TABLES["imagenet-c"]["pixelate"][severity - 1]
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    small = image.resize((int(side * share),) * 2, Image.Resampling.BOX)
    by_pillow = np.asarray(small.resize((side, side), Image.Resampling.BOX))
    ours = corrupt(pixels[None], "pixelate", severity, table="imagenet-c")[0].permute(1, 2, 0).numpy()
    assert np.abs(255 * ours - by_pillow).max() <= 1.01  # bytes there


def test_jpeg_is_pillows():
    pixels = (pictures(64, 1)[0] * 255).round().byte()
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=40)
    ours = corrupt(pixels[None], "jpeg_compression", 4)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(255 * ours, np.asarray(Image.open(file)), atol=1e-4)


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "name", "severity", "options", "message"),
    [
        (torch.rand(1, 3, 64, 64), "gausian_noise", 1, {}, "did you mean 'gaussian_noise'"),
        (torch.rand(1, 3, 64, 64), "fog", 0, {}, "expected 1 to 5"),
        (torch.rand(1, 3, 64, 64), "fog", 6, {}, "expected 1 to 5"),
        (torch.rand(1, 3, 64, 64), "fog", 1, {"table": "cifar"}, "table of severities 'cifar'"),
        (torch.rand(1, 3, 15, 64), "fog", 1, {}, "sides of 16"),
        (torch.rand(3, 64, 64), "fog", 1, {}, "expected .N, 3, H, W."),
        (torch.rand(0, 3, 64, 64), "fog", 1, {}, "expected .N, 3, H, W."),
    ],
)
def test_bad_input(images, name, severity, options, message):
    with pytest.raises(UserError, match=message):
        corrupt(images, name, severity, **options)


def test_draws_of_an_image_are_its_own():
    together = drawn(torch.rand, (4,), draws(3))
    assert torch.equal(together[1], torch.rand(4, generator=torch.Generator().manual_seed(1)))
