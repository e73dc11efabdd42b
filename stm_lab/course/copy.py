"""Learners' copies of the course: the shipped notebooks without the exercises' solutions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stm_lab.course.cards import find_card, load_cards
from stm_lab.course.notebooks import BEGIN, END, GOES_ON, notebook_bytes, read_notebook, tags
from stm_lab.util import paths
from stm_lab.util.errors import UserError
from stm_lab.util.files import replace_bytes, told

_STUBS = {"code": 'raise NotImplementedError("your turn")', "markdown": "*Your turn.*", "raw": "Your turn."}
_SOLUTION = re.compile(rf"^([ \t]*){BEGIN}[ \t]*\n.*?^[ \t]*{END}[ \t]*$", re.MULTILINE | re.DOTALL)
_TEACHERS = ("assignments", "exercises")  # folders that learners do not get: they hold answers


def copy_course(target: Path, notebooks: Iterable[str | int] = (), *, force: bool = False) -> list[Path]:
    """Write the shipped course to a folder, to learn in: notebooks without solutions, cards, and the other files.

    Files that exist with the same contents are left; nothing else in the folder is touched.

    notebooks: names or numbers of those to copy; default: all. force: overwrite files that differ.
    Returns the files that were written. Raises UserError for an unknown notebook, a marker of a solution without its
    partner, files that exist and differ: nothing is written. Or a folder that cannot be written to.
    """
    source, target = paths.shipped_notebooks_dir(), paths.expanded(target).absolute()
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{target} is the course itself, whose solutions would be lost; copy it to another folder")
    cards = load_cards(source)
    chosen = {find_card(cards, notebook).name for notebook in notebooks} or None
    contents = {path.relative_to(source): _content(path) for path in _files(source, chosen)}
    with told():
        there = {name: (target / name).read_bytes() for name in contents if (target / name).exists()}
        new = {name: content for name, content in contents.items() if there.get(name) != content}
        differ = [name.as_posix() for name in new if name in there]
        if differ and not force:
            raise UserError(f"{target}: these files exist and differ; --force overwrites them: {', '.join(differ)}")
        for name, content in new.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            replace_bytes(target / name, content)
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
            cell["metadata"]["tags"] = [*tags(cell), GOES_ON]  # "Run All" goes on after what is not written yet
    return notebook_bytes(notebook)


def _without_solution(cell: dict[str, Any], where: str) -> bool:
    """Replace each solution in the cell by a stub, and unfold the cell; whether there was one.

    The tag `solution` stays: it says that the cell makes no rows, so that working on it does not make another run.
    Raises UserError for a marker without its partner, or one that shares its line.
    """
    stub = _STUBS[cell["cell_type"]]
    source = _SOLUTION.sub(lambda found: found[1] + stub, cell["source"])
    if BEGIN in source or END in source or cell["source"].count(BEGIN) != cell["source"].count(END):
        raise UserError(f"{where}: `{BEGIN}` and `{END}` must come in pairs, each alone on its line")
    if source == cell["source"]:
        return False
    cell["source"] = source
    metadata = cell.get("metadata", {})
    metadata.pop("collapsed", None)
    metadata.get("jupyter", {}).pop("source_hidden", None)
    if metadata.get("jupyter") == {}:
        del metadata["jupyter"]
    return True
