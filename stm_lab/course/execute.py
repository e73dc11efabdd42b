"""Execute one notebook in a kernel, into the files of its run. Slow to import: papermill, Jupyter, nbconvert.

papermill works in a thread; this one looks after it: it counts cells, holds the kernel against its limits, and hears
when the run is to stop. Whatever ends the kernel, papermill's thread ends with it.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbconvert
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError, strip_color

from stm_lab.course.folder import FOLDER_VARIABLE, RunFolder
from stm_lab.course.notebooks import GOES_ON, TEMPLATES, read_notebook, tags, unsolved, with_still_pictures
from stm_lab.course.watch import Watch, how_it_ended, kill_tree, terminated_as_interrupted
from stm_lab.util import paths
from stm_lab.util.files import write_whole

_LOOK_EVERY = 0.1  # seconds
_STARTS = 3  # of a kernel that ends before its first cell

logging.getLogger("papermill").addHandler(logging.NullHandler())  # what it would say of a failure, we say

OnCell = Callable[[int, int, str], object]  # the cell's number, how many there are, its source


def execute(
    notebook: Path,
    folder: RunFolder,
    values: Mapping[str, Any],
    *,
    watch: Watch,
    threads: int | None = None,
    on_cell: OnCell = lambda number, cells, source: None,
    on_text: Callable[[str], object] = lambda text: None,
    on_look: Callable[[], object] = lambda: None,
) -> dict[str, Any] | None:
    """Run `notebook` with parameters `values`, working in `folder`, which gets the executed notebook, HTML and log.

    Args:
        notebook: the stored notebook.
        folder: is there already.
        values: by name; paths are passed as strings.
        watch: limits of the kernel and its children.
        threads: of each numerical library in the kernel; None: as many as they take.
        on_cell: called before each code cell; numbers count code cells from 1, as `In [1]` does.
        on_text: called with what the cells print, which goes to the log as well.
        on_look: called ten times a second.

    Returns:
        What went wrong, None if nothing: `kind` ("cell", "died", "memory", "timeout", "start", "files"), `cell` (the
        last that was begun; None if none was), `source`, `error` in one line, of a failing cell `traceback`, and of a
        kernel that died `exit_code`: its status, or minus the number of the signal that killed it.
    """
    kernel = _Kernel(notebook, folder, threads)
    cells = _Cells(notebook, on_cell)
    outcome: list[dict[str, Any] | None] = []
    worker = threading.Thread(
        target=lambda: outcome.append(_with_restarts(notebook, folder, values, kernel, cells, on_text)), daemon=True
    )
    stopped: dict[str, Any] | None = None
    with terminated_as_interrupted():
        worker.start()
        try:
            while worker.is_alive():
                worker.join(_LOOK_EVERY)
                on_look()
                passed = watch.look(kernel.pid) if stopped is None else None
                if passed is not None:
                    stopped = {"kind": passed[0], **cells.last(), "error": f"stopped: {passed[1]}"}
                if stopped is not None:
                    kernel.kill()
        except BaseException:  # among them Ctrl-C
            while worker.is_alive():  # a kernel that is only about to start must not outlive the run
                kernel.kill()
                worker.join(_LOOK_EVERY)
            raise
        finally:
            write_html(folder)
    failure = stopped or outcome[0]
    if failure is not None and failure.get("exit_code") == -getattr(signal, "SIGKILL", 9):
        failure["error"] += f", as the system does when memory runs out; it held {watch.peak:.2f} GB at most"
    return failure


class _Cells:
    """Which code cell is running."""

    def __init__(self, notebook: Path, on_cell: OnCell):
        self._on_cell = on_cell
        self.total = 1 + sum(map(_is_code, read_notebook(notebook)["cells"]))  # one with the values is put in
        self.number, self.source = 0, ""

    def starts(self, cell: Mapping[str, Any], cell_index: int) -> None:
        """nbclient's hook, called before each cell."""
        if _is_code(cell):
            self.number, self.source = self.number + 1, cell["source"]
            self._on_cell(self.number, self.total, self.source)

    def last(self) -> dict[str, Any]:
        return {"cell": self.number, "source": self.source} if self.number else {"cell": None}


def _is_code(cell: Mapping[str, Any]) -> bool:
    return cell["cell_type"] == "code" and bool(cell["source"].strip())


