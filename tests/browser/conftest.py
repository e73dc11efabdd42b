"""A JupyterLab for these tests alone, and a Chromium that opens it.

The browser is Debian's (`apt-get install chromium`) or, failing that, the one that `playwright install chromium`
fetches, or the one that STM_LAB_CHROMIUM names. Without it, or without the extra `browser`, they are skipped.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

READY = 60  # seconds for the server to answer


def _set_test_profile(folder: Path) -> None:
    """Write the values of the profile `test` into the parameters cells; other tests run the quick ones."""
    from stm_lab.course.cards import load_cards
    from stm_lab.course.notebooks import notebook_bytes, parameters_cell, parameters_source, read_notebook

    for card in load_cards(folder).values():
        notebook = read_notebook(card.path)
        parameters_cell(card.path, notebook)["source"] = parameters_source(card, card.profiles.get("test"))
        card.path.write_bytes(notebook_bytes(notebook))


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A running JupyterLab over a copy of the notebooks: its address, and its token."""
    from stm_lab.util.paths import notebooks_dir

    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(notebooks_dir(), root / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    if not os.environ.get("STM_LAB_SCREENSHOTS"):  # the manuals show the quick profile
        _set_test_profile(root / "notebooks")
    port, token = _free_port(), secrets.token_hex(16)
    options = {
        "ServerApp.root_dir": root / "notebooks",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "IdentityProvider.token": token,
        "LabApp.expose_app_in_browser": True,  # the tests ask it for a notebook's content
        "LabApp.news_url": "",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.user_settings_dir": root / "settings",
        "LabApp.workspaces_dir": root / "workspaces",
    }
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    environment = {
        **os.environ,
        "CUDA_PATH": "",  # otherwise torch warns, in a cell, of a CUDA compiler on a machine without a GPU
        "STM_LAB_NOTEBOOKS": str(root / "notebooks"),
        "STM_LAB_RUNS": str(root / "runs"),
        "JUPYTER_CONFIG_DIR": str(root / "config"),  # not the settings of the machine's user
        "JUPYTER_RUNTIME_DIR": str(root / "runtime"),
        "IPYTHONDIR": str(root / "ipython"),
    }
    quiet = root / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false"}')  # otherwise a question hides the picture
    with (root / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in options.items())],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=root,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/api?token={token}", process, root / "log.txt")
            yield address, token
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            process.kill()


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + READY
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.3)
    pytest.fail(f"JupyterLab did not answer within {READY} s:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def browser():
    """A browser context without a window for all tests: one cache, so that JupyterLab is fetched once."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
    with sync_api.sync_playwright() as playwright:
        own = os.environ.get("STM_LAB_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
        if own is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no Chromium: apt-get install chromium, or playwright install chromium")
        root = getattr(os, "geteuid", lambda: 1)() == 0  # Chromium's sandbox refuses to run as root
        chromium = playwright.chromium.launch(executable_path=own, args=["--no-sandbox"] if root else [])
        yield chromium.new_context(viewport={"width": 1280, "height": 1000})
        chromium.close()
