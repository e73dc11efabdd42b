"""Exercises of notebook 22: what a mixer can do."""

from __future__ import annotations

import math

import torch

from stm_lab.checks.core import Draw, exercise

_NOTEBOOK = "22_what_can_a_mixer_do"

# ---- 1: the best without the others ----------------------------------------------------------------------------------


def _symbols(draw: Draw) -> dict:
    number = 30 * draw.integer(1, 3)
    tokens = torch.tensor([min(draw.integer(0, 3), draw.integer(0, 3)) for _ in range(number)])  # not equally frequent
    labels = torch.tensor([draw.integer(0, 2) for _ in range(number)])
    return {"tokens": tokens, "labels": torch.where(tokens > 1, tokens - 1, labels)}


def _best(tokens, labels, *, every=True, by="tokens", of="all"):
    if not every:
        return 100 * torch.bincount(labels).max().item() / len(labels)
    groups = tokens if by == "tokens" else labels
    others = labels if by == "tokens" else tokens
    most = [torch.bincount(others[groups == one]).max().item() for one in groups.unique()]
    if of == "means":
        shares = [count / (groups == one).sum().item() for count, one in zip(most, groups.unique(), strict=True)]
        return 100 * sum(shares) / len(shares)
    return 100 * sum(most) / (len(labels) if of == "all" else len(most))


@exercise(_NOTEBOOK, 1, inputs=_symbols, what="accuracy")
def best_alone(tokens, labels):
    "Symbols (N,) and labels (N,) -> the accuracy in percent of the best function of the symbol alone."
    return _best(tokens, labels)


best_alone.mistakes_of(
    _best,
    {
        "that is the best constant answer; a function may answer each symbol differently": {"every": False},
        "symbols and labels are exchanged: for each symbol, count its labels": {"by": "labels"},
        "that is the mean of the symbols' accuracies; frequent symbols count more": {"of": "means"},
        "divide by the number of tokens, not by the number of symbols": {"of": "symbols"},
    },
)


@best_alone.mistake("that is how often symbol and label are equal; the best function need not be the symbol itself")
def equal(tokens, labels):
    return 100.0 * (tokens == labels).double().mean().item()


# ---- 3: waves for rows and columns -----------------------------------------------------------------------------------


def _sizes(draw: Draw) -> dict:
    height, width = draw.distinct(2, 3, 9)
    return {"height": height, "width": width}


def _waves(height, width, *, first=math.pi / 16, growth=2.0, exchanged=False, parts=("sin", "cos"), stacked=False):
    def along(size):
        angle = torch.arange(size, dtype=torch.float64)[:, None] * first * growth ** torch.arange(4)
        waves = [getattr(angle, part)() for part in parts]
        return torch.stack(waves, -1).flatten(1) if stacked else torch.cat(waves, 1)

    rows = along(height)[:, None].expand(-1, width, -1)
    columns = along(width)[None].expand(height, -1, -1)
    return torch.cat((columns, rows) if exchanged else (rows, columns), -1)


@exercise(_NOTEBOOK, 3, inputs=_sizes, what="waves")
def place_waves(height, width):
    "-> (height, width, 16): four sines of the row, four cosines; then the column's. Steps pi/16, pi/8, pi/4, pi/2."
    return _waves(height, width)


place_waves.mistakes_of(
    _waves,
    {
        "rows and columns are exchanged: the first eight numbers tell the row": {"exchanged": True},
        "each wave should be twice as fast as the one before": {"growth": 3.0},
        "the slowest wave is too fast: it turns by pi / 16 a token": {"first": math.pi / 8},
        "sines and cosines are exchanged: the sines come first": {"parts": ("cos", "sin")},
        "sine and cosine alternate; all four sines come first, then the cosines": {"stacked": True},
    },
)


@place_waves.mistake("the columns repeat the row's waves; the last eight numbers tell the column")
def rows_twice(height, width):
    waves = _waves(height, width)
    return torch.cat((waves[..., :8], waves[..., :8]), -1)
