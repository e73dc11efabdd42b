"""Run one notebook from beginning to end, in a folder of its own: `run("00_quickstart", {"seeds": [0, 1]})`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from stm_lab.course.cards import check_values, load_card
from stm_lab.course.folder import RunFolder, data_fingerprint, run_folder
from stm_lab.errors import WorkFailed


class RunFailed(WorkFailed):
    """A notebook did not come to its end. What it had done is in the folder, the traceback in `status.json`.

    Attributes:
        folder: the run's folder.
        cell: the number of the failing cell in the executed notebook (`In [cell]`); None if the kernel died or never
            started.
    """

    def __init__(self, message: str, folder: RunFolder, cell: int | None):
        super().__init__(message)
        self.folder = folder
        self.cell = cell


def run(
    notebook: str | int | Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    profile: str = "quick",
    echo: TextIO | None = None,
) -> RunFolder:
    """Execute a notebook of the course, by papermill, with this interpreter as its kernel; returns the run's folder.

    The folder holds the executed notebook, as far as it came, with its HTML, the cells' output in `log.txt`, and in
    `status.json` what became of it: `running`, `done`, `failed` (with cell, source, traceback) or `interrupted`.

    Args:
        notebook: name, number or path.
        parameters: values that differ from the profile's.
        profile: "quick" (the defaults), or another of the notebook's card.
        echo: where to show what the cells print while they run, besides the log.

    Raises:
        UserError: an unknown notebook, profile or parameter, a wrong value, unusable data or folder. Nothing started.
        RunFailed: a cell failed, or the kernel died.
    """
    card = load_card(notebook)
    values = check_values(card, parameters, profile=profile)
    folder = run_folder(card, values, data_fingerprint(values)).create()
    from stm_lab.course.execute import execute  # here, because it is slow to import, and notebooks import this module

    status = {"state": "running", "notebook": card.name, "profile": profile, "parameters": values}
    status["started"] = datetime.now(UTC).isoformat(timespec="seconds")
    folder.write_json(folder.status, status)
    started = time.perf_counter()
    outcome: dict[str, Any] = {"state": "interrupted"}  # if nothing better is heard of
    try:
        failure = execute(card.path, folder, values, echo)
        outcome = {"state": "failed", "failure": failure} if failure else {"state": "done"}
    finally:
        seconds = round(time.perf_counter() - started, 1)
        folder.write_json(folder.status, {**status, **outcome, "seconds": seconds})
    if failure:
        place = "" if failure["cell"] is None else f"cell [{failure['cell']}] failed: "
        raise RunFailed(f"{card.name}: {place}{failure['error']} (see {folder.path})", folder, failure["cell"])
    return folder
