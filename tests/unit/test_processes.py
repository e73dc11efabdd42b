"""Child processes end with the process that started them, whatever kind they are and however it ended."""

import collections
import contextlib
import importlib.util
import os
import sys

import numpy as np
import PIL.Image
import psutil
import pytest
from children import wait_until
from small_course import begun

FEW = (48, 50)
RECIPE = """\
title: noise
question: none
licence: Apache-2.0
image_size: 32
counts: {train: 60}
source: {kind: folder, layout: imagefolder}
classes: {a: a, b: b}
"""
PREPARE = """\
import sys
from stm_lab import cli
from stm_lab.data import prepare
prepare.PART = 2
if __name__ == "__main__":
    cli.main(["data", "prepare", sys.argv[1], "--data-root", sys.argv[2], "--workers", "2"])
"""
POOL = """\
import sys
from stm_lab.train import fit_all
if __name__ == "__main__":
    fit_all([dict(recipe=sys.argv[1], out=f"{sys.argv[2]}/{seed}", seed=seed, mixer="identity", epochs=2000,
                  batch_size=16, device="cpu", checkpoint_every=1, workers=1) for seed in (0, 1)], processes=2)
"""
TRAIN = ["-m", "stm_lab.train", "quick", "-p", "mixer=identity", "-p", "epochs=2000", "-p", "batch_size=16"]
TRAIN += ["-p", "checkpoint_every=1", "-p", "device=cpu"]
PATIENCE = collections.defaultdict(lambda: 20)  # seconds
PATIENCE["ray"] = 90  # Ray's agents first try to tell the cluster, which has ended, for a minute (publish_error)
SWEEP = "title: t\nnotebook: 01_small\nlist: [{act: sleep}]\ngrid: {mixer: [halo, pvt]}\n"


def prepare(folder, few):
    draw = np.random.default_rng(0)
    for name in [f"{label}/{i}.jpg" for label in "ab" for i in range(30)]:
        path = folder / "raw" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(draw.integers(0, 256, (600, 600, 3), np.uint8)).save(path)
    (folder / "noise.yaml").write_text(RECIPE)
    (folder / "prepare.py").write_text(PREPARE)
    begins = lambda: list((folder / "home").rglob("parts/train-*.json"))  # noqa: E731
    return [str(folder / "prepare.py"), str(folder / "noise.yaml"), str(folder / "raw")], begins, 2


def pool(folder, few):
    "Two trainings, each with a process of its own that loads data."
    (folder / "pool.py").write_text(POOL)
    return [str(folder / "pool.py"), few, str(folder)], lambda: len(list(folder.glob("*/checkpoints/step-*"))) > 1, 4


def torchrun(folder, few):
    command = [*TRAIN, "-p", f"recipe={few}", "-p", f"out={folder / 'run'}", "-p", "num_processes=2"]
    return command, lambda: list(folder.glob("run/checkpoints/step-*")), 3


def local(folder, few, engine="local"):
    (folder / "s.yaml").write_text(SWEEP)
    command = ["-m", "stm_lab.cli", "sweep", str(folder / "s.yaml"), "--engine", engine]
    return command, lambda: len(begun(folder / "course")) == 2, 2


def ray(folder, few):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray")
    return local(folder, few, "ray")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills by signal")
@pytest.mark.parametrize(
    "kind",
    [prepare, pool, torchrun, local, pytest.param(ray, marks=pytest.mark.soak)],  # see PATIENCE
    ids=lambda kind: kind.__name__,
)
def test_children_end_with_a_parent_that_was_killed(small, few, tmp_path, kind, monkeypatch):
    if kind is prepare:
        monkeypatch.setenv("STM_LAB_DATA", str(tmp_path / "home"))
    monkeypatch.setenv("STM_LAB_CORES", "2")
    command, has_begun, at_least = kind(tmp_path, few)
    said = tmp_path / "said.txt"
    with said.open("w") as file:
        parent = psutil.Popen([sys.executable, *command], stdout=file, stderr=file)
    children = []
    try:
        wait_until(lambda: has_begun() or parent.poll() is not None, 300)
        assert parent.poll() is None, said.read_text()
        children = parent.children(recursive=True)
        assert len(children) >= at_least, said.read_text()
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(children, timeout=PATIENCE[kind.__name__])
        assert not alive, [child.cmdline() for child in alive]
    finally:
        for process in (*children, parent):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
