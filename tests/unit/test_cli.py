"""The command line: exit status, one line for wrong input, and the tables."""

import json
import subprocess
import sys
import warnings

import pytest
import yaml

import stm_lab
import stm_lab.course
from stm_lab import cli, data
from stm_lab.course.cards import load_cards
from stm_lab.course.folder import RunFolder
from stm_lab.util import paths


def refused(capsys, *arguments):
    """The one line on stderr of a command that was given wrong input."""
    assert cli.main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    return err


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
    (["data", "prepare", "imagenette", "--data-root", "nowhere"], "layout 'ilsvrc' in nowhere"),
    (["data", "prepare", "shapes", "--sise", "64"], "--size"),
    (["data", "verify", "imagewof"], "did you mean 'imagewoof'?"),
    (["bench", "dta"], "dta"),
    (["train"], "config"),
    (["train", "qick"], "did you mean 'quick'?"),
    (["train", "quick", "-p", "epoch=3"], "'epochs'"),
]


@pytest.mark.parametrize(("arguments", "expected"), REFUSED)
def test_wrong_input_is_one_line_and_status_2(capsys, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.setenv("STM_LAB_RUNS", str(tmp_path / "runs"))
    assert expected in refused(capsys, *arguments)
    assert not (tmp_path / "runs").exists()


def test_help_mixers_and_refusals_do_not_import_torch():
    """Which takes seconds; in one process of their own, since this one has imported it."""
    commands = [[], ["--help"], ["mixers"], ["course", "list"], *(arguments for arguments, _ in REFUSED)]
    commands = [arguments for arguments in commands if arguments[:2] != ["data", "prepare"]]  # it looks at images
    code = (
        "import json, sys\n"
        "from stm_lab import cli\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    assert cli.main(arguments) in (0, 2), arguments\n"
        "    assert 'torch' not in sys.modules, arguments\n"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_is_what_you_get_without_arguments(capsys):
    assert cli.main([]) == 0
    said = capsys.readouterr().out
    assert all(command in said for command in ("demo", "mixers", "models", "data", "train"))


def test_mixers(capsys):
    assert cli.main(["mixers"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in stm_lab.list_mixers())
    assert "The operator of pvt; its networks have" in said


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
    assert "line 2, column 1" in refused(capsys, "demo")


def test_a_warning_is_one_line_without_a_place_in_our_code(capsys, monkeypatch):
    before, said = warnings.formatwarning, []

    def listing():
        said.append(warnings.formatwarning(UserWarning("the page could\nnot be written"), UserWarning, "ours.py", 3))
        return ["halo"]

    monkeypatch.setattr("stm_lab.mixers.registry.list_mixers", listing)
    assert cli.main(["mixers"]) == 0
    assert said == ["warning: the page could not be written\n"]
    assert warnings.formatwarning is before
