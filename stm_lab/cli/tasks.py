"""What mixers can do: `stm-lab tasks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stm_lab.cli.console import Overrides, print_table
from stm_lab.util.errors import UserError


def tasks(
    mixers: Annotated[str | None, typer.Option(help="Names with commas between them; default: all of ours.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Names with commas between them; default: all.")] = None,
    plugins: Annotated[list[Path], typer.Option(help="A file that registers mixers; may be repeated.")] = [],  # noqa: B006
    parameters: Overrides = [],  # noqa: B006
    figure: Annotated[Path | None, typer.Option(help="Draw the table to this .png.")] = None,
) -> None:
    """Train mixers on drawn tasks, as far as that is not done yet, and print who can do what."""
    from stm_lab.tasks import TableConfig, outcome, table
    from stm_lab.util.overrides import parse_overrides
    from stm_lab.util.validation import validated

    if figure is not None and figure.suffix != ".png":
        raise UserError(f"{figure}: the figure is a .png")
    values = parse_overrides(parameters)
    for name, given in (("mixers", mixers), ("tasks", tasks), ("plugins", [str(path) for path in plugins] or None)):
        if given is not None:
            if name in values:
                raise UserError(f"{name} is given twice, by --{name} and by -p")
            values[name] = given.split(",") if isinstance(given, str) else given
    config = validated(TableConfig, values, "tasks")
    rows = table(config)
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["task"], row["mixer"]), []).append(row)
    lines, right, predicted = [], 0, 0
    for task in config.tasks:
        line = [task, f"{cells[task, config.mixers[0]][0]['chance']:.0f}"]
        for mixer in config.mixers:
            found = outcome(cells[task, mixer])
            predicted += found.predicted is not None
            right += found.predicted == found.did
            line.append(f"{found.accuracy:.0f}" + (f" ({found.predicted}?)" if found.is_wrong else ""))
        lines.append(line)
    print_table("accuracy (%); in brackets predictions that were wrong", ("task", "chance", *config.mixers), lines)
    print(f"{len(config.seeds)} seed(s); {right} of {predicted} predictions were right")
    if figure is not None:
        from stm_lab.figures import task_table

        task_table(rows).savefig(figure, dpi=150, bbox_inches="tight")
        print(figure)
