"""Where things lie: the project's own notebooks and recipes, the user's data, the runs. Nothing is read at import.

In a checkout the notebooks and data recipes are folders at its root; the wheel carries the same two folders inside the
package (`stm_lab/_share`), so that an installed copy is a working course.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from stm_lab.util.errors import UserError, shown

_PACKAGE = Path(__file__).resolve().parents[1]


def _shared_folder(name: str) -> Path:
    inside = _PACKAGE / "_share" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def shipped_notebooks_dir() -> Path:
    """The folder of the notebooks that come with the package."""
    return _shared_folder("notebooks")


def notebooks_dir() -> Path:
    """The folder of the course that is meant, its notebooks and their cards (`course.yaml`). Always absolute.

    `STM_LAB_NOTEBOOKS`, else the working folder if it holds a `course.yaml` (of a copy, say), else the shipped folder.
    """
    value = os.environ.get("STM_LAB_NOTEBOOKS", "")
    if value:
        return expanded(value).absolute()
    here = Path.cwd()
    return here if (here / "course.yaml").is_file() else shipped_notebooks_dir()


def recipes_dir() -> Path:
    """The folder of the shipped data recipes."""
    return _shared_folder("data_recipes")


def expanded(path: str | os.PathLike) -> Path:
    """A path that a user gave, with `~` as their home; `~name` of a user who is not known here is left as it is.

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


def _cache_home() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))


def data_roots() -> list[Path]:
    """The folders of `STM_LAB_DATA` (separated by `os.pathsep`), else one in the user's cache.

    Only the first is written to. Each holds `raw/<name>`, data as people have it, and `prepared/<name>-<fingerprint>`,
    data as we make it.
    """
    value = os.environ.get("STM_LAB_DATA", "")
    folders = [expanded(part) for part in value.split(os.pathsep) if part]
    return [folder.absolute() for folder in folders] or [_cache_home() / "stm_lab"]


def project_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` with a `pyproject.toml` or `.git`, else `start` (the working folder)."""
    start = (start or Path.cwd()).absolute()
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file() or (folder / ".git").exists():
            return folder
    return start


def runs_dir() -> Path:
    """Where runs are kept: `STM_LAB_RUNS`, else `runs/` in the project's root. Always absolute."""
    value = os.environ.get("STM_LAB_RUNS", "")
    return expanded(value).absolute() if value else project_root() / "runs"
