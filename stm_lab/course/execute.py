"""Execute one notebook in a kernel, into the files of its run. Slow to import: papermill, Jupyter, nbconvert.

papermill works in a thread of its own. The thread that called it holds the kernel against its limits and ends it when
the run is to stop; papermill's thread then ends too.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import nbconvert
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_event_loop
from papermill.exceptions import PapermillExecutionError, strip_color

from stm_lab.course.folder import FOLDER_VARIABLE, RunFolder
from stm_lab.course.notebooks import GOES_ON, TEMPLATES, read_notebook, tags, unsolved, with_still_pictures
from stm_lab.course.run import Job, Limits
from stm_lab.course.watch import Watch, how_it_ended, kill_tree, terminated_as_interrupted
from stm_lab.util import paths
from stm_lab.util.environment import code_fingerprint
from stm_lab.util.errors import WorkFailed
from stm_lab.util.files import write_whole
from stm_lab.util.progress import progress

_LOOK_EVERY = 0.1  # seconds
_STARTS = 3  # of a kernel that ends before its first cell

logging.getLogger("papermill").addHandler(logging.NullHandler())  # `status.json` says what it would say of a failure

Failure = dict[str, Any]


def execute(
    job: Job, limits: Limits, *, environment: Mapping[str, str], echo: TextIO | None, stop: threading.Event | None
) -> Failure | None:
    """Run a job's notebook in its folder, which gets the executed notebook, its page, `log.txt` and `status.json`.

    Returns what went wrong, None if nothing: `kind` ("cell", "died", "memory", "timeout", "start", "files"), `cell`
    (the last that was begun; None if none was), `source`, `error` in one line, of a failing cell `traceback`, and of a
    kernel that died `exit_code`: its status, or minus the number of the signal that killed it.
    """
    kernel, record, watch = _Kernel.of(job, environment), _Record(job, echo), Watch(limits.timeout, limits.memory)
    outcome: dict[str, Any] = {"state": "interrupted"}  # until a better one is known
    try:
        failure = _watched(job, kernel, record, watch, stop)
        outcome = {"state": "failed", "failure": failure} if failure else {"state": "done"}
    finally:
        record.end(outcome, watch.peak)
    return failure


def _watched(
    job: Job, kernel: type[_Kernel], record: _Record, watch: Watch, stop: threading.Event | None
) -> Failure | None:
    """Let papermill work in another thread, and end the kernel if a limit is passed or the run is interrupted."""
    failures: list[Failure | None] = []

    def work() -> None:
        failures.append(_papermill(job, kernel, record))
        ensure_event_loop().close()  # this thread's; else its files stay open until garbage is collected

    worker = threading.Thread(target=work, daemon=True)
    stopped: Failure | None = None
    with terminated_as_interrupted():
        worker.start()
        try:
            while worker.is_alive():
                worker.join(max(_LOOK_EVERY, 20 * watch.cost))  # so that many runs leave the processor to their kernels
                record.look()
                if stop is not None and stop.is_set():
                    raise KeyboardInterrupt
                passed = watch.look(kernel.pid()) if stopped is None else None
                if passed is not None:
                    stopped = {"kind": passed[0], **record.last(), "error": f"stopped: {passed[1]}"}
                if stopped is not None:
                    kill_tree(kernel.pid())
        except BaseException:  # Ctrl-C among them
            while worker.is_alive():  # a kernel that is only about to start must not outlive the run
                kill_tree(kernel.pid())
                worker.join(_LOOK_EVERY)
            raise
        finally:
            write_html(job.folder)
    failure = stopped or failures[0]
    if failure is not None and failure.get("exit_code") == -getattr(signal, "SIGKILL", 9):
        failure["error"] += f", as the system does when memory runs out; it held {watch.peak:.2f} GB at most"
    return failure


class _Record:
    """A run's progress, kept in `status.json` and shown, and what its cells print, for which it is papermill's file."""

    def __init__(self, job: Job, echo: TextIO | None):
        cells = 1 + sum(map(_is_code, read_notebook(job.path)["cells"]))  # papermill adds one, of the values
        self._folder = job.folder
        self._bar = progress(cells, job.notebook, unit="cells", stream=echo) if echo else None
        self._line = ""  # printed so far
        self._started = time.perf_counter()
        self.log: TextIO
        self.number, self._source = 0, ""  # of the code cell that runs
        self._status: dict[str, Any] = {
            "state": "running",
            "notebook": job.notebook,
            "profile": job.profile,
            "parameters": job.values,
            "key": job.key,
            "code": code_fingerprint(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "cells": cells,
        }
        _write_status(self._folder, self._status)

    def starts(self, cell: Mapping[str, Any], cell_index: int) -> None:
        """nbclient's hook, called before each cell. Code cells are counted from 1, as `In [1]` does."""
        if not _is_code(cell):
            return
        self.number, self._source = self.number + 1, cell["source"]
        self._status["cell"] = self.number
        self._folder.write_json(self._folder.status, self._status)
        if self._bar is not None:
            self._bar.update(self.number - 1 - self._bar.count, note=self._source.strip().partition("\n")[0][:60])

    def last(self) -> dict[str, Any]:
        """The cell that runs, as a failure tells it."""
        return {"cell": self.number, "source": self._source} if self.number else {"cell": None}

    def write(self, text: str) -> None:
        """Log what the cells print, and show complete lines of it above the bar."""
        self.log.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines if self._bar is not None else ():
            self._bar.say(line.rpartition("\r")[2])

    def flush(self) -> None:
        self.log.flush()

    def look(self) -> None:
        """Show a plain line if one is due."""
        if self._bar is not None:
            self._bar.update(0)

    def end(self, outcome: Mapping[str, Any], peak: float) -> None:
        """Write down what became of the run, which held so many gigabytes."""
        seconds = round(time.perf_counter() - self._started, 3)
        self._status |= {**outcome, "seconds": seconds, "peak_memory_gb": round(peak, 3), "files": self._folder.files()}
        _write_status(self._folder, self._status)
        if self._bar is not None:
            if outcome["state"] == "done":
                self._bar.update(self._bar.total - self._bar.count)
            self._bar.close()


