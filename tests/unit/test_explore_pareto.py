"""The explorer of costs: any state by its controls, clicks and pointers find networks, and it answers in time."""

import itertools

import pytest
from speed import Stopwatch

from stm_lab import paper
from stm_lab.explore import pareto
from stm_lab.util.errors import UserError

COSTS = {"parameters": "parameters", "macs": "MACs"}


@pytest.fixture
def rows():
    return [{"name": f"{row['model']} {row['scale']}", **row} for row in paper.rows()]


@pytest.fixture
def explorer(rows):
    return pareto(rows, COSTS)


def test_says_what_beats_it_and_what_does_not(explorer):
    assert (
        "beaten by U-InternImage tiny: +1.1 at 0.96 times the cost"
        in explorer.figure(cost="macs", network="U-ConvNeXt tiny").get_label()
    )
    assert "on the front: nothing" in explorer.figure(cost="macs", network="U-HaloNet base").get_label()


def test_a_spread_is_drawn_and_said(rows):
    spread = [{**row, "spread": 0.4 if row["name"] == "U-HaloNet base" else None} for row in rows]
    label = pareto(spread, COSTS).figure(cost="macs", network="U-HaloNet base").get_label()
    assert "84.6 ± 0.4 over seeds" in label
    assert "± 0.4)" in label


@pytest.mark.soak
@pytest.mark.parametrize("log", [True, False])
def test_every_state_is_drawn_in_half_a_second(explorer, log):
    picture = explorer.widget.children[1]  # the first one loads fonts
    stopwatch = Stopwatch()
    for cost, network in itertools.product(("macs", "parameters"), ("U-PVT base", "U-HaloNet micro", "U-PVT tiny")):
        before = picture.png
        stopwatch.time(explorer.set, cost=cost, network=network, log=log)
        assert picture.png != before
    assert stopwatch.median < 0.5, stopwatch.seconds


def _click(explorer, x, y):
    picture, figure = explorer.widget.children[1], explorer.figure()
    figure.draw_without_rendering()
    across, up = figure.axes[0].transData.transform((x, y))
    picture.clicked = [across / figure.bbox.width, 1 - up / figure.bbox.height, len(picture.clicked) + 1]


def test_a_click_takes_the_nearest(explorer, rows):
    explorer.set(cost="macs")
    wanted = next(row for row in rows if row["name"] == "U-HaloNet micro")
    _click(explorer, wanted["macs"] * 1.02, wanted["top1"] + 0.1)
    assert explorer.state["network"] == "U-HaloNet micro"


def test_the_pointer_is_told_each_network_where_it_stands(explorer, rows):
    hints = explorer.widget.children[1].hints
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
def test_refuses(rows, change, message):
    with pytest.raises(UserError, match=message):
        pareto(change(rows), COSTS)
