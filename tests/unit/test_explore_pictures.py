"""What explorers of images share."""

import numpy as np
import pytest
import torch
from PIL import Image

from stm_lab import UserError
from stm_lab.explore import picture
from stm_lab.explore.parts import mean_colours, single_images, token_at


@pytest.mark.parametrize(("pixels", "cells"), [(100, 13), (100, 25), (64, 16), (7, 7), (5, 3)])
def test_a_pixel_is_of_the_token_that_its_middle_lies_in(pixels, cells):
    edges = np.linspace(0, pixels, cells + 1)
    for at in range(pixels):
        row, column = token_at(at, 0, (pixels, 50), (cells, 2))
        assert edges[row] <= at + 0.5 <= edges[row + 1]
        assert column == 0
        assert token_at(0, at, (50, pixels), (2, cells)) == (0, row)
    assert [token_at(0, at, (1, pixels), (1, cells))[1] for at in (0, pixels - 1)] == [0, cells - 1]


@pytest.mark.parametrize("scale", [1.0, 255])
def test_a_token_has_the_mean_colour_of_its_patch(scale):
    image = torch.rand(3, 6, 8)
    given = (image * scale).round().to(torch.uint8) if scale == 255 else image
    found = mean_colours(given, 3, 2)
    wanted = image.view(3, 3, 2, 2, 4).mean((2, 4)).permute(1, 2, 0)
    np.testing.assert_allclose(found, wanted, atol=1e-6 if scale == 1 else 0.5 / 255)


def test_images_lose_the_axis_of_their_number():
    found = single_images({"one": torch.zeros(3, 4, 5), "batch of one": torch.ones(1, 3, 4, 5)}, "here")
    assert {name: tuple(image.shape) for name, image in found.items()} == {"one": (3, 4, 5), "batch of one": (3, 4, 5)}


def test_a_photograph_of_ones_own(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    shown = picture(tmp_path / "photo.png", 64)
    assert (shown.shape, shown.dtype) == ((1, 3, 64, 64), torch.uint8)
    with pytest.raises(UserError, match="nowhere"):
        picture(tmp_path / "nowhere.png", 64)
