"""What tests of several files share: helpers that they import by name, and the smallest data set."""

import sys
from pathlib import Path

import pytest

for folder in ("golden", "unit"):
    sys.path.insert(0, str(Path(__file__).parent / folder))


RECIPE = """
title: a few shapes
question: does it run?
licence: Apache-2.0
image_size: 64
counts: {train: %d, validation: %d}
source: {kind: generator, name: shapes, seed: 7}
classes: [%s]
"""


@pytest.fixture(scope="module")
def few(request, tmp_path_factory):
    """The path of a recipe of a few shapes, drawn once for a module, whose FEW is how many to train and validate on."""
    from stm_lab import data  # here, so that tests without data do not load the datasets library

    folder = tmp_path_factory.mktemp("recipe")
    path = folder / "few.yaml"
    classes = ", ".join(data.load_recipe("shapes").classes)
    path.write_text(RECIPE % (*getattr(request.module, "FEW", (48, 50)), classes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STM_LAB_DATA", str(folder))
        yield str(path)
