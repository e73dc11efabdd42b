"""Figures of the notebooks that build by hand: what they draw is what they are given, and they tell it in words."""

import numpy as np
import pytest
import torch
from companions import companion

from stm_lab import UserError, figures

OWN_01 = companion("01")
OWN_19 = companion("19")

OWN_02 = companion("02")

SIGNED = torch.tensor([[1.0, -2.0], [0.0, 0.5]])


def test_maps_share_one_scale_about_zero():
    figure = figures.map_panels({"a": SIGNED, "b": SIGNED * 3, "photo": torch.rand(3, 4, 4)}, mark=(0, 1), title="two")
    images = [axes.images[0] for axes in figure.axes[:3]]
    assert images[0].get_clim() == images[1].get_clim() == (-6, 6)
    assert images[2].get_array().shape == (4, 4, 3)
    assert figure.get_label() == ("two. a: from -2 to 1, mean -0.125; b: from -6 to 3, mean -0.375; photo: an image.")


def test_maps_each_on_a_scale_of_their_own():
    figure = figures.map_panels({"a": torch.eye(3), "b": torch.eye(3) * 5}, shared=False)
    assert [axes.images[0].get_clim() for axes in figure.axes[:2]] == [(0, 1), (0, 5)]


def test_maps_in_several_rows():
    figure = figures.map_panels({str(i): torch.zeros(2, 2) for i in range(5)}, columns=3)
    assert sum(bool(axes.get_title()) for axes in figure.axes) == 5


@pytest.mark.parametrize("value", [torch.zeros(2), torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4)], ids=str)
def test_what_is_no_map(value):
    with pytest.raises(UserError, match="'x' has the shape"):
        figures.map_panels({"x": value})
    with pytest.raises(UserError):
        figures.map_panels({})


def test_numbers_stand_in_their_cells():
    grids = {"kernel": SIGNED, "mask": torch.eye(2) > 0, "hole": np.array([[np.nan, 3.0]])}
    figure = figures.number_grids(grids, labels=("query", "key"), mark={"kernel": [(0, 0)]})
    written = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert written == [["1", "-2", "0", ".50"], ["1", "0", "0", "1"], ["3"]]
    assert figure.axes[0].get_ylabel() == "query"
    assert figure.get_label() == "kernel: 1 -2 / 0 .50; mask: 1 0 / 0 1; hole: - 3."


def test_numbers_need_matrices():
    with pytest.raises(UserError, match="'x' is no matrix"):
        figures.number_grids({"x": torch.rand(3, 4, 4)})
    with pytest.raises(UserError):
        figures.number_grids({})


def test_switched_off_averages_seeds():
    rows = [
        {"mixer": "halo", "on": 90.0, "off": 10.0},
        {"mixer": "halo", "on": 80.0, "off": 12.0},
        {"mixer": "mine", "on": 50.0, "off": 40.0},
    ]
    figure = OWN_01.switched_off(rows, chance=10)
    assert "halo 85, 11; mine 50, 40" in figure.get_label()
    with pytest.raises(UserError, match="no 'off'"):
        OWN_01.switched_off([{"mixer": "halo", "on": 1.0}])


def test_cost_shares_add_up():
    figure = figures.cost_shares(
        {"stage 1": {"projections": 3, "kernel": 1}, "stage 2": {"projections": 0, "kernel": 0}}
    )
    assert "stage 1: projections 75%, kernel 25%" in figure.get_label()
    with pytest.raises(UserError):
        figures.cost_shares({})


def test_mixer_cards_say_who_is_heard():
    card = {"name": "halo", "heard": np.eye(3), "place": (1, 1), "facts": {"parameters": "7"}}
    figure = figures.mixer_cards([card, {**card, "name": "swin"}])
    assert len(figure.axes) == 2
    assert "halo: the token in row 1, column 1 hears 3 of 9; parameters 7" in figure.get_label()
    with pytest.raises(UserError):
        figures.mixer_cards([])


def test_kernel_applied_shows_its_numbers():
    image, kernel = np.full((5, 5, 3), 0.5), np.array([[0.0, 1.0], [-1.0, 0.25]])
    figure = OWN_02.kernel_applied(image, kernel, image * 1.5, "blur")
    assert [text.get_text() for text in figure.axes[1].texts] == ["0", "1", "-1", "0.25"]
    assert "Kernel 0 1 / -1 0.25; its sum is 0.25. The image changes by 0.250" in figure.get_label()


def test_the_bench_marks_side_and_token():
    heard = np.zeros((4, 5))
    heard[1, 2:4] = 1, 0.1
    curves = {"mine": {7: 100, 14: 400}, "swin": {7: 300, 14: 900}, "identity": {7: 0, 14: 0}}
    figure = OWN_19.bench_figure("mine", heard, (1, 2), curves, 14, {"heard": "2 of 20 tokens"})
    assert "the token in row 1, column 2 hears 2 of 20. heard: 2 of 20 tokens" in figure.get_label()
    assert "Multiply-adds at side 14: mine 400; swin 900; identity 0." in figure.get_label()
    shown = figure.axes[0].images[0].get_array()
    assert np.isfinite(shown.astype(float)).sum() == 2
    drawn = {line.get_label() for line in figure.axes[1].lines}
    assert {"mine", "swin"} <= drawn
    assert "identity" not in drawn
    with pytest.raises(UserError, match="no curve of 'other'"):
        OWN_19.bench_figure("other", heard, (1, 2), curves, 14, {})
