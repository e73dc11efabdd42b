"""Mixers brought in a file: `plugins=["my_mixer.py"]` travels with a run where a notebook's cell could not."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import linecache
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from stm_lab.util import paths
from stm_lab.util.errors import UserError
from stm_lab.util.files import write_whole

MODULE_PREFIX = "stm_lab_plugin_"  # of the names of their modules


def load_plugins(files: Iterable[str | Path]) -> None:
    """Run Python files that register mixers with `stm_lab.register_mixer`.

    Raises UserError for a file that is missing or that fails, with its line and message.
    """
    for file in files:
        path = paths.expanded(file).absolute()
        if not path.is_file():
            raise UserError(f"plugin {str(file)!r}: no such file")
        name = module_name(path)
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise UserError(f"plugin {str(file)!r}: expected a Python file (.py)")
        module, before = importlib.util.module_from_spec(spec), sys.modules.get(name)
        sys.modules[name] = module  # so that its classes can be pickled for the data workers
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            if before is None:
                del sys.modules[name]
            else:  # what it registered is still in use, and is looked up there when it is pickled
                sys.modules[name] = before
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
            line = f" line {lines[-1]}" if lines else ""
            raise UserError(f"plugin {str(file)!r}{line}: {type(error).__name__}: {error}") from error


def module_name(file: str | Path) -> str:
    """The name of a plugin's module, by file name and folder; the same in every process that is given this path."""
    path = paths.expanded(file).absolute()
    digest = hashlib.sha256(path.as_posix().encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{MODULE_PREFIX}{path.stem}_{digest}"


def write_plugin(mixer: type, file: str | Path) -> Path:
    """Write the cell (or file) in which a mixer was defined to a file, and load it: the mixer is the file's then.

    The cell must stand by itself: imports, the class with `@register_mixer`, and nothing that other cells made.
    Returns the file's absolute path, for `plugins=[path]`.

    Raises UserError if the source is unknown, as of a class typed at a prompt without IPython, or the file fails.
    """
    path = paths.expanded(file).absolute()
    source_file = inspect.unwrap(mixer.forward).__code__.co_filename
    linecache.checkcache(source_file)  # it may have been edited since
    source = "".join(linecache.getlines(source_file)).rstrip() + "\n"
    if not source.strip():
        raise UserError(f"{mixer.__name__}: its source is unknown; write it into a file yourself")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, source.encode())
    load_plugins([path])
    return path
