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
bench_app = typer.Typer(help="How fast things are here.")
app.add_typer(bench_app, name="bench")

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="Name or YAML file.")]
DataRoot = Annotated[Path | None, typer.Option(help="The folder of the recipe's raw data.")]
Overrides = Annotated[list[str], typer.Option("-p", metavar="KEY=VALUE", help="Set a parameter; the value is YAML.")]

_UsageError = typer.BadParameter.__base__  # click's; newer typer carries its own copy of click


def main(arguments: list[str] | None = None) -> int:
    """The console entry; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        status = app(arguments or ["--help"], prog_name="stm-lab", standalone_mode=False) or 0
        return _complain("interrupted", 130) if status == 130 else status  # typer turns some interrupts into statuses
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
    """The recipes, and whether their images are here."""
    from stm_lab import data

    lines = []
    for recipe in map(data.load_recipe, data.list_recipes()):
        images = " + ".join(f"{count:,}" for count in recipe.counts.values())
        lines.append((recipe.name, recipe.title, images, len(recipe.classes), recipe.licence, data.state(recipe)))
    _print_table("recipes", ("recipe", "title", "images", "classes", "licence", "state"), lines)


@data_app.command("show")
def data_show(recipe: RecipeName, data_root: DataRoot = None) -> None:
    """What a recipe says, whether its images are here, and how to get them."""
    import yaml

    from stm_lab import data

    loaded = data.load_recipe(recipe)
    fields = loaded.model_dump(mode="json", exclude_none=True, exclude={"source": {"__all__": {"labels"}}})
    fields |= {"classes": fields.pop("classes"), "state": data.state(loaded, data_root=data_root)}  # classes are many
    try:
        fields["fingerprint"] = data.fingerprint(loaded, data_root=data_root)
    except UserError:
        fields["fingerprint"] = fields.get("fingerprint", "known when the images are there")
    fields["command"] = data.command(loaded)
    print(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=120), end="")


@data_app.command("prepare")
def data_prepare(
    recipe: RecipeName,
    data_root: DataRoot = None,
    size: Annotated[int | None, typer.Option(help="Pixels of the images' shorter side.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
) -> None:
    """Decode and resize a recipe's images once, and keep them; goes on where it was interrupted."""
    from stm_lab import data
    from stm_lab.data.prepare import PrepareFailed, prepare

    try:
        print(prepare(data.load_recipe(recipe), data_root=data_root, size=size, workers=workers))
    except PrepareFailed as error:
        raise typer.Exit(_complain(f"failed: {error}", 1)) from None


@data_app.command("verify")
def data_verify(recipe: RecipeName, data_root: DataRoot = None) -> None:
    """Compute the hashes of a recipe's images anew, and name what differs."""
    from stm_lab import data
    from stm_lab.data.verify import verify

    looked, differs = verify(data.load_recipe(recipe), data_root=data_root)
    for line in (*looked, *differs):
        print(line)
    print(f"{len(differs)} differences" if differs else "all as it should be")
    if differs:
        raise typer.Exit(1)


@bench_app.command("data")
def bench_data(
    recipe: Annotated[str | None, typer.Option(help="Images of this recipe; default: synthetic ones.")] = None,
    data_root: DataRoot = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each.")] = 5,
) -> None:
    """How many training views one core makes, beside how many images it trains."""
    from stm_lab import data
    from stm_lab.data.bench import bench_data as measure

    rates = measure(data.load_recipe(recipe) if recipe else None, data_root=data_root, repeats=repeats)
    lines = [
        (r.image_size, r.what, r.images_per_second, f"{r.lowest:,.0f} .. {r.highest:,.0f}", r.demand, r.ratio)
        for r in rates
    ]
    columns = ("pixels", "views with", "views/s a core", "lowest .. highest", "trained/s a core", "ratio")
    _print_table("training views, on one core", columns, lines)


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A preset (quick, class, paper-unified ...) or a YAML file.")],
    parameters: Overrides = [],  # noqa: B006
    force: Annotated[bool, typer.Option(help="Start afresh, whatever the run's folder holds.")] = False,
) -> None:
    """Train one model, or go on where it was interrupted."""
    from stm_lab.train.__main__ import main as train_main

    options = [f"-p{assignment}" for assignment in parameters] + (["--force"] if force else [])
    raise typer.Exit(train_main([config, *options]))


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
