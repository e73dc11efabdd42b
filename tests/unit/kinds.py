"""Mixers that stand for all of them in tests of what uses a mixer, as opposed to the mixers' own code."""

import pytest

KINDS = ("halo", "pvt", "convnext", "dcn_v3")  # local and global attention, a convolution, deformable sampling
each_kind = pytest.mark.parametrize("mixer", KINDS)


def soaked(values, *, besides):
    """All values as parameters; `make test` takes those of `besides`, and `make test-slow` the others."""
    return [pytest.param(value, marks=[] if value in besides else [pytest.mark.soak]) for value in values]
