"""Notebook 07's own: the trace of shapes against networks that run and against the counter, and its figure."""

import itertools

import pytest
import torch
from companions import companion

from stm_lab import UserError, build_model, measure
from stm_lab.designs import list_scales
from stm_lab.mixers import list_mixers
from stm_lab.paper import counts

OWN_07 = companion("07")
SIZES = [(33, 47), (100, 64)]
each_mixer = pytest.mark.parametrize("mixer", list_mixers())
each_design = pytest.mark.parametrize("design", ["unified", "original"])


def shapes_of_a_run(model, size):
    """(before, after) of stem, stages and the head's classifier: (rows, columns, channels)."""
    found, hooks = [], []

    def hook(_, args, out):
        if args[0].ndim == 2:
            found.append(tuple((1, 1, x.shape[1]) for x in (args[0], out)))
        else:
            found.append(tuple((x.shape[2], x.shape[3], x.shape[1]) for x in (args[0], out)))

    for module in (model.stem, *model.stages, model.head.fc):
        hooks.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model.eval()(torch.empty(1, 3, *size, device="meta"))
    return found


@each_mixer
@each_design
def test_shapes_are_those_of_a_run(mixer, design):
    model = build_model(mixer, "nano", design=design, device="meta")
    for size in SIZES:
        found = OWN_07.trace(model, image_size=size)
        stages = [(stage.before, stage.after) for stage in found.stages[:-1]]
        classifier = found.stages[-1].parts[-1]
        assert [*stages, (classifier.before, classifier.after)] == shapes_of_a_run(model, size)


@each_mixer
@each_design
def test_parts_follow_one_another(mixer, design):
    found = OWN_07.trace(build_model(mixer, "nano", design=design, device="meta"), image_size=(61, 90))
    parts = [part for stage in found.stages for part in stage.parts]
    assert all(one.after == other.before for one, other in itertools.pairwise(parts))


@each_mixer
@each_design
def test_costs_are_those_of_the_counter(mixer, design):
    scale = "nano" if design == "original" else "micro" if "micro" in list_scales(mixer) else "nano"
    model = build_model(mixer, scale, design=design, device="meta")
    for size in SIZES[:1]:
        found, counted = OWN_07.trace(model, image_size=size), measure.cost(model, image_size=size)
        assert (found.parameters, found.macs) == (counted.parameters, counted.macs)
        by_stage = {"": [0, 0]} | {f"stages.{i}": [0, 0] for i in range(4)}
        for row in counted.rows("stage")[:-1]:
            by_stage[row["stage"]][0] += row["parameters"]
            by_stage[row["stage"]][1] += row["macs"]
        for stage in found.stages[1:-1]:
            assert [stage.parameters, stage.macs] == by_stage[f"stages.{int(stage.name[-1]) - 1}"]


@pytest.mark.slow
def test_totals_are_the_published_ones_to_the_last_digit():
    for (mixer, scale), published in counts().items():
        found = OWN_07.trace(build_model(mixer, scale, device="meta"), image_size=224)
        assert (found.parameters, found.macs) == (published["parameters"], published["macs"])


@pytest.mark.parametrize(("stem", "kernel", "stride", "padding"), [("convs", 3, 2, 1), ("overlap", 7, 4, 3)])
def test_zeros_are_those_that_a_strided_convolution_reads(stem, kernel, stride, padding):
    """Counted by which rows of a padded map of ones and zeros the convolution's windows touch."""
    model = build_model("pooling", "nano", stem=stem, device="meta")
    for side in range(32, 70):
        part = OWN_07.trace(model, image_size=(side, 64)).stages[0].parts[0]
        starts = range(0, side + 2 * padding - kernel + 1, stride)
        read = {row for start in starts for row in range(start, start + kernel)}
        outside = sum(not padding <= row < side + padding for row in read)
        assert part.note.startswith(f"reads zeros: {outside} row")


