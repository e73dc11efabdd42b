"""Stored notebooks: held against their cards, written anew from them, refused where nothing could run."""

import functools

import nbformat
import pytest

from stm_lab import UserError
from stm_lab.course.cards import check_values, load_cards
from stm_lab.course.notebooks import (
    BEGIN,
    END,
    check_runnable,
    differences,
    header_markdown,
    opening,
    parameters_source,
)
from stm_lab.util import paths
from stm_lab.util.errors import WorkFailed

sync = functools.partial(differences, mend=True)
PARAMETERS = {
    "epochs": {"type": "int", "default": 2, "range": [1, 10], "help": "passes"},
    "mixers": {"type": "list[str]", "default": ["halo"], "choices": "mixers", "help": "what to compare"},
    "size": {"type": "int | None", "default": None, "help": "images"},
    "folder": {"type": "path | None", "default": None, "in_key": False, "help": "where"},
    "plugins": {"type": "list[path] | None", "default": None, "help": "mixers of one's own"},
}


def message(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def stored_notebook(card) -> nbformat.NotebookNode:
    v4 = nbformat.v4
    cells = [
        v4.new_markdown_cell(header_markdown(card)),
        v4.new_code_cell(parameters_source(card), metadata={"tags": ["parameters"]}),
        v4.new_code_cell("import stm_lab.course"),
        v4.new_code_cell("1 + 1", metadata={"tags": ["by-hand"]}),
    ]
    return v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def test_the_parameters_cell_is_python_and_papermill_can_read_it(card):
    from papermill.translators import PythonTranslator

    namespace = {}
    exec(parameters_source(card), namespace)
    assert {name: namespace[name] for name in card.parameters} == check_values(card)
    inferred = PythonTranslator.inspect({"source": parameters_source(card)})
    assert [parameter.name for parameter in inferred] == list(card.parameters)
    assert [parameter.help for parameter in inferred] == [parameter.help for parameter in card.parameters.values()]


def test_the_header_says_what_may_be_set(card):
    header = header_markdown(card)
    for name, parameter in PARAMETERS.items():
        assert f"| `{name}` |" in header
        assert parameter["help"] in header
    assert "at least 1, at most 10" in header
    assert f"About {card.minutes} minutes to read and run" in header  # a reader's time, not the machine's


def test_the_header_says_what_exercises_take_and_other_profiles_need():
    cards = load_cards(paths.shipped_notebooks_dir())
    for card in cards.values():
        line = next(line for line in header_markdown(card).splitlines() if line.startswith("About "))
        assert f", {sum(e.minutes for e in card.exercises)} for the exercises · " in line
        for profile, resources in card.resources.items():
            said = line.partition(f"; `{profile}` ")[2].partition(";")[0]
            assert said.startswith("needs a GPU") == (resources.gpus > 0)
            other = card.profiles.get(profile, {}).get("recipe")
            assert other is None or f"the images of `{other}`" in said


# ---- exercises ------------------------------------------------------------------------------------------------------


EXERCISES = [
    {"title": "first", "difficulty": 2, "importance": 5, "minutes": 10},
    {"title": "second, a harder one", "difficulty": 4, "importance": 1, "minutes": 25},
]


@pytest.fixture
def with_exercises(card):
    """A card with two exercises, and its notebook in its place."""
    card = type(card).model_validate({**card.model_dump(), "exercises": EXERCISES})
    notebook, v4 = stored_notebook(card), nbformat.v4
    for number, exercise in enumerate(card.exercises, start=1):
        task = "\n".join([*opening(number, exercise), "", "Do it.", "", "<details><summary>Hint</summary></details>"])
        solution = f"def f(x):\n    {BEGIN}\n    return x\n    {END}"
        folded = {"tags": ["solution"], "jupyter": {"source_hidden": True}}
        notebook.cells += [
            v4.new_markdown_cell(task),
            v4.new_code_cell(solution, metadata=folded),
            v4.new_code_cell("assert f(1) == 1, 'f(1) is 1'", metadata={"tags": ["check"]}),
        ]
    notebook.cells.append(v4.new_markdown_cell("## What we saw"))
    nbformat.write(notebook, card.path)
    return card


def test_the_opening_of_an_exercise(with_exercises):
    assert differences(with_exercises) == []
    lines = nbformat.read(with_exercises.path, 4).cells[7].source.splitlines()
    assert lines[0] == "## Exercise 2: second, a harder one"
    assert lines[2] == "difficulty ●●●●○ · importance ●○○○○ · 25 minutes"


def test_sync_writes_the_openings_of_exercises(with_exercises):
    right = with_exercises.path.read_bytes()
    notebook = nbformat.read(with_exercises.path, 4)
    notebook.cells[4].source = notebook.cells[4].source.replace("first", "an old title").replace("10 minutes", "soon")
    nbformat.write(notebook, with_exercises.path)
    assert [line.partition(":")[0] for line in differences(with_exercises)] == ["exercise 1, line 1"]
    assert sync(with_exercises)
    assert with_exercises.path.read_bytes() == right


def test_an_exercise_without_a_cell(with_exercises):
    notebook = nbformat.read(with_exercises.path, 4)
    del notebook.cells[7:10]
    nbformat.write(notebook, with_exercises.path)
    assert "## Exercise 2" in message(sync, with_exercises)


# ---- sync -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(card):
    """A notebook as Jupyter stores it, in its place."""
    notebook = stored_notebook(card)
    notebook.cells[3].source = "s = 'ü \\u2028 ● \\\\'\n\n1 + 1\n"
    nbformat.write(notebook, card.path)
    return card.path


def change(path, cell, source):
    notebook = nbformat.read(path, 4)
    notebook.cells[cell].source = source
    nbformat.write(notebook, path)


def test_sync_mends_header_and_parameters_and_nothing_else(card, stored):
    right = stored.read_bytes()
    assert not sync(card)
    assert differences(card) == []
    change(stored, 0, "# My title")
    change(stored, 1, "epochs = 7\nx = 1")
    assert [line.partition(":")[0] for line in differences(card)] == ["header, line 1", "parameters, line 1"]
    assert sync(card)
    assert stored.read_bytes() == right
    assert not sync(card)
    change(stored, 3, "mine = 1")
    mine = stored.read_bytes()
    assert not sync(card)
    assert stored.read_bytes() == mine


def test_sync_keeps_the_courses_notebooks_to_the_byte(tmp_path):
    for shipped in load_cards(paths.shipped_notebooks_dir()).values():
        card = shipped.model_copy(update={"folder": tmp_path})
        title, wanted = f"# {card.number} ".encode(), shipped.path.read_bytes()
        card.path.write_bytes(wanted.replace(title, b"# Number ", 1))
        assert sync(card)
        assert card.path.read_bytes() == wanted


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "No such file"),
        ("{}", "not a Jupyter notebook"),
        ("not json", "not a Jupyter notebook"),
        ('{"cells": [{"cell_type": "sell", "source": ""}]}', "not a Jupyter notebook"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}', "tagged 'parameters', found 0"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(card, content, expected):
    if content is not None:
        card.path.write_text(content)
    text = message(check_runnable, card)
    assert expected in text
    assert "01_small.ipynb" in text


def test_what_has_parameters_can_run(card, stored):
    check_runnable(card)
    change(stored, 0, "# My title")
    check_runnable(card)


def test_two_cells_of_parameters_are_one_too_many(card, stored):
    notebook = nbformat.read(stored, 4)
    notebook.cells[3].metadata.tags = ["parameters"]
    nbformat.write(notebook, stored)
    for function in (check_runnable, sync, differences):
        assert "found 2" in message(function, card)


def test_sync_needs_a_header(card, stored):
    notebook = nbformat.read(stored, 4)
    notebook.cells.pop(0)
    nbformat.write(notebook, stored)
    assert "first cell must be the header" in message(sync, card)


def test_what_cannot_be_written_stays_as_it_was(card, stored, monkeypatch):
    change(stored, 0, "# My title")
    before = stored.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(WorkFailed, match=r"01_small.ipynb: No space left"):
        sync(card)
    assert stored.read_bytes() == before
    assert [path.name for path in stored.parent.iterdir() if path.suffix == ".part"] == []
