"""Parameters that stand for others: mixers in tests of what uses them, and what `make test-fast` takes."""

import pytest

KINDS = ("halo", "pvt", "convnext", "dcn_v3")  # local and global attention, a convolution, deformable sampling
each_kind = pytest.mark.parametrize("mixer", KINDS)


def soaked(values, *, besides):
    """All values as parameters; `make test` takes those of `besides`, and `make test-slow` the others."""
    return [pytest.param(value, marks=[] if value in besides else [pytest.mark.soak]) for value in values]


def once(*values):
    """The parameters that `make test-fast` takes of a test, instead of the first."""
    return pytest.param(*values, marks=pytest.mark.once)
