"""Does everything work here? Small checks, each of one thing, with what to do where it does not.

The checks import what they look at when they run, and this module nothing but the standard library: it has to work
where something else is broken. `python -m stm_lab.cli.doctor` is `stm-lab doctor` without its table.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stm_lab.util import paths

State = Literal["ok", "warning", "problem"]
PYTHONS = ((3, 11), (3, 13))  # the first and last that are tested
MEMORY, DISK = 4, 2  # GB (1e9 bytes) that should be free
KERNEL_SECONDS = 60
HUB = "https://huggingface.co"
REINSTALL = "make install, or pip install -e '.[lab]'"


@dataclass(frozen=True)
class Finding:
    """What a check found: in words, and what to do if it is not well."""

    name: str
    state: State
    found: str
    advice: str = ""


def examine(checks: tuple[Callable[[], Finding], ...] | None = None) -> list[Finding]:
    """The finding of every check, in order. A check that fails itself is a problem."""
    return [_guarded(check) for check in checks or CHECKS]


def _guarded(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except (Exception, SystemExit) as error:
        message = (str(error).strip().splitlines() or [""])[0]
        found = f"{type(error).__name__}: {message}".removesuffix(": ")
        return Finding(check.__name__.replace("_", " "), "problem", found, REINSTALL)


# ---- what is installed ----------------------------------------------------------------------------------------------


def python() -> Finding:
    here = sys.version_info[:2]
    found = f"{'.'.join(map(str, sys.version_info[:3]))}, {sys.executable}"
    first, last = (".".join(map(str, version)) for version in PYTHONS)
    if here < PYTHONS[0]:
        return Finding("python", "problem", found, f"Python {first} to {last} is needed: make PYTHON=python{last}")
    if here > PYTHONS[1]:
        return Finding("python", "warning", found, f"newer than what is tested ({first} to {last})")
    return Finding("python", "ok", found)


def packages() -> Finding:
    """Every package that ours requires, against the version that it asks for."""
    from packaging.requirements import Requirement

    try:
        required = [Requirement(line) for line in importlib.metadata.requires("stm-lab") or []]
    except importlib.metadata.PackageNotFoundError:
        return Finding("packages", "warning", "stm-lab itself is not installed, so nobody knows", REINSTALL)
    needed = [each for each in required if each.marker is None or each.marker.evaluate({"extra": ""})]
    versions = {each.name: _version(each.name) for each in needed}
    wrong = [
        f"{each.name} {versions[each.name] or 'is missing'} ({each.specifier} is needed)"
        for each in needed
        if versions[each.name] is None or not each.specifier.contains(versions[each.name], prereleases=True)
    ]
    if wrong:
        return Finding("packages", "problem", ", ".join(wrong), REINSTALL)
    shown = ", ".join(f"{name} {versions.get(name, '')}" for name in ("torch", "torchvision", "timm"))
    return Finding("packages", "ok", f"{shown}, and {len(needed) - 3} others")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def imports() -> Finding:
    """The packages whose import can fail although they are installed, and ours, which stands on them."""
    failed = []
    for name in ("torch", "torchvision", "timm", "datasets", "papermill", "matplotlib", "stm_lab.models"):
        finding = _guarded(lambda name=name: Finding(name, "ok", importlib.import_module(name).__name__))
        if finding.state != "ok":
            failed.append(f"{name}: {finding.found}")
    if failed:
        return Finding("imports", "problem", "; ".join(failed), f"{REINSTALL}; if that does not help, in a new .venv")
    return Finding("imports", "ok", "torch, torchvision, timm and what else is slow to import")


# ---- the machine ----------------------------------------------------------------------------------------------------


def devices() -> Finding:
    """A small product of matrices on every device there is, against the same on the CPU."""
    import torch

    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    names += ["mps"] if torch.backends.mps.is_available() else []
    sample = torch.rand(32, 32, generator=torch.Generator().manual_seed(0))
    working, broken = [], []
    for name in names:
        finding = _guarded(lambda name=name: _multiplied(name, sample))
        (working if finding.state == "ok" else broken).append(finding.found)
    found = ", ".join(working + broken)
    if broken:
        return Finding("devices", "problem", found, "the driver or the build of torch; device=cpu works without")
    return Finding("devices", "ok", found if len(names) > 1 else f"{found}; no GPU (the profile quick needs none)")


def _multiplied(name: str, sample) -> Finding:  # a tensor
    import torch

    try:
        right = torch.allclose((sample.to(name) @ sample.to(name)).cpu(), sample @ sample, rtol=1e-2)
    except Exception as error:
        return Finding(name, "problem", f"{name}: {(str(error).splitlines() or [type(error).__name__])[0]}")
    if not right:
        return Finding(name, "problem", f"{name}: computes wrongly")
    if not name.startswith("cuda"):
        return Finding(name, "ok", name)
    properties = torch.cuda.get_device_properties(name)
    return Finding(name, "ok", f"{name} ({properties.name}, {properties.total_memory / 1e9:.0f} GB)")


def memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available / 1e9
    advice = "" if free >= MEMORY else f"{MEMORY} GB are comfortable: close other programs, or -p processes=1"
    return Finding("memory", "ok" if free >= MEMORY else "warning", f"{free:.1f} GB available", advice)


def runs_folder() -> Finding:
    return _folder("runs folder", paths.runs_dir(), "STM_LAB_RUNS")


def data_folder() -> Finding:
    return _folder("data folder", paths.data_roots()[0], "STM_LAB_DATA")


def _folder(name: str, path: Path, variable: str) -> Finding:
    """Whether files can be written at `path`, which need not be there yet, and how much room there is."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    elsewhere = f"set {variable} to a folder elsewhere"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except OSError as error:
        return Finding(name, "problem", f"{path}: {error.strerror}", elsewhere)
    free = shutil.disk_usage(there).free / 1e9
    if free < DISK:
        return Finding(name, "problem", f"{path}: {free:.1f} GB free", f"{DISK} GB are needed; {elsewhere}")
    return Finding(name, "ok", f"{path}: {free:.0f} GB free")


