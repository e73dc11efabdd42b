"""A leaderboard in words and as a file: CSV, Parquet, or a page that needs nothing else."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """Raise UserError for a file that `write` would not know how to write."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: no format for {path.suffix!r}; use {', '.join(SUFFIXES)}")


def write(table: pd.DataFrame, path: str | Path, *, title: str = "Leaderboard") -> Path:
    """Write a leaderboard as .csv, .parquet or .html (one page, with the notes), in one go; returns the path.

    Raises:
        UserError: another suffix, or a folder that cannot be written to.
    """
    path = paths.expanded(path).absolute()
    check_suffix(path)
    if path.suffix == ".html":
        contents = _page(table, title).encode()
    elif path.suffix == ".csv":
        contents = table.to_csv(index=False).encode()
    else:
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        contents = buffer.getvalue()
    replace_bytes(path, contents)
    return path


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 75rem; margin: 2rem auto;
  padding: 0 1rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.35rem 0.9rem; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap; }}
th {{ border-bottom: 2px solid #1a1a1a; }}
td.number, th.number {{ text-align: right; }}
tr.leader td {{ font-weight: 600; background: #eef4fa; }}
p.small, li {{ color: #444; font-size: 0.9rem; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{title}</h1>
{sections}
<p class="small">Spread is the standard deviation over seeds. Differences are paired by seed, their intervals
Student's t at 95%, one a line, not corrected for their number.</p>
{notes}
</body>
</html>
"""


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
    """A parameter's value as it was given, which a rounded one would not be: 0.999, and 12 for 12.0; "" for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.15g}" if isinstance(value, float) else str(value)  # 15 digits: all that a double surely holds


def alike(values: Iterable[float], *, sign: str = "") -> list[str]:
    """Numbers of one unit with as many decimals each, so that digits of one worth stand below each other.

    Two decimals, none from 10,000 on, and where all are below 1 as many as give the largest three digits; "" for NaN.
    sign: "+" writes that of positive numbers, too.
    """
    values = list(values)
    largest = max((abs(value) for value in values if not math.isnan(value)), default=0.0)
    if 1e-12 < largest < 1e-6:
        form = f"{sign}.2e"
    else:
        small = 1e-12 < largest < 0.995  # below is a difference of equals, but for rounding
        decimals = 2 - math.floor(math.log10(largest)) if small else 2 if largest < 10_000 else 0
        values = [round(value, decimals) + 0.0 for value in values]  # + 0.0: there is no -0.00
        form = f"{sign},.{decimals}f"
    return ["" if math.isnan(value) else format(value, form) for value in values]


def _page(table: pd.DataFrame, title: str) -> str:
    sections = [
        f"{f'<h2>{html.escape(made_with)}</h2>' * bool(made_with)}\n<p>{html.escape(verdict)}</p>\n{_html_table(lines)}"
        for made_with, lines, verdict in parts(table)
    ]
    listed = "".join(f"<li>{html.escape(note)}</li>\n" for note in said_of(table))
    notes = f"<h2>Notes</h2>\n<ul>\n{listed}</ul>" if listed else ""
    return _PAGE.format(title=html.escape(title), sections="\n".join(sections), notes=notes)


def _html_table(table: pd.DataFrame) -> str:
    import pandas as pd

    numeric = {name for name in table.columns if pd.api.types.is_numeric_dtype(table[name])}
    kind = {name: ' class="number"' if name in numeric else "" for name in table.columns}
    head = "".join(f"<th{kind[name]}>{html.escape(str(name)).replace('_', ' ')}</th>" for name in table.columns)
    lines = []
    for line in as_text(table).to_dict("records"):
        cells = "".join(f"<td{kind[name]}>{html.escape(text)}</td>" for name, text in line.items())
        leader = ' class="leader"' if line["rank_statement"] == "leader" else ""
        lines.append(f"<tr{leader}>{cells}</tr>")
    body = "\n".join(lines)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'
