"""The trace of shapes, by arithmetic, against networks that run and against the counter of multiply-adds."""

import itertools

import pytest
import torch

from stm_lab import UserError, build_model, measure
from stm_lab.designs import list_scales
from stm_lab.mixers import list_mixers
from stm_lab.paper import counts

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
        found = measure.trace(model, image_size=size)
        stages = [(stage.before, stage.after) for stage in found.stages[:-1]]
        classifier = found.stages[-1].parts[-1]
        assert [*stages, (classifier.before, classifier.after)] == shapes_of_a_run(model, size)


@each_mixer
@each_design
def test_parts_follow_one_another(mixer, design):
    found = measure.trace(build_model(mixer, "nano", design=design, device="meta"), image_size=(61, 90))
    parts = [part for stage in found.stages for part in stage.parts]
    assert all(one.after == other.before for one, other in itertools.pairwise(parts))


@each_mixer
@each_design
def test_costs_are_those_of_the_counter(mixer, design):
    scale = "nano" if design == "original" else "micro" if "micro" in list_scales(mixer) else "nano"
    model = build_model(mixer, scale, design=design, device="meta")
    for size in SIZES[:1]:
        found, counted = measure.trace(model, image_size=size), measure.cost(model, image_size=size)
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
        found = measure.trace(build_model(mixer, scale, device="meta"), image_size=224)
        assert (found.parameters, found.macs) == (published["parameters"], published["macs"])


@pytest.mark.parametrize(("stem", "kernel", "stride", "padding"), [("convs", 3, 2, 1), ("overlap", 7, 4, 3)])
def test_zeros_are_those_that_a_strided_convolution_reads(stem, kernel, stride, padding):
    """Counted by which rows of a padded map of ones and zeros the convolution's windows touch."""
    model = build_model("pooling", "nano", stem=stem, device="meta")
    for side in range(32, 70):
        part = measure.trace(model, image_size=(side, 64)).stages[0].parts[0]
        starts = range(0, side + 2 * padding - kernel + 1, stride)
        read = {row for start in starts for row in range(start, start + kernel)}
        outside = sum(not padding <= row < side + padding for row in read)
        assert part.note.startswith(f"zeros: {outside} row")


def test_notes_say_what_mixers_pad_and_drop():
    def note(mixer, stage, size, scale="tiny"):
        parts = measure.trace(build_model(mixer, scale, device="meta"), image_size=size).stages[stage].parts
        return next(part.note for part in parts if part.name == "mixer")

    assert note("halo", 1, 224) == "blocks of 7x7"
    assert note("halo", 4, (224, 256)) == "blocks of 7x7; padded to 7x14"
    assert note("halo", 4, (96, 256)) == "blocks of 3x7; padded to 3x14"  # a map of 3x8
    assert note("halo", 4, 96) == "blocks of 3x3"
    assert note("swin", 4, (96, 256)) == "windows of 3x3; padded to 3x9"
    assert note("pvt", 1, (224, 100)) == "keys 7x3; dropped: 0 rows, 1 column"
    assert note("convnext", 1, (99, 57)) == ""


def test_rows_hold_every_part_once():
    found = measure.trace(build_model("swin", "nano", device="meta"))
    rows = found.rows()
    assert found.image_size == (64, 64)
    assert sum(row["parameters"] for row in rows) == found.parameters
    assert {row["stage"] for row in rows} == {"stem", "stage 1", "stage 2", "stage 3", "stage 4", "head"}


def test_a_mixer_without_a_formula_has_no_count():
    model = build_model("pooling", "nano", device="meta")
    model.stages[1].blocks[0].mixer = torch.nn.Identity()
    found = measure.trace(model)
    assert found.macs is None
    assert [stage.macs is None for stage in found.stages] == [False, False, True, False, False, False]


def test_other_models_and_small_images_are_refused():
    with pytest.raises(UserError, match="Linear is no backbone of stm_lab"):
        measure.trace(torch.nn.Linear(3, 3))
    with pytest.raises(UserError, match="at least 1x1, not 0x64"):
        measure.trace(build_model("swin", "nano", device="meta"), image_size=(0, 64))
