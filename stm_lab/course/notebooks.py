"""The stored notebook: files, exercises, and the parts that repeat its card (header, `parameters` cell, openings of
exercises). These parts are made from the card here; `differences` lists and mends where a notebook deviates.

An exercise is a Markdown cell (`## Exercise 1: its title`, a line of dots, the task, a folded hint), a cell tagged
`solution` with the solution between markers, and a cell tagged `check` that compares.
"""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stm_lab.course.cards import Card, Exercise, Parameter, dots, literal
from stm_lab.util.errors import UserError
from stm_lab.util.files import read_bytes, read_text, replace_bytes

if TYPE_CHECKING:
    import nbformat

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
GOES_ON = "raises-exception"  # Jupyter's tag: running all cells goes on after an error in this one
TEMPLATES = Path(__file__).parent / "site" / "templates"  # nbconvert's; `still` gives pictures their alternative texts
_WIDGET = "application/vnd.jupyter.widget-view+json"

# ---- files ----------------------------------------------------------------------------------------------------------


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """The notebook in a file (format 4), each cell's source as one string. Raises UserError if there is none."""
    import nbformat  # here, because it is slow to import

    text = read_text(path)
    if read_bytes(path).startswith(codecs.BOM_UTF8):
        raise UserError(f"{path}: begins with a byte-order mark, which Jupyter does not read; save it without one")
    try:
        notebook = nbformat.reader.reads(text)
        nbformat.validate(notebook)
        if notebook.nbformat != 4:
            raise ValueError(f"it is of format {notebook.nbformat}, not 4")
    except UserError:
        raise
    except Exception as error:  # nbformat raises whatever its look at the parts leads to
        raise UserError(f"{path}: not a Jupyter notebook: {getattr(error, 'message', error)}") from None
    return notebook


def notebook_bytes(notebook: Mapping[str, Any]) -> bytes:
    """The file of a notebook that `read_notebook` gave: as Jupyter stores it, with the keys in their order."""
    cells = [{**cell, "source": cell["source"].splitlines(keepends=True)} for cell in notebook["cells"]]
    return (json.dumps({**notebook, "cells": cells}, indent=1, ensure_ascii=False) + "\n").encode()


def tags(cell: Mapping[str, Any]) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def parameters_cell(path: Path, notebook: Mapping[str, Any]) -> dict[str, Any]:
    """The cell tagged `parameters`. Raises UserError unless there is one."""
    found = [cell for cell in notebook["cells"] if "parameters" in tags(cell)]
    if len(found) != 1:
        raise UserError(f"{path}: one cell must be tagged 'parameters', found {len(found)}")
    return found[0]


def check_runnable(card: Card) -> None:
    """Raise a UserError unless the notebook exists and has a cell for its parameters."""
    parameters_cell(card.path, read_notebook(card.path))


def with_still_pictures(path: Path) -> nbformat.NotebookNode:
    """The notebook in a file, for a page: of a widget its still picture, or its text if it has no picture.

    Raises UserError as `read_notebook`.
    """
    notebook = read_notebook(path)
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(_WIDGET, None)
    return notebook


# ---- exercises ------------------------------------------------------------------------------------------------------


