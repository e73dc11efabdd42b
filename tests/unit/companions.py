"""What stands beside single notebooks: their own figures and explorers."""

from types import ModuleType

from stm_lab.util import paths
from stm_lab.util.modules import beside


def companion(notebook: str) -> ModuleType:
    """The shipped module of a notebook, by its two digits."""
    return beside(paths.shipped_notebooks_dir() / "companions", notebook)
