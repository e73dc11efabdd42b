"""Every figure has an alternative text with its numbers."""

import inspect
import re

import numpy as np
import pytest
import torch
from companions import companion

from stm_lab import figures

OWN_20 = companion("20")

MIXERS = ("halo", "identity")
ROWS = [
    {"mixer": mixer, "seed": seed, "epoch": epoch, "top1": 20.0 * epoch + seed + i, "loss": 2.0 / epoch}
    for i, mixer in enumerate(MIXERS) for seed in (0, 1) for epoch in (1, 2)
]  # fmt: skip
RUN = [
    {"epoch": epoch, "top1": 21.5, "top1_raw": 20.0, "loss": 2.0, "validation_loss": 2.125, "grad_norm": 3.0,
     "grad_norm_max": 9.0}
    for epoch in (1, 2)
]  # fmt: skip
LAST = [row for row in ROWS if row["epoch"] == 2]
FIELD = np.pad(np.ones((3, 3)), ((7, 6), (7, 6)))

# what the text of each must hold, beside what draws it
TOLD = {
    "training_curves": (
        lambda: figures.training_curves(ROWS),
        ["top-1 accuracy (%) by epoch: halo: 20.5 at 1, 40.5 at 2", "training loss by epoch: halo: 2 at 1, 1 at 2"],
    ),
    "compared_curves": (
        lambda: figures.compared_curves({"a": ROWS, "b": []}),
        ["a: top-1 accuracy (%) by epoch: halo: 20.5 at 1, 40.5 at 2", "b: epoch: no training curves"],
    ),
    "run_curves": (
        lambda: figures.run_curves(RUN),
        ["saved weights: 21.5 at 1, 21.5 at 2", "on validation: 2.125 at 1", "largest: 9 at 1"],
    ),
    "cost_by_part": (
        lambda: figures.cost_by_part([
            {"model": "m", "part": "stem", "parameters": 2000, "macs": 10_000_000},
            {"model": "m", "part": "total", "parameters": 4000, "macs": 30_000_000},
        ]), ["of m by part: stem 2 k and 10 M; total 4 k and 30 M"],
    ),
    "throughput_repeats": (
        lambda: figures.throughput_repeats("m", [100.0, 120.0, 130.0]),
        ["repeats: 100 at 1, 120 at 2, 130 at 3; median 120 at 120"],
    ),
    "image_grid": (lambda: figures.image_grid(torch.rand(2, 3, 8, 8), ["cat", "dog"]), ["2 images", "cat, dog"]),
    "accuracy_dots": (
        lambda: figures.accuracy_dots(LAST), ["halo 40.5% (2 seeds), -1.0 to identity", "identity 41.5% (2 seeds)"],
    ),
    "receptive_fields": (lambda: figures.receptive_fields({"halo": FIELD}), ["halo 50% in 3.5% of area"]),
    "interval_by_seeds": (
        lambda: OWN_20.interval_by_seeds([1.0, 2.0, 3.0]), ["after 1 +1.0", "after 3 +2.0, 95% from -0.5 to +4.5"],
    ),
    "lucky_leads": (
        lambda: OWN_20.lucky_leads({"1 seed": [1.0, 2.0, 3.0, 4.0]}, {"1 seed": 3.0}, "lead"),
        ["1 seed: by chance 2.5 (median), seen 3.0, reached in 50%"],
    ),
}  # fmt: skip
NO_DRAWINGS = ("colours", "curves_of", "described", "front", "of")  # the last one calls a drawing
FUNCTIONS = [name for name in figures.__all__ if inspect.isfunction(getattr(figures, name)) and name not in NO_DRAWINGS]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_exported_figure_is_a_drawing(name):
    """So it has an alternative text, and refuses to draw nothing."""
    assert getattr(figures, name).__wrapped__.__name__ == name


@pytest.mark.parametrize("name", TOLD)
def test_the_text_has_the_main_numbers(name):
    draw, parts = TOLD[name]
    text = draw().get_label()
    for part in parts:
        assert part in text
    assert "\n" not in text
    assert re.search(r"\d", text)
    assert text.endswith(".")
