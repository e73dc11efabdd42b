"""A course of one notebook that needs no torch, so that a run takes a second; its rows are what a mixer might score."""

from collections import Counter
from pathlib import Path

import nbformat
import yaml


def card_of(parameters: dict, profiles: dict | None = None) -> dict:
    """What `course.yaml` says of a small notebook with these parameters."""
    profiles = profiles or {}
    return {
        "title": "Small",
        "question": "Does it run?",
        "goals": ["see it run"],
        "minutes": 1,
        "difficulty": 2,
        "parameters": parameters,
        "profiles": profiles,
        "resources": {profile: {"minutes": 0.1, "memory_gb": 0.2} for profile in ("quick", *profiles)},
        "outputs": ["a row"],
    }


CARD = card_of(
    {
        "mixer": {"type": "str", "default": "halo", "choices": ["halo", "swin", "pvt"], "help": "whose score"},
        "seed": {"type": "int", "default": 0, "range": [0, None], "help": "what chance begins with"},
        "act": {
            "type": "str",
            "default": "score",
            "choices": ["score", "fail", "exit", "kill", "eat", "sleep", "once"],
            "in_key": False,
            "help": "what happens before the score",
        },
        "out": {"type": "path | None", "default": None, "in_key": False, "help": "folder of this run"},
    }
)
PARAMETERS = """\
from typing import Optional

mixer: str = "halo"  # whose score
seed: int = 0  # what chance begins with
act: str = "score"  # what happens before the score
out: Optional[str] = None  # folder of this run"""
ACT = """\
import json, os, pathlib, random, time

folder = pathlib.Path(os.environ["STM_LAB_RUN_FOLDER"])
with open(pathlib.Path(os.environ["STM_LAB_NOTEBOOKS"]) / "begun.txt", "a") as file:
    file.write(f"{mixer} {seed} {os.getpid()}\\n")
print("begun", flush=True)
if act == "once" and not (folder / "second").exists():  # sleeps the first time, for a test to kill it
    (folder / "second").touch()
    act = "sleep"
if act == "fail":
    raise ValueError("no good\\nat all")
time.sleep(0.5 if act in ("exit", "kill", "eat") else 0)  # for that line to be sent
if act == "exit":
    os._exit(9)
if act == "kill":
    os.kill(os.getpid(), 9)
if act == "eat":
    eaten = b"x" * 400_000_000
if act in ("sleep", "eat"):
    time.sleep(120)"""
SCORE = """\
top1 = {"halo": 50, "swin": 51, "pvt": 45}[mixer] + random.Random(f"{mixer} {seed}").gauss(0, 1)
row = {
    "notebook": "01_small", "parameters": {"mixer": mixer, "seed": seed}, "data": None, "revision": None, "code": "x",
    "device": "cpu", "seed": seed, "seconds": 0.1, "metrics": {"mixer": mixer, "top1": top1},
}
(folder / "rows.jsonl").write_text(json.dumps(row) + "\\n")"""


def write(folder: Path, *, with_parameters: bool = True) -> Path:
    """The course in `folder`; returns that."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "course.yaml").write_text(yaml.safe_dump({"01_small": CARD}, sort_keys=False))
    new = nbformat.v4.new_code_cell
    tags = {"tags": ["parameters"]} if with_parameters else {}
    cells = [new(PARAMETERS, metadata=tags), new(ACT), new(SCORE)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "01_small.ipynb")
    return folder


def begun(folder: Path) -> list[tuple[str, int, int]]:
    """Mixer, seed and the kernel's process of every run that was begun, in order."""
    path = folder / "begun.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [(mixer, int(seed), int(pid)) for mixer, seed, pid in map(str.split, lines)]


# ---- sweeps of it ----------------------------------------------------------------------------------------------------

MIXERS = ["halo", "swin", "pvt"]


def of(mixers, seeds, **more):
    """What a sweep's file would say."""
    return {"title": "small", "notebook": "01_small", "grid": {"mixer": mixers}, "seeds": seeds, **more}


def planned(mapping, **more):
    """The runs of such a sweep."""
    from stm_lab.course.sweep import Sweep, plan_sweep

    return plan_sweep(Sweep(name="test", **mapping), **more)


def states(outcomes):
    """How many runs came to which state."""
    return Counter(outcome.state for outcome in outcomes)