def exercise_cells(cells: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """The cells of each exercise by its number: its task, and all up to the next heading of that rank or above."""
    heads = [i for i, cell in enumerate(cells) if cell["cell_type"] == "markdown" and re.match("##? ", cell["source"])]
    found = {}
    for begin, end in zip(heads, [*heads[1:], len(cells)], strict=True):
        if heading := re.match(r"## Exercise (\d+)\b", cells[begin]["source"]):
            found[int(heading[1])] = list(cells[begin:end])
    return found


def unsolved(cells: Sequence[dict[str, Any]]) -> str:
    """What an executed notebook's exercises lack, in a line: those that are not written, those whose check fails."""
    unwritten, wrong = [], []
    for number, of_exercise in exercise_cells(cells).items():
        outputs = [output for cell in of_exercise for output in cell.get("outputs", [])]
        errors = [output["ename"] for output in outputs if output["output_type"] == "error"]
        if errors:
            (unwritten if errors[0] in ("NotWritten", "NotImplementedError") else wrong).append(number)
    return ", ".join(
        f"exercise{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))} {how}"
        for numbers, how in ((unwritten, "not written yet"), (wrong, "not right yet"))
        if numbers
    )


def opening(number: int, exercise: Exercise) -> list[str]:
    """The first lines of an exercise's task, made from the card."""
    facts = f"difficulty {dots(exercise.difficulty)} · importance {dots(exercise.importance)}"
    return [f"## Exercise {number}: {exercise.title}", "", f"{facts} · {exercise.minutes} minutes"]


# ---- what is made from the card -------------------------------------------------------------------------------------


def header_markdown(card: Card) -> str:
    """The notebook's first cell."""
    minutes = sum(exercise.minutes for exercise in card.exercises)
    of_exercises = f", {minutes} for the exercises" if minutes else ""
    of_profiles = [f"; `{profile}` needs {' and '.join(words)}" for profile, words in card.needs_of_profiles().items()]
    lines = [
        f"# {card.number} · {card.title}",
        "",
        f"**{card.question}**",
        "",
        "After this notebook you can",
        "",
        *(f"* {goal}" for goal in card.goals),
        "",
        f"About {card.minutes} minutes to read and run{of_exercises} · difficulty {dots(card.difficulty)} · "
        f"runs on a CPU without a network{''.join(of_profiles)}",
        "",
        "| parameter | default | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{name}` | `{literal(p.default)}` | {_explained(p)} |" for name, p in card.parameters.items()]
    return "\n".join(lines)


def _explained(parameter: Parameter) -> str:
    limits = ""
    if isinstance(parameter.choices, list):
        limits = f" (one of {', '.join(f'`{literal(choice)}`' for choice in parameter.choices)})"
    elif parameter.range is not None:
        low, high = parameter.range
        ends = [f"{word} {end}" for word, end in (("at least", low), ("at most", high)) if end is not None]
        limits = f" ({', '.join(ends)})"
    return parameter.help + limits


def parameters_source(card: Card, values: Mapping[str, Any] | None = None) -> str:
    """The source of the cell tagged `parameters`; `values` by name, instead of some defaults.

    `Optional[int]`, not `int | None`: papermill does not recognise the latter and would warn of an unknown parameter.
    """
    values = values or {}
    lines = ["from typing import Optional", ""] * any(p.kind != p.type for p in card.parameters.values())
    for name, parameter in card.parameters.items():
        annotation = parameter.kind.replace("path", "str")
        annotation = annotation if parameter.kind == parameter.type else f"Optional[{annotation}]"
        lines.append(f"{name}: {annotation} = {literal(values.get(name, parameter.default))}  # {parameter.help}")
    return "\n".join(lines)


def differences(card: Card, *, mend: bool = False) -> list[str]:
    """Where header, parameters and openings of exercises are not as the card says: the first line of each.

    mend: write these anew; all else stays, to the byte, in a notebook as Jupyter stores it.

    Raises:
        UserError: the notebook is missing, is none, has no such cells, or cannot be written.
    """
    notebook = read_notebook(card.path)
    made = _made_from(card, notebook)
    lines = [line for what, cell, source in made for line in _difference(what, cell["source"], source)]
    if lines and mend:
        for _, cell, source in made:
            cell["source"] = source
        replace_bytes(card.path, notebook_bytes(notebook))
    return lines


def _made_from(card: Card, notebook: Mapping[str, Any]) -> list[tuple[str, dict[str, Any], str]]:
    """The cells that are made from the card: what each is, the cell, and the source that it should have."""
    cells = notebook["cells"]
    if not cells or cells[0]["cell_type"] != "markdown":
        raise UserError(f"{card.path}: the first cell must be the header, in Markdown")
    parameters = parameters_cell(card.path, notebook)
    made = [("header", cells[0], header_markdown(card)), ("parameters", parameters, parameters_source(card))]
    found = exercise_cells(cells)
    for number, exercise in enumerate(card.exercises, start=1):
        if number not in found:
            raise UserError(f"{card.path}: the card's exercise {number} has no cell that begins `## Exercise {number}`")
        task = found[number][0]
        source = "\n".join([*opening(number, exercise), *task["source"].splitlines()[3:]])
        made.append((f"exercise {number}", task, source))
    return made


def _difference(what: str, found: str, expected: str) -> list[str]:
    """The first line that differs, if any."""
    pairs = itertools.zip_longest(map(repr, found.splitlines()), map(repr, expected.splitlines()), fillvalue="nothing")
    wrong = ((number, *pair) for number, pair in enumerate(pairs, 1) if pair[0] != pair[1])
    return [f"{what}, line {number}: {here} should be {wanted}" for number, here, wanted in itertools.islice(wrong, 1)]
