"""Results of runs: `stm-lab leaderboard`, `compare`, `predict`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stm_lab.cli.console import print_table
from stm_lab.util.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder of a notebook's run, or of a training.")]


def leaderboard(
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders of runs, or rows.jsonl; default: all.")] = None,
    by: Annotated[str, typer.Option(help="What to compare: mixer, a parameter, code, data, device.")] = "mixer",
    metric: Annotated[str, typer.Option(help="Which number of the rows.")] = "top1",
    baseline: Annotated[str | None, typer.Option(help="Differences are from this one, such as identity.")] = None,
    notebook: Annotated[str | None, typer.Option(help="Only this notebook's runs: name or number.")] = None,
    out: Annotated[list[Path], typer.Option(help="A file: .csv, .parquet or .html; may be repeated.")] = [],  # noqa: B006
) -> None:
    """Rank what finished runs recorded, with spreads and intervals over seeds."""
    from stm_lab.course import leaderboard as ranked
    from stm_lab.course.pages import check_suffix, write

    for path in out:
        check_suffix(path)
    table = ranked(runs or None, by=by, metric=metric, baseline=baseline, notebook=notebook)
    title = f"{metric} by {by}"
    print_leaderboard(table, title)
    for path in out:
        print(write(table, path, title=title))


def print_leaderboard(table: pd.DataFrame, title: str) -> None:
    """Print a leaderboard: its groups, the verdict on each, and the notes."""
    import pandas as pd

    from stm_lab.course.pages import as_text, parts, said_of

    for made_with, lines, verdict in parts(table):
        texts = as_text(lines)
        for name in filter(lambda name: pd.api.types.is_numeric_dtype(lines[name]), lines.columns):
            texts[name] = texts[name].str.rjust(texts[name].str.len().max())  # decimals below decimals
        columns = [str(column).replace("_", " ") for column in lines.columns]
        print_table(f"{title}: {made_with}" if made_with else title, columns, texts.itertuples(index=False))
        print(f"{verdict}\n")
    for note in said_of(table):
        print(note)


def compare(
    a: RunFolder,
    b: RunFolder,
    out: Annotated[Path | None, typer.Option(help="The figure, .png; default: compare-A-B.png here.")] = None,
) -> None:
    """Compare two runs: what differs, their results, and their training curves in one figure."""
    import io

    from stm_lab.course.compare import compare as compared
    from stm_lab.util import paths
    from stm_lab.util.files import replace_bytes

    if out is not None and out.suffix != ".png":
        raise UserError(f"{out}: the figure is a .png")
    found = compared(a, b)
    print(f"a  {found.a}\nb  {found.b}\n")
    lines = [(*line, "same" if same else "differs") for *line, same in found.identity.itertuples(index=False)]
    print_table("what they are", ("", "a", "b", ""), lines)
    for title, table in (("parameters that differ", found.parameters), ("environment that differs", found.environment)):
        if len(table):
            print_table(title, table.columns, table.itertuples(index=False))
        else:
            print(f"{title}: none")
    _print_metrics(found.metrics)
    if found.figure is None:
        print("Neither has training curves, so there is no figure.")
        return
    drawn = io.BytesIO()
    found.figure.savefig(drawn, format="png", dpi=150, bbox_inches="tight")
    path = paths.expanded(out or f"compare-{found.a.name}-{found.b.name}.png").absolute()
    replace_bytes(path, drawn.getvalue())
    print(path)


def _print_metrics(metrics: pd.DataFrame) -> None:
    """One metric row by row, top1 if it is there, and of the others the means over the rows that both runs have."""
    labels = [name for name in metrics.columns if name not in ("metric", "a", "b", "difference")]
    if not labels or metrics.empty:  # one row each, or none
        print_table("metrics of the last row", metrics.columns, _lines(metrics, 1))
        return
    names = list(metrics["metric"].drop_duplicates())
    first = "top1" if "top1" in names else names[0]
    of_first = metrics[metrics["metric"] == first].drop(columns="metric")
    print_table(first, of_first.columns, _lines(of_first, len(labels)))
    lines = []
    for name in (name for name in names if name != first):
        of_both = metrics[metrics["metric"] == name].dropna(subset=["a", "b"])
        if len(of_both):
            lines.append((name, len(of_both), *map(_number, of_both[["a", "b", "difference"]].mean())))
    if lines:
        print_table("means over the rows that both have", ("metric", "rows", "a", "b", "difference"), lines)


def _lines(table: pd.DataFrame, labels: int) -> Iterator[tuple[Any, ...]]:
    """The lines of a table whose first columns are `labels`, its others numbers."""
    for line in table.itertuples(index=False):
        yield *("" if label is None else label for label in line[:labels]), *map(_number, line[labels:])


def _number(value: float) -> str:
    """Four digits that count: numbers here are from 1e-6 (a learning rate) to 1e9 (multiply-adds)."""
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    weights: Annotated[
        str, typer.Option(metavar="RUN", help="A training's or notebook run's folder, a file, or pretrained.")
    ],
    top: Annotated[int, typer.Option(help="How many classes.")] = 3,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Classify images of your own with trained models."""
    from stm_lab.predict import predict as predicted

    table = predicted(images, weights, top=top, device=device)
    for image, of_image in table.groupby("image", sort=False):
        lines = []
        for model, of_model in of_image.groupby("model", sort=False):
            answers = (
                f"{name} {share:.1f}%" for name, share in of_model[["class", "confidence"]].itertuples(index=False)
            )
            lines.append((model, *answers))
        longest = max(map(len, lines))
        lines = [(*line, *[""] * (longest - len(line))) for line in lines]
        print_table(image, ("model", *(f"{rank}." for rank in range(1, longest))), lines)
    known = [f"the {count:,} classes of `{recipe}`" for recipe, count in table.attrs["known"].items()]
    if known:  # a photograph is `star 100.0%` to a model of shapes
        print(f"These weights know only {' and '.join(known)}: they name one of these whatever an image shows.")
