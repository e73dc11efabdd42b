"""The stored notebook: what its card says stands in it once more, in the header, in the `parameters` cell and in the
first lines of each exercise.

They are made from the card here; `check_notebook` tells where a notebook differs, `sync` writes them anew.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from stm_lab.course.cards import Card, Parameter, dots, literal
from stm_lab.course.exercises import exercise_cells, exercise_problems, task_source
from stm_lab.util.errors import UserError, nearest
from stm_lab.util.files import read_bytes, read_text, replace_bytes, told
from stm_lab.util.validation import validated

GOES_ON = "raises-exception"  # Jupyter's tag: running all cells goes on after an error in this one
TAGS = ("parameters", "by-hand", "template", "solution", "check", "explorer", GOES_ON)


def header_markdown(card: Card) -> str:
    """The notebook's first cell."""
    rows = [f"| `{name}` | `{literal(p.default)}` | {_explained(p)} |" for name, p in card.parameters.items()]
    return "\n".join(
        [
            f"# {card.number} · {card.title}",
            "",
            f"**{card.question}**",
            "",
            "After this notebook you can",
            "",
            *(f"* {goal}" for goal in card.goals),
            "",
            f"About {card.minutes} minutes to read and run{_of_exercises(card)} · difficulty {dots(card.difficulty)} · "
            f"needs: {', '.join(card.needs.words())}{_of_profiles(card)}",
            "",
            "| parameter | default | meaning |",
            "|---|---|---|",
            *rows,
        ]
    )


def _of_exercises(card: Card) -> str:
    minutes = sum(exercise.minutes for exercise in card.exercises)
    return f", {minutes} for the exercises" if minutes else ""


def _of_profiles(card: Card) -> str:
    needs = [f"`{profile}` {' and '.join(words)}" for profile, words in card.needs_of_profiles().items()]
    return f"; the profile {', '.join(needs)}" if needs else ""


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
    lines = ["from typing import Optional", ""] * any(p.optional for p in card.parameters.values())
    for name, parameter in card.parameters.items():
        annotation = parameter.kind.replace("path", "str")
        annotation = f"Optional[{annotation}]" if parameter.optional else annotation
        lines.append(f"{name}: {annotation} = {literal(values.get(name, parameter.default))}  # {parameter.help}")
    return "\n".join(lines)


def setup_call(card: Card) -> str:
    """What the cell after the parameters must contain."""
    return f'lab = stm_lab.course.setup("{card.name}", globals())'


# ---- files ----------------------------------------------------------------------------------------------------------


class _Part(BaseModel):
    """A part of a notebook, as far as this package, papermill and Jupyter read it."""

    model_config = ConfigDict(strict=True)


class _CellMetadata(_Part):
    tags: list[str] = []
    papermill: dict[str, Any] = {}


class _Output(_Part):
    output_type: Literal["stream", "display_data", "execute_result", "error"]
    data: dict[str, Any] = {}
    text: str | list[str] = ""


class _Cell(_Part):
    cell_type: Literal["code", "markdown", "raw"]
    id: str = ""
    metadata: _CellMetadata
    source: str | list[str]
    outputs: list[_Output] = []


class _KernelSpec(_Part):
    language: Literal["python"] = "python"


class _LanguageInfo(_Part):
    name: Literal["python", "ipython"] = "python"


class _Metadata(_Part):
    kernelspec: _KernelSpec = _KernelSpec()
    language_info: _LanguageInfo = _LanguageInfo()
    papermill: dict[str, Any] = {}


class _Notebook(_Part):
    nbformat: Literal[4]
    nbformat_minor: int
    metadata: _Metadata
    cells: list[_Cell]


def read_notebook(path: Path) -> dict[str, Any]:
    """The notebook in a file (format 4, in Python), each cell's source as one string.

    Accepts the files that Jupyter opens and papermill runs, so that a wrong file is refused before a run starts. The
    notebook need not name a kernel: a run uses this interpreter. The file is read as JSON, because importing nbformat
    takes longer than many a notebook's work.

    Raises:
        UserError: the file is missing or holds no such notebook.
    """
    with told():
        has_mark = read_bytes(path).startswith(codecs.BOM_UTF8)
    if has_mark:
        raise UserError(f"{path}: begins with a byte-order mark, which Jupyter does not read; save it without one")
    try:
        notebook = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not a Jupyter notebook: no JSON at line {error.lineno} ({error.msg})") from None
    except RecursionError:
        raise UserError(f"{path}: not a Jupyter notebook: its JSON is nested too deeply") from None
    if not isinstance(notebook, dict):
        raise UserError(f"{path}: not a Jupyter notebook: it holds a {type(notebook).__name__}, not an object")
    validated(_Notebook, notebook, f"{path}: not a Jupyter notebook of format 4 in Python")
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def notebook_bytes(notebook: Mapping[str, Any]) -> bytes:
    """The file of a notebook that `read_notebook` gave, as Jupyter stores it: lists of lines, indented by 1."""
    cells = [{**cell, "source": cell["source"].splitlines(keepends=True)} for cell in notebook["cells"]]
    return (json.dumps({**notebook, "cells": cells}, indent=1, ensure_ascii=False) + "\n").encode()


