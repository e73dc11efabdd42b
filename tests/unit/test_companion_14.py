"""Notebook 14's own: the loss on a plane through images, against a loss that is known, and its figure."""

import numpy as np
import pytest
import torch
from companions import companion
from torch import nn

from stm_lab.util.errors import UserError

OWN_14 = companion("14")


def surface(slope=1.0):
    offsets = np.linspace(-1, 1, 5)
    return OWN_14.LossSurface(2.0, offsets, 1 + slope * np.tile(offsets, (5, 1)))


def test_the_surface_of_a_known_loss():
    """Two classes, logits linear in the pixels: the loss at every point of the plane is known without the measure."""
    weight = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))

    class Linear(nn.Module):
        def forward(self, x):
            return torch.stack([torch.zeros(len(x)), (x * weight).flatten(1).sum(1)], 1)

    pixels = 0.4 + 0.2 * torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([0, 1, 0])
    surface = OWN_14.loss_surface(Linear(), (pixels, labels), epsilon=2, points=5)
    slope = 2 / 255 * weight.abs().double().sum()
    margin = (pixels.double() * weight).flatten(1).sum(1)
    sign = torch.tensor([1, -1, 1])  # towards the wrong class
    for i, offset in enumerate(surface.offsets):
        expected = torch.log1p(torch.exp(sign * margin + offset * slope)).mean()
        assert surface.loss[2, i] == pytest.approx(expected.item(), rel=1e-4)
    assert (np.diff(surface.loss, axis=1) > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 4}, "points = 4: expected an odd number"),
        ({"epsilon": 0}, "epsilon = 0: expected a number above 0"),
        ({"norm": "l1"}, "unknown norm 'l1'"),
    ],
)
def test_bad_input(options, message):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(UserError, match=message) as error:
        OWN_14.loss_surface(model, torch.rand(2, 3, 8, 8), **options)
    assert "\n" not in str(error.value)


def test_surfaces_share_one_scale():
    figure = OWN_14.loss_surfaces({"halo": surface(), "swin": surface(0.1)})
    *panels, bar = figure.axes
    limits = {panel.collections[0].get_clim() for panel in panels}
    assert len(limits) == 1
    assert "cross-entropy" in bar.get_ylabel()
    assert "halo: 1.00 at the images, 0.00 and 2.00" in figure.get_label()


def test_a_flat_surface_is_drawn_too(tmp_path):
    OWN_14.loss_surfaces({"halo": surface(0)}).savefig(tmp_path / "flat.png")


def test_no_surface_is_refused():
    with pytest.raises(UserError, match="nothing to draw"):
        OWN_14.loss_surfaces({})
