"""A notebook run's folder: where it is, what lies in it, and the key it is named by.

runs/<notebook>/<key>/  notebook.ipynb  notebook.html  figures/  rows.jsonl  log.txt  environment.json  status.json
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stm_lab.course.cards import Card
from stm_lab.course.notebooks import read_notebook, tags
from stm_lab.util import folders, jsonfiles, paths
from stm_lab.util.errors import UserError
from stm_lab.util.files import sha256_of, write_whole

FOLDER_VARIABLE = "STM_LAB_RUN_FOLDER"  # how the runner tells the notebook's kernel which folder is its own
_NOT_KEYED = {"parameters", "injected-parameters", "solution", "check", "explorer"}  # cells that do not make the rows
_ENDS = {".ipynb": b"}", ".html": b"</html>", ".jsonl": b"}", ".json": b"}", ".png": b"IEND\xaeB`\x82"}
_MADE = ("model.safetensors", "rows.jsonl")  # what a notebook reads from a folder of runs or trainings


def _named(name: str) -> Any:
    return property(lambda folder: folder.path / name)


@dataclass(frozen=True)
class RunFolder:
    """The files of a run, by name. None of them need exist yet."""

    path: Path

    notebook = _named("notebook.ipynb")
    html = _named("notebook.html")
    figures = _named("figures")
    rows = _named("rows.jsonl")
    log = _named("log.txt")
    environment = _named("environment.json")
    status = _named("status.json")
    train = _named("train")

    def create(self) -> RunFolder:
        """Make the folder and `figures/`. Raises UserError if it cannot be made or written to."""
        try:
            self.figures.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path).close()
        except OSError as error:
            raise UserError(f"out = {str(self.path)!r}: {error.strerror}{folders.ELSEWHERE}") from None
        return self

    def alone(self) -> AbstractContextManager:
        """Hold the folder for one run. Raises errors as `folders.hold` does."""
        return folders.hold(self.path, "run")

    def is_held(self) -> bool:
        """Whether a process is working on this run now."""
        return folders.is_held(self.path)

    def strangers(self) -> list[str]:
        """Names of files that a run would overwrite, in a folder without a status: they belong to somebody else."""
        if self.read_status():
            return []
        found = [path.name for path in (*self._files(), self.train) if path.exists()]
        return [*found, self.figures.name] if any(self.figures.glob("*")) else found

    def clear(self) -> None:
        """Remove what a run leaves, and nothing else."""
        for path in (*self._files(), self.status):
            path.unlink(missing_ok=True)
        for folder in (self.figures, self.train):
            shutil.rmtree(folder, ignore_errors=True)

    def _files(self) -> tuple[Path, ...]:
        return self.notebook, self.html, self.rows, self.log, self.environment

    def files(self) -> list[str]:
        """The files of the run that exist and are whole, by names relative to the folder."""
        there = [path for path in (*self._files(), *sorted(self.figures.glob("*"))) if path.is_file()]
        names = [path.relative_to(self.path).as_posix() for path in there]
        return [name for name in names if self.has(name)]

    def has(self, name: str) -> bool:
        """Whether a file exists and ends as its kind does: a full disk or a broken copy cuts it off."""
        path = self.path / name
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - 64))
                end = file.read().rstrip()
        except OSError:
            return False
        return end.endswith(_ENDS.get(path.suffix, b"")) or (path == self.rows and not end)

    def write_json(self, path: Path, value: Any) -> None:
        """Write a file of this folder: a reader finds the old one or the new one, never half of it."""
        write_whole(path, (json.dumps(value, indent=1, default=str) + "\n").encode())

    def read_status(self) -> dict[str, Any]:
        """`status.json`; empty before the first run, and, with a warning, if it is damaged."""
        return jsonfiles.mapping(self.status, ("parameters", "failure"))


def run_folder(card: Card, values: Mapping[str, Any], key: str) -> RunFolder:
    """The folder of the run with these values (not made): the parameter `out`, else `runs_dir()/<notebook>/<key>`."""
    return RunFolder(values.get("out") or paths.runs_dir() / card.name / key)


def run_key(card: Card, values: Mapping[str, Any], fingerprint: str | None) -> str:
    """The 12 hexadecimal digits by which a run is known. Raises UserError if the notebook of the card is missing.

    A hash of the notebook's code (without exercises, checks and explorers), the data's fingerprint, and the parameters
    that the card puts in the key. Files count by their contents, so an edited plugin makes another run.
    """
    cells = read_notebook(card.path)["cells"]
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code" and not _NOT_KEYED.intersection(tags(cell))]
    keyed = keyed_parameters(card, values)
    for name in keyed:
        if card.parameters[name].choices == "weights" and os.path.isabs(keyed[name]):
            keyed[name] = Path(keyed[name])  # text for the notebook, which takes words as well
    parts = {"notebook": card.name, "code": code, "parameters": _by_contents(keyed), "data": fingerprint}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def keyed_parameters(card: Card, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that decide what the run computes."""
    return {name: values[name] for name, parameter in card.parameters.items() if parameter.in_key}


def _by_contents(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _by_contents(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_by_contents(item) for item in value]
    if not isinstance(value, Path):
        return value
    if value.is_file():
        return sha256_of(value)
    found = sorted(path for name in _MADE for path in value.rglob(name)) if value.is_dir() else []
    return {path.relative_to(value).as_posix(): sha256_of(path) for path in found} or str(value)


def data_fingerprint(values: Mapping[str, Any]) -> str | None:
    """The fingerprint of the data that the parameters `recipe` and `data_root` name; None for a notebook without."""
    if values.get("recipe") is None:
        return None
    from stm_lab import data  # here, because it is slow to import

    return data.fingerprint(values["recipe"], data_root=values.get("data_root"))
