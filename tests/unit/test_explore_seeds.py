"""The explorer of seeds: the interval narrows as seeds are counted, and the first seed may name another winner."""


import numpy as np
import pytest
from speed import Stopwatch

from stm_lab import UserError, figures
from stm_lab.explore import seeds

SCORES = {
    "halo": {0: 30.0, 1: 21.0, 2: 22.0, 3: 23.0, 4: 21.0},
    "swin": {0: 25.0, 1: 24.0, 2: 24.0, 3: 27.0, 4: 25.0},
    "pvt": {0: 20.0, 1: 22.0},
    "mine": {9: 20.0},
}


def bars(figure):
    return [line for line in figure.axes[1].lines if line.get_linewidth() == 6]


def test_it_begins_with_the_pair_of_most_seeds_and_one_of_them():
    explorer = seeds(SCORES)
    assert explorer.state == {"one": "halo", "other": "swin", "count": 1, "begin": 0}
    assert "1 seed: halo leads by 5.0" in explorer.figure().get_label()
    assert bars(explorer.figure()) == []
    assert seeds(SCORES, "pvt", "halo").state["one"] == "pvt"


@pytest.mark.slow
def test_more_seeds_narrow_the_interval_and_undo_the_winner():
    explorer = seeds(SCORES)
    spans = [np.ptp(bar.get_ydata()) for bar in bars(explorer.figure(count=5))]
    assert len(spans) == 4
    assert spans[-1] < spans[0]
    assert (
        "5 seeds: swin leads by 1.6; the 95% interval from -6.3 to +3.1 holds 0" in explorer.figure(count=5).get_label()
    )


def test_another_first_seed_may_name_another_winner():
    explorer = seeds(SCORES)
    assert "halo leads" in explorer.figure(begin=0).get_label()
    assert "swin leads" in explorer.figure(begin=1).get_label()
    assert "order 3, 4, 0, 1, 2" in explorer.figure(begin=3).get_label()


def test_a_count_beyond_the_common_seeds_takes_them_all():
    assert "2 seeds" in seeds(SCORES).figure(one="pvt", count=5).get_label()


def test_axes_stay_as_seeds_are_counted():
    explorer = seeds(SCORES)
    few, all_of_them = (explorer.figure(count=count).axes[1] for count in (1, 5))
    assert few.get_ylim() == all_of_them.get_ylim()
    assert few.get_xlim() == all_of_them.get_xlim()


@pytest.mark.parametrize(
    ("state", "message"), [({"other": "halo"}, "two names"), ({"other": "mine"}, "no seed in common")]
)
def test_pairs_that_cannot_be_compared_are_said(state, message):
    explorer = seeds(SCORES)
    with pytest.raises(UserError, match=message):
        explorer.figure(**state)
    explorer.widget  # noqa: B018  (it is made here)
    explorer.set(**state)
    assert message in explorer.widget.children[2].value


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


@pytest.mark.soak
def test_an_answer_takes_less_than_half_a_second():
    explorer = seeds(SCORES)
    explorer.widget  # noqa: B018
    stopwatch = Stopwatch()
    stopwatch.time(explorer.set, count=4, begin=2)
    assert stopwatch.median < 0.5


@pytest.mark.parametrize("count", [0, 6])
def test_the_figure_refuses_a_count_that_is_not_there(count):
    with pytest.raises(UserError, match=f"{count} of 5 seeds"):
        figures.difference_so_far(SCORES["halo"], SCORES["swin"], ("halo", "swin"), list(range(5)), count)
