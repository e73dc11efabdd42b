"""`stm-lab data ...` and `stm-lab bench ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from stm_lab.cli.console import DataRoot, RecipeName, print_table
from stm_lab.util.errors import check_known

app = typer.Typer(help="Data recipes.")
bench = typer.Typer(help="Measure speed on this machine.")


_CLASSES = 24  # that are named without --classes


@app.command("list")
def data_list() -> None:
    """List the recipes and the state of their images; those that can be used at once come first."""
    from stm_lab import data

    lines = []
    for recipe in map(data.load_recipe, data.list_recipes()):
        images = " + ".join(f"{count:,}" for count in recipe.counts.values())
        lines.append((recipe.name, recipe.title, images, len(recipe.classes), recipe.licence, data.state(recipe)))
    at_once = ("drawn", "prepared", "raw in")
    lines.sort(key=lambda line: not line[-1].startswith(at_once))  # by name within each
    print_table("recipes", ("recipe", "title", "images", "classes", "licence", "state"), lines)


@app.command("show")
def data_show(
    recipe: RecipeName,
    data_root: DataRoot = None,
    classes: Annotated[bool, typer.Option("--classes", help="Name every class.")] = False,
) -> None:
    """Show a recipe, whether its images are here, and how to get them."""
    import yaml

    from stm_lab import data

    loaded = data.load_recipe(recipe)
    left_out = {"source": {"__all__": {"labels"}}, "subset": {"classes"}}  # they repeat `classes`
    fields = loaded.model_dump(mode="json", exclude_none=True, exclude=left_out)
    if len(loaded.classes) > _CLASSES and not classes:
        fields["classes"] = f"{len(loaded.classes)}; --classes names all"
    first = {"name": loaded.name, **data.describe(loaded, data_root=data_root)}
    print(yaml.safe_dump(first | fields | first, sort_keys=False, allow_unicode=True, width=120), end="")


@app.command("prepare")
def data_prepare(
    recipe: RecipeName,
    data_root: DataRoot = None,
    size: Annotated[int | None, typer.Option(help="Pixels of the images' shorter side.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
) -> None:
    """Decode and resize a recipe's images once, and keep them; resumes after an interruption."""
    from stm_lab import data

    loaded = data.load_recipe(recipe)
    from stm_lab.data.prepare import prepare  # here, because it is slow to import

    print(prepare(loaded, data_root=data_root, size=size, workers=workers))


@app.command("verify")
def data_verify(recipe: RecipeName, data_root: DataRoot = None) -> None:
    """Compute the hashes of a recipe's images again, and name what differs."""
    from stm_lab import data

    loaded = data.load_recipe(recipe)
    from stm_lab.data.prepare import verify  # here, because it is slow to import

    looked, differs = verify(loaded, data_root=data_root)
    for line in (*looked, *differs):
        print(line)
    print(f"{len(differs)} differences" if differs else "all as it should be")
    if differs:
        raise typer.Exit(1)


@bench.command("data")
def bench_data(
    recipe: Annotated[str | None, typer.Option(help="Images of this recipe; default: synthetic ones.")] = None,
    data_root: DataRoot = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each.")] = 5,
) -> None:
    """Compare the training views that a core makes with the images on which it trains."""
    from statistics import median

    from stm_lab import data

    loaded = data.load_recipe(recipe) if recipe else None
    from stm_lab.cli.bench import SETTINGS, trained_rate, view_rates  # here, because they are slow to import

    lines = []
    for setting in SETTINGS:
        rates = view_rates(setting, loaded, data_root=data_root, repeats=repeats)
        views, trained = median(rates), trained_rate(setting)
        spread = f"{min(rates):,.0f} .. {max(rates):,.0f}"
        lines.append((setting.image_size, setting.what, views, spread, trained, views / trained))
    columns = ("pixels", "views with", "views/s a core", "lowest .. highest", "trained/s a core", "ratio")
    print_table("training views, on one core", columns, lines)


@bench.command("models")
def bench_models(
    scales: Annotated[list[str], typer.Option("--scale", help="May be repeated.")] = ["tiny", "micro"],  # noqa: B006
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the fastest counts.")] = 3,
) -> None:
    """Compare the speed of the unified networks with timm's, and with the bounds set for it; ten minutes at most."""
    from stm_lab.cli.speed import COLUMNS, TABLE, machine, model_speeds  # here, as above

    for scale in scales:
        check_known("scale", scale, TABLE)
    print(machine())
    for scale in scales:
        speeds = model_speeds(scale, repeats)
        lines = [(_short(name), *forward.cells(), *both.cells()) for name, (forward, both) in speeds]
        print_table(f"unified networks and timm's: ratios to {TABLE[scale][0]}", COLUMNS, lines)


def _short(name: str) -> str:
    return name.removeprefix("unified_").removesuffix("_patch4_window7_224")


@bench.command("train")
def bench_train(
    mixers: Annotated[list[str], typer.Option("--mixer", help="May be repeated.")] = ["identity", "convnext", "swin"],  # noqa: B006
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each.")] = 8,
) -> None:
    """Compare a step of training with its bare forward, backward and optimizer, at nano on one thread."""
    from statistics import median

    from stm_lab.cli.bench import step_times  # here, as above

    lines = []
    for mixer in mixers:
        bare, trained = zip(*step_times(mixer, repeats=repeats), strict=True)
        ratio = median(whole / alone for alone, whole in zip(bare, trained, strict=True))
        lines.append((mixer, median(bare), median(trained), ratio, "met" if ratio <= 1.15 else "not met"))
    columns = ("mixer", "bare ms", "trained ms", "ratio", "at most 1.15")
    print_table("a step of training: nano, 32 pixels, batch 32", columns, lines)
