"""Folders of the project's notebooks and recipes, of the user's data, and of runs. Nothing is read at import.

In a checkout the notebooks and data recipes are folders at its root; the wheel carries the same two folders inside the
package (`stm_lab/_share`), so that an installed copy is a working course.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from stm_lab.util.errors import UserError, shown

_PACKAGE = Path(__file__).resolve().parents[1]


def _shared_folder(name: str) -> Path:
    inside = _PACKAGE / "_share" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def shipped_notebooks_dir() -> Path:
    """The folder of the notebooks that come with the package."""
    return _shared_folder("notebooks")


def recipes_dir() -> Path:
    """The folder of the shipped data recipes."""
    return _shared_folder("data_recipes")


def notebooks_dir() -> Path:
    """The absolute folder of the current course: its notebooks and their cards (`course.yaml`).

    `STM_LAB_NOTEBOOKS`, else the working folder if it holds a `course.yaml` (of a copy, say), else the shipped folder.
    """
    if value := os.environ.get("STM_LAB_NOTEBOOKS", ""):
        return expanded(value).absolute()
    here = Path.cwd()
    return here if (here / "course.yaml").is_file() else shipped_notebooks_dir()


def runs_dir() -> Path:
    """The absolute folder of runs: `STM_LAB_RUNS`, else `runs/` in the project that the working folder belongs to.

    A project is the nearest folder above with a `pyproject.toml` or `.git`; without one it is the working folder.
    """
    if value := os.environ.get("STM_LAB_RUNS", ""):
        return expanded(value).absolute()
    here = Path.cwd()
    roots = (f for f in (here, *here.parents) if (f / "pyproject.toml").is_file() or (f / ".git").exists())
    return next(roots, here) / "runs"


def data_roots() -> list[Path]:
    """The folders of `STM_LAB_DATA` (separated by `os.pathsep`), else `stm_lab` in `XDG_CACHE_HOME` or `~/.cache`.

    Each holds `raw/<name>`, data as people have it, and `prepared/<name>-<fingerprint>`, data as we make it. Only the
    first is written to.
    """
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "stm_lab")
    given = os.environ.get("STM_LAB_DATA") or cache
    return [expanded(part).absolute() for part in given.split(os.pathsep) if part]


def expanded(path: str | os.PathLike) -> Path:
    """A path that a user gave, with `~` as their home; `~name` of an unknown user is kept.

    Raises UserError if no file can have such a name: it is too long, or has a NUL in it.
    """
    found = Path(os.path.expanduser(path))  # Path.expanduser raises RuntimeError for users who are not known
    try:
        os.lstat(found)
    except ValueError:
        raise UserError(f"{shown(str(path))}: no file can have a name with such characters") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{shown(str(path))}: no file can have so long a name") from None
    return found