def test_notes_say_what_mixers_pad_and_drop():
    def note(mixer, stage, size, scale="tiny"):
        parts = OWN_07.trace(build_model(mixer, scale, device="meta"), image_size=size).stages[stage].parts
        return next(part.note for part in parts if part.name == "mixer")

    assert note("halo", 1, 224) == "blocks of 7x7"
    assert note("halo", 4, (224, 256)) == "blocks of 7x7; padded to 7x14"
    assert note("halo", 4, (96, 256)) == "blocks of 3x7; padded to 3x14"  # a map of 3x8
    assert note("halo", 4, 96) == "blocks of 3x3"
    assert note("swin", 4, (96, 256)) == "windows of 3x3; padded to 3x9"
    assert note("pvt", 1, (224, 100)) == "keys 7x3; dropped: 0 rows, 1 column"
    assert note("convnext", 1, (99, 57)) == ""


def test_a_mixer_without_a_formula_has_no_count():
    model = build_model("pooling", "nano", device="meta")
    model.stages[1].blocks[0].mixer = torch.nn.Identity()
    found = OWN_07.trace(model)
    assert found.macs is None
    assert [stage.macs is None for stage in found.stages] == [False, False, True, False, False, False]


def test_other_models_and_small_images_are_refused():
    with pytest.raises(UserError, match="Linear is not a backbone of stm_lab"):
        OWN_07.trace(torch.nn.Linear(3, 3))
    with pytest.raises(UserError, match="at least 1x1, not 0x64"):
        OWN_07.trace(build_model("swin", "nano", device="meta"), image_size=(0, 64))


# ---- the figure ------------------------------------------------------------------------------------------------------


def traced(mixer="swin", scale="nano", size=(64, 64), **options):
    return OWN_07.trace(build_model(mixer, scale, device="meta", **options), image_size=size)


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("size", [(33, 129), (200, 40)], ids=str)
def test_every_stage_has_a_box_with_its_shape(size):
    found = traced(size=size)
    boxes = OWN_07.shape_trace(found).axes[0]
    assert len(boxes.patches) == 7  # the image, the stem, four stages, the head
    for stage in found.stages[:-1]:
        assert " x ".join(map(str, stage.after)) in texts(boxes)
    image, *maps = boxes.patches
    assert image.get_height() / image.get_width() == pytest.approx((size[0] / size[1]) ** 0.5)
    heights = [box.get_height() for box in (image, *maps)]
    assert heights == sorted(heights, reverse=True)


def test_shares_add_up():
    bars = OWN_07.shape_trace(traced("pvt_v2")).axes[1].patches
    assert len(bars) == 12
    assert sum(bar.get_width() for bar in bars) == pytest.approx(200)


@pytest.mark.parametrize("opened", ["stage 1", "head"])
def test_the_opened_stage_is_listed_part_by_part_and_stays_inside(opened):
    found = traced("pvt", size=(65, 130))
    figure = OWN_07.shape_trace(found, opened)
    stage = next(stage for stage in found.stages if stage.name == opened)
    shown = texts(figure.axes[2])
    for part in stage.parts:
        assert any(text.endswith(part.name) for text in shown)
        assert not part.note or part.note in shown
    assert f"{stage.parameters:,}" in shown
    figure.draw_without_rendering()
    for axes in figure.axes:
        for text in axes.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.width
            assert box.y0 >= 0


def test_a_mixer_without_formula_is_not_counted():
    model = build_model("pooling", "nano", device="meta")
    model.stages[0].blocks[0].mixer = torch.nn.Identity()
    figure = OWN_07.shape_trace(OWN_07.trace(model))
    assert "not counted" in texts(figure.axes[1])
    assert "not counted MACs" in figure.get_label()


def test_the_text_tells_shapes_and_costs():
    found = traced("convnext", "tiny", (224, 224))
    label = OWN_07.shape_trace(found, "head").get_label()
    assert "31,912,360 parameters, 4,997,326,848 MACs" in label
    assert "stage 4 7 x 7 x 768" in label
    assert "Opened, head: 1x1 convolution 7 x 7 x 1152" in label


def test_another_stage_is_refused():
    with pytest.raises(UserError, match="'stage 5'"):
        OWN_07.shape_trace(traced(), "stage 5")
