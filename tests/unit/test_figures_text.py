"""Every figure tells what it shows, in words with numbers, to whoever cannot see it."""

import ast
import inspect
import re
import textwrap

import numpy as np
import pytest
import torch

from stm_lab import figures

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
RIGHT = np.ones((8, 8))
FIELD = np.pad(np.ones((3, 3)), ((7, 6), (7, 6)))
SCORES = {"halo": {0: 21.5, 1: 24.0}, "swin": {0: 23.0, 1: 22.0}}

# what the text of each must hold, beside what draws it
TOLD = {
    "training_curves": (lambda: figures.training_curves(ROWS), ["halo", "accuracy (%) 40.5 at epoch 2", "loss 1"]),
    "compared_curves": (
        lambda: figures.compared_curves({"a": ROWS, "b": []}), ["a: halo 40.5%", "b: no training curves"],
    ),
    "run_curves": (
        lambda: figures.run_curves(RUN), ["epoch 2", "saved weights 21.5", "on validation 2.12", "largest 9"],
    ),
    "learning_rates": (
        lambda: figures.learning_rates({"short": [0.0, 1e-3, 5e-4]}), ["short: 0 at first, 0.001 at most", "3 steps"],
    ),
    "cost_by_part": (
        lambda: figures.cost_by_part([
            {"model": "m", "part": "stem", "parameters": 2000, "macs": 10_000_000},
            {"model": "m", "part": "total", "parameters": 4000, "macs": 30_000_000},
        ]), ["of m by part: stem 2 k and 10 M; total 4 k and 30 M"],
    ),
    "throughput_repeats": (
        lambda: figures.throughput_repeats("m", [100.0, 120.0, 130.0]), ["median 120, from 100 to 130 in 3 repeats"],
    ),
    "image_grid": (lambda: figures.image_grid(torch.rand(2, 3, 8, 8), ["cat", "dog"]), ["2 images", "cat, dog"]),
    "accuracy_dots": (
        lambda: figures.accuracy_dots(LAST), ["halo 40.5% (2 seeds), -1.0 to identity", "identity 41.5% (2 seeds)"],
    ),
    "receptive_fields": (lambda: figures.receptive_fields({"halo": FIELD}), ["halo in 3 pixels, 3.5% of the area"]),
    "leaders_by_seed": (lambda: figures.leaders_by_seed(SCORES), ["seed 0: swin, 23.0", "seed 1: halo, 24.0"]),
    "interval_by_seeds": (
        lambda: figures.interval_by_seeds([1.0, 2.0, 3.0]), ["after 1 +1.0", "after 3 +2.0, 95% from -0.5 to +4.5"],
    ),
    "shares_by_seeds": (lambda: figures.shares_by_seeds({"told": {1: 0.0, 2: 25.0}}), ["told: 0% of 1, 25% of 2"]),
    "seeds_needed": (
        lambda: figures.seeds_needed({"paired": {1.0: 40, 5.0: 4}}, 8), ["paired: 40 for 1, 4 for 5", "There are 8"],
    ),
    "paired_scores": (
        lambda: figures.paired_scores(SCORES["halo"], SCORES["swin"], ("halo", "swin")),
        ["seed 0: 21.5 and 23.0", "higher in 1 of 2"],
    ),
    "lucky_leads": (
        lambda: figures.lucky_leads({"1 seed": [1.0, 2.0, 3.0, 4.0]}, {"1 seed": 3.0}, "lead"),
        ["1 seed: by chance 2.5 (median), seen 3.0, reached in 50%"],
    ),
}  # fmt: skip
NO_FIGURES = ("colours", "of")  # `of` hands a result on to one of the others
FUNCTIONS = [name for name in figures.__all__ if inspect.isfunction(getattr(figures, name)) and name not in NO_FIGURES]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_exported_figure_ends_with_its_text(name):
    """Each return of the function itself, read from its source, gives a described figure or another exported one."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(getattr(figures, name)))).body
    returned = [node.value for node in _statements(function) if isinstance(node, ast.Return)]
    assert returned, name
    for value in returned:
        assert isinstance(value, ast.Call), ast.unparse(value)
        assert isinstance(value.func, ast.Name), ast.unparse(value)
        assert value.func.id == "described" or value.func.id in FUNCTIONS, f"{name} returns {ast.unparse(value)}"


def _statements(function):
    """All statements of a function, but not those of functions inside it."""
    waiting = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            waiting += [
                child for child in ast.iter_child_nodes(node) if isinstance(child, (ast.stmt, ast.excepthandler))
            ]


@pytest.mark.parametrize("name", TOLD)
def test_the_text_has_the_main_numbers(name):
    draw, parts = TOLD[name]
    text = draw().get_label()
    for part in parts:
        assert part in text
    assert "\n" not in text
    assert re.search(r"\d", text)
    assert text.endswith(".")
