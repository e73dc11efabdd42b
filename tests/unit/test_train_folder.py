"""A run's folder knows which code made it, is held by one training at a time, and its weights are the same bytes."""

import importlib
import json
import subprocess
import sys

import pytest
import torch

import stm_lab
from stm_lab.train import fit, load_run
from stm_lab.train.folder import RunFolder
from stm_lab.train.trainer import Trainer
from stm_lab.util import environment
from stm_lab.util.errors import UserError

FEW = (48, 50)
MIXER = """
import stm_lab, torch

@stm_lab.register_mixer("worked_on")
class WorkedOn(torch.nn.Identity):
    def __init__(self, dim):
        super().__init__()
"""


@pytest.fixture
def short(few, tmp_path):
    return {
        "mixer": "identity", "recipe": few, "epochs": 1, "batch_size": 16, "warmup_epochs": 0.5, "device": "cpu",
        "out": str(tmp_path / "run"),
    }  # fmt: skip


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user's own that registers a mixer, imported; and its file."""
    file = tmp_path / "mymix_of_folder_test.py"
    file.write_text(MIXER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # times of files are too coarse for a test
    yield importlib.import_module(file.stem), file
    sys.modules.pop(file.stem)
    stm_lab.mixers.registry._mixers.pop("worked_on")


def edit(module, file):
    file.write_text(MIXER + "# worked on\n")
    importlib.reload(module)


@pytest.mark.slow
def test_an_edited_mixer_is_trained_afresh_and_that_is_said(short, module, capsys):
    fit(short, mixer="worked_on")
    fit(short, mixer="worked_on")
    assert "finished already" in capsys.readouterr().out
    edit(*module)
    assert fit(short, mixer="worked_on").rows[-1]["step"] == 3
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "changed" in line]
    assert "the source of mixer 'worked_on' has changed since; training afresh" in line
    fit(short, mixer="worked_on")
    assert "finished already" in capsys.readouterr().out


def test_an_edited_mixer_does_not_go_on(short, module, monkeypatch, tmp_path):
    run = fit(short, mixer="worked_on", checkpoint_every=1)
    (run.run_dir / "model.safetensors").unlink()
    edit(*module)
    steps = []
    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda self, parts: (steps.append(self.step), step(self, parts))[1])
    fit(short, mixer="worked_on")
    assert steps == [0, 1, 2]


def test_a_file_edited_after_the_import_has_not_changed_what_runs(short, module, capsys):
    fit(short, mixer="worked_on")
    module[1].write_text(MIXER + "# not read yet\n")
    fit(short, mixer="worked_on")
    assert "finished already" in capsys.readouterr().out


def test_another_configuration_is_refused_for_what_differs_besides(short, module):
    fit(short, mixer="worked_on")
    edit(*module)
    with pytest.raises(UserError, match=r"holds another run \(lr = 0.001 there, 0.002 here\)"):
        fit(short, mixer="worked_on", lr=2e-3)


def test_an_edited_plugin_is_named(short, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(MIXER)
    fit(short, mixer="worked_on", plugins=[str(plugin)])
    plugin.write_text(MIXER + "# edited\n")
    with pytest.raises(UserError, match=r"holds another run \(plugin '.*mine.py' has changed since\); .*force=True"):
        fit(short, mixer="worked_on", plugins=[str(plugin)])
    stm_lab.mixers.registry._mixers.pop("worked_on")


def test_other_code_is_said_of_a_finished_run(short, capsys):
    run = fit(short)
    path = run.run_dir / "environment.json"
    made_with = json.loads(path.read_text())
    assert made_with["code"] == environment.code_fingerprint()
    path.write_text(json.dumps(made_with | {"code": "abcdef012345"}))
    capsys.readouterr()
    fit(short)
    said = capsys.readouterr().out
    assert f"finished already, with other code (abcdef012345, now {environment.code_fingerprint()}); " in said
    assert "--force (in Python force=True) trains again" in said


HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_trainings_at_once_are_one_too_many(short, tmp_path):
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for force in (False, True):
            with pytest.raises(UserError, match="this training is already going on in another process"):
                fit(short, force=force)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
        other.kill()
    assert fit(short).rows[-1]["step"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["_restore", "train_step"])
def test_a_run_that_was_stopped_in_a_notebook_lets_go_of_its_folder(short, tmp_path, monkeypatch, name):
    run = fit(short)
    (run.run_dir / "model.safetensors").unlink()
    again = {"force": True} if name == "train_step" else {}

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, name, interrupted)
        with pytest.raises(KeyboardInterrupt) as kept:  # its traceback keeps the trainer
            fit(short, **again)
    assert fit(short).rows[-1]["step"] == 3
    assert kept


def test_the_bytes_of_the_weights_are_the_same_however_their_facts_are_ordered(short, tmp_path):
    run = fit(short)
    folder = RunFolder(stm_lab.train.load_config(short))
    state = {"weight": torch.arange(3.0), "bias": torch.ones(1)}
    facts = {f"fact{number}": number for number in range(10)}
    contents = set()
    for _ in range(5):
        folder.save_weights(state, **facts)
        contents.add((run.run_dir / "model.safetensors").read_bytes())
    assert len(contents) == 1


def test_weights_are_read_back(short):
    run = fit(short)
    for name, tensor in load_run(run.run_dir).state_dict().items():
        assert torch.equal(tensor, run.model.state_dict()[name]), name
