"""What runs say: `stm-lab leaderboard`, `compare`, `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stm_lab.cli.console import print_table

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder of a notebook's run, or of a training.")]


def leaderboard(
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders of runs, or rows.jsonl; default: all.")] = None,
    by: Annotated[str, typer.Option(help="What to compare: mixer, a parameter, code, data, device.")] = "mixer",
    metric: Annotated[str, typer.Option(help="Which number of the rows.")] = "top1",
    baseline: Annotated[str | None, typer.Option(help="What differences are to, such as identity.")] = None,
    notebook: Annotated[str | None, typer.Option(help="Only this notebook's runs: name or number.")] = None,
    out: Annotated[list[Path], typer.Option(help="A file: .csv, .parquet or .html; may be repeated.")] = [],  # noqa: B006
) -> None:
    """Rank what finished runs recorded, with spreads and intervals over seeds."""
    from stm_lab.course import leaderboard as ranked
    from stm_lab.course.pages import check_suffix, parts, said_of, shown, write

    for path in out:
        check_suffix(path)
    table = ranked(runs or None, by=by, metric=metric, baseline=baseline, notebook=notebook)
    title = f"{metric} by {by}"
    for made_with, lines, verdict in parts(table):
        columns = [str(column).replace("_", " ") for column in lines.columns]
        cells = (map(shown, line) for line in lines.itertuples(index=False))
        print_table(f"{title}: {made_with}" if made_with else title, columns, cells)
        print(f"{verdict}\n")
    for note in said_of(table):
        print(note)
    for path in out:
        print(write(table, path, title=title))


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    weights: Annotated[str, typer.Option(metavar="RUN", help="A training's or notebook run's folder, or pretrained.")],
    top: Annotated[int, typer.Option(help="How many classes.")] = 3,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Say what trained models see in images of your own."""
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
