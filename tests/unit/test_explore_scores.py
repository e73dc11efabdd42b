"""Explorers of scores: what beats a network over a cost, and how an interval narrows as seeds are counted."""

import numpy as np
import pytest
from companions import companion

from stm_lab import UserError, paper
from stm_lab.explore import pareto

OWN_20 = companion("20")
seeds = OWN_20.seeds

COSTS = {"parameters": "parameters", "macs": "MACs"}
SCORES = {
    "halo": {0: 30.0, 1: 21.0, 2: 22.0, 3: 23.0, 4: 21.0},
    "swin": {0: 25.0, 1: 24.0, 2: 24.0, 3: 27.0, 4: 25.0},
    "pvt": {0: 20.0, 1: 22.0},
    "mine": {9: 20.0},
}


@pytest.fixture
def rows():
    return [{"name": f"{row['model']} {row['scale']}", **row} for row in paper.rows()]


@pytest.fixture
def board(rows):
    return pareto(rows, COSTS)


def test_says_what_beats_it_and_what_does_not(board):
    beaten = "beaten by U-InternImage tiny: +1.1 at 0.96 times the cost"
    assert beaten in board.figure(cost="macs", network="U-ConvNeXt tiny").get_label()
    assert "on the front: nothing" in board.figure(cost="macs", network="U-HaloNet base").get_label()


def test_a_spread_is_drawn_and_said(rows):
    spread = [{**row, "spread": 0.4 if row["name"] == "U-HaloNet base" else None} for row in rows]
    label = pareto(spread, COSTS).figure(cost="macs", network="U-HaloNet base").get_label()
    assert "84.6 ± 0.4 over seeds" in label
    assert "± 0.4)" in label


@pytest.mark.parametrize("log", [True, False])
def test_a_click_takes_the_nearest(board, rows, log):
    board.set(cost="macs", log=log)
    for wanted in (rows[0], rows[-1]):
        board.click(0, wanted["macs"] * 1.02, wanted["top1"] + 0.1)
        assert board.state["network"] == wanted["name"]


def test_the_pointer_is_told_each_network_where_it_stands(board, rows):
    hints = board.widget.children[1].hints
    assert [text.split("\n")[0] for _, _, text in hints] == [row["name"] for row in rows]
    assert all(0 < x < 1 and 0 < y < 1 for x, y, _ in hints)
    best, worst = (next(h for h in hints if h[2].startswith(name)) for name in ("U-HaloNet base", "U-PVT micro"))
    assert best[1] < worst[1]  # higher in the picture
    assert best[0] > worst[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [], "no rows"),
        (lambda rows: [*rows, rows[0]], "names that differ"),
        (lambda rows: [{"name": "a", "mixer": "swin", "top1": 3}], "'a' has no 'parameters'"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(rows, change, message):
    with pytest.raises(UserError, match=message):
        pareto(change(rows), COSTS)


# ---- seeds ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted():
    return seeds(SCORES)


def bars(figure):
    return [line for line in figure.axes[1].lines if line.get_linewidth() == 6]


def test_it_begins_with_the_pair_of_most_seeds_and_one_of_them(counted):
    assert counted.state == {"one": "halo", "other": "swin", "count": 1, "begin": 0}
    assert "1 seed: halo leads by 5.0" in counted.figure().get_label()
    assert bars(counted.figure()) == []
    assert seeds(SCORES, "pvt", "halo").state["one"] == "pvt"


def test_more_seeds_narrow_the_interval_and_undo_the_winner(counted):
    few, figure = counted.figure(), counted.figure(count=5)
    spans = [np.ptp(bar.get_ydata()) for bar in bars(figure)]
    assert len(spans) == 4
    assert spans[-1] < spans[0]
    assert "5 seeds: swin leads by 1.6; the 95% interval from -6.3 to +3.1 holds 0" in figure.get_label()
    assert few.axes[1].get_ylim() == figure.axes[1].get_ylim()
    assert few.axes[1].get_xlim() == figure.axes[1].get_xlim()


def test_another_first_seed_may_name_another_winner(counted):
    assert "halo leads" in counted.figure(begin=0).get_label()
    assert "swin leads" in counted.figure(begin=1).get_label()
    assert "order 3, 4, 0, 1, 2" in counted.figure(begin=3).get_label()


def test_a_count_beyond_the_common_seeds_takes_them_all(counted):
    assert "2 seeds" in counted.figure(one="pvt", count=5).get_label()


@pytest.mark.parametrize(
    ("state", "message"), [({"other": "halo"}, "two names"), ({"other": "mine"}, "no seed in common")]
)
def test_pairs_that_cannot_be_compared_are_said(counted, state, message):
    with pytest.raises(UserError, match=message):
        counted.figure(**state)


@pytest.mark.parametrize(
    ("scores", "names", "message"),
    [
        ({}, (), "no two names"),
        ({"a": {0: 1.0}, "b": {0: 2.0}}, (), "no two names"),
        (SCORES, ("swim",), "unknown name 'swim'; did you mean 'swin'"),
    ],
)
def test_scores_without_a_pair_are_refused(scores, names, message):
    with pytest.raises(UserError, match=message):
        seeds(scores, *names)


@pytest.mark.parametrize("count", [0, 6])
def test_the_figure_refuses_a_count_that_is_not_there(count):
    with pytest.raises(UserError, match=f"{count} of 5 seeds"):
        OWN_20.difference_so_far(SCORES["halo"], SCORES["swin"], ("halo", "swin"), list(range(5)), count)
