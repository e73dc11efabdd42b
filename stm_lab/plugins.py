"""Mixers brought in a file: `plugins=["my_mixer.py"]` travels with a run where a notebook's cell could not."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from stm_lab.errors import UserError

MODULE_PREFIX = "stm_lab_plugin_"  # of the names of their modules, before that of the file


def load_plugins(files: Iterable[str | Path]) -> None:
    """Run each Python file once more, so that what it registers with `stm_lab.register_mixer` is there.

    Raises:
        UserError: a file that is missing or that fails, with its line and what it said.
    """
    for file in files:
        path = Path(file).expanduser().absolute()
        if not path.is_file():
            raise UserError(f"plugin {str(file)!r}: no such file")
        name = f"{MODULE_PREFIX}{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise UserError(f"plugin {str(file)!r}: expected a Python file (.py)")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # so that its classes can be pickled for the data workers
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
            line = f" line {lines[-1]}" if lines else ""
            raise UserError(f"plugin {str(file)!r}{line}: {type(error).__name__}: {error}") from error