def _write_status(folder: RunFolder, status: Mapping[str, Any]) -> None:
    try:
        folder.write_json(folder.status, status)
    except OSError as error:
        raise WorkFailed(f"{folder.status}: {error.strerror}") from error


def _is_code(cell: Mapping[str, Any]) -> bool:
    return cell["cell_type"] == "code" and bool(cell["source"].strip())


class _Kernel(AsyncKernelManager):
    """Manages a kernel of this very interpreter, whatever `python3` means to Jupyter on this machine.

    papermill makes the manager itself, so that each run has a class of its own, which knows the kernel's process.
    """

    process: subprocess.Popen | None = None  # the newest

    @classmethod
    def of(cls, job: Job, environment: Mapping[str, str]) -> type[_Kernel]:
        """The class of a job's kernel. The kernel works in the run's folder, and so gets absolute paths."""
        ours = {
            FOLDER_VARIABLE: str(job.folder.path),
            "STM_LAB_NOTEBOOKS": str(job.path.parent),
            "STM_LAB_RUNS": str(paths.runs_dir()),
            "STM_LAB_DATA": os.pathsep.join(map(str, paths.data_roots())),
            "JPY_SESSION_NAME": "",  # of the notebook that this was started from, if any: nobody watches ours
        }
        spec = KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"],
            display_name="Python 3",
            language="python",
            env={**ours, **environment},
        )
        return type("OneKernel", (cls,), {"kernel_spec": spec})

    async def _async_launch_kernel(self, *args: Any, **options: Any) -> None:
        await super()._async_launch_kernel(*args, **options)
        type(self).process = self.provisioner.process  # the provisioner forgets it as soon as it has ended

    @classmethod
    def exit_code(cls) -> int | None:
        """How the process ended; None if it has not, or never started."""
        return cls.process and cls.process.poll()

    @classmethod
    def pid(cls) -> int | None:
        """The number of the process; None if it does not run."""
        return cls.process.pid if cls.process and cls.process.poll() is None else None


def _papermill(job: Job, kernel: type[_Kernel], record: _Record) -> Failure | None:
    """Execute to the end or to the first failure, which is returned as `execute` does.

    A kernel that ends with status 1 before its first cell is started again: another program may have taken the port
    that Jupyter chose for it.
    """
    for _ in range(_STARTS):
        failure = _papermill_once(job, kernel, record)
        if failure is None or failure["kind"] != "start" or failure.get("exit_code") != 1:
            break
    return failure


def _papermill_once(job: Job, kernel: type[_Kernel], record: _Record) -> Failure | None:
    folder = job.folder
    try:
        with folder.log.open("w", encoding="utf-8") as record.log:
            papermill.execute_notebook(
                job.path,
                folder.notebook,
                json.loads(json.dumps(job.values, default=str)),  # paths as text
                resources={"metadata": {"path": str(folder.path)}},  # papermill's cwd= would change it for all threads
                kernel_name="python3",  # a notebook may name another, or none: the manager starts this interpreter
                language="python",
                kernel_manager_class=kernel,
                progress_bar=False,
                stdout_file=record,
                stderr_file=record,
                on_cell_start=record.starts,
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
        return {"kind": "files", **record.last(), "error": f"{error.strerror or error}{place}"}
    except RuntimeError as error:  # of jupyter_client and nbclient: the kernel died, or never answered
        code = kernel.exit_code() if "died" in str(error) else None  # not of one that is ended for its silence
        how = {} if code is None else {"exit_code": code}
        said = "" if code is None else f" ({how_it_ended(code)})"
        if not record.number:
            return {"kind": "start", "cell": None, "error": f"the kernel did not start: {error}{said}", **how}
        return {"kind": "died", **record.last(), "error": f"the kernel died{said}", **how}
    except Exception as error:  # else the thread would end without a trace
        return {"kind": "start", **record.last(), "error": f"papermill: {type(error).__name__}: {error}"}
    return None


def _of_exercises(folder: RunFolder, last: int) -> str | None:
    """Tells of a run that went on beyond failing exercises to its end; None if another cell stopped it.

    last: the number of the last cell that failed, which papermill reports.
    """
    cells = read_notebook(folder.notebook)["cells"]
    if not any(GOES_ON in tags(cell) and cell.get("execution_count") == last for cell in cells):
        return None
    lacking = unsolved(cells)
    return lacking and f"{lacking}; every other cell ran"


def write_html(folder: RunFolder) -> None:
    """Write the executed notebook, as far as it came, as a page with its figures inside.

    A page that cannot be made spoils no finished run: a warning says so, and the run's next call makes it.
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
