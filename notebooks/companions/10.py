"""Notebook 10's own: the accuracy that is recorded of a model's weights."""

from __future__ import annotations

from pathlib import Path

from stm_lab import paper
from stm_lab.course.trainings import shipped_rows, training_rows
from stm_lab.util import jsonfiles
from stm_lab.zoo import LoadedModel


def known_accuracy(subject: LoadedModel, weights: str | Path, scale: str = "nano") -> tuple[float, str] | None:
    """The recorded top-1 in percent of a model's weights, and the data set; None if there is no record.

    weights, scale: as given to `zoo.load`. The record of a training is its last validation, of the package's weights
    their row, of the paper's weights its table.
    """
    if subject.folder is not None:
        try:
            (row,) = training_rows(subject.folder)
        except jsonfiles.Damaged as error:
            jsonfiles.tell([str(error)])
            return None
        return row["metrics"]["top1"], Path(row["parameters"]["recipe"]).stem
    if str(weights) != "pretrained":
        return None
    shipped = {row["metrics"]["mixer"]: row["metrics"]["top1"] for row in shipped_rows()}
    if scale == "nano":
        return (shipped[subject.name], "shapes") if subject.name in shipped else None
    found = [one.top1 for one in paper.published() if (one.mixer, one.scale) == (subject.name, scale)]
    return (found[0], "imagenet-1k") if found else None
