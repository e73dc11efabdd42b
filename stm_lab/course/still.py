"""Pages show an explorer by its still picture, which a notebook's output holds beside the widget."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat

from stm_lab.course.notebooks import read_notebook

TEMPLATES = Path(__file__).parent / "site" / "templates"  # of them `still` gives pictures their alternative texts
_WIDGET = "application/vnd.jupyter.widget-view+json"


def with_still_pictures(path: Path) -> nbformat.NotebookNode:
    """The notebook in a file, for a page. A page shows the richest form of an output, and cannot show a widget.

    The widget's form is left out; its picture with an alternative text remains, or its text if it has no picture.

    Raises:
        UserError: as `read_notebook`.
    """
    notebook = nbformat.reads(json.dumps(read_notebook(path)), as_version=4)
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(_WIDGET, None)
    return notebook
