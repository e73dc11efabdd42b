"""Running notebooks in kernels: what becomes of the good, the failing, the dying and the interrupted."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import numpy as np
import papermill
import PIL.Image
import psutil
import pytest
import small_course
import yaml
from children import hears_ctrl_c, wait_until
from small_course import begun

from stm_lab import UserError
from stm_lab.course import RunFailed, rows, run
from stm_lab.course.engines import Local, do_all
from stm_lab.course.folder import RunFolder
from stm_lab.course.run import Limits, plan
from stm_lab.util.errors import WorkFailed
from stm_lab.util.folders import Held

pytestmark = pytest.mark.slow  # each starts a kernel

CARD = small_course.card_of(
    {
        "epochs": {"type": "int", "default": 2, "range": [1, None], "help": "passes"},
        "seeds": {"type": "list[int]", "default": [0], "help": "one training each"},
        "size": {"type": "int | None", "default": 3, "help": "images"},
        "out": {"type": "path | None", "default": None, "in_key": False, "help": "folder of this run"},
    }
)
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
    monkeypatch.setenv("STM_LAB_NOTEBOOKS", str(tmp_path))
    monkeypatch.setenv("STM_LAB_RUNS", str(tmp_path / "runs"))
    (tmp_path / "course.yaml").write_text(yaml.safe_dump({"01_small": CARD}, sort_keys=False))

    def course(*cells, with_setup=True):
        cells = [PARAMETERS, SETUP, *cells] if with_setup else [PARAMETERS, *cells]
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


@pytest.mark.parametrize("metadata", [{}, {"kernelspec": {"name": "somebodys-env", "display_name": "Mine"}}])
def test_a_notebook_need_not_name_this_interpreter(course, metadata):
    path = course("import sys; print(sys.executable)", with_setup=False)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "metadata": metadata}))
    assert run(1).log.read_text() == f"{sys.executable}\n"


def test_nothing_starts_with_a_wrong_value(course, tmp_path):
    course()
    for wrong in ({"epoch": 1}, {"epochs": "x"}, {"epochs": 0}):
        with pytest.raises(UserError, match="epochs"):
            run(1, wrong)
    assert not (tmp_path / "runs").exists()


def test_a_failing_cell_is_told_with_its_traceback(course, tmp_path):
    failing = "def f():\n    raise ValueError('no good\\nat all')\n\nf()"
    course("print('before')", failing, "print('after')", with_setup=False)
    with pytest.raises(RunFailed, match=r"01_small: cell \[4\]: ValueError: no good") as caught:
        run(1, {"out": tmp_path / "here"})
    folder = caught.value.folder
    assert (caught.value.cell, caught.value.kind, folder.path) == (4, "cell", tmp_path / "here")
    failure = status(folder)["failure"]
    assert status(folder)["state"] == "failed"
    assert "raise ValueError" in failure["source"]
    assert "in f()" in failure["traceback"]
    assert "\x1b" not in failure["traceback"]
    assert "before" in folder.log.read_text()
    assert "after" not in folder.log.read_text()
    assert "ValueError" in folder.html.read_text()


@pytest.mark.parametrize("limit", ["timeout", "memory"])
def test_a_limit_that_nothing_could_keep_is_refused(small, limit):
    for value in (0, -1, float("nan")):
        with pytest.raises(UserError, match=f"{limit} = .*: expected more than 0"):
            run(1, **{limit: value})
    assert not begun(small)


@pytest.mark.parametrize(
    ("act", "limits", "kind", "said"),
    [
        ("exit", {}, "died", r"the kernel died \(exit status 9\) \(see"),
        ("kill", {}, "died", r"the kernel died \(killed by SIGKILL\), as the system does .*held 0\.\d+ GB at most"),
        ("eat", {"memory": 0.3}, "memory", "may hold 0.3 GB"),
        ("sleep", {"timeout": 0.03}, "timeout", "not done after 0.03 min"),
    ],
)
def test_a_kernel_that_dies_or_passes_a_limit(small, act, limits, kind, said):
    started = time.monotonic()
    with pytest.raises(RunFailed, match=said) as caught:
        run(1, {"act": act}, **limits)
    written = status(caught.value.folder)
    assert (caught.value.kind, caught.value.cell) == (kind, 3)
    assert (written["state"], written["failure"]["kind"], written["failure"]["cell"]) == ("failed", kind, 3)
    assert written["failure"].get("exit_code") == {"exit": 9, "kill": -9}.get(act)
    assert "random" in written["failure"]["source"]
    assert 0.02 < written["peak_memory_gb"] < 1
    assert time.monotonic() - started < 60
    ((_, _, pid),) = begun(small)
    assert not psutil.pid_exists(pid)
    assert "begun" in caught.value.folder.log.read_text()


def test_a_kernel_that_never_starts(small, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr("stm_lab.course.execute._STARTS", 1)
    with pytest.raises(RunFailed, match=r"the kernel did not start: .*\(exit status 1\)") as caught:
        run(1)
    assert (caught.value.kind, caught.value.cell) == ("start", None)
    assert status(caught.value.folder)["failure"]["exit_code"] == 1


def test_a_kernel_whose_port_was_taken_is_started_again(small, monkeypatch, tmp_path):
    """An interpreter that fails once before it is one, as a kernel does that finds its port in use."""
    failed = tmp_path / "failed"
    interpreter = tmp_path / "python"
    interpreter.write_text(
        f'#!/bin/sh\n[ "$(cat "{failed}" 2>/dev/null | wc -l)" -ge 1 ] && exec "{sys.executable}" "$@"\n'
        f'echo taken >> "{failed}"; exit 1\n'
    )
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    assert status(run(1))["state"] == "done"
    assert failed.read_text().split() == ["taken"]


def test_a_full_disk_is_told_in_one_line(small):
    folder = plan(1).folder.create()
    folder.log.symlink_to("/dev/full")
    with pytest.raises(RunFailed, match="No space left on device") as caught:
        run(1)
    assert caught.value.kind == "files"


def test_a_page_shows_a_widget_by_its_still_picture(tmp_path):
    """What an explorer leaves in an output: on a page nothing would draw the widget, the richest of its forms."""
    from stm_lab.course.execute import write_html

    png, view = "iVBORw0KGgo=", "application/vnd.jupyter.widget-view+json"
    still = {view: {"model_id": "x", "version_major": 2}, "image/png": png, "text/plain": "alone"}
    outputs = [
        nbformat.v4.new_output("display_data", still, metadata={"image/png": {"alt": "swin's window", "width": 90}}),
        nbformat.v4.new_output("display_data", {view: {"model_id": "y"}, "text/plain": "a bar at 7 of 9"}),
    ]
    folder = RunFolder(tmp_path).create()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("explorer", outputs=outputs)])
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    nbformat.write(notebook, folder.notebook)
    stored = folder.notebook.read_bytes()
    write_html(folder)
    page = folder.html.read_text()
    (image,) = re.findall("<img[^>]*>", page)
    assert f"data:image/png;base64,{png}" in image
    assert 'alt="swin&#39;s window"' in image or 'alt="swin\'s window"' in image
    assert "a bar at 7 of 9" in page
    assert "widget-view" not in page.partition("<body")[2]
    assert folder.notebook.read_bytes() == stored  # there JupyterLab has its widget


def test_a_page_that_cannot_be_written_spoils_no_run(small, monkeypatch):
    """It leaves no half of it, which would take the room that `status.json` needs, and the next call makes it."""
    folder = plan(1).folder.create()
    real = os.replace

    def full(source, target):
        if target == folder.html:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match=r"notebook\.html could not be written"):
        run(1)
    assert not list(folder.path.glob("*.html*"))
    assert status(folder)["state"] == "done"
    assert status(folder)["files"] == ["notebook.ipynb", "rows.jsonl", "log.txt"]
    assert plan(1).is_done()
    with pytest.warns(UserWarning, match=r"notebook\.html could not be written"):
        run(1)
    monkeypatch.undo()
    monkeypatch.setenv("STM_LAB_NOTEBOOKS", str(small))
    monkeypatch.setenv("STM_LAB_RUNS", str(small.parent / "runs"))
    for again in (lambda: run(1), lambda: do_all(Local(1), [plan(1)], Limits(), "again")):
        folder.html.unlink(missing_ok=True)
        again()
        assert "</html>" in folder.html.read_text()
        assert folder.html.name in status(folder)["files"]
    assert len(begun(small)) == 1


@pytest.mark.parametrize("name", ["notebook.ipynb", "rows.jsonl", "figures/a.png"])
@pytest.mark.parametrize("lost", [False, True])
def test_a_run_is_done_as_long_as_what_it_left_is_whole(small, name, lost):
    folder = plan(1).folder.create()
    picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8))
    picture.save(folder.figures / "a.png")
    folder.rows.write_text('{"a": 1}\n{"a": 2}\n')
    folder.notebook.write_text(json.dumps(nbformat.v4.new_notebook()) + "\n")
    folder.write_json(folder.status, {"state": "done", "key": plan(1).key, "files": folder.files()})
    assert set(status(folder)["files"]) == {"notebook.ipynb", "rows.jsonl", "figures/a.png"}
    assert plan(1).is_done()
    whole = (folder.path / name).read_bytes()
    (folder.path / name).write_bytes(whole[:-4])
    if lost:
        (folder.path / name).unlink()
    assert not plan(1).is_done()


@pytest.mark.parametrize("size", [100, pytest.param(1500, marks=pytest.mark.soak), 60_000])
@pytest.mark.filterwarnings("ignore:.*could not be written")
def test_on_a_full_disk_no_run_says_more_than_is_there(small, size):
    """No file may grow beyond `size` bytes: first no status, then no notebook, then no page can be written."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        failed = None if run(1) else "nothing"
    except WorkFailed as error:
        failed = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    folder = plan(1).folder
    there = folder.read_status()
    assert (there.get("state") == "done") == (size == 60_000) == (failed is None), failed
    assert all(folder.has(file) for file in there.get("files", []))
    assert not folder.html.exists()
    run(1, force=True)
    assert set(status(folder)["files"]) == {"notebook.ipynb", "notebook.html", "rows.jsonl", "log.txt"}
    assert all(folder.has(file) for file in status(folder)["files"])
    assert len(rows(folder.path)) == 1


