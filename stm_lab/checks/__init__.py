"""Checks of the course's exercises, and of what a token mixer promises.

`checks.of("02").dilated(mine)` compares a learner's function with the truth, on random inputs in float64. If it is
right, the check says so. Otherwise it raises `Wrong`, whose message names a known mistake ("your output is the mask's
transpose") or gives input, output, and what it should be; or `NotWritten` (a NotImplementedError) for an exercise that
has not been started. `checks.mixer_contract(M)` checks what a mixer promises.

Truths and typical mistakes are part of the course, `notebooks/exercises/<NN>.py`; CONTRIBUTING.md says how to add some.
"""

from __future__ import annotations

from types import ModuleType

from stm_lab.checks.contract import Contract, mixer_contract
from stm_lab.checks.core import Exercise, NotWritten, Wrong
from stm_lab.util import paths
from stm_lab.util.modules import beside

__all__ = ["Contract", "Exercise", "NotWritten", "Wrong", "mixer_contract", "of"]


def of(notebook: str) -> ModuleType:
    """The checks of a notebook's exercises, by its two digits; from the shipped course, since copies lack them.

    Raises UserError, naming the nearest, for a notebook without exercises of this kind.
    """
    return beside(paths.shipped_notebooks_dir() / "exercises", notebook)