def network() -> Finding:
    works = "drawn data (shapes, shape-pairs), data in folders and all that is prepared work without"
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        return Finding("network", "warning", "HF_HUB_OFFLINE is set", works)
    try:
        urllib.request.urlopen(urllib.request.Request(HUB, method="HEAD"), timeout=3).close()
    except urllib.error.HTTPError:  # it answers
        pass
    except OSError as error:
        return Finding("network", "warning", f"{HUB} cannot be reached ({getattr(error, 'reason', error)})", works)
    return Finding("network", "ok", f"{HUB} answers")


def git() -> Finding:
    if shutil.which("git") is None:
        return Finding("git", "warning", "not found", "install git: without it rows do not know the code's revision")
    said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    return Finding("git", "ok", said.strip())


# ---- Jupyter --------------------------------------------------------------------------------------------------------


def kernel_spec() -> Finding:
    """What JupyterLab starts when a notebook asks for `python3`."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    mend = f"{sys.executable} -m ipykernel install --sys-prefix"
    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Finding("kernel spec", "problem", "no kernel 'python3', which the notebooks ask for", mend)
    other = Path(command).is_absolute() and Path(command).parent != Path(sys.executable).parent
    if other:  # links are not followed: all environments of one Python lead to the same file
        return Finding("kernel spec", "warning", f"'python3' is {command}, not this interpreter", mend)
    return Finding("kernel spec", "ok", "'python3' is there")


def kernel() -> Finding:
    """Whether a kernel of this interpreter starts and answers."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import KernelManager

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"]
    spec = KernelSpec(argv=argv, display_name="Python 3", language="python")

    class ThisInterpreter(KernelManager):
        kernel_spec = property(lambda self: spec)

    manager = ThisInterpreter()
    manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=KERNEL_SECONDS)
        reply = client.execute_interactive("6 * 7", timeout=KERNEL_SECONDS, output_hook=lambda message: None)
    except (RuntimeError, TimeoutError) as error:
        return Finding("kernel", "problem", str(error), f"{sys.executable} -m pip install --force-reinstall ipykernel")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    status = reply["content"]["status"]
    return Finding("kernel", "ok" if status == "ok" else "problem", f"a kernel of this interpreter answers: {status}")


