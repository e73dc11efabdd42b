"""Every notebook agrees with its card, is stored clean, and runs in its quick profile."""

import re

import exercises
import pytest

from stm_lab.course import load_cards, rows, run
from stm_lab.course.notebooks import GOES_ON, differences, read_notebook
from stm_lab.util.paths import notebooks_dir

NOTEBOOKS = sorted(notebooks_dir().glob("*.ipynb"))
CARDS = load_cards()
TAGS = {"parameters", "by-hand", "template", "solution", "check", "explorer", GOES_ON}
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_every_card_has_its_notebook_and_every_notebook_its_card():
    assert sorted(CARDS) == [path.stem for path in NOTEBOOKS]


@each_notebook
def test_agrees_with_its_card_and_is_stored_clean(path):
    card, notebook = CARDS[path.stem], read_notebook(path)
    assert differences(card) == [], "`stm-lab course sync` writes these parts"
    assert [found.title for found in exercises.in_notebook(path)] == [one.title for one in card.exercises]
    tags = [cell["metadata"].get("tags", []) for cell in notebook["cells"]]
    assert {tag for of_cell in tags for tag in of_cell} <= TAGS
    after = notebook["cells"][tags.index(["parameters"]) + 1]["source"]
    assert f'lab = stm_lab.course.setup("{card.name}", globals())' in after
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])
    assert "widgets" not in notebook["metadata"]
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


PARTS = ("Before you run", "The idea|One learning rate|Two recipes", "not (say|show)|not show", "Where next")
PARTS_BY_HAND = (
    "Before you run", "The idea", "By hand", "package computes the same|of the package|same from stm_lab", "one line",
    "What it costs", "What the published code does differently", "In this notebook we have seen", "not show",
    "Where next",
)  # fmt: skip


@each_notebook
def test_has_its_parts_in_their_order(path):
    """A question first; then the idea; at the end what the numbers do not show, and papers."""
    texts = [cell["source"] for cell in read_notebook(path)["cells"] if cell["cell_type"] == "markdown"]
    headings = re.findall(r"^## (.*)", "\n".join(texts), flags=re.MULTILINE)
    places = []
    for part in PARTS_BY_HAND if "01" <= path.name[:2] <= "07" else PARTS:
        there = [n for n, heading in enumerate(headings) if re.search(part, heading, flags=re.IGNORECASE)]
        assert there, f"no heading like {part!r} among {headings}"
        places.append(there[0])
    assert places == sorted(places), [headings[place] for place in places]
    assert any("In this notebook we have seen" in heading for heading in headings)
    assert "apers" in "\n".join(texts).partition("## Where next")[2]


@each_notebook
def test_stands_by_itself(path):
    """No pictures from the web, no code from beside the notebook; an explorer but where training itself is one."""
    cells = read_notebook(path)["cells"]
    text = "\n".join(cell["source"] for cell in cells)
    assert not re.search(r"<img|!\[[^]]*\]\(https?:|sys\.path|^%run|^from \.", text, flags=re.MULTILINE)
    tags = {tag for cell in cells for tag in cell["metadata"].get("tags", [])}
    assert "explorer" in tags or path.name.startswith("09")


def test_quick_runs_are_quick():
    """By the cards: none takes more than a minute."""
    slow = {card.name: card.resources["quick"].minutes for card in CARDS.values()}
    assert {name: minutes for name, minutes in slow.items() if minutes > 1} == {}


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
