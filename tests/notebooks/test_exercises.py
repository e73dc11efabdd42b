"""Every exercise of every notebook: the learner's copy, the stub, the solution, and typical wrong answers."""

import exercises
import pytest
from exercises import NOTEBOOKS, all_checks, all_exercises, in_notebook, namespace

from stm_lab import checks
from stm_lab.course.copy import copy_course
from stm_lab.course.notebooks import GOES_ON, read_notebook, tags

BUILD = [f"{number:02d}" for number in range(1, 8)]  # the notebooks that build operators by hand
BY_HAND = [path for path in NOTEBOOKS if path.stem[:2] in BUILD]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_exercise = pytest.mark.parametrize("exercise", all_exercises(), ids=str)
each_quick_one = pytest.mark.parametrize("exercise", [e for e in all_exercises() if e.checks], ids=str)
each_by_hand = pytest.mark.parametrize("path", BY_HAND, ids=lambda path: path.stem)


@each_notebook
def test_exercises_are_numbered_and_each_has_a_solution_and_a_check(path):
    found, cells = in_notebook(path), read_notebook(path)["cells"]
    assert [exercise.number for exercise in found] == list(range(1, len(found) + 1))
    for tag in ("solution", "check"):
        assert sum(tag in tags(cell) for cell in cells) == len(found), f"a cell tagged {tag!r} belongs to an exercise"
    if path in BY_HAND:
        assert 3 <= len(found) <= 6


@each_exercise
def test_task_has_dots_minutes_and_a_hint(exercise):
    assert any(dots in exercise.task for dots in ("●○", "●●●●●"))
    assert " minutes" in exercise.task
    assert "<details><summary>Hint</summary>" in exercise.task


@each_exercise
def test_solution_stands_between_pairs_of_markers_in_a_folded_cell(exercise):
    cell = read_notebook(exercise.path)["cells"][exercise.place + 1]
    assert cell["metadata"]["jupyter"]["source_hidden"] is True
    assert exercise.solution.count("### BEGIN SOLUTION") == exercise.solution.count("### END SOLUTION") >= 1
    assert exercises.STUB in exercise.stub
    assert "SOLUTION" not in exercise.stub


def test_learners_copy_differs_only_between_the_markers(tmp_path):
    copy_course(tmp_path)
    for path in NOTEBOOKS:
        source, copy = read_notebook(path), read_notebook(tmp_path / path.name)
        assert len(source["cells"]) == len(copy["cells"])
        assert source["metadata"] == copy["metadata"]
        for theirs, ours in zip(copy["cells"], source["cells"], strict=True):
            if "solution" in tags(ours):
                assert theirs["source"] == exercises.without_solution(ours["source"])
                theirs["source"], theirs["metadata"]["jupyter"] = ours["source"], ours["metadata"]["jupyter"]
            if GOES_ON in tags(theirs):  # beyond what is not written yet
                assert {"check", "solution"} & set(tags(ours))
                theirs["metadata"]["tags"].remove(GOES_ON)
            assert theirs == ours


@each_quick_one
def test_check_is_of_this_exercise(exercise):
    for check in exercise.checks:
        assert (check.notebook, check.number) == (exercise.path.stem, exercise.number)


@each_quick_one
def test_stub_is_nothing_written_yet(exercise):
    scope = namespace(exercise.path, exercise.place)
    exercises.execute(exercise.stub, scope)
    with pytest.raises(checks.NotWritten, match=f"exercise {exercise.number}: nothing written yet"):
        exercises.execute(exercise.check, scope)


@each_quick_one
def test_solution_is_right(exercise):
    scope = namespace(exercise.path, exercise.place)
    exercises.execute(exercise.solution, scope)
    assert f"exercise {exercise.number}: right" in exercises.execute(exercise.check, scope)


@each_quick_one
def test_wrong_answers_of_the_notebook_are_refused_with_reason(exercise):
    for answer, says in exercise.wrong_answers:
        scope = namespace(exercise.path, exercise.place)
        found = exercises.outcome(answer, exercise.check, scope)
        assert found.startswith(f"wrong: exercise {exercise.number}: ")
        assert says in found


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: f"{check.notebook[:2]}-{check.name}")
def test_mistakes_are_named(check, capsys):
    """Five at least, each with a sentence of its own: of two that could not be told apart, one would not be named."""
    assert len(check.mistakes) >= 5
    assert len({mistake.says for mistake in check.mistakes}) == len(check.mistakes)
    for mistake in check.mistakes:
        assert len(mistake.says) > 20, "say what is wrong, and what to mend"
        with pytest.raises(checks.Wrong) as caught:
            check(mistake.function)
        assert str(caught.value).startswith(f"exercise {check.number}: {mistake.says}")
    check(check.truth)
    assert capsys.readouterr().out.startswith(f"exercise {check.number}: right")


def test_every_check_is_called_in_its_notebook():
    called = {check.name for exercise in all_exercises() for check in exercise.checks}
    assert [check for check in all_checks() if check.name not in called] == []


@each_by_hand
def test_cells_by_hand_hold_definitions_only(path):
    assert exercises.by_hand_cells(path)
    for source in exercises.by_hand_cells(path):
        assert exercises.not_by_hand(source) == []


@each_by_hand
def test_code_by_hand_is_held_against_the_package(path):
    """Each function is used in a test of its own notebook, at other sizes than the notebook shows."""
    file = exercises.HERE / f"test_by_hand_{path.stem[:2]}.py"
    tests = file.read_text() if file.is_file() else ""
    assert [name for name in exercises.defined_by_hand(path) if f"hand.{name}" not in tests] == []