@pytest.mark.parametrize("force", [False, True])
def test_somebody_elses_folder_is_left_alone(small, tmp_path, force):
    (tmp_path / "mine" / "train").mkdir(parents=True)
    (tmp_path / "mine" / "train" / "photograph.png").touch()
    with pytest.raises(UserError, match="holds train, and nothing says of which run"):
        run(1, {"out": tmp_path / "mine"}, force=force)
    assert (tmp_path / "mine" / "train" / "photograph.png").exists()
    assert not begun(small)


def test_what_is_done_is_not_done_again(small, capsys):
    folder = run(1)
    run(1)
    assert "done already" in capsys.readouterr().out
    assert len(begun(small)) == 1
    written = status(folder)
    folder.write_json(folder.status, {**written, "code": "0123456789ab"})
    run(1)
    assert "done already, with other code (0123456789ab, now" in capsys.readouterr().out
    run(1, force=True)
    assert len(begun(small)) == 2


def test_another_run_in_the_folder_is_refused(small, tmp_path):
    run(1, {"out": tmp_path / "here"})
    with pytest.raises(UserError, match="holds another run"):
        run(1, {"out": tmp_path / "here", "seed": 1})
    run(1, {"out": tmp_path / "here", "seed": 1}, force=True)
    assert [seed for _, seed, _ in begun(small)] == [0, 1]


