"""Errors that the user can mend: one line that says what was wrong, where, and the nearest right thing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST_MESSAGE = 600  # characters; a longer message loses its middle
_LONGEST_LIST = 200  # characters of the names that a message offers


class UserError(ValueError):
    """The input was wrong and nothing was started. The command line prints the message and exits with status 2.

    The message is one printable line of at most `LONGEST_MESSAGE` characters, whatever was put into it.
    """

    def __init__(self, message: object = ""):
        super().__init__(one_line(str(message)))


class WorkFailed(RuntimeError):
    """The input was right, but the work failed. The command line prints the message and exits with status 1."""


def one_line(text: str) -> str:
    """`text` in one printable line: strange characters are escaped, and a long text loses its middle."""
    text = printable(" ".join(text.split()))
    half = LONGEST_MESSAGE // 2
    return text if len(text) <= LONGEST_MESSAGE else f"{text[: half - 3]} ... {text[2 - half :]}"


def in_a_line(error: BaseException) -> str:
    """An exception's type and the first line of its message."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}".removesuffix(": ")


def printable(text: str) -> str:
    """`text` with every character escaped that is invisible or would steer a terminal; line feeds are kept."""
    kept = (one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)
    return text if text.isprintable() else "".join(kept)


def shown(value: object, width: int = 60) -> str:
    """`value` as Python writes it, cut at `width` characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or a list in itself
        text = f"<{type(value).__name__}>"
    return text if len(text) <= width else f"{text[: width - 3]}..."


def nearest(name: object, known: Iterable[object]) -> str:
    """The suffix of an error message: the closest of `known` to `name`, or a list of `known` if none is close."""
    choices = sorted(map(str, known))
    folded = {choice.casefold(): choice for choice in choices}
    given = str(name).casefold()
    if close := difflib.get_close_matches(given, folded, n=len(folded), cutoff=0.5):
        # of several that are equally close, the first by name: "02" for "2", not "22"
        best = max(sorted(close), key=lambda choice: difflib.SequenceMatcher(None, choice, given).ratio())
        return f"did you mean {shown(folded[best])}?"
    offered: list[str] = []
    for choice in choices:
        if offered and len(", ".join([*offered, choice])) > _LONGEST_LIST:
            break
        offered.append(choice or repr(choice))
    more = f" and {len(choices) - len(offered)} more" if len(offered) < len(choices) else ""
    return f"known: {', '.join(offered) or 'none'}{more}"


def check_known(what: str, name: object, known: Iterable[object], where: str = "") -> None:
    """Raise a UserError that names the nearest of `known` unless `name` is one of them."""
    known = list(known)
    if name not in known:
        raise UserError(f"{where}unknown {what} {shown(name)}; {nearest(name, known)}")
