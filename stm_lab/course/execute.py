"""Execute one notebook in a kernel, into the files of its run. Slow to import: papermill, Jupyter, nbconvert."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import nbconvert
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError, strip_color

from stm_lab import paths
from stm_lab.course.folder import FOLDER_VARIABLE, RunFolder


def execute(
    notebook: Path, folder: RunFolder, values: Mapping[str, Any], echo: TextIO | None = None
) -> dict[str, Any] | None:
    """Run `notebook` with parameters `values`, working in `folder`, which gets the executed notebook, HTML and log.

    What the cells print goes to the log, and to `echo` as well. Returns what went wrong, None if nothing: `cell` (its
    number in the executed notebook, `In [cell]`; None if the kernel died or never started), `error` in one line, and
    with a cell `source` and `traceback`.
    """
    try:
        with folder.log.open("w", encoding="utf-8") as file:
            log = _Log(file, echo)
            papermill.execute_notebook(
                notebook,
                folder.notebook,
                {name: str(value) if isinstance(value, Path) else value for name, value in values.items()},
                cwd=folder.path,
                kernel_manager_class=_kernel_of(folder),
                progress_bar=False,
                stdout_file=log,
                stderr_file=log,
            )
    except PapermillExecutionError as error:
        message = (str(error.evalue).splitlines() or [""])[0]
        return {
            "cell": error.exec_count,
            "source": error.source,
            "error": f"{error.ename}: {message}".removesuffix(": "),
            "traceback": strip_color("\n".join(error.traceback)),
        }
    except RuntimeError as error:  # of jupyter_client and nbclient: the kernel died, or never answered
        return {"cell": None, "error": str(error)}
    finally:
        _write_html(folder)
    return None


class _Log:
    """One text file for papermill to write to, perhaps two in truth."""

    def __init__(self, *files: TextIO | None):
        self._files = [file for file in files if file is not None]

    def write(self, text: str) -> None:
        for file in self._files:
            file.write(text)

    def flush(self) -> None:
        for file in self._files:
            file.flush()


def _kernel_of(folder: RunFolder) -> type[AsyncKernelManager]:
    """A kernel of this very interpreter, whatever `python3` means to Jupyter on this machine.

    It works in the run's folder, so folders that the environment gives relative to ours are made absolute.
    """
    spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"],
        display_name="Python 3",
        language="python",
        env={
            FOLDER_VARIABLE: str(folder.path),
            "STM_LAB_RUNS": str(paths.runs_dir()),
            "STM_LAB_DATA": os.pathsep.join(map(str, paths.data_roots())),
        },
    )

    class ThisInterpreter(AsyncKernelManager):
        kernel_spec = property(lambda self: spec)

    return ThisInterpreter


def _write_html(folder: RunFolder) -> None:
    """The executed notebook as far as it came, figures inside."""
    if folder.notebook.is_file():
        body, _ = nbconvert.HTMLExporter().from_filename(str(folder.notebook))
        folder.html.write_text(body, encoding="utf-8")
