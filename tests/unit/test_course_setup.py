"""`setup`, what it refuses, the rows and figures of a `Lab`, and the key of a run."""

import json
import random

import matplotlib.figure
import nbformat
import numpy as np
import pytest
import torch
from filelock import FileLock

from stm_lab import UserError
from stm_lab.course import setup
from stm_lab.course.cards import check_values
from stm_lab.course.folder import FOLDER_VARIABLE, run_key
from stm_lab.util.environment import code_fingerprint

PARAMETERS = {
    "epochs": {"type": "int", "default": 2, "range": [1, None], "help": "passes"},
    "seeds": {"type": "list[int]", "default": [3, 4], "help": "one training each"},
    "plugins": {"type": "list[path] | None", "default": None, "help": "files of mixers"},
    "device": {"type": "str", "default": "cpu", "choices": ["auto", "cpu"], "in_key": False, "help": "where"},
    "out": {"type": "path | None", "default": None, "in_key": False, "help": "folder of this run"},
}


def write_notebook(folder, *cells):
    """A notebook of code cells (source, tag), beside a heading."""
    v4 = nbformat.v4
    code = [v4.new_code_cell(source, metadata={"tags": [tag]} if tag else {}) for source, tag in cells]
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# Small"), *code]), folder / "01_small.ipynb")


@pytest.fixture
def card(card, tmp_path, monkeypatch):
    """With its notebook beside it; runs go to a folder of the test's."""
    monkeypatch.setenv("STM_LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    write_notebook(tmp_path, ("epochs = 2", "parameters"), ("x = 1", None), ("answer = 1", "solution"))
    return card


def namespace(**values):
    return {"epochs": 2, "seeds": [3, 4], "plugins": None, "device": "cpu", "out": None, **values}


def recorded(lab):
    return [json.loads(line) for line in (lab.out / "rows.jsonl").read_text().splitlines()]


# ---- values ---------------------------------------------------------------------------------------------------------


def test_values_come_back_with_their_types(card, tmp_path):
    cells = namespace(epochs="5", seeds="[7, 8]", out=str(tmp_path / "here"))
    lab = setup("01_small", cells)
    assert (cells["epochs"], cells["seeds"], cells["out"]) == (5, [7, 8], tmp_path / "here")
    assert lab.parameters == {name: cells[name] for name in PARAMETERS}
    assert lab.out == tmp_path / "here"
    assert lab.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("values", "expected"),
    [({"epochs": "many"}, "01_small: epochs = 'many': should be a"), ({"device": "cup"}, "did you mean 'cpu'?")],
)
def test_wrong_values_are_refused(card, values, expected):
    with pytest.raises(UserError) as caught:
        setup("01_small", namespace(**values))
    assert expected in str(caught.value)


def test_a_parameter_that_is_not_set(card):
    with pytest.raises(UserError, match="epochs is not set; run the cell tagged 'parameters' first"):
        setup("01_small", {})


CALL = 'lab = stm_lab.course.setup("01_small", globals())'
PARAMETERS_CELL = "from typing import Optional\n\nepochs: int = 2  # passes\nseeds: list[int] = [3, 4]"


@pytest.mark.parametrize(
    ("cells", "wrong"),
    [
        ([PARAMETERS_CELL, CALL], None),
        ([PARAMETERS_CELL, "# Parameters\nepochs = 3\n", CALL], None),
        ([PARAMETERS_CELL, "# Parameters\nepoch = 3\n", CALL], "epoch"),  # papermill -p epoch 3
        ([PARAMETERS_CELL + "\nepoch: int = 3", CALL], "epoch"),  # misspelt in the cell itself
        ([PARAMETERS_CELL + "\nepoch = 3", "# Parameters\nseeds = [0]\n", CALL], "epoch"),
        # run again: still wrong if only this cell is, right if the parameters are, and never for what came long ago
        ([PARAMETERS_CELL, "# Parameters\nepoch = 3\n", CALL, CALL], "epoch"),
        ([PARAMETERS_CELL, "# Parameters\nepoch = 3\n", CALL, "# Parameters\nepochs = 3\n", CALL], None),
        ([PARAMETERS_CELL + "\nepoch = 3", CALL, PARAMETERS_CELL, CALL], None),
        # what is not the parameters' business
        (["note = 'mine'", CALL], None),
        (["epoch = 1", "print(1)", PARAMETERS_CELL, CALL], None),
        ([PARAMETERS_CELL, CALL, "epoch = 3", "for i in range(3): pass", CALL], None),
        ([PARAMETERS_CELL, "%time 1", CALL], None),
    ],
)
def test_misspelt_names_are_refused_and_no_others(card, cells, wrong):
    history = ["", *cells]
    if wrong is None:
        setup("01_small", namespace(In=history, note="mine", epoch=3))
    else:
        with pytest.raises(UserError, match=f"unknown parameter '{wrong}'; did you mean 'epochs'"):
            setup("01_small", namespace(In=history))


def test_seeds_are_set(card):
    def draw():
        setup("01_small", namespace(seeds=[11]))
        return random.random(), np.random.rand(), torch.rand(1).item()

    first = draw()
    assert draw() == first
    random.seed(11)
    assert random.random() == first[0]


