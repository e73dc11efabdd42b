"""Figures say what they show, show all of it, and leave their input and matplotlib's state alone."""

import copy
import itertools

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from stm_lab import figures, measure
from stm_lab.figures.draw import framed
from stm_lab.util.errors import UserError

MIXERS = ("halo", "convnext", "identity")
ROWS = [
    {"mixer": mixer, "seed": seed, "epoch": epoch, "top1": 10.0 * epoch + seed + i, "loss": 2.0 / epoch}
    for i, mixer in enumerate(MIXERS)
    for seed in (0, 1, 2)
    for epoch in (1, 2, 3)
]
RUN = [
    {"epoch": epoch, "top1": 20.0, "top1_raw": 10.0 * epoch, "loss": 2.0, "validation_loss": 2.1, "grad_norm": 3.0,
     "grad_norm_max": 9.0}
    for epoch in (1, 2, 2.5)
]  # fmt: skip
LAST = [row for row in ROWS if row["epoch"] == 3]


def bump(height=32, width=32):
    """A centred hill with zeros round it, as an effective receptive field is."""
    rows, columns = np.ogrid[:height, :width]
    distance = (rows - height // 2) ** 2 + (columns - width // 2) ** 2
    return np.where(distance < 150, np.exp(-distance / 30.0), 0)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def lines(axes, width):
    return [line for line in axes.lines if line.get_linewidth() == width]


DRAWINGS = {
    "training_curves": (figures.training_curves, [ROWS]),
    "run_curves": (figures.run_curves, [RUN]),
    "lines": (figures.lines, [{"halo": {1: 2.0, 2: [3.0, 4.0]}}, "x", "y"]),
    "scatter": (figures.scatter, [{"halo": [(1, 2)], "swin": [(2, 1)]}, "x", "y"]),
    "receptive_fields": (figures.receptive_fields, [{name: bump() for name in MIXERS}]),
    "accuracy_dots": (figures.accuracy_dots, [LAST]),
    "image_grid": (figures.image_grid, [torch.rand(5, 3, 8, 8), list("abcde")]),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_is_made_of_its_input_and_changes_nothing(name, tmp_path):
    draw, arguments = DRAWINGS[name]
    before = copy.deepcopy(arguments)
    figure = draw(*arguments)
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 2000
    assert repr(arguments) == repr(before)
    for axes in figure.axes:
        assert axes.get_xlabel() or axes.get_ylabel() or not axes.axison


@pytest.mark.slow
def test_nothing_global_is_touched():
    settings, open_figures = copy.deepcopy(dict(pyplot.rcParams)), pyplot.get_fignums()
    for draw, arguments in DRAWINGS.values():
        draw(*arguments)
    assert dict(pyplot.rcParams) == settings
    assert pyplot.get_fignums() == open_figures


def test_colours_are_fixed_by_name_and_all_different():
    assert figures.colours(["identity", "pvt"])["pvt"] == figures.colours(["pvt"])["pvt"] == "#009E73"
    names = [*figures.MIXER_COLOURS, "mine", "yours", "theirs"]
    chosen = figures.colours(names)
    assert list(chosen) == names
    for one, other in itertools.combinations(chosen.values(), 2):
        assert np.linalg.norm(np.subtract(to_rgb(one), to_rgb(other))) > 0.2


def test_training_curves_have_a_thin_line_a_seed_and_a_bold_mean():
    figure = figures.training_curves(ROWS)
    accuracy, loss = figure.axes
    assert legend(figure) == list(MIXERS)
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == ("top-1 accuracy (%)", "training loss")
    assert accuracy.get_xlabel() == loss.get_xlabel() == "epoch"
    for axes in figure.axes:
        assert (len(lines(axes, 0.8)), len(lines(axes, 2.2))) == (9, 3)
    np.testing.assert_allclose(lines(accuracy, 2.2)[1].get_ydata(), [12, 22, 32])  # convnext: seeds 0 to 2, i = 1


def test_a_seed_that_is_behind_shortens_the_mean():
    rows = [row for row in ROWS if (row["mixer"], row["seed"], row["epoch"]) != ("halo", 2, 3)]
    rows.append({"mixer": "halo", "seed": 2, "epoch": 3, "top1": None, "loss": 0.1})  # not measured
    accuracy, loss = figures.training_curves(rows).axes
    assert lines(accuracy, 2.2)[0].get_xdata().tolist() == [1, 2]
    assert lines(loss, 2.2)[0].get_xdata().tolist() == [1, 2, 3]


def test_training_curves_are_told_apart_by_any_column():
    rows = [{**row, "lr": 0.1 * (row["mixer"] == "halo")} for row in ROWS if row["mixer"] != "identity"]
    figure = figures.training_curves(rows, by="lr")
    assert legend(figure) == ["0.1", "0.0"]
    np.testing.assert_allclose(lines(figure.axes[0], 2.2)[0].get_ydata(), [11, 21, 31])


def test_run_curves_show_all_of_a_run_on_an_axis_that_stays():
    losses, accuracies, gradient = figures.run_curves(RUN, epochs=4, chance=10).axes
    for axes in (losses, accuracies, gradient):
        assert axes.get_xlim() == pytest.approx((0, 4), abs=0.2)
    assert [line.get_label() for line in accuracies.lines] == ["saved weights", "last step's weights", "chance"]
    assert accuracies.lines[1].get_xdata().tolist() == [1, 2, 2.5]
    assert accuracies.lines[1].get_ydata().tolist() == [10, 20, 25]
    assert accuracies.lines[2].get_ydata() == [10, 10]
    assert [line.get_label() for line in gradient.lines] == ["mean", "largest"]


def test_a_run_names_the_images_it_was_validated_on():
    losses, accuracies, _ = figures.run_curves(RUN, images="the training images").axes
    assert accuracies.get_ylabel() == "top-1 accuracy (%)\non the training images"
    assert [line.get_label() for line in losses.lines] == ["while training", "on the training images"]
    assert "validation" in figures.run_curves(RUN).axes[1].get_ylabel()
    assert figures.training_curves(ROWS, images="few").axes[0].get_ylabel() == "top-1 accuracy (%)\non few"


def test_training_curves_have_a_line_for_chance_if_it_is_told():
    figure = figures.training_curves(ROWS, chance=2.5)
    accuracy, loss = figure.axes
    (line,) = [line for line in accuracy.lines if line.get_label() == "chance"]
    assert list(line.get_ydata()) == [2.5, 2.5]
    assert legend(figure) == [*MIXERS, "chance"]
    assert "chance" not in [line.get_label() for line in loss.lines]


def test_lines_show_means_ranges_a_level_and_plain_ticks():
    curves = {"swin": {64: [1.0, 3.0], 128: [4.0, 4.0]}, "mine": {64: 5.0}}
    figure = figures.lines(curves, "side", "cost", level=(3, "limit"), log="x")
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[64, 2], [128, 4]])
    assert axes.collections[0].get_paths()[0].vertices[:, 1].max() == 4
    assert [line.get_label() for line in axes.lines] == legend(figure) == ["swin", "mine", "limit"]
    figure.draw_without_rendering()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["64", "128"]
    assert figure.get_label() == "cost by side: swin: 2 at 64, 4 at 128; mine: 5 at 64; limit at 3."


