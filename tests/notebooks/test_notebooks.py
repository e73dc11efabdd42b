"""Every notebook agrees with its card, is stored clean, and runs in its quick profile."""

import exercises
import pytest

from stm_lab.course import load_card, load_cards, rows, run
from stm_lab.course.notebooks import check_notebook
from stm_lab.paths import notebooks_dir

NOTEBOOKS = sorted(notebooks_dir().glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_every_card_has_its_notebook_and_every_notebook_its_card():
    assert sorted(load_cards()) == [path.stem for path in NOTEBOOKS]


@each_notebook
def test_agrees_with_its_card_and_is_stored_clean(path):
    assert check_notebook(path, load_card(path)) == []


@pytest.mark.slow
@each_notebook
def test_runs_in_its_quick_profile(path, tmp_path, monkeypatch):
    """And where checks are written out in it, it tries the stubs and wrong answers on the way, with its own data."""
    source = path
    if exercises.has_own_checks(path):
        path = exercises.with_attempts(path, tmp_path / "course")
        monkeypatch.setenv("STM_LAB_NOTEBOOKS", str(tmp_path / "course"))
    folder = run(path, {"out": tmp_path / "run"})
    attempts = exercises.attempts(tmp_path / "course")
    assert len(attempts) == exercises.expected_attempts(source)
    for number, says, outcome in attempts:
        where = f"exercise {number}, {says}"
        assert says == "stub" or outcome.startswith("wrong: "), where
        assert outcome == "nothing written yet" if says == "stub" else says in outcome, where
    recorded = rows(folder.path)
    assert len(recorded) > 0
    assert set(recorded["notebook"]) == {path.stem}
    assert list(folder.figures.glob("*.png"))
    assert folder.html.is_file()
