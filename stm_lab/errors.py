"""Errors that are the user's to mend: one line that says what was wrong, where, and the nearest right thing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """The input was wrong, nothing was started. The command line prints the message alone and exits with status 2."""


class WorkFailed(RuntimeError):
    """What was asked for was right, but the work failed. The command line prints the message and exits with 1."""


def nearest(name: object, known: Iterable[object]) -> str:
    """The suffix of an error message: the closest of `known` to `name`, or all of them if none is close."""
    choices = sorted(map(str, known))
    close = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(choice or repr(choice) for choice in choices) or 'none'}"


def check_known(what: str, name: object, known: Iterable[object], where: str = "") -> None:
    """Raise a UserError that names the nearest of `known` unless `name` is one of them."""
    known = list(known)
    if name not in known:
        raise UserError(f"{where}unknown {what} {name!r}; {nearest(name, known)}")