def widgets() -> Finding:
    """The explorers' front end: JupyterLab, and the extension that draws ipywidgets in it."""
    if importlib.util.find_spec("jupyterlab") is None:
        return Finding("widgets", "warning", "JupyterLab is not installed", "pip install jupyterlab, to open notebooks")
    from jupyter_core.paths import jupyter_path

    extension = Path("@jupyter-widgets", "jupyterlab-manager", "package.json")
    for folder in jupyter_path("labextensions"):
        if (Path(folder) / extension).is_file():
            version = json.loads((Path(folder) / extension).read_text(encoding="utf-8")).get("version", "?")
            return Finding("widgets", "ok", f"JupyterLab {_version('jupyterlab')}, its widgets {version}")
    found = "JupyterLab's extension for ipywidgets is not there: explorers show still pictures"
    return Finding("widgets", "warning", found, f"{sys.executable} -m pip install --force-reinstall jupyterlab_widgets")


# ---- data and course ------------------------------------------------------------------------------------------------


def data() -> Finding:
    from stm_lab import data as recipes

    states = {name: recipes.state(recipes.load_recipe(name)) for name in recipes.list_recipes()}
    here = [f"{name} ({state})" for name, state in states.items() if not state.startswith("needs")]
    found = f"{len(here)} of {len(states)} recipes: {', '.join(here)}"
    return Finding("data", "ok" if here else "warning", found, "" if here else "stm-lab data list says how to get them")


def course() -> Finding:
    """The course's notebooks: there, readable, and as their cards say."""
    from stm_lab.course.cards import load_cards
    from stm_lab.course.notebooks import differences
    from stm_lab.util.errors import UserError

    folder, whole = paths.notebooks_dir(), "stm-lab course copy DIR gives whole ones"
    missing, unreadable, changed = [], [], []
    try:
        cards = load_cards()
    except UserError as error:
        return Finding("course", "problem", str(error), whole)
    for card in cards.values():
        try:
            if not card.path.is_file():
                missing.append(card.name)
            elif differences(card):
                changed.append(card.name)
        except UserError as error:
            unreadable.append(str(error))
    if unreadable:
        return Finding("course", "problem", "; ".join(unreadable), whole)
    if missing:
        return Finding("course", "warning", f"not in {folder}: {', '.join(missing)}", whole)
    if changed:
        found = f"header or parameters are not as the cards say: {', '.join(changed)}"
        return Finding("course", "warning", found, "right if you meant it; else stm-lab course sync")
    return Finding("course", "ok", f"{len(cards)} notebooks in {folder}")


CHECKS: tuple[Callable[[], Finding], ...] = (
    python, packages, imports, devices, memory, runs_folder, data_folder, kernel_spec, kernel, widgets, network, data,
    course, git,
)  # fmt: skip


def verdict(findings: list[Finding]) -> tuple[str, int]:
    """All findings in one sentence, and the exit status: 1 if something stops the course."""
    problems = [finding.name for finding in findings if finding.state == "problem"]
    warnings = [finding.name for finding in findings if finding.state == "warning"]
    if problems:
        return f"what stops the course: {', '.join(problems)}", 1
    return f"all is well, but see: {', '.join(warnings)}" if warnings else "all is well", 0


if __name__ == "__main__":
    for each in (everything := examine()):
        print(f"{each.state:<8} {each.name}: {each.found}" + (f" -> {each.advice}" if each.advice else ""))
    sentence, status = verdict(everything)
    print(sentence)
    sys.exit(status)