def test_a_run_that_goes_on_elsewhere_is_refused(small):
    job = plan(1)
    with job.folder.create().alone():
        assert job.folder.is_held()
        with pytest.raises(Held, match="already going on"):
            run(1)
    assert not job.folder.is_held()
    assert not begun(small)


def test_a_file_where_the_folder_should_be(small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"out = .*file.*: (File exists|Not a directory); give a folder that can be"):
        run(1, {"out": tmp_path / "file"})


def test_no_cell_for_parameters(tmp_path, monkeypatch):
    monkeypatch.setenv("STM_LAB_NOTEBOOKS", str(tmp_path))
    small_course.write(tmp_path, with_parameters=False)
    with pytest.raises(UserError, match="one cell must be tagged 'parameters', found 0"):
        run(1)


def test_how_far_it_is(small):
    said = io.StringIO()
    run(1, echo=said)
    lines = said.getvalue().splitlines()
    assert "begun" in lines
    assert lines[0].startswith("01_small: 0/4 (0%) cells")
    assert lines[-1].startswith("01_small: 4/4 (100%) cells")


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak), signal.SIGKILL]
)
def test_interrupted_it_leaves_no_kernel_and_goes_on(small, number):
    """However it ends: by Ctrl-C, by a batch system's SIGTERM, by a kill that nothing can be done about."""
    command = [sys.executable, "-m", "stm_lab.cli", "run", "1", "-p", "act=once"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c)
    folder = plan(1, {"act": "once"}).folder
    wait_until(lambda: begun(small), 60)
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    expected = {signal.SIGKILL: (-signal.SIGKILL, "running")}.get(number, (130, "interrupted"))
    assert (child.returncode, status(folder)["state"]) == expected, said
    ((_, _, pid),) = begun(small)
    wait_until(lambda: not psutil.pid_exists(pid), 20)
    assert not folder.is_held()
    run(1, {"act": "once"})
    assert status(folder)["state"] == "done"
    assert len(rows(folder.path)) == 1


def test_plain_papermill_gets_types_and_refusals_too(course, tmp_path, monkeypatch, caplog):
    """As `papermill notebook.ipynb out.ipynb -p seeds "[1, 2]"` passes them: lists as strings."""
    notebook = course("lab.record(seed=seeds[1])")
    monkeypatch.chdir(tmp_path)
    given = {"seeds": "[1, 2]", "size": None, "out": "here"}
    prepared = papermill.execute_notebook(notebook, "executed.ipynb", given, prepare_only=True)
    namespace = {}
    for cell in prepared.cells:
        exec(cell.source, namespace)
    assert rows(tmp_path / "here")["seed"][0] == 2
    assert "unknown parameter" not in caplog.text  # papermill's own warning, which would be false
    with pytest.raises(papermill.PapermillExecutionError, match="did you mean 'epochs'"):
        papermill.execute_notebook(notebook, "executed.ipynb", {"epoch": 3}, progress_bar=False)
