"""Every notebook with explorers in a real JupyterLab: it runs, they are seen, and they answer keys and clicks."""

import pytest
from lab import Notebook

from stm_lab.course.notebooks import read_notebook, tags
from stm_lab.util.paths import notebooks_dir

pytestmark = pytest.mark.browser
DRAGGED = {"06_deformable_convolution": [2]}  # the numbers of the explorers whose picture can be dragged
VIEW = "application/vnd.jupyter.widget-view+json"


def _has_explorer(path) -> bool:
    return any("explorer" in tags(cell) for cell in read_notebook(path)["cells"])


def _screenshot(name: str, number: int, theme: str) -> str:
    """As notebooks/GALLERY.md calls it: NAME, NAME_2 and so on in the light theme, NAME-dark in the dark one."""
    return name + (f"_{number}" if number > 1 else "") + ("" if theme == "light" else f"-{theme}")


NOTEBOOKS = [path.stem for path in sorted(notebooks_dir().glob("*.ipynb")) if _has_explorer(path)]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_its_explorers_answer(name, server, browser):
    notebook = Notebook(browser.new_page(), name)
    try:
        notebook.open(*server)
        notebook.run_all()
        assert notebook.problems() == []
        assert {"image/png", VIEW} <= notebook.kinds_shown("explorer")  # the still picture beside the widget
        explorers = dict(enumerate(notebook.explorers(), start=1))
        assert explorers, "no explorer is shown"
        assert [number for number, one in explorers.items() if one.is_draggable] == DRAGGED.get(name, [])
        for explorer in explorers.values():
            assert explorer.moves_by_keyboard()
            assert not explorer.is_clickable or explorer.answers_clicks()
            assert not explorer.is_draggable or explorer.answers_drags((0.1, 0.35), (0.25, 0.7))
        for theme in notebook.themes():
            notebook.turn(theme)
            for number, explorer in explorers.items():
                assert explorer.is_seen()
                explorer.keep(_screenshot(name, number, theme))
        assert notebook.problems() == []
        assert not notebook.stored_widgets()
    finally:
        notebook.close()
