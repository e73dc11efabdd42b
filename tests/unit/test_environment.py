"""Which code made a number: the fingerprint of rows follows the code that makes numbers, and nothing else."""

import importlib.util
from pathlib import Path

import pytest

from stm_lab.util import environment

BEFORE = {
    "layers.py": '"""Layers."""\nimport torch\n\nSTD = 0.02  # published\n\n\n'
    'def double(x):\n    """Twice."""\n    return 2 * x\n',
    "measure/cost.py": "from ..layers import double\n\n\ndef macs(n: int) -> int:\n    return double(n)\n",
    "figures/cost.py": "def draw():\n    return 1\n",
}
SAME = {
    "a docstring": {"layers.py": BEFORE["layers.py"].replace("Twice.", "Two times its argument.")},
    "a docstring that goes": {"layers.py": BEFORE["layers.py"].replace('"""Layers."""\n', "")},
    "comments and layout": {"layers.py": BEFORE["layers.py"].replace("2 * x", "(\n        2 * x  # exact\n    )")},
    "imports": {"measure/cost.py": BEFORE["measure/cost.py"].replace("from ..layers", "from stm_lab.layers")},
    "figures": {"figures/cost.py": "def draw():\n    return 2\n"},
    "the order": {"layers.py": "def double(x):\n    return 2 * x\n\n\nSTD = 0.02\n"},
    "the file": {
        "layers.py": "STD = 0.02\n",
        "measure/doubled/__init__.py": "def double(x):\n    return 2 * x\n",
    },
}
OTHER = {
    "a constant": {"layers.py": BEFORE["layers.py"].replace("0.02", "0.2")},
    "an operation": {"layers.py": BEFORE["layers.py"].replace("2 * x", "2 + x")},
    "a name": {"measure/cost.py": BEFORE["measure/cost.py"].replace("def macs", "def flops")},
    "a string that is used": {"layers.py": BEFORE["layers.py"] + "\nKIND = 'convs'\n"},
    "a definition that goes": {"measure/cost.py": "\n"},
    "one that stands twice": {"measure/cost.py": BEFORE["measure/cost.py"] + "\n\ndef double(x):\n    return 2 * x\n"},
}


@pytest.fixture
def fingerprint(tmp_path):
    """The fingerprint of a package of these files."""

    def of(files):
        package = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in files.items():
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_text(text)
        (package / "util").mkdir()
        (package / "util" / "environment.py").write_bytes(Path(environment.__file__).read_bytes())
        spec = importlib.util.spec_from_file_location("copied", package / "util" / "environment.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.code_fingerprint()

    return of


@pytest.mark.parametrize("change", SAME)
def test_what_makes_no_number_does_not_part_rows(change, fingerprint):
    assert fingerprint(BEFORE | SAME[change]) == fingerprint(BEFORE)


@pytest.mark.parametrize("change", OTHER)
def test_what_makes_numbers_parts_rows(change, fingerprint):
    assert fingerprint(BEFORE | OTHER[change]) != fingerprint(BEFORE)


def test_every_part_that_makes_numbers_exists():
    package = Path(environment.__file__).parents[1]
    assert [part for part in environment._MAKE_NUMBERS if not (package / part).exists()] == []
