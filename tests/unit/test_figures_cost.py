"""Figures of costs and intervals: the numbers are in them, in the text too; nothing else is changed."""

import pytest
from companions import companion
from matplotlib.figure import Figure

from stm_lab import figures
from stm_lab.figures.cost import front
from stm_lab.figures.style import number
from stm_lab.util.errors import UserError

OWN_21 = companion("21")

TIMES = [
    {"model": model, "role": role, "milliseconds": value}
    for model, of in {"a": {"mixers": 3.0, "rest": 1.0}, "b": {"mixers": 0.5, "rest": -0.1}}.items()
    for role, value in (*of.items(), ("total", sum(of.values())))
]
FIGURES = {
    "pareto": (figures.pareto, [{"swin": (1.0, 5.0), "pvt": (2.0, 4.0)}, ("MACs", "top-1 (%)")], ["swin (1, 5.0)"]),
    "pareto with spread": (
        figures.pareto,
        [{"swin": (1.0, 5.0), "pvt": (2.0, 4.0)}, ("ms", "top-1 (%)"), {"spread": {"swin": 0.5}}],
        ["swin (1, 5.0 ± 0.5)"],
    ),
    "intervals": (
        OWN_21.intervals,
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


def test_front():
    points = {"cheap": (1, 1), "worse": (2, 1), "better": (2, 3), "twin": (2, 3), "dear": (5, 2)}
    assert front(points) == ["cheap", "better", "twin"]
    assert front({"only": (1, 1)}) == ["only"]


def test_numbers_of_costs():
    said = {
        -1500: "−1.5 k",
        0: "0",
        0.5: "0.5",
        44.4: "44.4",
        999.7: "999.7",
        1000: "1 k",
        1_234_567: "1.23 M",
        2e9: "2 G",
    }
    assert {value: number(value) for value in said} == said


def test_shares_of_milliseconds_are_not_milli():
    figure = figures.shares_by_role(TIMES, "milliseconds", "time (%)")
    beside = [text.get_text() for text in figure.axes[0].texts]
    assert {"4", "0.4"} <= set(beside)


def test_refuses():
    for draw in (OWN_21.intervals, figures.pareto):
        with pytest.raises(UserError, match="nothing to draw"):
            draw([], "x")
