"""How many seeds does a winner take? Two names, their runs, and an interval that narrows as seeds are counted."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import ipywidgets as widgets
from matplotlib.figure import Figure

from stm_lab import figures
from stm_lab.explore.shell import Explorer
from stm_lab.util.errors import UserError, check_known


def seeds(
    scores: Mapping[str, Mapping[int, float]],
    first: str | None = None,
    second: str | None = None,
    *,
    label: str = "top-1 accuracy (%)",
    highest: bool = True,
) -> Explorer:
    """Two names, how many of the seeds that both have are counted, and with which the count begins.

    Everything is drawn from the scores: nothing is trained, and a picture takes a moment.

    Args:
        scores: {seed: value} by name; two names at least have two seeds in common.
        first, second: what is chosen at first; default: the two with the most seeds in common.
        label: what the values are, with their unit. highest: whether the highest wins.

    Raises:
        UserError: for scores without such a pair, and for a name that is not among them.
    """
    common = {
        (one, other): sorted(set(scores[one]) & set(scores[other])) for one, other in itertools.permutations(scores, 2)
    }
    most = max(map(len, common.values()), default=0)
    if most < 2:
        raise UserError("seeds: no two names have two seeds in common")
    pair = next(pair for pair, shared in common.items() if len(shared) == most)
    one, other = first or pair[0], second or pair[1]
    for name in (one, other):
        check_known("name", name, scores, "seeds: ")

    def draw(one: str, other: str, count: int, begin: int) -> Figure:
        if one == other:
            raise UserError(f"{one} and {one}: choose two names that differ")
        shared = common[one, other]
        if not shared:
            raise UserError(f"{one} and {other} have no seed in common")
        at = next((i for i, seed in enumerate(shared) if seed >= begin), 0)
        order = shared[at:] + shared[:at]  # round and round, so that every seed can be the first
        return figures.difference_so_far(
            scores[one], scores[other], (one, other), order, min(count, len(order)), label=label, highest=highest
        )

    everything = sorted(set().union(*scores.values()))
    controls = {
        "one": widgets.Dropdown(options=list(scores), value=one, description="is"),
        "other": widgets.Dropdown(options=list(scores), value=other, description="better than"),
        "count": widgets.IntSlider(1, 1, most, description="seeds counted"),
        "begin": widgets.SelectionSlider(options=everything, value=everything[0], description="beginning with seed"),
    }
    return Explorer(draw, controls)
