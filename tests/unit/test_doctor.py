"""The doctor: says what is wrong and what to do, and never falls ill itself."""

import collections
import importlib.metadata
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from stm_lab import cli
from stm_lab.cli import doctor
from stm_lab.cli.doctor import CHECKS, Finding, examine, verdict
from stm_lab.util import paths

PACKAGE = Path(paths.__file__).parents[1]
USAGE = collections.namedtuple("USAGE", "total used free")
MEMORY = collections.namedtuple("MEMORY", "available")


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("error", [ImportError("torch"), OSError(5, "x"), SystemExit(3), KeyError("a\nb"), OSError()])
def test_a_check_that_fails_is_a_problem_of_its_name(error):
    check = raising(error)
    check.__name__ = "some_check"
    (finding,) = examine((check,))
    assert (finding.name, finding.state) == ("some check", "problem")
    assert type(error).__name__ in finding.found
    assert "\n" not in finding.found
    assert finding.advice


def test_a_problem_stops_the_course_and_a_warning_does_not():
    findings = [Finding("a", "ok", ""), Finding("b", "warning", "")]
    assert verdict(findings[:1]) == ("all is well", 0)
    assert verdict(findings) == ("all is well, but see: b", 0)
    assert verdict([*findings, Finding("c", "problem", "")]) == ("what stops the course: c", 1)


def test_the_command_shows_all_and_exits_with_1_for_a_problem(capsys, monkeypatch):
    well = Finding("a", "warning", "pip install '.[lab]'", "do [this]")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: well,))
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert all(text in said for text in ("warning", "'.[lab]'", "do [this]"))
    monkeypatch.setattr(doctor, "CHECKS", (lambda: well, raising(ValueError("oh"))))
    assert cli.main(["doctor"]) == 1
    assert "ValueError: oh" in capsys.readouterr().out


@pytest.mark.slow
def test_here_all_checks_answer_under_their_names(monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", raising(urllib.error.URLError("unreachable")))
    findings = examine()
    assert [finding.name for finding in findings] == [check.__name__.replace("_", " ") for check in CHECKS]
    states = {finding.name: finding.state for finding in findings}
    ours = ("python", "packages", "imports", "devices", "kernel", "data", "course")
    assert [states[name] for name in ours] == ["ok"] * len(ours)
    assert states["network"] == "warning"


@pytest.mark.slow
@pytest.mark.parametrize("module", ["stm_lab.cli", "stm_lab.cli.doctor"])
def test_it_works_where_torch_does_not(tmp_path, module):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libtorch_cpu.so: cannot open shared object file')")
    command = [sys.executable, "-m", module, *(["doctor"] if module.endswith("cli") else [])]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PACKAGE.parent}"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "libtorch_cpu.so" in done.stdout
    assert "what stops the course: imports, devices" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("error", ["ImportError('no x')", "OSError('no lib.so')", "RuntimeError('no operator nms')"])
def test_where_another_package_is_broken_ours_is_imported_and_its_models_name_the_doctor(tmp_path, error):
    (tmp_path / "torch.py").write_text(f"raise {error}")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PACKAGE.parent}"}
    command = [sys.executable, "-c", "import stm_lab; print(stm_lab.UserError.__name__); stm_lab.build_model('swin')"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == "UserError\n"
    *_, said, note = done.stderr.splitlines()
    assert said == error.replace("('", ": ").replace("')", "")
    assert "stm-lab doctor" in note


# ---- each check -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "state"), [((3, 10, 9), "problem"), ((3, 11, 0), "ok"), ((3, 13, 1), "ok"), ((3, 14, 0), "warning")]
)
def test_python(monkeypatch, version, state):
    monkeypatch.setattr(sys, "version_info", version)
    assert doctor.python().state == state


def test_packages_are_held_against_our_own_metadata(monkeypatch):
    here = importlib.metadata.version("timm")
    required = [f"timm>={here}", "torch", "torchvision", "nowhere-to-be-found>=1; extra == 'x'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: required)
    assert doctor.packages().state == "ok"
    required[:] = ["timm>=99", "torch", "nowhere-to-be-found>=1"]
    finding = doctor.packages()
    assert finding.state == "problem"
    assert f"timm {here} (>=99 is needed)" in finding.found
    assert "nowhere-to-be-found is missing" in finding.found
    assert "torch " not in finding.found


def test_a_device_that_computes_wrongly_or_not_at_all(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "allclose", lambda *_, **__: False)
    assert (doctor.devices().state, "computes wrongly" in doctor.devices().found) == ("problem", True)
    monkeypatch.setattr(torch, "allclose", raising(RuntimeError("no kernel image\nmore")))
    finding = doctor.devices()
    assert (finding.state, finding.found) == ("problem", "cpu: no kernel image")


@pytest.mark.parametrize(("free", "state"), [(3.9e9, "warning"), (4e9, "ok")])
def test_memory(monkeypatch, free, state):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: MEMORY(free))
    assert doctor.memory().state == state


