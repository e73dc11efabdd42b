"""Python files beside the notebooks: `exercises/<NN>.py` and `companions/<NN>.py`."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from stm_lab.util.errors import check_known


def beside(folder: Path, notebook: str) -> ModuleType:
    """The module of a notebook, by its two digits, in a folder beside the notebooks.

    Raises UserError, naming the nearest, for a notebook that has none there.
    """
    files = {path.stem: path for path in folder.glob("[0-9][0-9].py")}
    check_known(f"notebook with {folder.name}", notebook, files)
    return _loaded(files[notebook])


@cache
def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"stm_lab_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
