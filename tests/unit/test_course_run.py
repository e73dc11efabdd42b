"""Running notebooks in kernels: what becomes of the good, the failing, the dying and the interrupted."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import nbformat
import papermill
import pytest
import yaml

from stm_lab import UserError, paths
from stm_lab.course import RunFailed, rows, run

pytestmark = pytest.mark.slow  # each starts a kernel

CARD = {
    "title": "Small",
    "question": "Does it run?",
    "goals": ["see it run"],
    "minutes": 1,
    "difficulty": 1,
    "parameters": {
        "epochs": {"type": "int", "default": 2, "range": [1, None], "help": "passes"},
        "seeds": {"type": "list[int]", "default": [0], "help": "one training each"},
        "size": {"type": "int | None", "default": 3, "help": "images"},
        "out": {"type": "path | None", "default": None, "in_key": False, "help": "folder of this run"},
    },
    "outputs": ["a row"],
}
PARAMETERS = """\
from typing import Optional

epochs: int = 2  # passes
seeds: list[int] = [0]  # one training each
size: Optional[int] = 3  # images
out: Optional[str] = None  # folder of this run"""
SETUP = """\
import stm_lab.course

lab = stm_lab.course.setup("01_small", globals())"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """Write a notebook of these cells into a course of its own."""
    monkeypatch.setattr(paths, "notebooks_dir", lambda: tmp_path)
    monkeypatch.setenv("STM_LAB_RUNS", str(tmp_path / "runs"))
    (tmp_path / "course.yaml").write_text(yaml.safe_dump({"01_small": CARD}, sort_keys=False))
    here = f"import pathlib, stm_lab.paths\nstm_lab.paths.notebooks_dir = lambda: pathlib.Path({str(tmp_path)!r})"

    def course(*cells, with_setup=True):
        cells = [here, PARAMETERS, SETUP, *cells] if with_setup else [PARAMETERS, *cells]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        notebook.cells[cells.index(PARAMETERS)].metadata["tags"] = ["parameters"]
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, tmp_path / "01_small.ipynb")
        return tmp_path / "01_small.ipynb"

    return course


def status(folder):
    return json.loads(folder.status.read_text())


def test_a_run_leaves_everything_in_its_folder(course, tmp_path, monkeypatch):
    """With the values given, by this interpreter - even where Jupyter takes `python3` for something else."""
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    broken = {"argv": ["/no/such/python"], "display_name": "x", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(broken))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    course(
        "import os, sys\nfrom matplotlib.figure import Figure",
        "lab.record(seed=seeds[0], epochs_seen=epochs, executable=sys.executable, cwd=os.getcwd(), size_seen=size)",
        "lab.save(Figure(), 'empty'); print('said', file=sys.stderr)",
    )
    folder = run(1, {"epochs": 5, "seeds": (4, 2), "size": None})
    assert folder.path.parent == tmp_path / "runs" / "01_small"
    row = rows(folder.path).iloc[0]
    assert (row["epochs_seen"], row["seed"], row["size_seen"]) == (5, 4, None)
    assert (row["executable"], row["cwd"]) == (sys.executable, str(folder.path))
    assert (folder.figures / "empty.png").is_file()
    assert "said" in folder.log.read_text()
    assert "said" in folder.html.read_text()
    assert folder.environment.is_file()
    assert (status(folder)["state"], status(folder)["parameters"]["epochs"]) == ("done", 5)
    tagged = [cell.metadata.get("tags") for cell in nbformat.read(folder.notebook, 4).cells]
    assert ["injected-parameters"] in tagged


def test_nothing_starts_with_a_wrong_value(course, tmp_path):
    course()
    for wrong in ({"epoch": 1}, {"epochs": "x"}, {"epochs": 0}):
        with pytest.raises(UserError, match="epochs"):
            run(1, wrong)
    assert not (tmp_path / "runs").exists()


def test_a_failing_cell_is_told_with_its_traceback(course, tmp_path):
    failing = "def f():\n    raise ValueError('no good\\nat all')\n\nf()"
    course("print('before')", failing, "print('after')", with_setup=False)
    with pytest.raises(RunFailed, match=r"01_small: cell \[4\] failed: ValueError: no good") as caught:
        run(1, {"out": tmp_path / "here"})
    folder = caught.value.folder
    assert (caught.value.cell, folder.path) == (4, tmp_path / "here")
    failure = status(folder)["failure"]
    assert status(folder)["state"] == "failed"
    assert "raise ValueError" in failure["source"]
    assert "in f()" in failure["traceback"]
    assert "\x1b" not in failure["traceback"]
    assert "before" in folder.log.read_text()
    assert "after" not in folder.log.read_text()
    assert "ValueError" in folder.html.read_text()


def test_a_kernel_that_dies(course, tmp_path):
    course("import os", "os._exit(9)", with_setup=False)
    with pytest.raises(RunFailed, match=r"[Kk]ernel died") as caught:
        run(1)
    assert caught.value.cell is None
    assert status(caught.value.folder)["state"] == "failed"


def hears_ctrl_c():
    """In the child, before it starts: tests that run in the background have SIGINT ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupted_is_written_down_and_no_kernel_stays(course, tmp_path):
    sleeping = "pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)"
    course("import os, pathlib, time", sleeping, with_setup=False)
    script = textwrap.dedent(f"""\
        import pathlib
        from stm_lab import paths
        from stm_lab.course import run
        paths.notebooks_dir = lambda: pathlib.Path({str(tmp_path)!r})
        run(1, {{"out": {str(tmp_path / "here")!r}}})
        """)
    command = [sys.executable, "-c", script]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c)
    pid = tmp_path / "here" / "pid"
    deadline = time.monotonic() + 60
    while not (pid.is_file() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    assert json.loads((tmp_path / "here" / "status.json").read_text())["state"] == "interrupted"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_plain_papermill_gets_types_and_refusals_too(course, tmp_path, monkeypatch, caplog):
    """As `papermill notebook.ipynb out.ipynb -p seeds "[1, 2]"` passes them: lists as strings."""
    notebook = course("lab.record(seed=seeds[1])")
    monkeypatch.chdir(tmp_path)
    given = {"seeds": "[1, 2]", "size": None, "out": "here"}
    papermill.execute_notebook(notebook, "executed.ipynb", given, progress_bar=False)
    assert rows(tmp_path / "here")["seed"][0] == 2
    assert "unknown parameter" not in caplog.text  # papermill's own warning, which would be false
    with pytest.raises(papermill.PapermillExecutionError, match="did you mean 'epochs'"):
        papermill.execute_notebook(notebook, "executed.ipynb", {"epoch": 3}, progress_bar=False)
