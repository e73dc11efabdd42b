"""What the commands share: the types of their arguments, and tables."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stm_lab.util.errors import printable

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="Name or YAML file.")]
DataRoot = Annotated[Path | None, typer.Option(help="The folder of the recipe's raw data.")]
Overrides = Annotated[list[str], typer.Option("-p", metavar="KEY=VALUE", help="Set a parameter; the value is YAML.")]


def print_table(title: str, columns: Iterable[str], lines: Iterable[Iterable[Any]]) -> None:
    """A table for a terminal, or 120 columns wide for a file. All is shown as it stands: no markup, no emoji codes."""
    table = Table(title=Text(title, style="table.title"), title_justify="left")
    for column in columns:
        table.add_column(Text(column))
    for line in lines:
        table.add_row(*(Text(_shown(cell)) for cell in line))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _shown(cell: Any) -> str:
    if isinstance(cell, float):
        return "" if math.isnan(cell) else f"{cell:.2f}"
    return printable(str(cell))
