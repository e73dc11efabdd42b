"""Modules that are loaded when they are needed: those of a package, and files beside the notebooks."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from stm_lab.util.errors import check_known


def lazily(package: str, names: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of the package called `package`, which load only what a command uses.

    `names`: module -> the public names that it defines, none of which is a module's.
    """
    module_of = {name: module for module, defined in names.items() for name in defined}

    def get(name: str) -> Any:
        if name in names:
            return importlib.import_module(f"{package}.{name}")
        if name in module_of:
            return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted([*names, *module_of])


def beside(folder: Path, notebook: str) -> ModuleType:
    """The module of a notebook, by its two digits, in `exercises` or `companions` beside the notebooks.

    Raises UserError, naming the nearest, for a notebook that has none there.
    """
    files = {path.stem: path for path in folder.glob("[0-9][0-9].py")}
    check_known(f"notebook with {folder.name}", notebook, files)
    return _loaded(files[notebook])


@cache
def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"stm_lab_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for their module
    spec.loader.exec_module(module)
    return module
