"""The command line: exit status, one line for wrong input, and the tables."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml

import stm_lab
import stm_lab.course
from stm_lab import cli, data
from stm_lab.cli.console import print_table
from stm_lab.course.cards import load_cards
from stm_lab.course.folder import RunFolder
from stm_lab.util import paths

ROOT = Path(__file__).parents[2]

REFUSED = [
    (["dmeo"], "'demo'"),
    (["demo", "--recpe", "shapes"], "--recipe"),
    (["demo", "-p", "epoch=3"], "00_quickstart: unknown parameter 'epoch'; did you mean 'epochs'?"),
    (["demo", "-p", "epochs=three"], "epochs = 'three': should be a valid integer"),
    (["demo", "-p", "image_size=0"], "image_size = 0: should be greater than or equal to 1"),
    (["demo", "-p", "mixers=[halo, swim]"], "did you mean 'swin'?"),
    (["demo", "-p", "epochs"], "key=value"),
    (["demo", "--recipe", "shaps"], "did you mean 'shapes'?"),
    (["demo", "--recipe", "shapes", "-p", "recipe=shapes"], "recipe is given twice"),
    (["demo", "--profile", "dmo"], "did you mean 'demo'?"),
    (["run", "00_quickstrt"], "did you mean '00_quickstart'?"),
    (["run", "0", "-p", "mixrs=[halo]"], "did you mean 'mixers'?"),
    (["run", "0", "--timeout", "soon"], "--timeout"),
    (["sweep", "five_mixers"], "did you mean 'five_mixers_on_shapes'?"),
    (["sweep", "five_mixers_on_shapes", "--shard", "3/2"], "expected i/n"),
    (["sweep", "five_mixers_on_shapes", "--engine", "rya"], "did you mean 'ray'?"),
    (["sweep", "five_mixers_on_shapes", "--address", "auto"], "add --engine ray"),
    (["sweep", "five_mixers_on_shapes", "--engine", "ray", "--processes", "2"], "engine local"),
    (["leaderboard", "--metric", "top1"], "runs"),
    (["compare", "a", "b"], "a"),
    (["predict", "x.png", "--weights", "nowhere"], "x.png: no such image"),
    (["course", "copy"], "DIR"),
    (["course", "sync", "00_quickstrt"], "did you mean '00_quickstart'?"),
    (["course", "show", "quickstart"], "did you mean '00_quickstart'?"),
    (["course", "show", "16"], "unknown notebook '16'; known: 00_quickstart, "),
    (["data", "show", "shaps"], "did you mean 'shapes'?"),
    (["data"], "command"),
    (["data", "prepare", "shapes", "--sise", "64"], "--size"),
    (["data", "verify", "imagewof"], "did you mean 'imagewoof'?"),
    (["bench", "dta"], "dta"),
    (["train"], "config"),
    (["train", "qick"], "did you mean 'quick'?"),
    (["train", "quick", "-p", "epoch=3"], "'epochs'"),
]
RUN = """
import contextlib, io, json, sys
from stm_lab import cli
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = cli.main(arguments)
    print(json.dumps([status, out.getvalue(), err.getvalue(), "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Of each command: status, standard output and error, and whether torch is imported; from a process without it."""
    folder = tmp_path_factory.mktemp("answers")
    commands = [[], ["mixers"], ["course", "list"], *(arguments for arguments, _ in REFUSED)]
    environment = os.environ | {"STM_LAB_RUNS": str(folder / "runs")}
    command = [sys.executable, "-c", RUN, json.dumps(commands)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert not (folder / "runs").exists()
    return dict(zip(map(tuple, commands), map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize(("arguments", "expected"), REFUSED)
def test_wrong_input_is_one_line_and_status_2_at_once(answers, arguments, expected):
    """That is, without torch, which takes seconds to import."""
    status, out, err, has_torch = answers[tuple(arguments)]
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert expected in err
    assert not has_torch


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["demo", "mixers", "models", "data", "train"]),
        (["mixers"], [*stm_lab.list_mixers()[:8], "The operator of pvt; its networks have"]),
        (["course", "list"], ["Quickstart", "stm-lab course show NUMBER"]),
    ],
)
def test_help_and_lists_come_at_once(answers, arguments, expected):
    status, out, _, has_torch = answers[tuple(arguments)]
    assert (status, has_torch) == (0, False)
    assert all(word in out for word in expected)


LITERAL = ["pip install '.[lab]'", "[bold]x[/bold]", "[/]", "[3, 64, 64]", ":smile:", "back\\", "\\[a]", "[link=x]"]


@pytest.mark.parametrize("text", LITERAL)
def test_a_table_shows_what_it_is_given(capsys, text):
    """In title, heads and cells: nothing is markup, nothing is lost."""
    print_table(f"title {text}", ("a", f"head {text}"), [(text, 1.0), (float("nan"), f"cell {text}")])
    said = capsys.readouterr().out
    assert all(f"{place}{text}" in said for place in ("title ", "head ", "cell ", "│ "))
    assert "1.00" in said
    assert "nan" not in said


@pytest.mark.slow
def test_models(capsys):
    assert cli.main(["models"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "unified_identity_micro " in line]
    model = stm_lab.build_model("identity", "micro")
    assert f"{sum(parameter.numel() for parameter in model.parameters()):,}" in line


def test_what_can_be_used_at_once_is_listed_first(capsys):
    assert cli.main(["data", "list"]) == 0
    listed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("│ ")]
    listed = [name for name in listed if name in data.list_recipes()]
    assert "shapes" in listed
    states = [data.state(data.load_recipe(name)).startswith(("drawn", "prepared", "raw")) for name in listed]
    assert sorted(listed) == data.list_recipes()
    assert states == sorted(states, reverse=True)
    assert states[0]


def test_many_classes_are_named_only_if_asked_for(capsys):
    recipe = data.load_recipe("imagenet-100")
    assert cli.main(["data", "show", "imagenet-100"]) == 0
    said = capsys.readouterr().out
    shown = yaml.safe_load(said)
    assert list(shown)[:4] == ["name", "state", "command", "fingerprint"]
    assert shown.pop("classes") == "100; --classes names all"
    assert len(said.splitlines()) < 60
    assert cli.main(["data", "show", "imagenet-100", "--classes"]) == 0
    everything = yaml.safe_load(capsys.readouterr().out)
    assert everything.pop("classes") == recipe.classes
    assert everything == shown


def test_a_notebook_is_shown_as_its_card_says(capsys):
    cards = load_cards()
    for card in (cards["00_quickstart"], cards["04_shifted_window_attention"]):
        assert cli.main(["course", "show", card.number]) == 0
        said = capsys.readouterr().out
        assert f"{card.number} {card.title}" in said
        assert card.question in said
        whole = " ".join(said.replace("│", " ").split())
        assert all(goal in said for goal in card.goals)
        assert all(f"│ {name} " in said for name in (*card.parameters, *card.resources))
        assert all(exercise.title in whole for exercise in card.exercises)


def finished(folder, **scores):
    """What a run of the quickstart leaves behind."""
    base = {"notebook": "00_quickstart", "parameters": {}, "data": "d", "code": "c", "revision": "r", "device": "cpu"}
    lines = [
        json.dumps(base | {"seed": seed, "seconds": 1.0, "metrics": {"mixer": mixer, "top1": top1}}) + "\n"
        for mixer, of_seed in scores.items()
        for seed, top1 in enumerate(of_seed)
    ]
    folder = RunFolder(folder).create()
    folder.rows.write_text("".join(lines))
    for file in (folder.notebook, folder.html):
        file.touch()
    folder.figures.mkdir(exist_ok=True)
    return folder


def test_demo_says_where_everything_is_and_shows_the_table(capsys, tmp_path, monkeypatch):
    asked = {}

    def run(notebook, values, *, profile, force, echo):
        asked.update(notebook=notebook, values=values, profile=profile)
        return finished(tmp_path, identity=[30.0, 31.0], halo=[50.0, 51.5])

    monkeypatch.setattr(stm_lab.course, "run", run)
    assert cli.main(["demo", "--recipe", "shapes", "-p", "seeds=[3, 4]", "-p", "epochs=2"]) == 0
    assert asked["notebook"] == "00_quickstart"
    assert asked["values"] == {"recipe": "shapes", "seeds": [3, 4], "epochs": 2}
    assert asked["profile"] == "demo"
    said = capsys.readouterr().out
    (halo,) = [line for line in said.splitlines() if "halo" in line]
    assert "50.75" in halo
    assert "above" in halo
    folder = RunFolder(tmp_path)
    assert all(str(path) in said for path in (folder.notebook, folder.html, folder.figures, folder.rows))


def test_what_fails_is_status_1_and_what_is_interrupted_130(capsys, tmp_path, monkeypatch):
    def fail(*_, **__):
        failure = {"cell": 3, "kind": "cell"}
        raise stm_lab.course.RunFailed("00_quickstart: cell [3]: ValueError: x", RunFolder(tmp_path), failure)

    monkeypatch.setattr(stm_lab.course, "run", fail)
    assert cli.main(["demo"]) == 1
    assert capsys.readouterr().err == "failed: 00_quickstart: cell [3]: ValueError: x\n"

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(stm_lab.course, "run", interrupt)
    assert cli.main(["demo"]) == 130


def test_a_broken_course_file_is_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "notebooks_dir", lambda: tmp_path)
    (tmp_path / "course.yaml").write_text("00_quickstart:\n\ttitle: x\n")
    assert cli.main(["demo"]) == 2
    err = capsys.readouterr().err
    assert (err.count("\n"), "line 2, column 1" in err) == (1, True)


def test_a_warning_is_one_line_without_a_place_in_our_code(capsys, monkeypatch):
    before, said = warnings.formatwarning, []

    def listing():
        said.append(warnings.formatwarning(UserWarning("the page could\nnot be written"), UserWarning, "ours.py", 3))
        return ["halo"]

    monkeypatch.setattr("stm_lab.mixers.registry.list_mixers", listing)
    assert cli.main(["mixers"]) == 0
    assert said == ["warning: the page could not be written\n"]
    assert warnings.formatwarning is before
