"""Files that are no notebooks, or not quite: refused before a run starts."""

import codecs
import json

import pytest
import small_course

from stm_lab import cli

V3 = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": [], "metadata": {}}]}


def changed(file, change):
    notebook = json.loads(file)
    change(notebook)
    return json.dumps(notebook).encode()


KINDS = {
    "missing": (lambda file: None, "No such file"),
    "folder": (lambda file: ..., "Is a directory|Permission denied"),
    "empty": (lambda file: b"", "not a Jupyter notebook"),
    "binary": (lambda file: b"\x89PNG\r\n\x1a\n\x00\xff", "UTF-8"),
    "cut off": (lambda file: file[: len(file) // 2], "not a Jupyter notebook"),
    "nested": (lambda file: b"[" * 200_000, "not a Jupyter notebook"),
    "byte-order mark": (lambda file: codecs.BOM_UTF8 + file, "byte-order mark"),
    "UTF-16": (lambda file: file.decode().encode("utf-16"), "UTF-8"),
    "a list": (lambda file: b"[" + file + b"]", "not a Jupyter notebook"),
    "no object for metadata": (
        lambda file: changed(file, lambda notebook: notebook.update(metadata=None)),
        "not a Jupyter notebook",
    ),
    "format 3": (lambda file: json.dumps(V3).encode(), "format 3, not 4"),
    "format 5": (lambda file: changed(file, lambda notebook: notebook.update(nbformat=5)), "version 5"),
    "no format": (lambda file: changed(file, lambda notebook: notebook.pop("nbformat")), "not a Jupyter notebook"),
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
