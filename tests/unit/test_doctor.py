"""The doctor: says what is wrong and what to do, and does not fail itself."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stm_lab import cli
from stm_lab.cli import doctor
from stm_lab.cli.doctor import CHECKS, examine
from stm_lab.util import paths
from stm_lab.util.environment import version

PACKAGE = Path(paths.__file__).parents[1]


def found(check, *arguments, **keywords):
    """State, finding and advice of a check with these arguments."""

    def looked():
        return check(*arguments, **keywords)

    (finding,) = examine([looked])
    return finding.state, finding.found, finding.advice


@pytest.mark.parametrize("error", [ImportError("torch"), OSError(5, "x"), SystemExit(3), KeyError("a\nb"), OSError()])
def test_a_check_that_fails_is_a_problem_of_its_name(error):
    def some_check():
        raise error

    (finding,) = examine([some_check])
    assert (finding.name, finding.state) == ("some check", "problem")
    assert type(error).__name__ in finding.found
    assert "\n" not in finding.found
    assert finding.advice


@pytest.mark.slow
def test_here_all_is_well(capsys, monkeypatch):
    """The table names every check, what it found and what to do."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert all(f" {check.__name__.replace('_', ' ')} " in said for check in CHECKS)
    assert "HF_HUB_OFFLINE is set" in said
    assert "all prepared data work" in said
    assert said.endswith("all is well, but see: network\n")


@pytest.mark.slow
def test_it_works_where_torch_does_not(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libtorch_cpu.so: cannot open shared object file')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PACKAGE.parent}"}
    command = [sys.executable, "-m", "stm_lab.cli", "doctor"]
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


def test_packages_are_compared_with_what_is_required():
    here = version("timm")
    state, said, _ = found(doctor.packages, [f"timm>={here}", "torch", "nowhere-to-be-found>=1; extra == 'x'"])
    assert (state, here in said) == ("ok", True)
    state, said, advice = found(doctor.packages, ["timm>=99", "torch", "nowhere-to-be-found>=1"])
    assert (state, advice) == ("problem", doctor.REINSTALL)
    assert said == f"timm {here} (>=99 is needed), nowhere-to-be-found is missing (>=1 is needed)"


def test_imports_name_the_package_that_fails():
    assert found(doctor.imports, ["json"])[0] == "ok"
    state, said, _ = found(doctor.imports, ["json", "nowhere_to_be_found"])
    assert (state, said.startswith("nowhere_to_be_found: ModuleNotFoundError")) == ("problem", True)


def test_a_device_that_does_not_compute_is_named():
    state, said, _ = found(doctor.devices, ["cpu", "cuda:99"])
    assert (state, said.startswith("cuda:99: ")) == ("problem", True)
    assert found(doctor.devices, ["cpu"])[0] == "ok"


def test_memory():
    assert found(doctor.memory, 0)[0] == "ok"
    assert found(doctor.memory, 1e9)[0] == "warning"


@pytest.mark.parametrize(("check", "variable"), [("runs_folder", "STM_LAB_RUNS"), ("data_folder", "STM_LAB_DATA")])
def test_folders_need_space_and_permission_to_write(tmp_path, monkeypatch, check, variable):
    look = getattr(doctor, check)
    monkeypatch.setenv(variable, str(tmp_path / "not" / "yet"))
    assert found(look, 0)[0] == "ok"
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"
    state, _, advice = found(look, 1e9)
    assert (state, variable in advice) == ("problem", True)
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "in it"))
    state, _, advice = found(look, 0)
    assert (state, variable in advice) == ("problem", True)


def test_a_network_that_answers_in_whatever_way_is_there(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:  # answers 501
        address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert found(doctor.network, address)[0] == "ok"
    state, _, advice = found(doctor.network, address)  # nobody listens any more
    assert (state, "shapes" in advice) == ("warning", True)


@pytest.fixture
def kernel_spec(tmp_path, monkeypatch):
    """Write the spec of a kernel `test` that this command starts."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    def write(*command):
        (tmp_path / "kernels" / "test").mkdir(parents=True)
        spec = {"argv": [*command, "{connection_file}"], "display_name": "test", "language": "python"}
        (tmp_path / "kernels" / "test" / "kernel.json").write_text(json.dumps(spec))

    return write


def test_a_kernel_that_is_not_there_or_dies(kernel_spec):
    state, said, advice = found(doctor.kernel, "test")
    assert (state, "'test'" in said, "ipykernel install" in advice) == ("problem", True, True)
    kernel_spec("/bin/false")
    assert found(doctor.kernel, "test", 20)[0] == "problem"


@pytest.mark.slow
def test_a_kernel_of_another_interpreter(kernel_spec):
    code = "import sys; sys.executable = '/elsewhere/bin/python'; from ipykernel import kernelapp as app; "
    kernel_spec(sys.executable, "-c", code + "app.launch_new_instance(argv=['-f', sys.argv[1]])")
    state, said, _ = found(doctor.kernel, "test")
    assert (state, "/elsewhere/bin/python" in said) == ("warning", True)


def test_widgets(tmp_path):
    assert found(doctor.widgets)[0] == "ok"
    state, _, advice = found(doctor.widgets, [str(tmp_path)])
    assert (state, "jupyterlab_widgets" in advice) == ("warning", True)


def test_course(monkeypatch, tmp_path):
    from stm_lab.course.copy import copy_course

    copy_course(tmp_path)
    monkeypatch.setenv("STM_LAB_NOTEBOOKS", str(tmp_path))
    path = tmp_path / "00_quickstart.ipynb"
    right = path.read_bytes()
    assert found(doctor.course)[0] == "ok"
    for state, damage in (
        ("warning", lambda: path.write_bytes(right.replace(b"epochs: int = 2", b"epochs: int = 3"))),
        ("warning", path.unlink),
        ("problem", lambda: path.write_bytes(right[:-20])),
        ("problem", lambda: (path.write_bytes(right), (tmp_path / "course.yaml").write_text("x: ["))),
    ):
        damage()
        told = found(doctor.course)
        assert told[0] == state
        assert ("course.yaml" if "course.yaml" in told[1] else "00_quickstart") in told[1]
