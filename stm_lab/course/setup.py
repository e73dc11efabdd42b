"""What every notebook calls after its parameters: `lab = stm_lab.course.setup("00_quickstart", globals())`."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from stm_lab.course.cards import Card, check_values, load_card
from stm_lab.course.folder import FOLDER_VARIABLE, RunFolder, data_fingerprint, keyed_parameters, run_folder, run_key
from stm_lab.course.results import OWN_COLUMNS
from stm_lab.util import paths
from stm_lab.util.devices import resolve_device
from stm_lab.util.environment import code_fingerprint, describe_environment
from stm_lab.util.errors import UserError, check_known, shown
from stm_lab.util.files import write_whole
from stm_lab.util.modules import beside
from stm_lab.util.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def setup(name: str, namespace: MutableMapping[str, Any]) -> Lab:
    """Check a notebook's parameters, seed everything, and open the run's folder.

    The values are put back into the namespace with their types: papermill's `-p` passes lists as strings. `random`,
    NumPy and torch are seeded with the parameter `seed`, or the first of `seeds`. The folder is the parameter `out`,
    else the runner's, else `runs_dir()/<notebook>/<key>`, or `<key>-interactive` where that holds a run of the runner;
    its `rows.jsonl` starts anew.

    name: as in `course.yaml`. namespace: the notebook's `globals()`.
    Raises UserError for a wrong value, a parameter that the card does not know or that is not set, an unusable folder.
    """
    card = load_card(name)
    for assigned in _assigned(card, namespace.get("In", [])[:-1]):  # In: IPython's sources of the cells that were run
        check_known("parameter", assigned, card.parameters, f"{card.name}: ")
    for parameter in card.parameters:
        if parameter not in namespace:
            raise UserError(f"{card.name}: {parameter} is not set; run the cell tagged 'parameters' first")
    values = check_values(card, {parameter: namespace[parameter] for parameter in card.parameters})
    namespace.update(values)
    _show_figures()
    return Lab(card, values)


def _assigned(card: Card, cells: Sequence[str]) -> list[str]:
    """The names that the parameters' cell assigns, and the newest of the cells that papermill injects after it.

    Calls of `setup` are skipped, so that a wrong name stays refused when only that cell is run again. Any other cell
    than one that only assigns and imports ends the search.
    """
    injected: list[str] | None = None
    for source in reversed(cells):
        if "course.setup(" in source:
            continue
        names = _names_assigned(source) or []
        if not names or not source.startswith("# Parameters"):  # papermill's first line
            return [*(names if card.parameters.keys() & names else []), *(injected or [])]
        injected = names if injected is None else injected
    return injected or []


def _names_assigned(source: str) -> list[str] | None:
    """The names that a cell assigns; None if it does more than assign and import."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a cell with a magic
        return None
    if not all(isinstance(each, ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom) for each in statements):
        return None
    assigned = [each for each in statements if isinstance(each, ast.Assign | ast.AnnAssign)]
    targets = [target for each in assigned for target in getattr(each, "targets", None) or [each.target]]
    return [target.id for target in targets if isinstance(target, ast.Name)]


