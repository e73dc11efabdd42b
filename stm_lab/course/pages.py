"""A leaderboard in words and as a file: CSV, Parquet, or a page by itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stm_lab.course.notebooks import TEMPLATES
from stm_lab.util import paths
from stm_lab.util.errors import UserError
from stm_lab.util.files import replace_bytes

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet", ".html")


def said_of_left_out(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """What was left out, in words: a line for each reason."""
    said = []
    for why, runs in left_out.items():
        more = f", and {len(runs) - 3} more" if len(runs) > 3 else ""
        said.append(f"{len(runs)} run{'s' * (len(runs) > 1)}: {why} ({', '.join(runs[:3])}{more})")
    return said


def check_suffix(path: Path) -> None:
    """Raise UserError for a file that `write` has no format for."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: no format for {path.suffix!r}; use {', '.join(SUFFIXES)}")


def write(table: pd.DataFrame, path: str | Path, *, title: str = "Leaderboard") -> Path:
    """Write a leaderboard as .csv, .parquet or .html (one page, with the notes), in one go; returns the path.

    Raises UserError for another suffix, and for a folder that cannot be written to.
    """
    path = paths.expanded(path).absolute()
    check_suffix(path)
    contents = {
        ".html": lambda: _page(table, title).encode(),
        ".csv": lambda: table.to_csv(index=False).encode(),
        ".parquet": lambda: table.to_parquet(index=False),
    }[path.suffix]()
    replace_bytes(path, contents)
    return path


def parts(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """A leaderboard group by group: what its rows were made with ("" if there is one group), lines, and verdict."""
    differing, places = table.attrs["differing"], [*table.index[table["rank_statement"] == "leader"], len(table)]
    for start, stop, verdict in zip(places, places[1:], table.attrs["verdict"], strict=False):
        made_with = (f"{key.removeprefix('parameters.')} {exact(table[key][start]) or 'not set'}" for key in differing)
        yield ", ".join(made_with), table[start:stop].drop(columns=differing), verdict


def said_of(table: pd.DataFrame) -> list[str]:
    """A leaderboard's notes, and what was left out."""
    return [*table.attrs["notes"], *(f"Left out: {line}." for line in said_of_left_out(table.attrs["left_out"]))]


def as_text(lines: pd.DataFrame) -> pd.DataFrame:
    """The lines of a group as a table shows them: a parameter as it was given, a statistic as its column's others."""
    import pandas as pd

    return pd.DataFrame(
        {name: alike(values) if name in _STATISTICS else map(exact, values) for name, values in lines.items()},
        index=lines.index,
    )


_STATISTICS = ("mean", "spread", "difference", "low", "high")


def exact(value: Any) -> str:
    """A parameter's value, not rounded: 0.999, and 12 for 12.0; "" for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.15g}" if isinstance(value, float) else str(value)  # the digits that a double always holds


def alike(values: Iterable[float], *, sign: str = "") -> list[str]:
    """Numbers of one unit with the same number of decimals, for a column.

    Two decimals, none from 10,000 on, and where all are below 1 as many as give the largest three digits; "" for NaN.
    sign: "+" is also written before positive numbers.
    """
    values = list(values)
    largest = max((abs(value) for value in values if not math.isnan(value)), default=0.0)
    if 1e-12 < largest < 1e-6:
        form = f"{sign}.2e"
    else:
        small = 1e-12 < largest < 0.995  # anything smaller is rounding
        decimals = 2 - math.floor(math.log10(largest)) if small else 2 if largest < 10_000 else 0
        values = [round(value, decimals) + 0.0 for value in values]  # + 0.0: there is no -0.00
        form = f"{sign},.{decimals}f"
    return ["" if math.isnan(value) else format(value, form) for value in values]


def _page(table: pd.DataFrame, title: str) -> str:
    import jinja2
    import pandas as pd

    groups = []
    for made_with, lines, verdict in parts(table):
        columns = [(name, pd.api.types.is_numeric_dtype(lines[name])) for name in lines.columns]
        groups.append((made_with, verdict, columns, as_text(lines).to_dict("records")))
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("leaderboard.html.j2").render(title=title, groups=groups, notes=said_of(table))