class _Kernel:
    """A kernel of this very interpreter, whatever `python3` means to Jupyter on this machine.

    It works in the run's folder, so folders that the environment gives relative to ours are made absolute.
    """

    def __init__(self, notebook: Path, folder: RunFolder, threads: int | None):
        environment = {
            FOLDER_VARIABLE: str(folder.path),
            "STM_LAB_NOTEBOOKS": str(notebook.parent),
            "STM_LAB_RUNS": str(paths.runs_dir()),
            "STM_LAB_DATA": os.pathsep.join(map(str, paths.data_roots())),
            "JPY_SESSION_NAME": "",  # of the notebook that this was started from, if any: nobody watches ours
        }
        if threads is not None:
            environment |= dict.fromkeys(("STM_LAB_CORES", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self._spec = KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"],
            display_name="Python 3",
            language="python",
            env=environment,
        )
        self._manager: AsyncKernelManager | None = None
        self._process: subprocess.Popen | None = None

    def manager_class(self) -> type[AsyncKernelManager]:
        """What papermill makes its kernel's manager of."""
        kernel = self

        class ThisInterpreter(AsyncKernelManager):
            kernel_spec = property(lambda self: kernel._spec)

            def __init__(self, *args: Any, **options: Any):
                super().__init__(*args, **options)
                kernel._manager = self

            async def _async_launch_kernel(self, *args: Any, **options: Any) -> None:
                await super()._async_launch_kernel(*args, **options)
                kernel._process = self.provisioner.process  # which is let go of there as soon as it has ended

        return ThisInterpreter

    @property
    def pid(self) -> int | None:
        """Of the kernel's process; None before it has one."""
        return getattr(getattr(self._manager, "provisioner", None), "pid", None)

    def exit_code(self) -> int | None:
        """How its process ended; None if it has not, or there was none."""
        return None if self._process is None else self._process.poll()

    def kill(self) -> None:
        """End it and its children."""
        if self.pid is not None:
            kill_tree(self.pid)


def _with_restarts(*run: Any) -> dict[str, Any] | None:
    """`_papermill`, with a new kernel where one could not start.

    Jupyter chooses free ports and the kernel binds them a moment later: where many kernels start, another program may
    have taken one in between, and the kernel ends with status 1. A kernel that a signal ended is not started again.
    """
    for _ in range(_STARTS - 1):
        failure = _papermill(*run)
        if failure is None or failure["kind"] != "start" or failure.get("exit_code") != 1:
            return failure
    return _papermill(*run)


def _papermill(
    notebook: Path,
    folder: RunFolder,
    values: Mapping[str, Any],
    kernel: _Kernel,
    cells: _Cells,
    on_text: Callable[[str], object],
) -> dict[str, Any] | None:
    """Execute to the end or to the first failure, which is returned as `execute` does."""
    try:
        with folder.log.open("w", encoding="utf-8") as file:
            log = _Log(file.write, on_text, file.flush)
            papermill.execute_notebook(
                notebook,
                folder.notebook,
                {name: _plain(value) for name, value in values.items()},
                cwd=folder.path,
                kernel_name="python3",  # a notebook may name another, or none: the manager starts this interpreter
                language="python",
                kernel_manager_class=kernel.manager_class(),
                progress_bar=False,
                stdout_file=log,
                stderr_file=log,
                on_cell_start=cells.starts,
            )
    except PapermillExecutionError as error:
        message = (str(error.evalue).splitlines() or [""])[0]
        return {
            "kind": "cell",
            "cell": error.exec_count,
            "source": error.source,
            "error": _of_exercises(folder, error.exec_count) or f"{error.ename}: {message}".removesuffix(": "),
            "traceback": strip_color("\n".join(error.traceback)),
        }
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        return {"kind": "files", **cells.last(), "error": f"{error.strerror or error}{place}"}
    except RuntimeError as error:  # of jupyter_client and nbclient: the kernel died, or never answered
        code = kernel.exit_code() if "died" in str(error) else None  # not of one that is ended for its silence
        how = {} if code is None else {"exit_code": code}
        said = "" if code is None else f" ({how_it_ended(code)})"
        if not cells.number:
            return {"kind": "start", "cell": None, "error": f"the kernel did not start: {error}{said}", **how}
        return {"kind": "died", **cells.last(), "error": f"the kernel died{said}", **how}
    except Exception as error:  # a thread that ends in an exception would leave nobody who knows why
        return {"kind": "start", **cells.last(), "error": f"papermill: {type(error).__name__}: {error}"}
    return None


def _of_exercises(folder: RunFolder, last: int) -> str | None:
    """What is said of a run that went on beyond exercises that failed, to its end; None if another cell stopped it.

    last: the number of the last cell that failed, which papermill reports.
    """
    cells = read_notebook(folder.notebook)["cells"]
    if not any(GOES_ON in tags(cell) and cell.get("execution_count") == last for cell in cells):
        return None
    lacking = unsolved(cells)
    return lacking and f"{lacking}; every other cell ran"


class _Log:
    """What papermill writes the cells' output to."""

    def __init__(self, write: Callable[[str], object], on_text: Callable[[str], object], flush: Callable[[], object]):
        self._write, self._on_text, self.flush = write, on_text, flush

    def write(self, text: str) -> None:
        self._write(text)
        self._on_text(text)


def _plain(value: Any) -> Any:
    """A parameter's value as papermill can write it into a cell."""
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def write_html(folder: RunFolder) -> None:
    """Write the executed notebook, as far as it came, as a page with its figures inside.

    A page that cannot be made spoils no finished run: a warning says so, and the run is asked for again to make it.
    """
    if not folder.notebook.is_file():
        return
    try:
        notebook = with_still_pictures(folder.notebook)
        exporter = nbconvert.HTMLExporter(template_name="still", extra_template_basedirs=[str(TEMPLATES)])
        body, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": folder.notebook.stem}})
        write_whole(folder.html, body.encode())  # or not at all: half a page would take the room of the status
    except Exception as error:  # a full disk, or a notebook that was cut off
        warnings.warn(f"{folder.html} could not be written ({type(error).__name__}: {error})", stacklevel=2)