def test_names_stand_at_single_dots_and_otherwise_in_a_legend():
    single = figures.scatter({"halo": [(12, 71)], "swin": [(20, 91)]}, "x", "y")
    single.draw_without_rendering()
    assert {text.get_text(): text.xy for text in single.axes[0].texts} == {"halo": (12, 71), "swin": (20, 91)}
    assert not single.legends
    assert all(text.get_window_extent().x1 <= single.bbox.width for text in single.axes[0].texts)
    several = figures.scatter({"halo": [(12, 71), (8, 91)], "swin": [(20, 91)]}, "x", "y")
    assert legend(several) == ["halo", "swin"]
    assert not several.axes[0].texts


def test_receptive_fields_share_one_scale():
    maps = {"halo": bump(), "swin": 1e6 * bump(), "identity": bump(16, 48)}
    figure = figures.receptive_fields(maps)
    *panels, bar = figure.axes
    assert [panel.get_title().split("\n")[0] for panel in panels] == list(maps)
    assert len({(panel.images[0].norm.vmin, panel.images[0].norm.vmax) for panel in panels}) == 1
    np.testing.assert_allclose(panels[0].images[0].get_array(), panels[1].images[0].get_array())
    area = 100 * measure.high_contribution_area(maps["halo"], 0.5)
    assert f"50% in {area:.1f}%" in panels[0].get_title()
    assert "share" in bar.get_ylabel()