# ---- folder ---------------------------------------------------------------------------------------------------------


def test_the_folder_is_named_by_the_key_or_given(card, tmp_path, monkeypatch):
    lab = setup("01_small", namespace())
    assert lab.out == tmp_path / "runs" / "01_small" / run_key(card, lab.parameters, None)
    assert json.loads((lab.out / "status.json").read_text())["state"] == "interactive"
    assert json.loads((lab.out / "environment.json").read_text())["code"] == code_fingerprint()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "runner"))
    lab = setup("01_small", namespace())
    assert lab.out == tmp_path / "runner"
    assert not (lab.out / "status.json").exists()  # it is the runner's


def test_a_run_of_the_runner_is_not_spoilt_by_hand(card, tmp_path):
    """Opened in JupyterLab with the same values, a notebook that was run, or is being run, gets a folder beside it."""
    out = setup("01_small", namespace()).out
    (out / "status.json").write_text(json.dumps({"state": "done", "key": out.name}))
    (out / "rows.jsonl").write_text("a row\n")
    assert setup("01_small", namespace()).out == out.with_name(f"{out.name}-interactive")
    assert json.loads((out / "status.json").read_text())["state"] == "done"
    assert (out / "rows.jsonl").read_text() == "a row\n"
    with pytest.raises(UserError, match="holds a run of `stm-lab run`"):
        setup("01_small", namespace(out=str(out)))
    (out / "status.json").unlink()
    with FileLock(out / ".lock"):
        assert setup("01_small", namespace()).out == out.with_name(f"{out.name}-interactive")


def test_a_folder_that_cannot_be_made(card, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"out = .*file"):
        setup("01_small", namespace(out=tmp_path / "file"))


# ---- rows and figures -----------------------------------------------------------------------------------------------


def test_a_row_says_what_it_was_measured_with(card):
    lab = setup("01_small", namespace())
    scalars = {"top1": np.float32(0.5), "loss": torch.tensor(2.0), "n": np.int64(3)}
    lab.record(seed=4, mixer="halo", **scalars, curve=[1, 2.5], ok=True)
    (row,) = recorded(lab)
    assert row["metrics"] == {"mixer": "halo", "top1": 0.5, "loss": 2.0, "n": 3, "curve": [1, 2.5], "ok": True}
    assert row["parameters"] == {"epochs": 2, "seeds": [3, 4], "plugins": None}  # those of the key
    assert (row["notebook"], row["seed"], row["device"], row["data"]) == ("01_small", 4, "cpu", None)
    assert row["code"] == code_fingerprint()
    assert row["seconds"] >= 0
    assert "revision" in row


def test_rows_are_appended_and_start_anew(card):
    lab = setup("01_small", namespace())
    lab.record(step=1)
    lab.record(step=2)
    assert [row["metrics"]["step"] for row in recorded(lab)] == [1, 2]
    lab = setup("01_small", namespace())
    assert recorded(lab) == []


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"top1": float("nan")}, "top1 = nan"),
        ({"top1": torch.tensor(float("inf"))}, r"top1 = tensor\(inf\)"),
        ({"curve": [1.0, float("nan")]}, r"curve = \[1.0, nan\]"),
        ({"image": np.zeros(3)}, "image: a row cannot hold a ndarray; give .tolist"),
        ({"model": object()}, "model: a row cannot hold a object"),
        ({"device": "cpu"}, "'device'"),
    ],
)
def test_what_a_row_refuses(card, metrics, expected):
    lab = setup("01_small", namespace())
    with pytest.raises(UserError, match=expected):
        lab.record(**metrics)
    assert recorded(lab) == []


def test_figures_are_saved_and_stay_open(card):
    lab = setup("01_small", namespace())
    figure = matplotlib.figure.Figure()
    path = lab.save(figure, "curve")
    assert path == lab.out / "figures" / "curve.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert lab.save(figure, "curve.png") == path
    with pytest.raises(UserError, match="cannot name a figure"):
        lab.save(figure, "../curve")


def test_progress_goes_through(card):
    assert list(setup("01_small", namespace()).progress(range(3), "counting")) == [0, 1, 2]


# ---- the key --------------------------------------------------------------------------------------------------------


def test_the_key_is_of_what_makes_the_rows(card, tmp_path):
    def key(fingerprint="f", **values):
        checked = check_values(card, values)
        assert run_key(card, dict(reversed(checked.items())), fingerprint) == run_key(card, checked, fingerprint)
        return run_key(card, checked, fingerprint)

    base = key()
    assert len(base) == 12
    assert int(base, 16) >= 0
    assert key(device="auto", out=tmp_path) == base
    assert len({base, key(epochs=3), key(seeds=[4, 3]), key(fingerprint="g")}) == 4

    plugin = tmp_path / "mine.py"
    plugin.write_text("a = 1")
    first = key(plugins=[plugin])
    plugin.write_text("a = 2")
    assert len({base, first, key(plugins=[plugin])}) == 3

    write_notebook(tmp_path, ("epochs = 9", "parameters"), ("x = 1", None), ("answer = 42", "solution"))
    assert key() == base
    write_notebook(tmp_path, ("epochs = 2", "parameters"), ("x = 2", None), ("answer = 1", "solution"))
    assert key() != base
