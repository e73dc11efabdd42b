"""What a number was measured with: versions, machine, and the code's revision and fingerprint."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# files and folders of the package whose code makes the numbers of rows
_MAKE_NUMBERS = (
    *("mixers", "designs", "backbone.py", "layers.py", "models.py", "published.py", "entrypoints.py"),
    *("data", "train", "zoo.py", "measure", "tasks", "pixels.py"),
)
_PACKAGES = ("stm-lab", "torch", "torchvision", "timm", "accelerate", "datasets", "numpy")


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions of Python and packages, platform, the device's name, cores, threads, and the revision of our code."""
    import torch  # here, since the fingerprint below is wanted where nothing is computed

    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "git_revision": git_revision(),
    }


def version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed, as ours may be in a checkout."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


@functools.cache
def code_fingerprint() -> str:
    """12 hexadecimal digits of a hash of the code that makes numbers, as this process first found it.

    It covers the syntax of models, data, training, measures and tasks. A docstring, a comment, an import, or the file
    and order of definitions change no number, so they do not change the fingerprint.
    """
    package = Path(__file__).resolve().parents[1]
    sources = [path for part in _MAKE_NUMBERS for path in (package / part, *(package / part).rglob("*.py"))]
    statements = (
        _syntax(statement)
        for path in sources
        if path.suffix == ".py" and path.is_file()
        for statement in _without_words(ast.parse(path.read_bytes()).body)
    )
    return hashlib.sha256("\n".join(sorted(statements)).encode(errors="surrogatepass")).hexdigest()[:12]


def _syntax(node: object) -> str:
    """A syntax tree as text, the same in every version of Python: `ast.dump` shows fields that came later."""
    if isinstance(node, list):
        return f"[{','.join(map(_syntax, _without_words(node)))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    told = [f"{name}={_syntax(value)}" for name, value in ast.iter_fields(node) if value is not None and value != []]
    return f"{type(node).__name__}({','.join(told)})"


def _without_words(nodes: list) -> list:
    """Statements, or parts of one, without imports and strings that stand alone, such as docstrings."""
    texts = [node for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    texts = [node for node in texts if isinstance(node.value.value, str)]
    return [node for node in nodes if not isinstance(node, ast.Import | ast.ImportFrom) and node not in texts]


def git_revision() -> str | None:
    """The commit of the checkout that this package runs from, `-dirty` if files differ; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # an installed copy: a repository around the environment is another project's
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