@pytest.mark.parametrize(("check", "variable"), [("runs_folder", "STM_LAB_RUNS"), ("data_folder", "STM_LAB_DATA")])
def test_folders_need_room_and_leave_to_write(tmp_path, monkeypatch, check, variable):
    look = getattr(doctor, check)
    monkeypatch.setenv(variable, str(tmp_path / "not" / "yet"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: USAGE(9e9, 0, 2e9))
    assert look().state == "ok"
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"
    monkeypatch.setattr("shutil.disk_usage", lambda path: USAGE(9e9, 0, 1.9e9))
    assert (look().state, variable in look().advice) == ("problem", True)
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "in it"))
    assert (look().state, variable in look().advice) == ("problem", True)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (urllib.error.URLError("no route"), "warning"),
        (TimeoutError("timed out"), "warning"),
        (urllib.error.HTTPError(doctor.HUB, 405, "no", None, None), "ok"),
    ],
)
def test_network(monkeypatch, error, state):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", raising(error))
    finding = doctor.network()
    assert finding.state == state
    assert ("shapes" in finding.advice) == (state == "warning")


def test_an_offline_hub_is_not_asked(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(urllib.request, "urlopen", raising(AssertionError("asked")))
    assert doctor.network().state == "warning"


def test_git(monkeypatch):
    assert doctor.git().state == "ok"
    monkeypatch.setenv("PATH", "")
    assert doctor.git().state == "warning"


@pytest.mark.slow
def test_a_kernel_that_dies(monkeypatch):
    monkeypatch.setattr(doctor, "KERNEL_SECONDS", 20)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert doctor.kernel().state == "problem"


def test_no_kernel_spec_and_one_of_another_interpreter(monkeypatch, tmp_path):
    from jupyter_client import kernelspec

    assert doctor.kernel_spec().state == "ok"
    spec = kernelspec.KernelSpec(argv=["/elsewhere/bin/python"], display_name="Python 3", language="python")
    manager = kernelspec.KernelSpecManager
    monkeypatch.setattr(manager, "get_kernel_spec", lambda self, name: spec)
    assert (doctor.kernel_spec().state, "/elsewhere" in doctor.kernel_spec().found) == ("warning", True)
    monkeypatch.setattr(manager, "get_kernel_spec", raising(kernelspec.NoSuchKernel("python3")))
    assert (doctor.kernel_spec().state, "ipykernel install" in doctor.kernel_spec().advice) == ("problem", True)


def test_widgets(monkeypatch, tmp_path):
    from jupyter_core import paths as jupyter

    assert doctor.widgets().state == "ok"
    monkeypatch.setattr(jupyter, "jupyter_path", lambda *_: [str(tmp_path)])
    assert (doctor.widgets().state, "jupyterlab_widgets" in doctor.widgets().advice) == ("warning", True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert (doctor.widgets().state, "JupyterLab is not installed" in doctor.widgets().found) == ("warning", True)


@pytest.mark.slow
def test_course(monkeypatch, tmp_path):
    from stm_lab.course.copy import copy_course

    copy_course(tmp_path)
    monkeypatch.setattr(paths, "notebooks_dir", lambda: tmp_path)
    path = tmp_path / "00_quickstart.ipynb"
    assert doctor.course().state == "ok"
    right = path.read_bytes()
    path.write_bytes(right.replace(b"epochs: int = 2", b"epochs: int = 3"))
    assert (doctor.course().state, "00_quickstart" in doctor.course().found) == ("warning", True)
    path.unlink()
    assert (doctor.course().state, "00_quickstart" in doctor.course().found) == ("warning", True)
    path.write_bytes(right[:-20])
    assert (doctor.course().state, "00_quickstart" in doctor.course().found) == ("problem", True)
    path.write_bytes(right)
    (tmp_path / "course.yaml").write_text("x: [")
    assert (doctor.course().state, "course.yaml" in doctor.course().found) == ("problem", True)
