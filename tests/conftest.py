"""What tests of several files share: helpers that they import by name, and small data and courses."""

import os
import socket
import sys
from pathlib import Path

import pytest
import yaml

for folder in ("golden", "tools", "unit"):
    sys.path.insert(0, str(Path(__file__).parent / folder))

# jsonschema, which nbformat imports, would compile a grammar of web addresses for two seconds if it found this package.
sys.modules.setdefault("rfc3987_syntax", None)


def pytest_addoption(parser):
    parser.addoption("--once", action="store_true", help="each test with one of its parameters: the one marked `once`")


@pytest.hookimpl(trylast=True)  # when those that `-m` leaves out are gone
def pytest_collection_modifyitems(config, items):
    if config.getoption("--once"):
        kept = _representatives(items)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]
    items[:] = _longest_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _representatives(items):
    """A property that holds for one mixer mostly holds for all: enough for whoever is typing."""
    chosen = {}
    for item in items:
        test = (item.path, item.originalname, getattr(item, "cls", None))
        if test not in chosen or (item.get_closest_marker("once") and not chosen[test].get_closest_marker("once")):
            chosen[test] = item
    return set(chosen.values())


def _longest_first(items, workers):
    """In an order in which no worker is left with a long test while the others have none.

    `--dist worksteal` gives each worker one piece of the list, all of one length, and those that are done take from the
    ends of others. So each piece begins with its share of the notebooks' runs, then come modules with slow tests.
    """
    runs = [item for item in items if item.originalname == "test_runs_in_its_quick_profile"]
    modules = {}
    for item in items:
        if item not in runs:
            modules.setdefault(item.path, []).append(item)
    slow = {path: sum(item.get_closest_marker("slow") is not None for item in of) for path, of in modules.items()}
    order = sorted(modules, key=slow.get, reverse=True)
    pieces = [
        [*runs[worker::workers], *(item for path in order[worker::workers] for item in modules[path])]
        for worker in range(workers)
    ]
    return [item for piece in sorted(pieces, key=len, reverse=True) for item in piece]


RECIPE = """
title: a few shapes
question: does it run?
licence: Apache-2.0
image_size: 64
counts: {train: %d, validation: %d}
source: {kind: generator, name: shapes, seed: 7}
classes: [%s]
"""


@pytest.fixture(scope="module")
def few(request, tmp_path_factory):
    """The path of a recipe of a few shapes, drawn once for a module, whose FEW is how many to train and validate on."""
    from stm_lab import data  # here, so that tests without data do not load the datasets library

    folder = tmp_path_factory.mktemp("recipe")
    path = folder / "few.yaml"
    classes = ", ".join(data.load_recipe("shapes").classes)
    path.write_text(RECIPE % (*getattr(request.module, "FEW", (48, 50)), classes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STM_LAB_DATA", str(folder))
        yield str(path)


@pytest.fixture
def data_home(tmp_path, monkeypatch):
    """An empty data folder of the test's own, and no network at all."""
    monkeypatch.setenv("STM_LAB_DATA", str(tmp_path / "home"))

    def refuse(*args):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path / "home"


@pytest.fixture
def write_course(tmp_path, monkeypatch):
    """Write `course.yaml`, given as text or as cards, to a folder of notebooks of the test's own."""
    monkeypatch.setattr("stm_lab.util.paths.notebooks_dir", lambda: tmp_path)

    def write(cards):
        text = cards if isinstance(cards, str) else yaml.safe_dump(cards, sort_keys=False)
        (tmp_path / "course.yaml").write_text(text)

    return write


@pytest.fixture
def declared(request):
    """What `course.yaml` says of a small notebook, with the PARAMETERS of the test's module, and PROFILES if any."""
    import small_course

    return small_course.card_of(request.module.PARAMETERS, getattr(request.module, "PROFILES", None))


@pytest.fixture
def card(write_course, declared):
    """The card 01_small of a course that has another notebook beside it."""
    from stm_lab.course import cards  # here, as above

    write_course({"01_small": declared, "12_other": declared})
    return cards.load_card("01_small")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The folder of a course of one notebook without torch (`small_course`), for this process and its children."""
    import small_course

    monkeypatch.setenv("STM_LAB_NOTEBOOKS", str(tmp_path / "course"))
    monkeypatch.setenv("STM_LAB_RUNS", str(tmp_path / "runs"))
    return small_course.write(tmp_path / "course")
