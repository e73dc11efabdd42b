"""The two ways to make the environment agree, and what is installed is a working course."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from stm_lab.util import paths

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())


def test_conda_gives_what_pip_gives():
    """Python's bounds are the same, and all else comes from pyproject.toml, with the extras that `make` installs."""
    plain = [line for line in CONDA["dependencies"] if isinstance(line, str)]
    (by_pip,) = [line["pip"] for line in CONDA["dependencies"] if isinstance(line, dict)]
    assert plain == [f"python {PROJECT['requires-python']}", "pip"]
    (install,) = by_pip
    (extras,) = re.findall(r"^--editable \.\[([\w,]+)\]$", install)
    (made,) = re.findall(r"--editable '\.\[([\w,]+)\]'", (ROOT / "Makefile").read_text())
    assert extras == made
    assert set(extras.split(",")) == set(PROJECT["optional-dependencies"])


def test_every_dependency_has_a_reason_and_none_is_pinned():
    requirement = re.compile(r'^    "([\w-]+)([^"]*)",(\s+# \w.+)?$')
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    matches = [match for line in lines if (match := requirement.match(line))]
    found = [match for match in matches if match[2].startswith(("=", ">", "<", "~"))]
    declared = PROJECT["dependencies"] + [r for extra in PROJECT["optional-dependencies"].values() for r in extra]
    listed = {match[1] for match in found}
    assert listed == {re.match(r"[\w-]+", r)[0] for r in declared}
    for match in found:
        assert match[3], f"{match[1]} says not what it is for"
        assert match[2].startswith(">="), f"{match[1]} is held to one version: {match[2]}"


@pytest.mark.slow
def test_the_wheel_carries_notebooks_and_recipes(tmp_path):
    """Unpacked far from the checkout, the package finds its own notebooks, cards and recipes."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("stm_lab-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import stm_lab, stm_lab.data, stm_lab.course, stm_lab.train\n"
        "print(stm_lab.__file__)\n"
        "print(sorted(stm_lab.data.list_recipes()))\n"
        "print(sorted(stm_lab.course.load_cards()))\n"
        "from stm_lab.util import paths\n"
        "print(all((paths.notebooks_dir() / f'{name}.ipynb').is_file() for name in stm_lab.course.load_cards()))\n"
        "print(stm_lab.train.config.list_presets())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    file, recipes, cards, there, presets = run.stdout.splitlines()
    assert Path(file).is_relative_to(tmp_path)
    assert recipes == str(sorted(path.stem for path in paths.recipes_dir().glob("*.yaml")))
    assert "00_quickstart" in cards
    assert there == "True"
    assert "quick" in presets


def test_paths_follow_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STM_LAB_RUNS", raising=False)
    assert paths.runs_dir() == tmp_path / "runs", "outside a project: the working folder"
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")
    assert paths.runs_dir() == tmp_path / "runs", "inside one: its root"
    monkeypatch.setenv("STM_LAB_RUNS", "elsewhere")
    assert paths.runs_dir() == tmp_path / "deep" / "down" / "elsewhere"
    monkeypatch.setenv("STM_LAB_DATA", os.pathsep.join([str(tmp_path / "mine"), str(tmp_path / "shared")]))
    assert paths.data_roots() == [tmp_path / "mine", tmp_path / "shared"]