def test_many_receptive_fields_take_a_second_row():
    assert len(figures.receptive_fields({f"model {i}": bump() for i in range(8)}).axes) == 9


def test_accuracy_dots_pair_by_seed():
    """halo - identity is -2 and convnext - identity -1 for every seed, although accuracy differs between seeds."""
    rows = [row for row in LAST if (row["mixer"], row["seed"]) != ("halo", 2)]
    left, right = figures.accuracy_dots(rows).axes
    assert [label.get_text() for label in left.get_yticklabels()] == list(MIXERS)
    dots = [line.get_xdata() for line in left.lines if line.get_marker() == "o"]
    assert [len(values) for values in dots] == [2, 3, 3]
    differences = [line.get_xdata() for line in right.lines if line.get_marker() == "o"]
    assert [list(values) for values in differences] == [[-2, -2], [-1, -1, -1], []]
    assert "identity" in right.get_xlabel()


def test_accuracy_dots_interval_is_students():
    """Differences 1, 2, 3: mean 2, s = 1, so 2 +- 4.3027 / sqrt(3). One seed has no interval."""
    rows = [{"mixer": "identity", "seed": seed, "top1": 50.0} for seed in range(3)]
    rows += [{"mixer": "halo", "seed": seed, "top1": 51.0 + seed} for seed in range(3)]
    rows += [{"mixer": "swin", "seed": 0, "top1": 40.0}]
    _, right = figures.accuracy_dots(rows).axes
    (interval,) = lines(right, 1.4)
    np.testing.assert_allclose(interval.get_xdata(), [2 - 4.3026527 / 3**0.5, 2 + 4.3026527 / 3**0.5])


def test_accuracy_dots_have_a_line_for_chance_if_it_is_told():
    left, right = figures.accuracy_dots(LAST, chance=2.5).axes
    (line,) = [line for line in left.lines if line.get_label() == "chance"]
    assert list(line.get_xdata()) == [2.5, 2.5]
    assert left.get_xlim()[0] < 2.5
    assert [text.get_text() for text in left.texts] == ["chance"]
    for axes in (right, *figures.accuracy_dots(LAST).axes):
        assert "chance" not in [line.get_label() for line in axes.lines]


def paired(**differences):
    """Rows of identity at 50% in every seed, and of mixers that differ from it by so many points."""
    rows = [{"mixer": "identity", "seed": seed, "top1": 50.0} for seed in range(3)]
    for mixer, points in differences.items():
        rows += [{"mixer": mixer, "seed": seed, "top1": 50.0 + point} for seed, point in enumerate(points)]
    return rows


def heads(axes):
    return {
        (line.get_marker(), *line.get_xdata(), *line.get_ydata()) for line in axes.lines if line.get_marker() in "<>"
    }


def test_an_interval_that_is_cut_has_arrow_heads_and_its_ends_in_numbers():
    """0 and 4: mean 2, s = 2.83, so 2 +- 12.706 * 2 = -23.4 .. 27.4; three seeds at 1, 1.1, 1.2 have room."""
    figure = figures.accuracy_dots(paired(halo=(0, 4), swin=(1, 1.1, 1.2)))
    _, right = figure.axes
    low, high = right.get_xlim()
    assert -23 < low < 0 < 4 < high < 27
    assert heads(right) == {("<", low, 1), (">", high, 1)}
    assert [text.get_text().strip() for text in right.texts] == ["baseline", "-23 .. +27"]
    assert right.texts[1].xy == (1, 1)
    box, page = right.texts[1].get_window_extent(figure.draw_without_rendering()), figure.bbox
    assert page.x0 <= box.x0 < box.x1 <= page.x1  # all of it is on the page


