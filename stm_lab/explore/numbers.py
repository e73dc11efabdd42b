"""A field in which a small matrix is typed, a row in each line."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np

from stm_lab.util.errors import UserError


def field(values: np.ndarray, description: str, width: str) -> widgets.Textarea:
    return widgets.Textarea(
        written(values), description=description, rows=len(values), continuous_update=False, layout={"width": width}
    )


def written(values: np.ndarray) -> str:
    return "\n".join(" ".join(f"{value:.3g}" for value in row) for row in values)


def read(text: str, what: str, shape: tuple[int, int], largest: np.ndarray) -> np.ndarray:
    """The numbers of a field, a row in each line; `largest` absolute values by column.

    Raises UserError, for the line below the picture, for anything else.
    """
    rows = [line.split() for line in text.strip().splitlines()]
    if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
        raise UserError(f"{what}: {shape[0]} lines of {shape[1]} numbers are needed, with spaces between")
    try:
        values = np.array(rows, dtype=float)
    except ValueError as error:
        raise UserError(f"{what}: {error}") from None
    if not (np.abs(values) <= largest).all():  # nor NaN
        limits = ", ".join(f"-{most:g} to {most:g}" for most in dict.fromkeys(largest.tolist()))
        raise UserError(f"{what}: a number is too large; its columns hold {limits}")
    return values
