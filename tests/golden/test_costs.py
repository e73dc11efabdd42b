"""Costs of the 25 published configurations: counted, by formula, and as the paper prints them, to the last one."""

import json
from pathlib import Path

import pytest
import timm
import torch

import stm_lab  # noqa: F401 - registers the models
from stm_lab import paper
from stm_lab.measure import cost

MODELS = json.loads((Path(__file__).parent / "models.json").read_text())
BIG = [name for name in MODELS if not name.endswith("_micro")]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in BIG)) for name in MODELS])
def test_costs(name):
    with torch.device("meta"):
        counted = cost(timm.create_model(name))
    wanted = MODELS[name]
    assert counted.image_size == (224, 224)
    assert counted.parameters == wanted["params"]
    assert counted.macs == wanted["macs_torch_flopcounter"]
    assert counted.macs_formula == wanted["macs_torch_flopcounter"]
    assert counted.macs_fvcore == wanted["macs_fvcore_total"]


def test_the_counts_that_are_shipped():
    shipped = paper.counts()
    assert {f"unified_{mixer}_{scale}" for mixer, scale in shipped} == set(MODELS)
    for (mixer, scale), numbers in shipped.items():
        wanted = MODELS[f"unified_{mixer}_{scale}"]
        assert numbers == {
            "parameters": wanted["params"],
            "macs": wanted["macs_torch_flopcounter"],
            "macs_fvcore": wanted["macs_fvcore_total"],
        }


@pytest.mark.parametrize(
    ("name", "macs", "fvcore"),
    [("swin_tiny_patch4_window7_224", 4490566656, 4509232128), ("pvt_v2_b0", 566065664, 572036608)],
)
def test_originals_of_timm(name, macs, fvcore):
    """The published code's `official_swin_tiny` and `official_pvt_v2_b0` are timm's, layer scale aside: it is free."""
    with torch.device("meta"):
        counted = cost(timm.create_model(name))
    assert (counted.macs, counted.macs_fvcore) == (macs, fvcore)