def test_an_interval_that_is_cut_on_one_side_has_one_arrow_head():
    """8 and 12: 10 +- 25.4; the dots from -20 to 12 leave room to the left."""
    _, right = figures.accuracy_dots(paired(halo=(-20, -20), swin=(8, 12))).axes
    assert heads(right) == {(">", right.get_xlim()[1], 2)}
    assert right.get_xlim()[0] < 10 - 25.4


@pytest.mark.parametrize("rounding", [0, 7e-15])
def test_differences_of_nothing_look_like_nothing(rounding):
    """All seeds equal, but for rounding: the axis has points, and no ends of an interval beside it."""
    _, right = figures.accuracy_dots(paired(halo=(0, rounding), swin=(0, 0, 0))).axes
    low, high = right.get_xlim()
    assert low <= -1 < 1 <= high
    assert heads(right) == set()
    assert [text.get_text().strip() for text in right.texts] == ["baseline"]


def test_an_interval_with_room_has_none():
    _, right = figures.accuracy_dots(paired(halo=(1, 1.1, 1.2))).axes
    assert heads(right) == set()
    assert [text.get_text().strip() for text in right.texts] == ["baseline"]


def test_image_grid_takes_tensors_and_pictures():
    tensors = torch.randint(0, 256, (3, 3, 8, 10), dtype=torch.uint8)
    pictures = [Image.fromarray(tensor.permute(1, 2, 0).numpy()) for tensor in tensors]
    for images in (tensors, pictures):
        figure = figures.image_grid(images, ["cat", "dog", "owl"], columns=2)
        panels = [axes for axes in figure.axes if axes.images]
        assert [panel.get_title() for panel in panels] == ["cat", "dog", "owl"]
        np.testing.assert_array_equal(panels[1].images[0].get_array(), tensors[1].permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.training_curves([]), "training_curves: nothing to draw"),
        (lambda: figures.training_curves(ROWS, by="lr"), "row 0: no 'lr'"),
        (lambda: figures.run_curves([]), "nothing to draw"),
        (lambda: figures.run_curves([{"epoch": 1}]), "row 0: no 'loss'"),
        (lambda: figures.training_curves([{**ROWS[0], "seed": 1}, {"mixer": "halo"}]), "row 1: .*'seed'"),
        (lambda: figures.accuracy_dots(LAST, baseline="identiti"), "did you mean 'identity'"),
        (lambda: figures.receptive_fields({}), "nothing to draw"),
        (lambda: figures.receptive_fields({"halo": np.zeros((4, 4))}), "empty"),
        (lambda: figures.consistency_curves({}), "nothing to draw"),
        (lambda: figures.image_grid(torch.rand(2, 3, 4, 4), ["one"]), "2 images with 1 titles"),
        (lambda: figures.image_grid([], []), "nothing to draw"),
        (lambda: figures.lines({"halo": {}}, "x", "y"), "lines: nothing to draw"),
    ],
)
def test_bad_input(draw, message):
    with pytest.raises(UserError, match=message):
        draw()


def test_a_result_without_a_figure_is_refused_by_its_type():
    with pytest.raises(UserError, match=r"no figure of dict; figures\.of takes .*ReceptiveField"):
        figures.of({"model": "swin"})


@pytest.mark.parametrize(
    ("given", "box", "inner"),
    [
        ({}, (4.5, 1.5, 1, 1), (1, 1, 1)),
        ({"tall": 3, "wide": 2, "first": 0, "colour": "red"}, (5, 2, 2, 3), (1, 0, 0)),
    ],
)
def test_a_frame_is_dark_and_light_round_its_tokens(given, box, inner):
    axes = Figure().subplots()
    framed(axes, 2, 5, **given)
    drawn = [(patch.get_bbox().bounds, patch.get_edgecolor()[:3]) for patch in axes.patches]
    assert drawn == [(box, (0, 0, 0)), (box, inner)]
