"""A mixer's cell as a file: written, loaded, and refused where it does not stand by itself."""

import linecache
import pickle
import subprocess
import sys

import pytest

import stm_lab
from stm_lab import UserError
from stm_lab.mixers import get_mixer, registry
from stm_lab.mixers.plugins import MODULE_PREFIX, load_plugins, write_plugin

CELL = """
import torch
from stm_lab import register_mixer

@register_mixer("cell_mixer")
class CellMixer(torch.nn.Module):
    factor = 2

    def __init__(self, dim):
        super().__init__()

    def forward(self, x):
        return self.factor * x
"""


@pytest.fixture
def cell():
    """Run a cell as IPython does: its source is known under its file name. What is registered is taken back."""

    def run(source, name="<ipython-input-1>", **scope):
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        scope = {"__name__": "__main__", **scope}
        exec(compile(source, name, "exec"), scope)
        return scope["CellMixer"]

    yield run
    registry._mixers.pop("cell_mixer", None)
    linecache.cache.pop("<ipython-input-1>", None)


def test_a_cell_becomes_a_file_that_registers_the_same_mixer(cell, tmp_path):
    mixer = cell(CELL)
    path = write_plugin(mixer, tmp_path / "folder" / "mine.py")
    assert path == tmp_path / "folder" / "mine.py"
    assert path.read_text() == CELL.rstrip() + "\n"
    loaded = get_mixer("cell_mixer")
    assert loaded is not mixer
    assert loaded.__module__.startswith(f"{MODULE_PREFIX}mine")
    assert sys.modules[loaded.__module__].CellMixer is loaded
    assert write_plugin(loaded, tmp_path / "again.py").read_text() == path.read_text()  # from a file, likewise


def test_it_can_be_trained_and_built_from(cell, tmp_path):
    path = write_plugin(cell(CELL), tmp_path / "mine.py")
    registry._mixers.pop("cell_mixer")
    load_plugins([path])
    assert stm_lab.build_model("cell_mixer", "nano").design.mixer == "cell_mixer"


def test_a_cell_that_leans_on_others_is_refused(cell, tmp_path):
    mixer = cell(CELL.replace("factor = 2", "factor = OTHER_CELL"), OTHER_CELL=3)
    with pytest.raises(UserError, match=r"line 7: NameError: .*OTHER_CELL") as error:
        write_plugin(mixer, tmp_path / "mine.py")
    assert "\n" not in str(error.value)


def test_what_cannot_be_written(cell, tmp_path):
    mixer = cell(CELL)
    with pytest.raises(UserError, match=r"expected a Python file \(\.py\)"):
        write_plugin(mixer, tmp_path / "mine.txt")
    linecache.cache.pop("<ipython-input-1>")
    with pytest.raises(UserError, match="CellMixer: its source is unknown"):
        write_plugin(mixer, tmp_path / "mine.py")


@pytest.fixture
def two_of_one_name(tmp_path):
    """a/my_mixer.py and b/my_mixer.py, which register a_mixer and b_mixer, each of a class CellMixer."""
    files = []
    for folder in "ab":
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / "my_mixer.py")
        files[-1].write_text(CELL.replace("cell_mixer", f"{folder}_mixer"))
    yield files
    for folder in "ab":
        registry._mixers.pop(f"{folder}_mixer", None)


def test_files_of_one_name_in_two_folders_are_two_modules(two_of_one_name):
    load_plugins(two_of_one_name)
    mixers = [get_mixer(f"{folder}_mixer") for folder in "ab"]
    assert mixers[0].__module__ != mixers[1].__module__
    assert [pickle.loads(pickle.dumps(mixer)) for mixer in mixers] == mixers  # by module and name


@pytest.mark.slow
def test_another_process_finds_the_class_under_the_same_name(two_of_one_name):
    load_plugins(two_of_one_name)
    sent = {str(file): pickle.dumps(get_mixer(f"{file.parent.name}_mixer")) for file in two_of_one_name}
    code = f"import pickle; from stm_lab.mixers.plugins import load_plugins; sent = {sent!r}; load_plugins(sent)\n"
    code += "print([pickle.loads(one).__init__.__code__.co_filename for one in sent.values()])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str([*sent]), done.stderr


def test_a_file_that_fails_leaves_the_module_that_was_there(two_of_one_name, tmp_path):
    file = two_of_one_name[0]
    load_plugins([file])
    mixer = get_mixer("a_mixer")
    file.write_text("raise ValueError('half edited')")
    with pytest.raises(UserError, match="half edited"):
        load_plugins([file])
    assert get_mixer("a_mixer") is mixer
    assert pickle.loads(pickle.dumps(mixer)) is mixer
    fresh = tmp_path / "fresh.py"
    fresh.write_text("raise ValueError('never was')")
    there = set(sys.modules)
    with pytest.raises(UserError, match="never was"):
        load_plugins([fresh])
    assert set(sys.modules) - there == set()
