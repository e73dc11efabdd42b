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

from stm_lab.mixers import get_mixer, list_mixers
from stm_lab.util import paths
from stm_lab.util.errors import UserError
from stm_lab.util.files import write_whole

MODULE_PREFIX = "stm_lab_plugin_"  # of the names of their modules


def load_plugins(files: Iterable[str | Path]) -> None:
    """Run each Python file once more, so that what it registers with `stm_lab.register_mixer` is there.

    Raises:
        UserError: a file that is missing or that fails, with its line and what it said.
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
    """The name of a plugin's module: the file's, and a hash of where it lies, for files of one name in two folders.

    It is the same in every process that is given this path.
    """
    path = paths.expanded(file).absolute()
    digest = hashlib.sha256(path.as_posix().encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{MODULE_PREFIX}{path.stem}_{digest}"


def write_plugin(mixer: type, file: str | Path) -> Path:
    """Write the cell in which a mixer was defined to a file, and load it: from then on the mixer is the file's.

    The cell must stand by itself: imports, the class with `@register_mixer`, and nothing that other cells made. As a
    file it comes to processes that train beside this one, to sweeps and to other machines, where a cell could not. A
    class that was read from a file is written likewise, with all that stands in that file.

    Returns the file's absolute path, for `plugins=[path]`. A file that says the same already is left as it is.

    Raises:
        UserError: the class's source is not known (typed at a prompt without IPython), it is no .py file, or the cell
            fails when it is run alone or registers nothing; then there is no file, or the one that was there.
    """
    path = paths.expanded(file).absolute()
    if path.suffix != ".py":
        raise UserError(f"plugin {str(file)!r}: expected a Python file (.py)")
    source = _cell_of(mixer)
    before = path.read_text(encoding="utf-8") if path.is_file() else None
    if source != before:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, source.encode())
    try:
        load_plugins([path])
        if not any(get_mixer(name).__module__ == module_name(path) for name in list_mixers()):
            raise UserError(f"plugin {str(file)!r} registers no mixer; put @register_mixer before the class")
    except UserError as error:
        path.unlink() if before is None else write_whole(path, before.encode())
        hint = "a cell that is to be a file must hold all that it uses, its imports too"
        raise UserError(f"{error}; {hint}") from error
    return path


def _cell_of(mixer: type) -> str:
    """The whole cell, or file, in which a class was defined: that of its first method."""
    functions = [inspect.unwrap(value) for value in vars(mixer).values() if inspect.isfunction(value)]
    own = [one for one in functions if one.__qualname__.startswith(f"{mixer.__qualname__}.")]  # no decorator's
    file = own[0].__code__.co_filename if own else ""
    linecache.checkcache(file)  # it may have been edited since
    lines = linecache.getlines(file)
    if not lines:
        raise UserError(f"{mixer.__name__}: its source is not known; write it into a file yourself")
    return "".join(lines).rstrip() + "\n"
