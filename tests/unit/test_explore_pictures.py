"""What explorers of images share."""

import numpy as np
import pytest

from stm_lab.explore.pictures import token_at


@pytest.mark.parametrize(("pixels", "cells"), [(100, 13), (100, 25), (64, 16), (7, 7), (5, 3)])
def test_a_pixel_is_of_the_token_that_its_middle_lies_in(pixels, cells):
    edges = np.linspace(0, pixels, cells + 1)
    for at in range(pixels):
        row, column = token_at(at, 0, (pixels, 50), (cells, 2))
        assert edges[row] <= at + 0.5 <= edges[row + 1]
        assert column == 0
        assert token_at(0, at, (50, pixels), (2, cells)) == (0, row)
    assert [token_at(0, at, (1, pixels), (1, cells))[1] for at in (0, pixels - 1)] == [0, cells - 1]
