"""What a wrong line costs is told pair by pair: one network, whole and broken."""

import pytest

from stm_lab import UserError, figures

ROWS = [
    {"mistake": None, "seed": 0, "top1": 90.0},
    {"mistake": "no mask", "seed": 1, "top1": 70.0},  # in any order
    {"mistake": "no mask", "seed": 0, "top1": 79.0},
    {"mistake": None, "seed": 1, "top1": 80.0},
    {"mistake": "no bias", "seed": 0, "top1": 85.0},
]


def test_a_mistake_costs_the_mean_of_paired_differences_and_their_spread():
    figure = figures.accuracy_by_mistake(ROWS, chance=10)
    assert figure.get_label() == (  # -11 and -10, though the scores are 9 points apart; and of one seed its own -5
        "As trained 85.0%; with one line wrong: no mask 74.5%, -10.5 (sd 0.7, 2 seeds); no bias 85.0%, -5.0."
    )
    assert [text.get_text() for text in figure.axes[0].texts] == ["-10.5 (sd 0.7, 2 seeds)", "-5.0"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "nothing to draw"),
        ([{"mistake": None, "seed": 0}], "no 'top1'"),
        ([{"mistake": None, "top1": 90.0}], "no 'seed'"),
        (ROWS[1:3], "no row with mistake None, as trained, of seed 1"),
        ([*ROWS, {"mistake": "no bias", "seed": 2, "top1": 1.0}], r"of seed 2 \(no bias\)"),
        ([*ROWS, ROWS[0]], "mistake None has several rows of one seed"),
    ],
)
def test_rows_that_cannot_be_paired_are_refused(rows, says):
    with pytest.raises(UserError, match=says):
        figures.accuracy_by_mistake(rows)
