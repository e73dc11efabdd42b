"""The blocks as they are drawn, against loops and against what the mixer itself lets through."""

import re

import numpy as np
import pytest
import torch
from companions import companion
from matplotlib.colors import to_rgb

from stm_lab import UserError, measure
from stm_lab.mixers import get_mixer

OWN_05 = companion("05")

SMALL = [(5, 3, 7, 3), (8, 3, 7, 0), (1, 1, 2, 1)]  # with a side shorter than a block
SIZES = [(9, 13, 4, 2), (6, 11, 3, 4), (8, 8, 4, 0), *SMALL]
each_size = pytest.mark.parametrize(("height", "width", "block", "halo"), SIZES)
BLOCK, HALO, ONE_WAY = "#0072B2", "#56B4E9", "#D55E00"


def coloured(axes, *colours):
    shown = axes.images[0].get_array()
    return np.any([np.all(np.isclose(shown, to_rgb(colour)), axis=-1) for colour in colours], axis=0)


def naive(height, width, block, halo):
    """(H, W, H, W) bool: does the token in [0:2] hear the one in [2:4]?"""
    hears = np.zeros((height, width, height, width), bool)
    for row, column, y, x in np.ndindex(hears.shape):
        top, left = row // block * block, column // block * block
        hears[row, column, y, x] = -halo <= y - top < block + halo and -halo <= x - left < block + halo
    return hears


@each_size
def test_colours_and_counts_are_those_of_the_loops(height, width, block, halo):
    hears = naive(height, width, block, halo)
    places = {(0, 0), (height // 2, width // 3)}
    for row, column in places:
        figure = OWN_05.halo_blocks(height, width, block=block, halo=halo, place=(row, column))
        heard, hears_it = hears[row, column], hears[:, :, row, column]
        first, second, third = figure.axes
        assert np.array_equal(coloured(first, BLOCK, HALO, ONE_WAY), heard)
        assert np.array_equal(coloured(second, BLOCK, HALO, ONE_WAY), hears_it)
        assert np.array_equal(coloured(first, ONE_WAY), heard & ~hears_it)
        assert np.array_equal(third.images[0].get_array(), hears[::block, ::block].sum((0, 1)))
        window = (min(block, height) + 2 * halo) * (min(block, width) + 2 * halo)
        told = [int(number) for number in re.findall(r"\d+", figure.get_label().split("), attends to")[1])]
        assert told[:3] == [heard.sum(), window - heard.sum(), window]
        assert told[4:6] == [hears_it.sum(), (hears_it & ~heard).sum()]


@each_size
def test_every_area_of_equal_count_has_its_number(height, width, block, halo):
    counts = naive(height, width, block, halo)[::block, ::block].sum((0, 1))
    texts = OWN_05.halo_blocks(height, width, block=block, halo=halo).axes[2].texts
    runs = [1 + np.count_nonzero(np.diff(line)) for line in (counts[:, 0], counts[0])]
    assert len(texts) == np.prod(runs)
    for text in texts:
        column, row = text.get_position()
        assert text.get_text() == str(counts[row, column])


@pytest.mark.parametrize(("height", "width", "block", "halo"), [(6, 9, 4, 1)])
def test_tokens_that_are_drawn_as_heard_are_those_that_the_mixer_hears(height, width, block, halo):
    torch.manual_seed(0)
    mixer = get_mixer("halo")(4, heads=1, block=block, halo=halo).eval()
    weights = measure.mixing_matrix(mixer, torch.randn(1, height, width, 4)).matrix[0]
    for row, column in ((0, 0), (height - 1, 1), (2, width - 1)):
        figure = OWN_05.halo_blocks(height, width, block=block, halo=halo, place=(row, column))
        heard = weights[row * width + column].reshape(height, width) > 1e-9
        assert np.array_equal(coloured(figure.axes[0], BLOCK, HALO, ONE_WAY), heard)


class Asked(Exception):
    """Holds the mask that the mixer gave to attention: (blocks, heads, queries, keys)."""


@pytest.mark.parametrize(("height", "width", "block", "halo"), [(9, 13, 4, 2), *SMALL])
def test_keys_and_masked_ones_are_counted_as_the_mixer_gives_them_to_attention(height, width, block, halo, monkeypatch):
    def attention(*_, attn_mask):
        raise Asked(attn_mask)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", attention)
    mixer = get_mixer("halo")(4, heads=1, block=block, halo=halo)
    with torch.no_grad(), pytest.raises(Asked) as asked:  # while it learns, CPUs take other steps
        mixer(torch.zeros(1, height, width, 4))
    mask = asked.value.args[0][0, 0, 0]  # of the first block
    title = OWN_05.halo_blocks(height, width, block=block, halo=halo, place=(0, 0)).axes[0].get_title()
    assert title.endswith(f"; {int(mask.isinf().sum())} of {len(mask)} keys are masked")


@pytest.mark.parametrize(("height", "width", "block", "halo"), SMALL)
def test_window_and_fences_of_a_map_that_is_smaller_than_a_block(height, width, block, halo):
    first = OWN_05.halo_blocks(height, width, block=block, halo=halo, place=(0, 0)).axes[0]
    window = first.patches[0]
    assert window.get_xy() == (-halo - 0.5, -halo - 0.5)
    assert (window.get_height(), window.get_width()) == (min(block, height) + 2 * halo, min(block, width) + 2 * halo)
    for lines, axis, side, of_block in zip(
        first.collections[2:4], (1, 0), (height, width), (min(block, height), min(block, width)), strict=True
    ):
        fences = sorted({float(segment[0][axis]) for segment in lines.get_segments()})
        assert fences == [count * of_block - 0.5 for count in range(-(-side // of_block) + 1)]


def test_what_is_told():
    assert OWN_05.halo_blocks(14, 14).get_label() == (
        "14x14 tokens, blocks of 7, halo 3: the token in row 6, column 6, of block (0, 0), attends to 100 tokens; 69 "
        "of the 169 keys of its window are masked. 4 blocks attend to it: 196 tokens, 96 of which it does not attend "
        "to. 1 to 4 blocks attend to a token."
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"height": 0}, "at least 1"),
        ({"block": 0}, "block=0"),
        ({"halo": -1}, "halo=-1"),
        ({"place": (5, 0)}, r"place=\(5, 0\) lies outside 5x5"),
        ({"place": (0, -1)}, "lies outside"),
    ],
)
def test_blocks_that_cannot_be(given, says):
    with pytest.raises(UserError, match=says):
        OWN_05.halo_blocks(**{"height": 5, "width": 5, **given})
