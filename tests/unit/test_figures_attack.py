"""Figures of attacks: every number is drawn, the means and ranges are those of the seeds, the text tells them."""

import numpy as np
import pytest
import torch
from companions import companion

from stm_lab import figures
from stm_lab.util.errors import UserError

OWN_14 = companion("14")

EPSILONS = (0, 0.5, 1, 4)
PIXELS = torch.rand(2, 3, 4, 4)


def rows(attack="pgd", norm="linf", mixers=("halo", "identity"), seeds=(0, 1)):
    return [
        {"mixer": mixer, "seed": seed, "attack": attack, "norm": norm, "epsilon": epsilon,
         "accuracy": 80.0 - 10 * epsilon - 4 * seed - 6 * i}
        for i, mixer in enumerate(mixers) for seed in seeds for epsilon in EPSILONS
    ]  # fmt: skip


def one_image(adversarial=PIXELS[1], answers=None, shares=None):
    answers = {"halo": ("a", "b")} if answers is None else answers
    shares = {"halo": (1.0, 2.0)} if shares is None else shares
    return OWN_14.image_under_attack(PIXELS[0], adversarial, answers, shares, attacked="halo", label="a", title="")


def test_accuracy_is_the_mean_over_seeds_and_their_range():
    figure = figures.accuracy_by_epsilon(rows(), chance=10)
    (axes,) = figure.axes
    halo, identity, chance = axes.lines
    assert list(halo.get_xdata()) == list(EPSILONS)
    np.testing.assert_allclose(halo.get_ydata(), [78, 73, 68, 38])
    np.testing.assert_allclose(identity.get_ydata(), [72, 67, 62, 32])
    assert (chance.get_label(), chance.get_ydata()[0]) == ("chance", 10)
    vertices = {tuple(point) for point in axes.collections[0].get_paths()[0].vertices}
    assert {(4, 36), (4, 40), (0, 76), (0, 80)} <= vertices
    assert "1/255" in axes.get_xlabel()
    assert "%" in axes.get_ylabel()
    assert "halo: 78 at 0, 73 at 0.5, 68 at 1, 38 at 4" in figure.get_label()


def test_attacks_have_a_panel_each_and_one_seed_has_no_band():
    figure = figures.accuracy_by_epsilon([*rows(seeds=(0,)), *rows("fgsm", "l2", seeds=(0,))])
    assert [axes.get_title() for axes in figure.axes] == ["PGD, L∞", "FGSM, L2"]
    assert not any(axes.collections for axes in figure.axes)


def test_epsilons_do_not_crowd():
    figure = figures.accuracy_by_epsilon(rows())
    figure.draw_without_rendering()
    (axes,) = figure.axes
    places = [axes.transData.transform((epsilon, 50))[0] for epsilon in EPSILONS]
    assert min(np.diff(places)) > 0.1 * axes.bbox.width
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.5", "1", "4"]


@pytest.mark.parametrize("epsilons", [[0], [2], [0, 2]])
def test_few_epsilons_are_drawn_too(epsilons, tmp_path):
    some = [row | {"epsilon": epsilon} for row in rows()[:1] for epsilon in epsilons]
    figures.accuracy_by_epsilon(some).savefig(tmp_path / "few.png")


def test_low_accuracies_fill_the_panel(tmp_path):
    (axes,) = figures.accuracy_by_epsilon([row | {"accuracy": row["accuracy"] / 4} for row in rows()]).axes
    assert 20 < axes.get_ylim()[1] < 21
    figures.accuracy_by_epsilon([row | {"accuracy": 0.0} for row in rows()]).savefig(tmp_path / "none.png")


def test_an_image_under_attack_says_who_fell_for_it(tmp_path):
    image = torch.full((3, 4, 4), 100 / 255)
    adversarial = image.clone()
    adversarial[:, 0, 0] += 2 / 255
    answers = {"halo": ("disc", "ring"), "swin": ("disc", "disc")}
    shares = {"halo": (90.0, 20.0), "swin": (80.0, 70.0)}
    figure = OWN_14.image_under_attack(
        image, adversarial, answers, shares, attacked="halo", label="disc", title="PGD on halo"
    )
    before, added, after, dots = figure.axes
    assert (before.images[0].get_array() == 100).all()
    assert added.images[0].get_array()[0, 0, 0] == 255
    assert (added.images[0].get_array()[1:] == 128).all()
    assert after.images[0].get_array()[0, 0, 0] == 102
    assert [tuple(line.get_xdata()) for line in dots.lines[::3]] == [(90, 20), (80, 70)]
    assert [label.get_text() for label in dots.get_yticklabels()] == ["→ halo", "swin"]
    assert [(text.get_text(), text.get_fontweight()) for text in dots.texts] == [("ring", "bold"), ("disc", "normal")]
    assert "halo disc (90%) becomes ring (20%); swin disc (80%) becomes disc (70%)" in figure.get_label()
    figure.savefig(tmp_path / "attack.png")


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.accuracy_by_epsilon([]), "nothing to draw"),
        (lambda: figures.accuracy_by_epsilon([{"mixer": "halo"}]), "row 0: no 'attack'"),
        (lambda: one_image(answers={}), "'halo' of no networks"),
        (lambda: one_image(adversarial=PIXELS[0, :, :2]), r"\(3, 4, 4\) and \(3, 2, 4\)"),
        (lambda: one_image(shares={"swin": (1, 2)}), "shares of swin"),
    ],
)
def test_bad_input(draw, message):
    with pytest.raises(UserError, match=message):
        draw()
