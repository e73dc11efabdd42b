"""Learners' copies of the course: the shipped notebooks without the exercises' solutions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stm_lab.course.cards import find_card, load_cards
from stm_lab.course.exercises import BEGIN, END
from stm_lab.course.notebooks import GOES_ON, notebook_bytes, read_notebook, tags
from stm_lab.util import paths
from stm_lab.util.errors import UserError
from stm_lab.util.files import replace_bytes

_STUBS = {"code": 'raise NotImplementedError("your turn")', "markdown": "*Your turn.*", "raw": "Your turn."}
_TEACHERS = ("assignments", "exercises")  # folders that learners do not get: they hold answers


def copy_course(target: Path, notebooks: Iterable[str | int] = (), *, force: bool = False) -> list[Path]:
    """Write the shipped course to a folder, to learn in: notebooks without solutions, cards, what lies beside them.

    Files that are there already with the same contents are left; whatever else the folder holds is not touched.

    Args:
        target: the folder; made if it is not there.
        notebooks: names or numbers of those to copy; default: all.
        force: overwrite files that differ.

    Returns:
        The files that were written.

    Raises:
        UserError: an unknown notebook, a marker of a solution without its partner (notebook and cell), files that are
            there and differ (all are named): nothing is written. Or a folder that cannot be written to.
    """
    source, target = paths.shipped_notebooks_dir(), paths.expanded(target).absolute()
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{target} is the course itself, whose solutions would be lost; copy it to another folder")
    cards = load_cards(source)
    chosen = {find_card(cards, notebook).name for notebook in notebooks} or None
    contents = {path.relative_to(source): _content(path) for path in _files(source, chosen)}
    try:
        new = {name: content for name, content in contents.items() if _read(target / name) != content}
        differ = [name.as_posix() for name in new if (target / name).exists()]
        if differ and not force:
            raise UserError(f"{target}: these files are there and differ; --force overwrites them: {', '.join(differ)}")
        for name, content in new.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            replace_bytes(target / name, content)
    except OSError as error:
        raise UserError(f"{error.filename or target}: {error.strerror}") from None
    return [target / name for name in new]


def _files(source: Path, chosen: set[str] | None) -> list[Path]:
    """What learners get. The cards come last: a folder with a `course.yaml` is a whole copy."""
    files = []
    for path in sorted(source.rglob("*")):
        parts = path.relative_to(source).parts
        hidden = any(part.startswith((".", "__")) for part in parts)  # .ipynb_checkpoints
        left_out = path.suffix == ".ipynb" and chosen is not None and path.stem not in chosen
        if path.is_file() and not hidden and not left_out and parts[0] not in _TEACHERS:
            files.append(path)
    return sorted(files, key=lambda path: path.name == "course.yaml")


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _content(path: Path) -> bytes:
    """The file as learners get it."""
    if path.suffix != ".ipynb":
        return path.read_bytes()
    notebook = read_notebook(path)
    changed = [_without_solution(cell, f"{path.name}: cell {n}") for n, cell in enumerate(notebook["cells"])]
    if not any(changed):
        return path.read_bytes()
    for cell in notebook["cells"][changed.index(True) :]:
        at_once = any(line == _STUBS["code"] for line in cell["source"].splitlines())  # not in a function
        if cell["cell_type"] == "code" and ("check" in tags(cell) or at_once):
            cell["metadata"]["tags"] = [*tags(cell), GOES_ON]  # "Run All" goes on beyond what is not written yet
    return notebook_bytes(notebook)


def _without_solution(cell: dict[str, Any], where: str) -> bool:
    """Put a stub in place of each solution in the cell, and open it to be written in; whether there was one.

    The tag `solution` stays: it says that the cell makes no rows, so that whoever works on it goes on in the same run.

    Raises:
        UserError: a marker without its partner, or one that shares its line.
    """
    lines: list[str] = []
    begun = False
    for line in cell["source"].splitlines(keepends=True):
        text = line.strip()
        if (BEGIN in text or END in text) and text not in (BEGIN, END):
            raise UserError(f"{where}: a solution's marker must stand alone on its line, found {text!r}")
        if text == (BEGIN if begun else END):
            raise UserError(f"{where}: `{text}` without its partner")
        if text == BEGIN:
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}{_STUBS[cell['cell_type']]}\n")
        if text in (BEGIN, END):
            begun = text == BEGIN
        elif not begun:
            lines.append(line)
    if begun:
        raise UserError(f"{where}: `{BEGIN}` without its partner")
    source = "".join(lines)
    if source == cell["source"]:
        return False
    cell["source"] = source if cell["source"].endswith("\n") else source.rstrip("\n")
    _unfold(cell.get("metadata", {}))
    return True


def _unfold(metadata: dict[str, Any]) -> None:
    """Remove what makes Jupyter show a cell folded."""
    metadata.pop("collapsed", None)
    jupyter = metadata.get("jupyter", {})
    jupyter.pop("source_hidden", None)
    if not jupyter:
        metadata.pop("jupyter", None)
