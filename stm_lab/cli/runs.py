"""Notebooks as experiments: `stm-lab demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from stm_lab.cli.console import Overrides, print_table
from stm_lab.errors import UserError


def demo(
    recipe: Annotated[str | None, typer.Option(help="A data recipe: name or YAML file.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="The folder of its raw data.")] = None,
    profile: Annotated[str, typer.Option(help="quick, demo, class or paper.")] = "demo",
    parameters: Overrides = [],  # noqa: B006  (typer reads it, nobody changes it)
) -> None:
    """Train the mixers in one backbone, compare them, and say where figures and numbers are."""
    from stm_lab.course import rows, run, summary
    from stm_lab.overrides import parse_overrides

    values = parse_overrides(parameters)
    for name, value in (("recipe", recipe), ("data_root", data_root)):
        if value is not None and name in values:
            raise UserError(f"{name} is given twice, by --{name.replace('_', '-')} and by -p")
        if value is not None:
            values[name] = value
    folder = run("00_quickstart", values, profile=profile, echo=sys.stderr)

    recorded = rows(folder.path)
    baseline = "identity" if "identity" in set(recorded["mixer"]) else None
    table = summary(recorded, by="mixer", metric="top1", baseline=baseline)
    print_table("top-1 (%) on the validation split", table.columns, table.itertuples(index=False))
    for what in ("notebook", "html", "figures", "rows"):
        print(f"{what:<9} {getattr(folder, what)}")
