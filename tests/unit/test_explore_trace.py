"""The tracer of shapes: it follows its controls, a click opens a stage, and it answers in time."""


import pytest
from speed import Stopwatch

from stm_lab import UserError, explore


@pytest.fixture
def tracer():
    return explore.shape_tracer()


def test_first_picture_is_the_published_count_of_the_first_mixer(tracer):
    label = tracer.figure().get_label()
    assert label.startswith("unified_halo_tiny, an image of 224x224: 31,523,176 parameters, 5,297,630,208 MACs")
    assert "Opened, stage 1: 2 x norm 1 56 x 56 x 96" in label


def test_controls_change_network_and_image(tracer):
    label = tracer.figure(mixer="pvt", scale="nano", height=65, width=130, opened="stage 2").get_label()
    assert "unified_pvt_nano, an image of 65x130" in label
    assert "position embedding 9 x 17 x 32, 2,048 (resized from 8x8)" in label
    assert "(keys 4x8; dropped: 1 row, 1 column)" in label


def test_a_click_opens_a_stage_in_boxes_and_bars(tracer):
    tracer.widget  # draws  # noqa: B018
    box = tracer._drawn.bbox
    for panel, place, opened in ((0, (4, 0), "stage 3"), (1, (3, 5), "head"), (0, (1.3, 0.2), "stem")):
        x, y = tracer._drawn.axes[panel].transData.transform(place)
        tracer._picture.clicked = [x / box.width, 1 - y / box.height, len(opened) + panel]
        assert tracer.state["opened"] == opened
        assert f"Opened, {opened}: " in tracer._picture.alt
    for panel, x in ((0, 0.1), (2, 0.5)):  # the image is no stage; the table says nothing
        assert tracer._select(panel, x, 0.5) == {}


def test_a_scale_that_the_mixer_does_not_have_is_said_below_the_picture(tracer):
    tracer.widget  # draws  # noqa: B018
    before = tracer._picture.alt
    tracer.set(scale="large")
    assert "halo: " in tracer._message.value
    assert "large" in tracer._message.value
    assert tracer._picture.alt == before
    tracer.set(mixer="dcn_v3")
    assert tracer._message.value == ""
    assert "223,339,610 parameters" in tracer._picture.alt


@pytest.mark.soak
def test_answers_in_time(tracer):
    tracer.widget  # draws  # noqa: B018
    stopwatch = Stopwatch()
    for mixer in ("pvt", "swin", "halo", "convnext", "dcn_v3"):
        stopwatch.time(tracer.set, mixer=mixer, scale="base", height=333, opened="stage 3")
    assert stopwatch.median < 0.5, stopwatch.seconds


@pytest.mark.parametrize(
    ("mixers", "sizes", "says"),
    [
        ([], {}, "no mixers"),
        (["swim"], {}, "swin"),
        (None, {"height": 0}, "height=0 must be 1 to 512"),
        (None, {"width": 513}, "width=513 must be 1 to 512"),
        (["swin"], {"scale": "large"}, "large"),
    ],
)
def test_refuses(mixers, sizes, says):
    with pytest.raises(UserError, match=says):
        explore.shape_tracer(mixers, **sizes)
