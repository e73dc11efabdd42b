"""Widgets on pages, where nothing moves them: the still picture that stands beside each in a notebook's output."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "site" / "templates"  # of them `still` gives pictures their alternative texts
_WIDGET = "application/vnd.jupyter.widget-view+json"


def with_still_pictures(notebook: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The notebook, changed in place: a page shows the richest of an output's forms, and a widget's is an empty place.

    What is left is the picture with its alternative text, or the text where a widget has no picture.
    """
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(_WIDGET, None)
    return notebook
