"""`stm-lab data ...` and `stm-lab bench data`."""

from __future__ import annotations

from typing import Annotated

import typer

from stm_lab.cli.console import DataRoot, RecipeName, print_table
from stm_lab.errors import UserError

app = typer.Typer(help="Data recipes.")
bench = typer.Typer(help="How fast things are here.")
bench.callback()(lambda: None)  # or typer would take its only command for itself


@app.command("list")
def data_list() -> None:
    """The recipes, and whether their images are here."""
    from stm_lab import data

    lines = []
    for recipe in map(data.load_recipe, data.list_recipes()):
        images = " + ".join(f"{count:,}" for count in recipe.counts.values())
        lines.append((recipe.name, recipe.title, images, len(recipe.classes), recipe.licence, data.state(recipe)))
    print_table("recipes", ("recipe", "title", "images", "classes", "licence", "state"), lines)


@app.command("show")
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


@app.command("prepare")
def data_prepare(
    recipe: RecipeName,
    data_root: DataRoot = None,
    size: Annotated[int | None, typer.Option(help="Pixels of the images' shorter side.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
) -> None:
    """Decode and resize a recipe's images once, and keep them; goes on where it was interrupted."""
    from stm_lab import data
    from stm_lab.data.prepare import prepare

    print(prepare(data.load_recipe(recipe), data_root=data_root, size=size, workers=workers))


@app.command("verify")
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


@bench.command("data")
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
    print_table("training views, on one core", columns, lines)
