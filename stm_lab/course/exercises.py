"""A notebook's exercises: the cells that one consists of, and what its card says of it.

An exercise is a Markdown cell (`## Exercise 1: its title`, a line of dots, the task, a folded hint), a cell tagged
`solution` with the solution between markers, and a cell tagged `check` that compares.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stm_lab.course.cards import Exercise, dots

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
_HEADING = re.compile(r"## Exercise (\d+)\b")


@dataclass(frozen=True, slots=True)
class ExerciseCells:
    """The cells of one exercise: its task, and all cells after it up to the next heading of that rank or above."""

    number: int
    task: dict[str, Any]
    others: tuple[dict[str, Any], ...]

    def errors(self) -> list[str]:
        """The exceptions, by name, that its cells ended in when they were last run."""
        outputs = [output for cell in self.others for output in cell.get("outputs", [])]
        return [output["ename"] for output in outputs if output["output_type"] == "error"]

    def tagged(self, tag: str) -> list[dict[str, Any]]:
        return [cell for cell in self.others if tag in cell.get("metadata", {}).get("tags", [])]


def exercise_cells(cells: Sequence[dict[str, Any]]) -> list[ExerciseCells]:
    """The exercises of a notebook, in its order; `cells` as `read_notebook` gives them."""
    heads = [i for i, cell in enumerate(cells) if cell["cell_type"] == "markdown" and re.match("##? ", cell["source"])]
    found = []
    for i, end in zip(heads, [*heads[1:], len(cells)], strict=True):
        if heading := _HEADING.match(cells[i]["source"]):
            found.append(ExerciseCells(int(heading[1]), cells[i], tuple(cells[i + 1 : end])))
    return found


def unsolved(cells: Sequence[dict[str, Any]]) -> str:
    """What an executed notebook's exercises lack, in a line: those that are not written, those whose check fails."""
    failed = {one.number: one.errors() for one in exercise_cells(cells) if one.errors()}
    unwritten = [number for number, errors in failed.items() if errors[0] in ("NotWritten", "NotImplementedError")]
    wrong = [number for number in failed if number not in unwritten]
    said = [(_numbered(unwritten), "not written yet"), (_numbered(wrong), "not right yet")]
    return ", ".join(f"{what} {how}" for what, how in said if what)


def _numbered(numbers: Sequence[int]) -> str:
    return f"exercise{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}" if numbers else ""


def opening(number: int, exercise: Exercise) -> list[str]:
    """The first lines of an exercise's task, made from the card."""
    facts = f"difficulty {dots(exercise.difficulty)} · importance {dots(exercise.importance)}"
    return [f"## Exercise {number}: {exercise.title}", "", f"{facts} · {exercise.minutes} minutes"]


def task_source(number: int, exercise: Exercise, source: str) -> str:
    """The task with its first lines made anew."""
    return "\n".join([*opening(number, exercise), *source.splitlines()[3:]])


def exercise_problems(exercises: Sequence[Exercise], cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where a notebook's exercises are not those of its card, or lack a part; empty if nowhere."""
    found = exercise_cells(cells)
    numbers, wanted = [one.number for one in found], list(range(1, len(exercises) + 1))
    if numbers != wanted:
        return [f"the card has {len(exercises)} exercises, so `## Exercise 1: ...` and so on; found {numbers}"]
    return [
        f"exercise {one.number}: {problem}"
        for one, exercise in zip(found, exercises, strict=True)
        for problem in _problems(one, exercise)
    ]


def _problems(one: ExerciseCells, exercise: Exercise) -> list[str]:
    lines, wanted = one.task["source"].splitlines(), opening(one.number, exercise)
    problems = [] if lines[:3] == wanted else [f"begins {lines[:3]}, should {wanted}"]
    if "<details><summary>Hint</summary>" not in one.task["source"]:
        problems.append("no folded hint, <details><summary>Hint</summary>")
    solutions = one.tagged("solution")
    if not any(BEGIN in cell["source"] for cell in solutions):
        problems.append(f"no cell tagged 'solution' with `{BEGIN}`")
    problems += [
        "its solution is not folded ('jupyter': {'source_hidden': true})"
        for cell in solutions
        if BEGIN in cell["source"] and not cell["metadata"].get("jupyter", {}).get("source_hidden")
    ]
    if not one.tagged("check"):
        problems.append("no cell tagged 'check'")
    return problems
