"""Colours of mixers are told apart: in the style, in figures, in stills of explorers and in shipped pictures."""

import io
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from skimage.color import rgb2lab

from stm_lab import figures
from stm_lab.explore import pareto
from stm_lab.figures.style import MIXER_COLOURS, OTHER_COLOURS, colours, styles
from stm_lab.util import paths

OWN = [f"mine_{i}" for i in range(len(OTHER_COLOURS))]
NAMES = [*MIXER_COLOURS, *OWN]
# Of linear RGB: what is seen without one kind of cone. Machado, Oliveira and Fernandes 2009, table 1, severity 1.
VISIONS = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
# The mixers whose colours a shipped picture of an explorer or a figure needs, to be read.
FIVE = ["halo", "swin", "pvt", "convnext", "dcn_v3"]
SHOWN = {
    "accuracy.png": FIVE,
    "explorers/01_what_is_a_token_mixer": ["pooling", "swin"],
    "explorers/10_accuracy_and_cost": FIVE,
    "explorers/12_invariance": FIVE,
    "explorers/13_corruptions": FIVE,
    "explorers/14_adversarial_examples": FIVE,
    "explorers/19_design_your_own_mixer_2": [*FIVE, "my_mixer"],
    "explorers/20_sweeps_and_leaderboards": ["swin"],
    "explorers/21_the_paper_rebuilt": FIVE,
}


def as_seen(names, vision):
    """(N, 3) in CIELAB."""
    rgb = np.array([to_rgb(colour) for colour in colours(names).values()])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ np.transpose(VISIONS[vision])
    linear = linear.clip(0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def pixels_of(image):
    """How many pixels have which colour, as "#RRGGBB"."""
    found = image.convert("RGB").getcolors(1 << 24)
    return {"#{:02X}{:02X}{:02X}".format(*colour): count for count, colour in found}


def near(pixels, colour):
    """Pixels whose colour nobody tells from this one: within 2 in CIELAB."""
    seen = rgb2lab(np.array([to_rgb(one) for one in pixels]))
    return int(np.array(list(pixels.values()))[np.linalg.norm(seen - rgb2lab(to_rgb(colour)), axis=1) < 2].sum())


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_of_mixers_and_of_those_of_ones_own_are_apart_as_they_are_seen(vision):
    seen = as_seen(NAMES, vision)
    for (one, a), (other, b) in itertools.combinations(zip(NAMES, seen, strict=True), 2):
        assert np.linalg.norm(a - b) >= 15, (one, other)


def test_lines_whose_colour_comes_again_are_dashed_in_another_way():
    drawn = styles(colours([*OWN, *(f"{name}_again" for name in OWN)]))
    assert len({tuple(style.values()) for style in drawn.values()}) == 2 * len(OWN)


DOTS = [{"mixer": name, "top1": 70.0 + 3 * i, "seed": 0} for i, name in enumerate(NAMES)]


def test_every_mixer_of_a_figure_has_its_own_colour():
    scores = {name: {1: 2.0} for name in NAMES}
    for figure in (figures.lines(scores, "x", "y"), figures.accuracy_dots(DOTS)):
        assert set(colours(NAMES).values()) <= {line.get_color() for axes in figure.axes for line in axes.lines}


def test_an_explorers_still_picture_holds_every_colour():
    rows = [{"name": name, "mixer": name, "cost": 1.0 + i, "top1": 50.0 + i} for i, name in enumerate(NAMES)]
    bundle, _ = pareto(rows, {"cost": "cost"})._repr_mimebundle_()
    pixels = pixels_of(Image.open(io.BytesIO(bundle["image/png"])))
    assert [name for name, colour in colours(NAMES).items() if pixels.get(colour, 0) < 20] == []


def test_a_screenshot_is_stored_as_it_was_taken(tmp_path, monkeypatch):
    """Dots in all colours beside what fills a palette: noise."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "browser")
    from lab import store

    figure = Figure(figsize=(2, 1))
    left, right = figure.subplots(1, 2)
    left.imshow(np.random.default_rng(0).random((20, 20, 3)))
    right.scatter(range(len(NAMES)), range(len(NAMES)), s=9, c=list(colours(NAMES).values()))
    taken = io.BytesIO()
    figure.savefig(taken, format="png")
    store(taken.getvalue(), tmp_path / "stored.webp")
    with Image.open(tmp_path / "stored.webp") as stored, Image.open(taken) as original:
        np.testing.assert_array_equal(stored.convert("RGB"), original.convert("RGB"))


def shipped(name):
    (path,) = (paths.shipped_notebooks_dir() / "images").glob(f"{name}*")
    return path


@pytest.mark.parametrize("name", SHOWN)
def test_a_shipped_picture_shows_every_mixer_in_its_colour(name):
    with Image.open(shipped(name)) as image:
        pixels = pixels_of(image)
    assert [mixer for mixer, colour in colours(SHOWN[name]).items() if near(pixels, colour) < 20] == []


def test_the_gallery_shows_the_pictures_that_are_shipped_and_they_are_small():
    folder = paths.shipped_notebooks_dir()
    linked = set(re.findall(r"\((images/[^)]+)\)", (folder / "GALLERY.md").read_text(encoding="utf-8")))
    pictures = [path for path in (folder / "images" / "explorers").iterdir() if "-dark" not in path.name]
    assert linked == {path.relative_to(folder).as_posix() for path in pictures}
    assert sum(path.stat().st_size for path in pictures) < 800_000