def tags(cell: Mapping[str, Any]) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


# ---- a notebook and its card ----------------------------------------------------------------------------------------


def check_runnable(card: Card) -> None:
    """Raise a UserError unless the notebook is there and has a cell for its parameters."""
    parameters_cell(card.path, read_notebook(card.path))


def sync(card: Card) -> bool:
    """Write the header cell, the cell tagged `parameters` and the first lines of exercises anew, from the card; whether
    that changed the notebook.

    All else stays, to the byte, in a notebook as Jupyter stores it.

    Raises:
        UserError: the notebook is missing, is none, has no such cells, or cannot be written.
    """
    notebook = read_notebook(card.path)
    made = _made_from(card, notebook)
    if all(cell["source"] == source for _, cell, source in made):
        return False
    for _, cell, source in made:
        cell["source"] = source
    replace_bytes(card.path, notebook_bytes(notebook))
    return True


def differences(card: Card) -> list[str]:
    """Where the notebook is not what `sync` would write: the first line of header, parameters or exercise that differs.

    Raises UserError as `sync` does.
    """
    made = _made_from(card, read_notebook(card.path))
    return [line for what, cell, source in made for line in _difference(what, cell["source"], source)]


def _made_from(card: Card, notebook: Mapping[str, Any]) -> list[tuple[str, dict[str, Any], str]]:
    """The cells that are made from the card: what each is, the cell, and the source that it should have."""
    cells = notebook["cells"]
    if not cells or cells[0]["cell_type"] != "markdown":
        raise UserError(f"{card.path}: the first cell must be the header, in Markdown")
    parameters = parameters_cell(card.path, notebook)
    made = [("header", cells[0], header_markdown(card)), ("parameters", parameters, parameters_source(card))]
    tasks = {one.number: one.task for one in exercise_cells(cells)}
    for number, exercise in enumerate(card.exercises, start=1):
        if number not in tasks:
            raise UserError(f"{card.path}: the card's exercise {number} has no cell that begins `## Exercise {number}`")
        source = task_source(number, exercise, tasks[number]["source"])
        made.append((f"exercise {number}", tasks[number], source))
    return made


def parameters_cell(path: Path, notebook: Mapping[str, Any]) -> dict[str, Any]:
    found = [cell for cell in notebook["cells"] if "parameters" in tags(cell)]
    if len(found) != 1:
        raise UserError(f"{path}: one cell must be tagged 'parameters', found {len(found)}")
    return found[0]


def check_notebook(path: Path, card: Card) -> list[str]:
    """Where a stored notebook disagrees with its card or with the rules for stored notebooks; empty if nowhere."""
    notebook = read_notebook(path)
    cells = notebook["cells"]
    problems = _difference("header", cells[0]["source"] if cells else "", header_markdown(card))

    places = [i for i, cell in enumerate(cells) if "parameters" in tags(cell)]
    if len(places) != 1:
        problems.append(f"one cell must be tagged 'parameters', found {len(places)}")
    else:
        after = cells[places[0] + 1]["source"] if places[0] + 1 < len(cells) else ""
        problems += _difference("parameters", cells[places[0]]["source"], parameters_source(card))
        if setup_call(card) not in after:
            problems.append(f"the cell after the parameters must contain `{setup_call(card)}`")
    problems += exercise_problems(card.exercises, cells)

    for number, cell in enumerate(cells):
        unknown = [tag for tag in tags(cell) if tag not in TAGS]
        problems += [f"cell {number}: unknown tag {tag!r}; {nearest(tag, TAGS)}" for tag in unknown]
        if cell.get("outputs"):
            problems.append(f"cell {number}: outputs are stored")
        if cell.get("execution_count") is not None:
            problems.append(f"cell {number}: an execution count is stored")
    metadata = notebook.get("metadata", {})
    if "widgets" in metadata:
        problems.append("widget state is stored")
    if metadata.get("kernelspec", {}).get("name") != "python3":
        problems.append("the kernel must be 'python3'")
    return problems


def _difference(what: str, found: str, expected: str) -> list[str]:
    """The first line that differs, if any."""
    theirs, ours = found.splitlines(), expected.splitlines()
    for number in range(max(len(theirs), len(ours))):
        here, there = _line(theirs, number), _line(ours, number)
        if here != there:
            return [f"{what}, line {number + 1}: {here} should be {there}"]
    return []


def _line(lines: list[str], number: int) -> str:
    return repr(lines[number]) if number < len(lines) else "nothing"
