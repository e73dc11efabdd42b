"""`stm-lab ...`: a thin shell round the package. Each command imports what it needs, so that help is quick.

Exit status: 0 done; 2 the input was wrong, one line on stderr, nothing started; 1 the work failed; 130 interrupted.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from stm_lab.errors import UserError

app = typer.Typer(
    help="Spatial token mixers in one backbone, trained alike, then compared.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Data recipes.")
app.add_typer(data_app, name="data")

Overrides = Annotated[list[str], typer.Option("-p", metavar="KEY=VALUE", help="Set a parameter; the value is YAML.")]

_UsageError = typer.BadParameter.__base__  # click's; newer typer carries its own copy of click


def main(arguments: list[str] | None = None) -> int:
    """The console entry; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return app(arguments or ["--help"], prog_name="stm-lab", standalone_mode=False) or 0
    except UserError as error:
        return _complain(f"error: {error}", 2)
    except _UsageError as error:
        return _complain(f"error: {error.format_message()}", 2)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", 130)


def _complain(message: str, status: int) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return status


@app.command()
def demo(
    recipe: Annotated[str | None, typer.Option(help="A data recipe: name or YAML file.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="The folder of its raw data.")] = None,
    profile: Annotated[str, typer.Option(help="quick, demo, class or paper.")] = "demo",
    parameters: Overrides = [],  # noqa: B006  (typer reads it, nobody changes it)
) -> None:
    """Train the mixers in one backbone, compare them, and say where figures and numbers are."""
    from stm_lab.course import RunFailed, rows, run, summary
    from stm_lab.overrides import parse_overrides

    values = parse_overrides(parameters)
    for name, value in (("recipe", recipe), ("data_root", data_root)):
        if value is not None and name in values:
            raise UserError(f"{name} is given twice, by --{name.replace('_', '-')} and by -p")
        if value is not None:
            values[name] = value
    try:
        folder = run("00_quickstart", values, profile=profile, echo=sys.stderr)
    except RunFailed as error:
        raise typer.Exit(_complain(f"failed: {error}", 1)) from None

    recorded = rows(folder.path)
    baseline = "identity" if "identity" in set(recorded["mixer"]) else None
    table = summary(recorded, by="mixer", metric="top1", baseline=baseline)
    _print_table("top-1 (%) on the validation split", table.columns, table.itertuples(index=False))
    for what in ("notebook", "html", "figures", "rows"):
        print(f"{what:<9} {getattr(folder, what)}")


@app.command()
def mixers() -> None:
    """The spatial token mixers, and their options."""
    import inspect

    import stm_lab.mixers

    lines = []
    for name in stm_lab.list_mixers():
        mixer = stm_lab.mixers.get_mixer(name)
        _, *options = inspect.signature(mixer).parameters.values()
        note = (inspect.getdoc(mixer) or "").partition("\n")[0]
        lines.append((name, note, ", ".join(f"{option.name}={option.default}" for option in options)))
    _print_table("mixers", ("name", "note", "options"), lines)


@app.command()
def models() -> None:
    """The models' names in timm, with their parameters at 1000 classes."""
    import timm
    import torch

    import stm_lab  # noqa: F401  (registers them)

    lines = []
    for name in timm.list_models("unified_*"):
        with torch.device("meta"):  # shapes alone, no memory
            model = timm.create_model(name, num_classes=1000)
        lines.append((name, f"{sum(parameter.numel() for parameter in model.parameters()):,}"))
    _print_table("models", ("name", "parameters"), lines)


@data_app.command("list")
def data_list() -> None:
    """The names of the recipes."""
    from stm_lab import data

    for name in data.list_recipes():
        print(name)


@data_app.command("show")
def data_show(recipe: Annotated[str, typer.Argument(help="Name or YAML file.")]) -> None:
    """What a recipe says."""
    import yaml

    from stm_lab import data

    fields = data.load_recipe(recipe).model_dump(mode="json", exclude_none=True)
    print(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True), end="")


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A preset (quick, class) or a YAML file.")],
    parameters: Overrides = [],  # noqa: B006
) -> None:
    """Train one model."""
    from stm_lab.train.__main__ import main as train_main

    raise typer.Exit(train_main([config, *(f"-p{assignment}" for assignment in parameters)]))


def _print_table(title: str, columns: Iterable[str], lines: Iterable[Iterable[Any]]) -> None:
    """A table for a terminal, or 120 columns wide for a file."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    for line in lines:
        table.add_row(*map(_shown, line))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _shown(cell: Any) -> str:
    if isinstance(cell, float):
        return "" if math.isnan(cell) else f"{cell:.2f}"
    return str(cell)


if __name__ == "__main__":
    sys.exit(main())
