"""Learners' copies: all there, no solution in them, nothing lost that a learner wrote."""

import json
import os

import nbformat
import pytest
import yaml

from stm_lab import UserError, cli
from stm_lab.course.cards import load_card, load_cards
from stm_lab.course.copy import copy_course
from stm_lab.course.notebooks import BEGIN, END, differences, header_markdown, parameters_source, read_notebook
from stm_lab.util import paths
from stm_lab.util.errors import WorkFailed

PARAMETERS = {"epochs": {"type": "int", "default": 2, "help": "passes"}}
SOLVED = f"def f(x):\n    y = x\n    {BEGIN}\n    return y + 1\n    {END}\n\n\nz = 1"
STUB = 'def f(x):\n    y = x\n    raise NotImplementedError("your turn")\n\n\nz = 1'
FOLDED = {"tags": ["solution"], "collapsed": True, "jupyter": {"source_hidden": True}}


def store(folder, name, *exercises):
    """A notebook with the exercises' cells: (source, metadata)."""
    v4 = nbformat.v4
    card = load_card(folder / f"{name}.ipynb")
    cells = [
        v4.new_markdown_cell(header_markdown(card)),
        v4.new_code_cell(parameters_source(card), metadata={"tags": ["parameters"]}),
        v4.new_code_cell("1"),
        *(v4.new_code_cell(source, metadata=metadata) for source, metadata in exercises),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=metadata), card.path)


@pytest.fixture
def shipped(tmp_path, declared, monkeypatch):
    """A course of two notebooks, the first with a solution, and what may lie beside them."""
    folder = tmp_path / "shipped"
    teachers = ("assignments/source/x.ipynb", "exercises/01.py")
    for name in ("images/a.png", "sweeps/s.yaml", ".ipynb_checkpoints/01_small.ipynb", *teachers):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\x89 some bytes")
    (folder / "course.yaml").write_text(yaml.safe_dump({"01_small": declared, "12_other": declared}, sort_keys=False))
    store(folder, "01_small", (SOLVED, FOLDED), ("assert f(1) == 2", {"tags": ["check"]}))
    store(folder, "12_other")
    monkeypatch.setattr(paths, "shipped_notebooks_dir", lambda: folder)
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def message(*arguments, **keywords):
    with pytest.raises(UserError) as caught:
        copy_course(*arguments, **keywords)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_all_is_copied_but_what_is_not_for_learners(shipped, tmp_path):
    target = tmp_path / "deep" / "down"
    written = copy_course(target)
    copied = contents(target)
    assert sorted(copied) == ["01_small.ipynb", "12_other.ipynb", "course.yaml", "images/a.png", "sweeps/s.yaml"]
    assert sorted(target / name for name in copied) == sorted(written)
    theirs = contents(shipped)
    assert [name for name in copied if copied[name] != theirs[name]] == ["01_small.ipynb"]


def test_solutions_become_stubs_that_are_open(shipped, tmp_path):
    copy_course(tmp_path / "copy")
    before = read_notebook(shipped / "01_small.ipynb")["cells"]
    after = read_notebook(tmp_path / "copy" / "01_small.ipynb")["cells"]
    assert after[3]["source"] == STUB
    assert after[3]["metadata"] == {"tags": ["solution"]}
    assert after[4]["metadata"].pop("tags") == ["check", "raises-exception"]  # all cells can be run in one go
    assert before[4]["metadata"].pop("tags") == ["check"]
    assert [cell for i, cell in enumerate(after) if i != 3] == [cell for i, cell in enumerate(before) if i != 3]


def test_the_courses_own_solutions_are_all_taken_out(tmp_path):
    copy_course(tmp_path / "copy")
    cards = load_cards(tmp_path / "copy")
    assert cards
    for card in cards.values():
        assert differences(card) == []
        cells = read_notebook(card.path)["cells"]
        originals = read_notebook(paths.shipped_notebooks_dir() / card.path.name)["cells"]
        for cell, original in zip(cells, originals, strict=True):
            assert "SOLUTION" not in cell["source"]
            assert "raises-exception" not in original["metadata"].get("tags", [])  # it would hide what is broken
            assert ("NotImplementedError" in cell["source"]) == (BEGIN in original["source"])
            if cell["cell_type"] == "code":
                compile(cell["source"], card.name, "exec")


@pytest.mark.parametrize(
    "source",
    [
        f"{BEGIN}\n1",
        f"1\n{END}",
        f"{BEGIN}\n1\n{BEGIN}\n2\n{END}",
        f"x = 1  {BEGIN}\n2\n{END}",
    ],
)
def test_a_marker_without_its_partner(shipped, tmp_path, source):
    store(shipped, "12_other", ("1", {}), (source, {}))
    text = message(tmp_path / "copy")
    assert "12_other.ipynb: cell 4" in text
    assert "must come in pairs, each alone on its line" in text
    assert not (tmp_path / "copy").exists()


