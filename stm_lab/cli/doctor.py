"""`stm-lab doctor`: small checks of one thing each, with advice where something is missing.

A check imports what it looks at when it runs, so that it works where something else is broken. It returns what it
found, or raises `Ill`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer

from stm_lab.cli.console import print_table
from stm_lab.util import paths
from stm_lab.util.environment import version
from stm_lab.util.errors import UserError, in_a_line

MEMORY, DISK = 4, 2  # GB (1e9 bytes) that should be free
IMPORTS = ("torch", "torchvision", "timm", "datasets", "papermill", "matplotlib", "stm_lab.models")
HUB = "https://huggingface.co"
REINSTALL = "make install, or pip install -e '.[lab]'"


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do if it is not well. A problem stops the course, a warning does not."""

    name: str
    state: Literal["ok", "warning", "problem"]
    found: str
    advice: str = ""


class Ill(Exception):
    """What a check raises: the state, what it found, and what to do."""


def doctor() -> None:
    """Look at everything that the course needs, and say what to do where something is missing."""
    findings = examine(CHECKS)
    lines = [(each.state, each.name, each.found, each.advice) for each in findings]
    print_table("doctor", ("state", "what", "found", "what to do"), lines)
    problems, warnings = ([each.name for each in findings if each.state == s] for s in ("problem", "warning"))
    if problems:
        print(f"what stops the course: {', '.join(problems)}")
        raise typer.Exit(1)
    print(f"all is well, but see: {', '.join(warnings)}" if warnings else "all is well")


def examine(checks: Iterable[Callable[[], str]]) -> list[Finding]:
    """The finding of every check, in order. A check that fails itself is a problem."""
    return [_finding(check.__name__.replace("_", " "), check) for check in checks]


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, "ok", check())
    except Ill as ill:
        return Finding(name, *ill.args)
    except UserError as error:
        return Finding(name, "problem", str(error))
    except (Exception, SystemExit) as error:
        return Finding(name, "problem", in_a_line(error), REINSTALL)


# ---- the installation -----------------------------------------------------------------------------------------------


def python() -> str:
    return f"{platform.python_version()}, {sys.executable}"


def packages(required: Sequence[str] | None = None) -> str:
    """Compare every package that ours requires with the version that it asks for."""
    from packaging.requirements import Requirement

    wrong = []
    lines = importlib.metadata.requires("stm-lab") if required is None else required
    needed = [each for each in map(Requirement, lines) if each.marker is None or each.marker.evaluate({"extra": ""})]
    for each in needed:
        here = version(each.name)
        if here is None or not each.specifier.contains(here, prereleases=True):
            wrong.append(f"{each.name} {here or 'is missing'} ({each.specifier} is needed)")
    if wrong:
        raise Ill("problem", ", ".join(wrong), REINSTALL)
    return f"torch {version('torch')}, timm {version('timm')}, and {len(needed) - 2} others"


def imports(modules: Sequence[str] = IMPORTS) -> str:
    """Import the packages whose import can fail although they are installed."""
    failed = []
    for name in modules:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            failed.append(f"{name}: {in_a_line(error)}")
    if failed:
        raise Ill("problem", "; ".join(failed), f"{REINSTALL}; if that does not help, in a new .venv")
    return ", ".join(modules)


# ---- the machine ----------------------------------------------------------------------------------------------------


def devices(names: Sequence[str] | None = None) -> str:
    """Compute a small matrix product on every device, and compare it with the CPU's."""
    import torch

    if names is None:
        count = torch.accelerator.device_count()
        names = ["cpu", *(f"{torch.accelerator.current_accelerator().type}:{index}" for index in range(count))]
    sample = torch.rand(32, 32, generator=torch.Generator().manual_seed(0))
    broken = []
    for name in names:
        try:
            if not torch.allclose((sample.to(name) @ sample.to(name)).cpu(), sample @ sample, rtol=1e-2):
                broken.append(f"{name} computes wrongly")
        except Exception as error:
            broken.append(f"{name}: {in_a_line(error)}")
    if broken:
        raise Ill("problem", ", ".join(broken), "check the driver and the build of torch; device=cpu works without")
    of_cuda = {name: f" ({torch.cuda.get_device_name(name)})" for name in names if name.startswith("cuda")}
    found = ", ".join(f"{name}{of_cuda.get(name, '')}" for name in names)
    return found if len(names) > 1 else f"{found}; no GPU (the profile quick needs none)"


def memory(needed: float = MEMORY) -> str:
    import psutil

    found = f"{psutil.virtual_memory().available / 1e9:.1f} GB available"
    if psutil.virtual_memory().available < needed * 1e9:
        raise Ill("warning", found, f"{needed} GB are comfortable: close other programs, or -p processes=1")
    return found


