"""The drawing of a trace: a box a stage with its shape, shares that add up, and the opened stage's parts."""

import pytest
from torch import nn

from stm_lab import UserError, build_model, figures, measure


def traced(mixer="swin", scale="nano", size=(64, 64), **options):
    return measure.trace(build_model(mixer, scale, device="meta", **options), image_size=size)


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("size", [(33, 129), (200, 40)], ids=str)
def test_every_stage_has_a_box_with_its_shape(size):
    found = traced(size=size)
    boxes = figures.shape_trace(found).axes[0]
    assert len(boxes.patches) == 7  # the image, the stem, four stages, the head
    for stage in found.stages[:-1]:
        assert " x ".join(map(str, stage.after)) in texts(boxes)
    image, *maps = boxes.patches
    assert image.get_height() / image.get_width() == pytest.approx((size[0] / size[1]) ** 0.5)
    heights = [box.get_height() for box in (image, *maps)]
    assert heights == sorted(heights, reverse=True)


def test_shares_add_up():
    bars = figures.shape_trace(traced("pvt_v2")).axes[1].patches
    assert len(bars) == 12
    assert sum(bar.get_width() for bar in bars) == pytest.approx(200)


@pytest.mark.parametrize("opened", ["stage 1", "head"])
def test_the_opened_stage_is_listed_part_by_part_and_stays_inside(opened):
    found = traced("pvt", size=(65, 130))
    figure = figures.shape_trace(found, opened)
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
    model.stages[0].blocks[0].mixer = nn.Identity()
    figure = figures.shape_trace(measure.trace(model))
    assert "not counted" in texts(figure.axes[1])
    assert "not counted MACs" in figure.get_label()


def test_the_text_tells_shapes_and_costs():
    found = traced("convnext", "tiny", (224, 224))
    label = figures.shape_trace(found, "head").get_label()
    assert "31,912,360 parameters, 4,997,326,848 MACs" in label
    assert "stage 4 7 x 7 x 768" in label
    assert "Opened, head: 1x1 convolution 7 x 7 x 1152" in label
    assert figures.of(found).get_label() == figures.shape_trace(found, "stage 1").get_label()


def test_another_stage_is_refused():
    with pytest.raises(UserError, match="'stage 5'"):
        figures.shape_trace(traced(), "stage 5")
