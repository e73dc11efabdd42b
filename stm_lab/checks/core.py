"""A check: a truth, inputs drawn at random, and typical mistakes with what to say of them.

A learner's function is run beside the truth on each input, in float64. Where it differs, its outputs are compared with
those of the mistakes, then with simple changes of the truth (transposed, flipped, scaled), and the message names what
fits *all* of its outputs. If nothing does, it says the shape, or where the first difference is and how large.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import math
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stm_lab.util.errors import in_a_line

Inputs = Callable[["Draw"], Mapping[str, Any]]
_NOT_THE_LEARNERS = ("/site-packages/", f"{Path(__file__).parents[1]}/")  # files whose lines do not help a learner
_TOLERANCE = 1e-8  # relative to the largest number of the truth; float64 leaves some 1e-14


class _Short(Exception):
    """An exception of which a notebook shows only the message: lines of our files do not help a learner."""

    def _render_traceback_(self) -> list[str]:  # IPython calls this
        return [str(self)]


class Wrong(_Short, AssertionError):
    """A learner's function does not do what the exercise asks for. The message says what to mend."""


class NotWritten(_Short, NotImplementedError):
    """The exercise has not been started."""


class Draw:
    """Random inputs: tensors in float64, whole numbers, choices. The same for the same seed."""

    def __init__(self, seed: int):
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        """Normally distributed numbers, (*shape), float64."""
        return torch.randn(shape, generator=self._generator, dtype=torch.float64)

    def integer(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return int(torch.randint(low, high + 1, (), generator=self._generator))

    def choice(self, options: Sequence) -> Any:
        """One of the options."""
        return options[self.integer(0, len(options) - 1)]

    def distinct(self, count: int, low: int, high: int) -> list[int]:
        """`count` different whole numbers from `low` to `high`: sides of maps that cannot be taken for each other."""
        return (torch.randperm(high - low + 1, generator=self._generator)[:count] + low).tolist()


@dataclass(frozen=True)
class Mistake:
    """A typical wrong answer: a function as a learner might write it, and what the check `says` of it."""

    name: str
    says: str
    function: Callable


@dataclass(frozen=True)
class Exercise:
    """An exercise's check: called with a learner's function, it prints that it is right or raises what is wrong.

    The decorator `exercise` makes it, and explains the fields.
    """

    notebook: str
    number: int
    truth: Callable
    inputs: Inputs
    what: str
    cases: int
    run: Callable[[Callable, tuple], Any] | None
    mistakes: list[Mistake] = field(default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.truth.__doc__)  # what `checks.of("02").name?` shows

    @property
    def name(self) -> str:
        return self.truth.__name__

    def mistakes_of(self, function: Callable, table: Mapping[str, Mapping[str, Any]]) -> None:
        """Add typical wrong answers that `function` gives with other keywords: {what the check says: keywords}."""
        for says, keywords in table.items():
            self.mistakes.append(Mistake(function.__name__, says, functools.partial(function, **keywords)))

    def __repr__(self) -> str:
        return f"<check of exercise {self.number} of {self.notebook}: {self.name}{inspect.signature(self.truth)}>"

    def mistake(self, says: str) -> Callable[[Callable], Callable]:
        """Decorator of a typical wrong answer; the check says `says` of it."""

        def add(function: Callable) -> Callable:
            self.mistakes.append(Mistake(function.__name__, says, function))
            return function

        return add

    def __call__(self, function: Callable) -> None:
        """Compare a learner's function with the truth; print "exercise N: right".

        Raises:
            Wrong: it does something else; the message says what, and what to mend.
            NotWritten: it raises NotImplementedError.
        """
        if not callable(function):
            hint = "hand over the function itself, without calling it"
            raise self._wrong(f"{hint}: {self.name}, not {type(function).__name__}")
        cases = [self._case(function, seed) for seed in range(self.cases)]
        failed = next((case for case in cases if case.problem), None)
        if failed is None:
            print(f"exercise {self.number}: right ({self.cases} random cases, float64)")
            return
        named = next(self._names(cases), "")
        named = named if not named or named.endswith((".", "?", "!")) else f"{named}."
        detail = f"For {_described(failed.inputs)}: {failed.problem}."
        raise self._wrong(f"{named} {detail}".strip()) from failed.found.error

    def _wrong(self, message: str) -> Wrong:
        return Wrong(f"exercise {self.number}: {message}")

    def _case(self, function: Callable, seed: int) -> _Case:
        inputs = self.inputs(Draw(seed))
        expected = self._outcome(self.truth, inputs)
        if expected.error is not None:
            raise expected.error  # ours, not the learner's
        given = copy.deepcopy(dict(inputs))
        found = self._outcome(function, given, is_copied=True)
        if isinstance(found.error, NotImplementedError):
            raise NotWritten(f"exercise {self.number}: nothing written yet") from None
        problem = difference(found.value, expected.value) if found.error is None else _told(found.error)
        changed = next((name for name, value in inputs.items() if _is_changed(given[name], value)), None)
        if changed is not None and problem is None:
            hint = f"your function changes its input {changed} in place; work on a copy, or make a new tensor"
            raise self._wrong(f"For {_described(inputs)}: {hint}.")
        return _Case(inputs, expected.value, found, problem)

    def _outcome(self, function: Callable, inputs: Mapping[str, Any], *, is_copied: bool = False) -> _Outcome:
        arguments = tuple((inputs if is_copied else copy.deepcopy(dict(inputs))).values())
        try:
            with torch.random.fork_rng(devices=[]):
                value = function(*arguments) if self.run is None else self.run(function, arguments)
        except Exception as error:
            return _Outcome(None, error)
        return _Outcome(value, None)

    def _names(self, cases: Sequence[_Case]) -> Iterator[str]:
        """The mistakes, then the changes of the truth, that give the learner's outputs in every case."""
        for mistake in self.mistakes:
            if all(_same(self._outcome(mistake.function, case.inputs), case.found) for case in cases):
                yield mistake.says
        yield from _guesses(cases, self.what)


def exercise(
    notebook: str,
    number: int,
    *,
    inputs: Inputs,
    what: str = "result",
    cases: int = 6,
    run: Callable[[Callable, tuple], Any] | None = None,
) -> Callable[[Callable], Exercise]:
    """Decorator of the true answer of an exercise, which makes its check.

    Args:
        notebook: its name, as in `course.yaml`.
        number: of the exercise in the notebook, from 1.
        inputs: draws one case: the arguments by name, in their order. Sides that differ, odd ones among them, show
            exchanged axes.
        what: the output in a word, for "your output is the mask's transpose".
        cases: how many are drawn.
        run: how a function (or class) is called with the arguments; default: `function(*arguments)`.
    """
    return lambda truth: Exercise(notebook, number, truth, inputs, what, cases, run)


@dataclass(frozen=True)
class _Outcome:
    """What a call gave: a value, or the error that it raised."""

    value: Any
    error: Exception | None


@dataclass(frozen=True)
class _Case:
    """One case: its inputs, the true output, what the learner's function gave, and what is wrong with that."""

    inputs: Mapping[str, Any]
    expected: Any
    found: _Outcome
    problem: str | None


def raised(error: Exception, *ours: str) -> str:
    """An error in a line, with the innermost line of code in files whose paths contain none of `ours`."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not any(part in f.filename for part in ours)]
    line = f" (line {frames[-1].lineno}: {frames[-1].line})" if frames and frames[-1].line else ""
    return f"{in_a_line(error)}{line}"


def _told(error: Exception) -> str:
    return f"your function raised {raised(error, *_NOT_THE_LEARNERS)}"


def _is_changed(given: Any, before: Any) -> bool:
    return isinstance(before, (torch.Tensor, np.ndarray, list, dict)) and difference(given, before) is not None


def _described(inputs: Mapping[str, Any]) -> str:
    """The inputs in words: `x (2, 5, 3), shift=2`."""
    words = {name: value for name, value in inputs.items() if not callable(value)}
    return ", ".join(
        f"{name} {tuple(value.shape)}" if isinstance(value, (torch.Tensor, np.ndarray)) else f"{name}={value!r}"
        for name, value in words.items()
    )


# ---- comparing ------------------------------------------------------------------------------------------------------


def difference(found: Any, expected: Any) -> str | None:
    """What is wrong with `found`, in words; None if it is `expected` up to float64's rounding.

    Numbers, booleans, text, tensors, arrays, and tuples, lists and mappings of these. Tensors must have shape and dtype
    (float64, a whole number, bool) as expected; a list equals a tuple of the same parts.
    """
    if found is None and expected is not None:
        return "your function returns nothing; is the `return` missing?"
    if isinstance(expected, Mapping):
        return _difference_of_mappings(found, expected)
    if isinstance(expected, (tuple, list)):
        return _difference_of_sequences(found, expected)
    if isinstance(expected, (torch.Tensor, np.ndarray)):
        return _difference_of_tensors(found, torch.as_tensor(expected))
    return _difference_of_values(found, expected)


def _difference_of_mappings(found: Any, expected: Mapping) -> str | None:
    if not isinstance(found, Mapping):
        return f"{_shown(found)} should be a dictionary with {', '.join(map(repr, expected))}"
    if found.keys() != expected.keys():
        return f"the keys are {', '.join(map(repr, found))}, should be {', '.join(map(repr, expected))}"
    parts = ((name, difference(found[name], value)) for name, value in expected.items())
    return next((f"{name!r}: {problem}" for name, problem in parts if problem), None)


def _difference_of_sequences(found: Any, expected: Sequence) -> str | None:
    if not isinstance(found, (tuple, list)):
        return f"one {type(found).__name__} came back, should be {len(expected)} things"
    if len(found) != len(expected):
        return f"{_shown(found)} has {len(found)} parts, should have {len(expected)}: {_shown(expected)}"
    if all(isinstance(part, (int, str)) for part in expected):
        return None if list(found) == list(expected) else f"{_shown(found)}, should be {_shown(expected)}"
    parts = ((i, difference(mine, true)) for i, (mine, true) in enumerate(zip(found, expected, strict=True)))
    return next((f"output number {i + 1}: {problem}" for i, problem in parts if problem), None)


def _difference_of_values(found: Any, expected: Any) -> str | None:
    if isinstance(found, (torch.Tensor, np.ndarray, np.generic)):
        if found.ndim > 0:
            return f"an array of shape {tuple(found.shape)} came back, should be one {type(expected).__name__}"
        found = found.item()
    if isinstance(expected, (bool, str)) or expected is None:
        return None if found == expected else f"{found!r}, should be {expected!r}"
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return f"{_shown(found)}, should be the number {expected:.6g}"
    if math.isclose(found, expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
        return None
    return f"{_number(found)}, should be {_number(expected)}"


def _difference_of_tensors(found: Any, expected: torch.Tensor) -> str | None:
    found = torch.as_tensor(found) if isinstance(found, np.ndarray) else found
    if not isinstance(found, torch.Tensor):
        return f"a {type(found).__name__} came back, should be a tensor of shape {tuple(expected.shape)}"
    if found.shape != expected.shape:
        return f"the shape is {tuple(found.shape)}, should be {tuple(expected.shape)}"
    kind, is_float = _kind(expected), found.is_floating_point()
    if _kind(found) != kind or (is_float and found.dtype != expected.dtype):
        return f"the dtype is {word(found.dtype)}, should be {word(expected.dtype)}; {_DTYPE_HINTS[kind]}"
    mine, true = found.detach().to(torch.float64), expected.detach().to(torch.float64)
    if bool(mine.isnan().any()) and not bool(true.isnan().any()):
        return f"NaN at {_first(mine.isnan())}: a division by 0, or a softmax over keys that are all masked"
    wrong = ~_close(mine, true)
    if not bool(wrong.any()):
        return None
    at = tuple(_first(wrong))
    where, many = f"first difference at {_first(wrong)}", f"{int(wrong.sum())} of {wrong.numel()}"
    if kind == "bool":
        return f"{where}: {bool(mine[at])}, should be {bool(true[at])}; {many} differ"
    apart = (mine - true)[wrong].abs()
    most = f", the largest difference is {apart.max().item():.3g}" if bool(apart.isfinite().all()) else ""
    values = f"{_number(mine[at].item())}, should be {_number(true[at].item())}"
    return f"{where}: {values}; {many} numbers differ{most}"


_DTYPE_HINTS = {
    "float": "a tensor that you make inside needs dtype=x.dtype",
    "bool": ".bool() or a comparison gives it",
    "int": ".long() makes whole numbers of it",
}


def _close(mine: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    finite = true[true.isfinite()].abs()
    scale = max(1.0, finite.max().item()) if finite.numel() else 1.0
    return torch.isclose(mine, true, rtol=_TOLERANCE, atol=_TOLERANCE * scale, equal_nan=True)


def _first(where: torch.Tensor) -> list[int]:
    """The index of the first True."""
    return where.nonzero()[0].tolist()


def _kind(tensor: torch.Tensor) -> str:
    return "bool" if tensor.dtype == torch.bool else "float" if tensor.is_floating_point() else "int"


def word(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def _same(one: _Outcome, other: _Outcome) -> bool:
    """Whether two calls gave the same: values that agree, or errors of one type."""
    if one.error is not None or other.error is not None:
        return type(one.error) is type(other.error)
    return difference(one.value, other.value) is None and difference(other.value, one.value) is None


# ---- mistakes that any function may have ----------------------------------------------------------------------------


def _guesses(cases: Sequence[_Case], what: str) -> Iterator[str]:
    """Simple changes of the truth that give the learner's outputs in every case."""
    pairs = [(case.found.value, case.expected) for case in cases]
    if not all(isinstance(value, torch.Tensor) for pair in pairs for value in pair):
        return
    if any(mine.ndim != true.ndim or not true.numel() for mine, true in pairs):
        return
    axes = range(pairs[0][1].ndim)
    changes = {"'s transpose: its last two axes are exchanged": lambda true: true.mT} if len(axes) > 1 else {}
    for order in [*itertools.permutations(axes)][1:] if 3 <= len(axes) <= 6 else ():  # the first is the identity
        back = tuple(sorted(axes, key=order.__getitem__))
        says = f" with its axes in another order; permute{back} would put it right"
        changes[says] = lambda true, order=order: true.permute(order)
    if all(true.dtype == torch.bool for _, true in pairs):
        changes[" with True and False exchanged"] = torch.logical_not
    else:
        for axis in axes:
            changes[f", turned back to front along axis {axis}"] = lambda true, axis=axis: true.flip(axis)
    for says, change in changes.items():
        if all(difference(mine, change(true)) is None for mine, true in pairs):
            yield f"your output is the {what}{says}"
    if all(mine.shape == true.shape and true.is_floating_point() for mine, true in pairs):
        yield from _rescaled(cases, pairs, what)


def _rescaled(cases: Sequence[_Case], pairs: list[tuple[torch.Tensor, torch.Tensor]], what: str) -> Iterator[str]:
    for name, value in cases[0].inputs.items():
        if isinstance(value, torch.Tensor) and all(difference(c.found.value, c.inputs[name]) is None for c in cases):
            yield f"your output is the input {name} itself"
    if all(bool((mine == 0).all()) for mine, _ in pairs):
        yield "your output is 0 everywhere"
    if not all(bool(mine.isfinite().all() and true.isfinite().all() and (true != 0).any()) for mine, true in pairs):
        return
    factors = [float((mine * true).sum() / true.square().sum()) for mine, true in pairs]
    if all(difference(mine, factor * true) is None for factor, (mine, true) in zip(factors, pairs, strict=True)):
        if all(math.isclose(factor, -1, rel_tol=1e-6) for factor in factors):
            yield f"your output is the {what} with the sign turned"
        listed = ", ".join(dict.fromkeys(f"{factor:.4g}" for factor in factors))
        yield f"your output is a multiple of the {what} ({listed} times): a factor is missing, or there twice"
    offsets = [float((mine - true).mean()) for mine, true in pairs]
    if all(difference(mine, true + offset) is None for offset, (mine, true) in zip(offsets, pairs, strict=True)):
        listed = ", ".join(dict.fromkeys(f"{offset:+.4g}" for offset in offsets))
        yield f"your output is the {what} with a constant added ({listed})"
