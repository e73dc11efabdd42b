"""Every explorer answers within half a second of an idle core, in states that it has not seen."""

import pytest
import torch
from companions import companion
from speed import Stopwatch

import stm_lab
from stm_lab import explore, paper

OWN_02 = companion("02")
OWN_03 = companion("03")
OWN_04 = companion("04")
OWN_05 = companion("05")
OWN_06 = companion("06")
OWN_07 = companion("07")
OWN_08 = companion("08")
OWN_11 = companion("11")
OWN_12 = companion("12")
OWN_13 = companion("13")
OWN_14 = companion("14")
OWN_19 = companion("19")
OWN_20 = companion("20")

PHOTO = {"photo": torch.rand(3, 160, 160)}
SCORES = {name: dict(enumerate(torch.rand(5).tolist())) for name in ("halo", "swin")}


def _models(*names):
    names = names or ("halo", "swin", "pvt", "convnext", "dcn_v3", "identity")  # as many as a notebook compares
    return {name: stm_lab.build_model(name, "nano", num_classes=10).eval() for name in names}


def _images(side=64):
    return torch.rand(4, 3, side, side)


def _each(name, *values, **others):
    return [{name: value, **others} for value in values]


# By name: how it is made, and states one after the other.
EXPLORERS = {
    "adversarial": (
        lambda: OWN_14.adversarial(_models(), _images()),
        [{"model": mixer, "image": 1, "norm": norm} for mixer in ("halo", "dcn_v3") for norm in ("linf", "l2")],
    ),
    "corruption": (lambda: OWN_13.corruption(_models(), _images()), _each("corruption", "fog", "snow", "glass_blur")),
    "design_steps": (
        lambda: OWN_08.design_steps(["swin", "convnext"], scale="nano"),
        [{"downsampling": True}, {"stem": True}, {"mixer": "convnext"}],
    ),
    "halo_painter": (OWN_05.halo_painter, _each("block", 1, 5, 9, height=40, width=40, halo=16)),
    "kernel_painter": (lambda: OWN_02.kernel_painter(PHOTO), _each("kernel", "sharpen", "identity")),
    "mixer_bench": (lambda: OWN_19.mixer_bench("convnext"), _each("kernel", 3, 5, 9, row=3)),
    "mixer_cards": (lambda: explore.mixer_cards(left="swin", right="pvt"), _each("row", 1, 2)),
    "mixing_weights": (lambda: explore.mixing_weights(_models(), _images()), _each("model", "pvt", "dcn_v3", stage=3)),
    "moved_points": (lambda: OWN_06.moved_points(PHOTO), _each("point", 1, 2, x=3.0)),
    "pareto": (
        lambda: explore.pareto([{"name": str(i), **row} for i, row in enumerate(paper.rows())], {"macs": "MACs"}),
        _each("network", "1", "2"),
    ),
    "query_map": (lambda: OWN_03.query_map(_models("pvt", "pvt_v2"), _images()), _each("ratio", 1, 3, stage=1)),
    "receptive_field": (
        lambda: OWN_11.receptive_field(_models(), _images(128)),
        [{"model": mixer, "stage": stage} for mixer in ("halo", "dcn_v3") for stage in (1, 4)],
    ),
    "sampling_points": (lambda: OWN_06.sampling_points(_models("dcn_v3"), _images()), _each("stage", 2, 3, image=1)),
    "seeds": (lambda: OWN_20.seeds(SCORES), _each("count", 3, 5)),
    "shape_tracer": (OWN_07.shape_tracer, _each("mixer", "pvt", "swin", "convnext", scale="base", height=333)),
    "shifted_windows": (lambda: OWN_04.shifted_windows(PHOTO), _each("window", 2, 4, 8, height=28, width=27, row=13)),
    "views": (lambda: OWN_12.views(_models(), _images()), _each("right", 3, -9, 5, 7, turn=25.0)),
}


def test_every_explorer_is_timed():
    assert {*EXPLORERS} >= {*explore.__all__} - {"Explorer", "picture"}


@pytest.mark.soak
@pytest.mark.parametrize("name", EXPLORERS)
def test_it_answers_in_half_a_second(name):
    make, states = EXPLORERS[name]
    explorer = make()
    picture, stopwatch = explorer.widget.children[1], Stopwatch()  # the first picture loads fonts
    for state in states:
        before = picture.png
        stopwatch.time(explorer.set, **state)
        assert picture.png != before
    assert stopwatch.median < 0.5, stopwatch.seconds
