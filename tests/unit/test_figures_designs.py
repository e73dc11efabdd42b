"""Figures of designs: their numbers are those of the rows, in the text too, and what cannot be drawn is refused."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from stm_lab import figures
from stm_lab.designs import CORNERS
from stm_lab.figures.designs import LEVEL_COLOURS, level_gains
from stm_lab.util.errors import UserError

ROWS = [
    {"mixer": "swin", "step": "original", "level": None, "parameters": 2000, "macs": 9_000_000, "top1": 20.0},
    {"mixer": "swin", "step": "stem", "level": "network", "parameters": 2600, "macs": 9_000_000, "top1": None},
    {"mixer": "swin", "step": "layer scale", "level": "block", "parameters": 2500, "macs": 9_500_000, "top1": 21.5},
    {"mixer": "swin", "step": "head", "level": "network", "parameters": 3100, "macs": 9_400_000, "top1": 26.0},
]
LABELS = {"parameters": "parameters", "macs": "MACs"}
FOUR = dict(zip(CORNERS, (10.0, 14.0, 11.0, 18.0), strict=True))
SEEDS = [
    {"mixer": mixer, "design": name, "seed": seed, "top1": value + seed}
    for mixer in ("swin", "convnext")
    for name, value in FOUR.items()
    for seed in (0, 1, 2)
]
PARTS = [{"part": part, "parameters": 100 * n, "macs": 10 * n} for n, part in enumerate(("stem", "head", "total"), 1)]


def field(side: int = 32, spread: float = 4.0) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - side // 2
    return np.exp(-(x**2 + y**2) / (2 * spread**2))


FIELDS = {"forwards": {"original": field(), "stem": field(spread=2)}, "backwards": {"original": field()}}
FIGURES = {
    "steps": (
        figures.design_steps,
        [ROWS, {**LABELS, "top1": "top-1 (%)"}],
        ["stem, layer scale, head", "2.00 k to 3.10 k", "9.00 M to 9.40 M", "top-1 (%): 20 to 26"],
    ),
    "levels": (figures.design_levels, [ROWS, LABELS], ["parameters, network +60.0%", "MACs, block +5.6%"]),
    "corners": (figures.design_corners, [SEEDS], ["swin: original 11.0, network 15.0, block 12.0, unified 19.0"]),
    "two corners": (figures.design_corners, [SEEDS[:6]], ["original 11.0, network 15.0"]),
    "fields": (figures.design_fields, [FIELDS], ["forwards: original", "stem", "backwards: original"]),
    "parts": (
        figures.design_parts,
        [dict.fromkeys(("original", "now", "unified"), PARTS), [("stem", "patches", "convs", "convs")]],
        ["stem convs", "parameters: original 300"],
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_is_drawn_and_described(name):
    draw, arguments, said = FIGURES[name]
    before = repr(arguments)
    figure = draw(*arguments)
    assert isinstance(figure, Figure)
    assert repr(arguments) == before
    figure.draw_without_rendering()
    assert all(text in figure.get_label() for text in said), figure.get_label()


def test_bars_of_the_steps_are_the_differences():
    axes = figures.design_steps(ROWS, LABELS).axes[0]
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert bars == [(2000, 600), (2600, -100), (2500, 600)]
    assert [text.get_text() for text in axes.texts] == ["+600", "-100", "+600, in all 3.10 k", "2.00 k"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["original", "stem", "layer scale", "head"]


def test_a_step_without_a_number_is_passed_over():
    """A bar then leads from the last design that has one."""
    axes = figures.design_steps(ROWS, {"top1": "top-1 (%)"}).axes[0]
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(20.0, 1.5), (21.5, 4.5)]


def test_gains_of_the_levels_add_up_to_the_whole():
    gains = level_gains(ROWS, "parameters")
    assert gains == {"network": 1200, "block": -100}
    assert sum(gains.values()) == ROWS[-1]["parameters"] - ROWS[0]["parameters"]
    assert set(gains) <= set(LEVEL_COLOURS)
    assert level_gains(ROWS[:1], "macs") == {}


def test_corners_write_the_gain_of_each_level_in_both_orders():
    first, _ = figures.design_corners(SEEDS).axes
    assert sorted(text.get_text() for text in first.texts) == ["+1.0", "+4.0", "+4.0", "+7.0"]


def test_numbers_on_the_ways_do_not_cover_each_other():
    """Even where both ways are the same."""
    same = [{"mixer": "swin", "design": name, "seed": 0, "top1": 10.0} for name in CORNERS]
    figure = figures.design_corners(same)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_fields_are_shares_on_one_scale_and_the_number_is_the_squares():
    figure = figures.design_fields(FIELDS)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len({(image.norm.vmin, image.norm.vmax) for image in images}) == 1
    assert images[0].norm.vmax == pytest.approx((field(spread=2) / field(spread=2).sum()).max())
    measured = {name: 100 * (side / 32) ** 2 for name, side in {"wide": 9, "narrow": 5}.items()}
    inside = {
        "wide": [field()[16 - r : 17 + r, 16 - r : 17 + r].sum() / field().sum() for r in (3, 4)],
        "narrow": [field(spread=2)[16 - r : 17 + r, 16 - r : 17 + r].sum() / field(spread=2).sum() for r in (1, 2)],
    }
    assert all(less < 0.5 <= more for less, more in inside.values()), "by hand: 9 and 5 pixels hold half"
    assert f"original {measured['wide']:.1f}%, stem {measured['narrow']:.1f}%" in figure.get_label()
    assert [axes.get_title() for axes in figure.axes[:3]] == ["original", "+ stem", "original"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: figures.design_steps(ROWS[:1], LABELS), "design_steps: 1 rows; a step needs the design before it"),
        (lambda: figures.design_steps(ROWS, {"seconds": "s"}), "row 0: no 'seconds'"),
        (lambda: figures.design_levels([], LABELS), "design_levels: nothing to draw"),
        (lambda: figures.design_corners([]), "nothing to draw"),
        (
            lambda: figures.design_corners([{**SEEDS[0], "design": "netwrk"}]),
            "design_corners: unknown design 'netwrk'; did you mean 'network'",
        ),
        (lambda: figures.design_fields({}), "design_fields: nothing to draw"),
        (lambda: figures.design_fields({"forwards": {}}), "design_fields: nothing to draw"),
        (lambda: figures.design_fields({"forwards": {"original": np.zeros((4, 4))}}), "the receptive field is empty"),
    ],
)
def test_bad_input_is_one_clear_line(call, says):
    with pytest.raises(UserError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