def runs_folder(needed: float = DISK) -> str:
    return _folder(paths.runs_dir(), "STM_LAB_RUNS", needed)


def data_folder(needed: float = DISK) -> str:
    return _folder(paths.data_roots()[0], "STM_LAB_DATA", needed)


def _folder(path: Path, variable: str, needed: float) -> str:
    """Whether files can be written at `path`, which need not exist yet, and how much space is free."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    elsewhere = f"set {variable} to a folder elsewhere"
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x")
    except OSError as error:
        raise Ill("problem", f"{path}: {error.strerror}", elsewhere) from None
    free = shutil.disk_usage(existing).free / 1e9
    if free < needed:
        raise Ill("problem", f"{path}: {free:.1f} GB free", f"{needed} GB are needed; {elsewhere}")
    return f"{path}: {free:.0f} GB free"


def network(address: str = HUB) -> str:
    works = "drawn data (shapes, shape-pairs), data in folders and all prepared data work without it"
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        raise Ill("warning", "HF_HUB_OFFLINE is set", works)
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=3).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise Ill("warning", f"{address} cannot be reached ({reason})", works) from None
    return f"{address} answers"


def git() -> str:
    found = shutil.which("git")
    if found is None:
        raise Ill("warning", "not found", "install git: without it rows do not know the code's revision")
    return found


# ---- Jupyter --------------------------------------------------------------------------------------------------------


def kernel(name: str = "python3", seconds: float = 60) -> str:
    """Start the kernel that notebooks ask for, and ask it which Python it is."""
    from jupyter_client.kernelspec import NoSuchKernel
    from jupyter_client.manager import start_new_kernel

    install = f"{sys.executable} -m ipykernel install --sys-prefix"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        manager, client = start_new_kernel(kernel_name=name, startup_timeout=seconds, **quiet)
    except NoSuchKernel:
        raise Ill("problem", f"no kernel {name!r}, which the notebooks ask for", install) from None
    except RuntimeError as error:
        reinstall = f"{sys.executable} -m pip install --force-reinstall ipykernel"
        raise Ill("problem", in_a_line(error), reinstall) from None
    try:
        asked = {"python": "__import__('sys').executable"}
        reply = client.execute_interactive("", user_expressions=asked, timeout=seconds)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    found = reply["content"]["user_expressions"]["python"]["data"]["text/plain"].strip("'")
    if Path(found).parent != Path(sys.executable).parent:  # links are not followed: they lead out of environments
        raise Ill("warning", f"{name!r} is {found}, not this interpreter", install)
    return f"{name!r} answers"


def widgets(folders: Sequence[str] | None = None) -> str:
    """Look for the explorers' front end: JupyterLab, and its extension for ipywidgets."""
    if version("jupyterlab") is None:
        raise Ill("warning", "JupyterLab is not installed", "pip install jupyterlab, to open notebooks")
    from jupyter_core.paths import jupyter_path

    extension = Path("@jupyter-widgets", "jupyterlab-manager", "package.json")
    if not any((Path(folder) / extension).is_file() for folder in folders or jupyter_path("labextensions")):
        found = "JupyterLab's extension for ipywidgets is missing: explorers show still pictures"
        raise Ill("warning", found, f"{sys.executable} -m pip install --force-reinstall jupyterlab_widgets")
    return f"JupyterLab {version('jupyterlab')} and its extension for ipywidgets"


# ---- data and course ------------------------------------------------------------------------------------------------


def data() -> str:
    from stm_lab import data as recipes

    states = {name: recipes.state(recipes.load_recipe(name)) for name in recipes.list_recipes()}
    here = [f"{name} ({state})" for name, state in states.items() if not state.startswith("needs")]
    found = f"{len(here)} of {len(states)} recipes: {', '.join(here)}"
    if not here:
        raise Ill("warning", found, "stm-lab data list says how to get them")
    return found


def course() -> str:
    """Read the course's notebooks, and compare them with their cards."""
    from stm_lab.course.cards import load_cards
    from stm_lab.course.notebooks import differences

    folder, cards = paths.notebooks_dir(), load_cards().values()
    missing = [card.name for card in cards if not card.path.is_file()]
    if missing:
        raise Ill("warning", f"not in {folder}: {', '.join(missing)}", "stm-lab course copy DIR gives all")
    changed = [card.name for card in cards if differences(card)]
    if changed:
        found = f"header or parameters are not as the cards say: {', '.join(changed)}"
        raise Ill("warning", found, "right if you meant it; else stm-lab course sync")
    return f"{len(cards)} notebooks in {folder}"


CHECKS: tuple[Callable[[], str], ...] = (
    python, packages, imports, devices, memory, runs_folder, data_folder, kernel, widgets, network, data, course, git,
)  # fmt: skip
