"""Figures of the paper and of costs: the numbers are in them, in the text too; nothing else is changed."""

import pytest
from matplotlib.figure import Figure

from stm_lab import figures, paper
from stm_lab.figures.cost import front
from stm_lab.figures.style import number
from stm_lab.util.errors import UserError

ROWS = paper.rows()
ORIGINALS = [one._asdict() for one in paper.originals()]
TIMES = [
    {"model": model, "role": role, "milliseconds": value}
    for model, of in {"a": {"mixers": 3.0, "rest": 1.0}, "b": {"mixers": 0.5, "rest": -0.1}}.items()
    for role, value in (*of.items(), ("total", sum(of.values())))
]
FIGURES = {
    "bubbles": (figures.accuracy_bubbles, [ROWS, ORIGINALS], ["halo", "84.6%", "Swin-T 81.3%"]),
    "bubbles of ours alone": (figures.accuracy_bubbles, [ROWS[:5]], ["75.8%"]),
    "over costs": (figures.accuracy_over_costs, [ROWS, {"parameters": "parameters"}], ["pvt: 72.8 at 4.45 M"]),
    "detection": (figures.detection_over_classification, [ROWS], ["r = 0.98", "rank correlation 0.96"]),
    "orders": (
        figures.orders,
        [
            {
                "paper": {"halo": 3, "swin": 2, "pvt": 1},
                "ours": {"pvt": 9.0, "swin": 8.0, "halo": 7.0},
                "one": {"pvt": 1},
            }
        ],
        ["halo > swin > pvt", "tau -1.00, 3 mixers", "no order to compare"],
    ),
    "pareto": (figures.pareto, [{"swin": (1.0, 5.0), "pvt": (2.0, 4.0)}, ("MACs", "top-1 (%)")], ["swin (1, 5.0)"]),
    "pareto with spread": (
        figures.pareto,
        [{"swin": (1.0, 5.0), "pvt": (2.0, 4.0)}, ("ms", "top-1 (%)"), {"spread": {"swin": 0.5}}],
        ["swin (1, 5.0 ± 0.5)"],
    ),
    "intervals": (
        figures.intervals,
        [
            [
                {"claim": "c", "source": "paper", "value": 1.0, "low": None, "high": None},
                {"claim": "c", "source": "ours", "value": -3.0, "low": -90.0, "high": 84.0},
                {"claim": "d", "source": "ours", "value": 0.5, "low": 0.1, "high": 0.9},
            ],
            "points",
        ],
        ["c, paper: +1.0;", "c, ours: -3.0 (-90.0 to +84.0)", "d, ours: +0.5"],
    ),
    "shares": (figures.shares_by_role, [TIMES, "milliseconds", "time (%)"], ["mixers 75%", "rest 0%"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_is_drawn_and_described(name):
    draw, arguments, said = FIGURES[name]
    before = repr(arguments)
    options = arguments[-1] if isinstance(arguments[-1], dict) and "spread" in arguments[-1] else {}
    figure = draw(*arguments[: len(arguments) - bool(options)], **options)
    assert isinstance(figure, Figure)
    assert repr(arguments) == before
    figure.draw_without_rendering()
    assert all(text in figure.get_label() for text in said), figure.get_label()
    assert any(axes.get_xlabel() or axes.get_ylabel() for axes in figure.axes)


def test_bubbles_have_their_parameters_as_area():
    figure = figures.accuracy_bubbles(ROWS, ORIGINALS)
    areas = [size for axes in figure.axes for circle in axes.collections for size in circle.get_sizes()]
    wanted = [9e-6 * row["parameters"] for row in ROWS] + [9 * one["parameters_m"] for one in ORIGINALS]
    assert sorted(areas) == pytest.approx(sorted(wanted))


def test_front():
    points = {"cheap": (1, 1), "worse": (2, 1), "better": (2, 3), "twin": (2, 3), "dear": (5, 2)}
    assert front(points) == ["cheap", "better", "twin"]
    assert front({"only": (1, 1)}) == ["only"]


def test_numbers_of_costs():
    said = {0: "0", 0.5: "0.5", 44.4: "44.4", 999.7: "999.7", 1000: "1 k", 1_234_567: "1.23 M", 2e9: "2 G"}
    assert {value: number(value) for value in said} == said


def test_shares_of_milliseconds_are_not_milli():
    figure = figures.shares_by_role(TIMES, "milliseconds", "time (%)")
    beside = [text.get_text() for text in figure.axes[0].texts]
    assert {"4", "0.4"} <= set(beside)


def test_refuses():
    for draw in (figures.intervals, figures.pareto):
        with pytest.raises(UserError, match="nothing to draw"):
            draw([], "x")
    with pytest.raises(UserError, match="no 'top1'"):
        figures.accuracy_over_costs([{"mixer": "swin"}], {"macs": "MACs"})
