"""The explorers of notebooks 01 and 02: cards of mixers, and a kernel that is painted."""

import numpy as np
import pytest
import torch

from stm_lab import UserError, explore, list_mixers


@pytest.fixture(scope="module")
def cards():
    return explore.mixer_cards(left="pooling", right="convnext")


def test_cards_count_whom_a_token_hears(cards):
    label = cards.figure(row=0, column=2).get_label()
    assert "pooling: the token in row 0, column 2 hears 6 of 196" in label
    assert "convnext: the token in row 0, column 2 hears 24 of 196" in label  # rows 0 to 3, columns 0 to 5
    assert "shared / by position / by input 100% / 0% / 0%" in label  # the convolution


def test_cards_give_costs_at_the_side_that_is_chosen(cards):
    assert f"multiply-adds, 28x28 tokens {28 * 28 * (2 * 64 * 64 + 49 * 64):,}" in cards.figure(side=28).get_label()


def test_a_click_on_a_card_chooses_the_token(cards):
    assert cards._select(1, 13.4, -0.3) == {"row": 0, "column": 13}


@pytest.mark.slow
def test_every_mixer_has_a_card(cards):
    for name in list_mixers():
        assert f"{name}: the token in row 7, column 7 hears" in cards.figure(left=name).get_label()


def test_cards_of_mixers_that_are_not_there():
    with pytest.raises(UserError, match="did you mean 'swin'"):
        explore.mixer_cards(["swim"])
    with pytest.raises(UserError, match="no mixers"):
        explore.mixer_cards([])


@pytest.fixture
def painter():
    grey = torch.full((1, 3, 20, 20), 0.5)
    return explore.kernel_painter({"grey": grey}, {"trained": torch.eye(3)}, side=5)


def test_identity_changes_nothing_and_a_blur_keeps_the_inside(painter):
    assert "changes by 0.000 " in painter.figure(kernel="identity").get_label()
    shown = painter.figure(kernel="blur").axes[2].images[0].get_array()
    np.testing.assert_allclose(shown[4:-4, 4:-4], 0.5, atol=1e-6)
    assert shown[0, 0, 0] < 0.4  # zeros come in


def test_a_small_kernel_is_framed_with_zeros(painter):
    assert (
        "Kernel 0 0 0 0 0 / 0 1 0 0 0 / 0 0 1 0 0 / 0 0 0 1 0 / 0 0 0 0 0"
        in painter.figure(kernel="trained").get_label()
    )


def test_a_click_paints_a_cell(painter):
    painter.set(kernel="identity", paint=-0.5)
    painter.set(**painter._select(1, 4.2, 0.1))  # row 0, column 4
    assert painter.state["kernel"] == "my own"
    assert painter.state["numbers"].splitlines()[0] == "0 0 0 0 -0.5"
    assert "Kernel 0 0 0 0 -0.5 / " in painter.figure().get_label()
    assert painter._select(0, 1, 1) == {}  # the photograph is not painted


def test_numbers_from_the_keyboard(painter):
    rows = "\n".join(" ".join("1" if i == j == 2 else "0" for i in range(5)) for j in range(5))
    assert "changes by 0.000 " in painter.figure(kernel="my own", numbers=rows).get_label()
    for numbers, says in (
        ("1 2", "5 lines of 5 numbers"),
        (rows.replace("1", "x"), "'x'"),
        (rows.replace("1", "99"), "10"),
    ):
        with pytest.raises(UserError, match=says):
            painter.figure(kernel="my own", numbers=numbers)


def test_painters_that_cannot_be():
    image = torch.zeros(3, 8, 8)
    for images, keywords, says in (
        ({}, {}, "no images"),
        ({"a": image}, {"side": 4}, "must be odd"),
        ({"a": image}, {"kernels": {"k": torch.zeros(9, 9)}}, "an odd square of 7 at most"),
    ):
        with pytest.raises(UserError, match=says):
            explore.kernel_painter(images, **keywords)
