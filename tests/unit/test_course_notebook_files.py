"""Files that are no notebooks, or not quite: refused before a run starts if, and only if, papermill cannot run them."""

import codecs
import contextlib
import copy
import json

import nbformat
import pytest
import small_course
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from stm_lab import UserError, cli
from stm_lab.course.notebooks import read_notebook

V3 = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": [], "metadata": {}}]}


def changed(file, change):
    notebook = json.loads(file)
    change(notebook)
    return json.dumps(notebook).encode()


KINDS = {
    "missing": (lambda file: None, "No such file|no such notebook"),
    "folder": (lambda file: ..., "Is a directory|Permission denied"),
    "empty": (lambda file: b"", "no JSON at line 1"),
    "binary": (lambda file: b"\x89PNG\r\n\x1a\n\x00\xff", "UTF-8"),
    "cut off": (lambda file: file[: len(file) // 2], "no JSON at line"),
    "nested": (lambda file: b"[" * 200_000, "nested|no JSON"),
    "byte-order mark": (lambda file: codecs.BOM_UTF8 + file, "byte-order mark"),
    "UTF-16": (lambda file: file.decode().encode("utf-16"), "UTF-8"),
    "UTF-32": (lambda file: file.decode().encode("utf-32"), "UTF-8"),
    "UTF-16 without mark": (lambda file: file.decode().encode("utf-16-le"), "UTF-8"),
    "a list": (lambda file: b"[" + file + b"]", "list"),
    "no object for metadata": (
        lambda file: changed(file, lambda notebook: notebook.update(metadata=None)),
        "metadata = None: should be a mapping",
    ),
    "format 3": (lambda file: json.dumps(V3).encode(), "nbformat = 3: should be 4"),
    "format 5": (lambda file: changed(file, lambda notebook: notebook.update(nbformat=5)), "nbformat = 5: should be 4"),
    "no format": (lambda file: changed(file, lambda notebook: notebook.pop("nbformat")), "'nbformat' is missing"),
    "R": (
        lambda file: changed(file, lambda notebook: notebook["metadata"]["kernelspec"].update(language="R")),
        "'R'",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_no_notebook_is_refused_before_a_run_starts(kind, tmp_path, monkeypatch, capsys):
    course, runs = small_course.write(tmp_path / "course"), tmp_path / "runs"
    monkeypatch.setenv("STM_LAB_NOTEBOOKS", str(course))
    monkeypatch.setenv("STM_LAB_RUNS", str(runs))
    path = course / "01_small.ipynb"
    make, expected = KINDS[kind]
    contents = make(path.read_bytes())
    path.unlink()
    if contents is ...:
        path.mkdir()
    elif contents is not None:
        path.write_bytes(contents)
    assert cli.main(["run", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "01_small" in line
    assert any(words in line for words in expected.split("|")), line
    assert not runs.exists()


def places(part, at=()):
    """The places of everything inside a notebook, as keys one after the other."""
    for key in list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
        yield (*at, key)
        yield from places(part[key], (*at, key))


def variants(notebook):
    """(place, notebook): with each part left out, and with each replaced by something of another type."""
    for *way, last in places(notebook):
        for other in (..., None, 3, "word", [], {}, [None]):
            variant = copy.deepcopy(notebook)
            holder = variant
            for key in way:
                holder = holder[key]
            if other is ...:
                del holder[last]
            else:
                holder[last] = other
            yield (*way, last), variant


def accepts(path):
    with contextlib.suppress(UserError):
        return bool(read_notebook(path))
    return False


def keeps_schema(notebook):
    try:
        return nbformat.validator.isvalid(notebook)
    except (KeyError, TypeError, AssertionError):  # it looks at some parts before it validates
        return False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_notebook_is_accepted_if_its_schema_is_kept_and_only_if_papermill_takes_it(tmp_path):
    """nbformat's schema and papermill itself are the judges, of a notebook with any of its parts lost or replaced."""
    course = small_course.write(tmp_path)
    notebook = json.loads((course / "01_small.ipynb").read_bytes())
    notebook["cells"] = [notebook["cells"][0], {**notebook["cells"][1], "source": ["1 +\n", "1"]}]
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["2"]}]
    count = {True: 0, False: 0}
    for place, variant in variants(notebook):
        path = tmp_path / "variant.ipynb"
        path.write_text(json.dumps(variant))
        is_accepted = accepts(path)
        count[is_accepted] += 1
        if is_accepted:
            parameterize_notebook(load_notebook_node(str(path)), {"seed": 3}, kernel_name="python3", language="python")
        elif variant.get("nbformat") == 4 and place[-1] not in ("language", "name"):  # of which schemas know nothing
            assert not keeps_schema(variant), place
    assert min(count.values()) > 20, count