class Lab:
    """A notebook's run: its folder, and how to record rows and figures in it. Made by `setup`.

    Attributes:
        parameters: every parameter's value, with its type.
        device: the resolved parameter `device`; the CPU if the notebook has none.
        out: the run's folder, absolute.
    """

    def __init__(self, card: Card, values: dict[str, Any]):
        self._started = time.perf_counter()
        self._number = card.number
        self.parameters = values
        self.device = resolve_device(values.get("device", "cpu"))
        fingerprint = data_fingerprint(values)
        self._folder = _open_folder(card, values, fingerprint)
        self.out = self._folder.path
        self._seed = values.get("seed")
        if (first := values.get("seeds", [self._seed])[0]) is not None:
            _seed_everything(first)

        environment = describe_environment(self.device)
        self._row = {
            "notebook": card.name,
            "parameters": _plain("parameters", keyed_parameters(card, values)),
            "data": fingerprint,
            "revision": environment["git_revision"],
            "code": code_fingerprint(),
            "device": str(self.device),
        }
        self._folder.write_json(self._folder.environment, {**environment, "code": self._row["code"]})
        write_whole(self._folder.rows, b"")  # a notebook that is run again does not double its rows

    @property
    def companion(self) -> ModuleType:
        """The figures and explorers of this notebook alone: `companions/<NN>.py` beside it, or in the shipped course.

        Raises UserError for a notebook without one.
        """
        here = paths.notebooks_dir() / "companions"
        found = (here / f"{self._number}.py").is_file()
        return beside(here if found else paths.shipped_notebooks_dir() / "companions", self._number)

    def record(self, *, seed: int | None = None, **metrics: Any) -> None:
        """Append one row to `rows.jsonl`: `metrics`, with parameters, seed, data, code and device.

        seed: of the training that was measured; default: the parameter `seed`, if there is one. metrics: text, numbers,
        and lists or mappings of these; scalars of NumPy and torch become Python's. Raises UserError for a metric that
        is NaN, infinite or of another type, or that has the name of a column of every row.
        """
        for name in OWN_COLUMNS:
            if name in metrics:
                raise UserError(f"record: every row has a column {name!r}; give the metric another name")
        row = {
            **self._row,
            "seed": _plain("seed", self._seed if seed is None else seed),
            "seconds": round(time.perf_counter() - self._started, 3),  # since setup
            "metrics": {name: _plain(name, value) for name, value in metrics.items()},
        }
        line = json.dumps(row, allow_nan=False) + "\n"
        with self._folder.rows.open("ab") as file:  # written in one call, so that lines of two writers never mix
            file.write(line.encode())

    def save(self, figure: Figure, name: str) -> Path:
        """Write a matplotlib figure to `figures/<name>.png` at 150 dots per inch, and return the path.

        Raises UserError for a name that is not made of letters, digits, `-`, `_` and `.`.
        """
        if not re.fullmatch(r"[\w-][\w.-]*", name):
            raise UserError(f"save: {name!r} cannot name a figure; use letters, digits, '-', '_' and '.'")
        path = self._folder.figures / f"{name.removesuffix('.png')}.png"
        figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Description": figure.get_label()})
        return path

    def progress(self, iterable: Iterable, description: str) -> Iterator:
        """Iterate, and show the progress: a bar on a screen, plain lines in a log."""
        return iter(progress(iterable, description))

    def __repr__(self) -> str:
        return f"{self._row['notebook']} on {self.device}, in {self.out}"


def _open_folder(card: Card, values: Mapping[str, Any], fingerprint: str | None) -> RunFolder:
    """The run's folder: the runner's, else the key's, or one beside it to save a run of the runner."""
    given = os.environ.get(FOLDER_VARIABLE)
    if given and not values.get("out"):
        return RunFolder(Path(given)).create()
    folder = run_folder(card, values, run_key(card, values, fingerprint))
    if not given and ("key" in folder.read_status() or folder.is_held()):  # a run of the runner, done or going on
        if values.get("out"):
            raise UserError(f"out = {str(folder.path)!r} holds a run of `stm-lab run`; choose another folder")
        folder = RunFolder(folder.path.with_name(f"{folder.path.name}-interactive"))
    folder.create()
    if not given:  # no runner writes its status
        folder.write_json(folder.status, {"state": "interactive", "notebook": card.name, "parameters": values})
    return folder


def _show_figures() -> None:
    """Show a figure that a cell ends in, though pyplot did not make it, with its alternative text."""
    from IPython import get_ipython
    from IPython.core.pylabtools import select_figure_formats
    from matplotlib.figure import Figure

    shell = get_ipython()
    if shell is None:
        return
    select_figure_formats(shell, {"png"}, dpi=100, bbox_inches="tight")
    formatter = shell.display_formatter.formatters["image/png"]
    draw = formatter.for_type(Figure)

    def draw_with_text(figure: Figure) -> Any:
        """A picture with its metadata, as a formatter may give it; pages take `alt` from there."""
        png = draw(figure)
        picture, metadata = png if isinstance(png, tuple) else (png, {})
        return picture, {**metadata, "alt": figure.get_label()}

    formatter.for_type(Figure, draw_with_text)


def _seed_everything(seed: int) -> None:
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _plain(name: str, value: Any) -> Any:
    """`value` as a row has it: what JSON holds, with Python's types."""
    try:
        return json.loads(json.dumps(value, default=_scalar, allow_nan=False))
    except TypeError as error:
        raise UserError(f"record: {name}: {error}") from None
    except ValueError:
        raise UserError(f"record: {name} = {shown(value)}: a row holds finite numbers; leave the metric out") from None


def _scalar(value: Any) -> Any:
    """A scalar of NumPy or torch, or a path, for JSON. Raises TypeError for anything else."""
    import torch

    if isinstance(value, (np.generic, np.ndarray, torch.Tensor)) and value.ndim == 0:
        return value.item()
    if isinstance(value, Path):
        return str(value)
    hint = "; give .tolist(), or a summary" if isinstance(value, (np.ndarray, torch.Tensor)) else ""
    raise TypeError(f"a row cannot hold a {type(value).__name__}{hint}")
