"""Photographs that come with scikit-image."""

import sys

import pytest
import torch

from stm_lab import UserError
from stm_lab.data import PHOTOGRAPHS, photograph


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_is_an_image_and_needs_no_network(name, data_home):
    image = photograph(name, 96)
    assert image.shape == (1, 3, 96, 96)
    assert image.dtype == torch.uint8
    assert image.float().std() > 20


def test_what_cannot_be():
    with pytest.raises(UserError, match="did you mean 'chelsea'"):
        photograph("chelsae")
    with pytest.raises(UserError):
        photograph("coffee", 0)


def test_without_scikit_image(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(UserError, match=r"pip install 'stm-lab\[lab\]'"):
        photograph()