def test_two_solutions_in_a_cell_and_one_at_its_beginning(shipped, tmp_path):
    store(shipped, "12_other", (f"{BEGIN}\n1\n{END}\nif x:\n\t{BEGIN}\n\t2\n\t{END}\n", {}))
    copy_course(tmp_path / "copy", [12])
    stub = 'raise NotImplementedError("your turn")'
    cell = read_notebook(tmp_path / "copy" / "12_other.ipynb")["cells"][3]
    assert cell["source"] == f"{stub}\nif x:\n\t{stub}\n"
    assert cell["metadata"]["tags"] == ["raises-exception"]  # it raises by itself, not only when it is called


def test_some_notebooks_and_later_the_rest(shipped, tmp_path):
    assert "01_small.ipynb" not in [path.name for path in copy_course(tmp_path / "copy", ["12"])]
    assert [path.name for path in copy_course(tmp_path / "copy", ["01_small"])] == ["01_small.ipynb"]
    assert copy_course(tmp_path / "copy") == []
    assert "did you mean '12_other'?" in message(tmp_path / "copy", ["12_othr"])


def test_what_a_learner_wrote_is_kept_unless_forced(shipped, tmp_path):
    copy_course(tmp_path / "copy")
    (tmp_path / "copy" / "12_other.ipynb").write_text("mine")
    (tmp_path / "copy" / "course.yaml").write_text("mine too")
    (tmp_path / "copy" / "images" / "a.png").unlink()
    (tmp_path / "copy" / "notes.txt").write_text("notes")
    before = contents(tmp_path / "copy")
    text = message(tmp_path / "copy")
    assert all(part in text for part in ("12_other.ipynb", "course.yaml", "--force"))
    assert "01_small" not in text
    assert contents(tmp_path / "copy") == before
    written = copy_course(tmp_path / "copy", force=True)
    assert sorted(path.name for path in written) == ["12_other.ipynb", "a.png", "course.yaml"]
    assert contents(tmp_path / "copy")["notes.txt"] == b"notes"
    assert copy_course(tmp_path / "copy") == []


def test_a_course_is_not_copied_over_itself(shipped, tmp_path):
    before = contents(shipped)
    (tmp_path / "link").symlink_to(shipped)
    for target in (shipped, shipped / "inside", tmp_path / "link"):
        assert "the course itself" in message(target, force=True)
    assert contents(shipped) == before


def test_a_folder_that_cannot_be_written_to_is_one_line(shipped, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert "file" in message(tmp_path / "file")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WorkFailed, match=r"01_small.ipynb: No space left on device$"):  # not the user's input
        copy_course(tmp_path / "copy")
    assert contents(tmp_path / "copy") == {}, "no half files"


# ---- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path, monkeypatch, capsys):
    """A copy of the shipped course, as the working folder."""
    monkeypatch.delenv("STM_LAB_NOTEBOOKS", raising=False)
    assert cli.main(["course", "copy", str(tmp_path / "copy")]) == 0
    assert str(tmp_path / "copy" / "course.yaml") in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_the_list_is_of_the_working_folder(copied, capsys):
    cards = load_cards()
    last = list(cards.values())[-1]
    last.path.unlink()
    assert cli.main(["course", "list"]) == 0
    said = capsys.readouterr().out
    assert str(copied) in said
    for card in cards.values():
        assert (f" {card.number} " in said) == (card is not last)
    assert f"not in this folder: {last.name}" in said
    assert "demo, class" in said
    assert "validation_size" not in said  # parameters are many: `course show` has them
    assert "●○○○○" in said


def test_copying_again_is_refused_with_status_2(copied, capsys):
    (copied / "course.yaml").write_text("")
    assert cli.main(["course", "copy", "."]) == 2
    assert "course.yaml" in capsys.readouterr().err
    assert cli.main(["course", "copy", ".", "--force"]) == 0
    assert cli.main(["course", "copy", "."]) == 0
    assert "all there already" in capsys.readouterr().out


@pytest.mark.slow
def test_sync_says_where_and_mends(copied, capsys):
    assert cli.main(["course", "sync", "--check"]) == 0
    path = load_card(0).path
    right = path.read_bytes()
    notebook = json.loads(right)
    notebook["cells"][0]["source"] = ["# Mine"]
    path.write_text(json.dumps(notebook))
    wrong = path.read_bytes()
    capsys.readouterr()
    assert cli.main(["course", "sync", "--check"]) == 1
    assert "00_quickstart: header, line 1: '# Mine' should be" in capsys.readouterr().out
    assert path.read_bytes() == wrong
    assert cli.main(["course", "sync", "9"]) == 0
    assert path.read_bytes() == wrong
    assert cli.main(["course", "sync"]) == 0
    assert path.read_bytes() == right
    assert cli.main(["course", "sync", "--check", "0"]) == 0


def test_sync_writes_nothing_if_one_notebook_is_none(copied, capsys):
    first, *_, last = load_cards().values()
    first.path.write_bytes(first.path.read_bytes().replace(b"# 00 ", b"# 0 ", 1))
    last.path.write_text("{}")
    before = contents(copied)
    assert cli.main(["course", "sync"]) == 2
    assert "not a Jupyter notebook" in capsys.readouterr().err
    assert contents(copied) == before
