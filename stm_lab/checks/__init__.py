"""Checks of the course's exercises: `checks.depthwise.dilated(mine)` holds a learner's function against the truth.

It is run on random inputs in float64. If it is right, the check prints so; else it raises `Wrong`, whose message names
the mistake if it is a known one ("your output is the mask's transpose"), and says on which input, what came out and
what should have; `NotWritten` (a NotImplementedError) if the exercise was not begun. There is a module for each topic;
`topics()` lists them, `exercises()` their checks. `checks.mixer_contract(MyMixer)` tries what a token mixer promises.


How to add exercises and their checks
-------------------------------------

1. **The check**: `stm_lab/checks/<topic>.py`, found by its name alone; there is no list to keep. An exercise is its
   true answer with a decorator that says whose it is and draws inputs. Then its typical mistakes, five at least, each
   a function as a learner would write it and the sentence that is said of it ("your output ...", then what to mend)::

       from stm_lab.checks.core import Draw, exercise

       def _maps(draw: Draw) -> dict:
           height, width = draw.distinct(2, 5, 9)             # sides that differ, odd ones among them
           return {"x": draw.normal(2, height, width, 3), "side": draw.integer(2, 4)}

       @exercise("04_shifted_window_attention", 1, inputs=_maps, what="windows")
       def partition(x, side):
           "(B, H, W, C) -> (B * windows, side * side, C)."   # shown by checks.windows.partition?
           ...

       @partition.mistake("your windows are cut out column by column; rows come first")
       def by_columns(x, side):
           ...

   What happens with every function is known already and needs no entry: transposed or permuted axes, turned signs,
   flipped axes, a missing factor, an added constant, True and False exchanged, the input given back, zeros, a wrong
   shape or dtype, NaN, no `return`, an input changed in place, an exception (with the learner's line). `run=` says how
   a class is called. Outputs may be tensors, numbers, booleans, text, and tuples or dictionaries of them.

2. **The notebook**: a Markdown cell `## Exercise N: <title as in the card>` with its line of dots, task and hint; then
   a cell tagged `solution`: signature and docstring, `### BEGIN SOLUTION`, the answer, `### END SOLUTION`; then a cell
   tagged `check` that says `checks.windows.partition(partition)`. Solutions may use what the notebook imports, defines
   in cells tagged `by-hand`, and defined in earlier exercises; nothing else (no `lab`, no parameters, no figures).

3. **The tests** come by themselves: `tests/notebooks/test_exercises.py` loads each exercise out of its notebook; shows
   that the learner's copy differs only between the markers, that the stub is "nothing written yet", that the solution
   is right, and that each mistake is refused with its own sentence. Checks written out in the notebook itself get their
   wrong answers from `tests/notebooks/wrong_answers/<NN>.py`.

4. **Code by hand**: cells tagged `by-hand` hold imports, functions and classes, nothing that needs data or is shown.
   `tests/notebooks/test_by_hand_<NN>.py` holds every one of them against the package, at sizes that the notebook does
   not show: `hand = exercises.by_hand("04")`, then `hand.partition(...)`.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from stm_lab.checks.contract import Contract, mixer_contract
from stm_lab.checks.core import Exercise, NotWritten, Wrong
from stm_lab.errors import nearest

__all__ = ["Contract", "Exercise", "NotWritten", "Wrong", "exercises", "mixer_contract", "topics"]
_NO_TOPICS = ("core", "contract")


def topics() -> list[str]:
    """The modules with checks, by name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NO_TOPICS)


def exercises() -> list[Exercise]:
    """All checks there are, in the order of notebooks and numbers."""
    modules = (importlib.import_module(f"{__name__}.{topic}") for topic in topics())
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Exercise)]
    return sorted(found, key=lambda one: (one.notebook, one.number))


def __getattr__(name: str) -> ModuleType:
    """A topic's module, imported when it is first asked for."""
    if name in topics():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"no checks called {name!r}; {nearest(name, topics())}")


def __dir__() -> list[str]:
    return sorted([*__all__, *topics()])
