"""A run that is interrupted, anywhere and however often, ends as the one that is not: bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch
from kinds import soaked
from safetensors.torch import load_file

from stm_lab.train import TrainConfig, checkpoints, fit, load_config, runs
from stm_lab.train.folder import RunFolder
from stm_lab.train.trainer import Trainer
from stm_lab.util import files
from stm_lab.util.errors import UserError

TIMES = {"seconds", "images_per_second", "data_wait"}
STEPS = 7


class Killed(BaseException):
    """What stops a run in the middle of anything; nothing may catch it."""


@pytest.fixture(scope="module")
def short(few):
    """Seven steps in three and a half epochs, with everything on that is random."""
    return {
        "mixer": "identity", "recipe": few, "epochs": 3.5, "batch_size": 16, "warmup_epochs": 0.5, "train_size": 40,
        "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1, "drop_path_rate": 0.2, "ema_decay": 0.9, "device": "cpu",
        "augmentation": {"flip": True, "crop": "pad", "erasing": 0.3}, "checkpoint_every": 1,
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(short, tmp_path_factory):
    """The run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    fit(short, out=str(folder))
    return folder


def assert_ends_alike(folder, whole, epochs=4):
    """Weights, their average, the optimizer's state and the metrics, but for times, to the last bit."""
    for one, other in zip(sorted(folder.glob("**/*.safetensors")), sorted(whole.glob("**/*.safetensors")), strict=True):
        first, second = load_file(one), load_file(other)
        assert first.keys() == second.keys()
        for name in first:
            assert torch.equal(first[name], second[name]), name
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    rows = [
        [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in path.read_text().splitlines()]
        for path in (folder / "metrics.jsonl", whole / "metrics.jsonl")
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == epochs


def kill_at_step(patch, step):
    original = Trainer.train_step

    def train_step(self, parts):
        if self.step == step:
            raise Killed
        return original(self, parts)

    patch.setattr(Trainer, "train_step", train_step)


OFTEN = [2, 3, 5]  # these steps, one after the other
SOME = [(1, OFTEN), (3, OFTEN), (1, [0]), (None, [6])]
ALL = [(every, steps) for every in (1, 3, None) for steps in ([0], [1], [4], [6], OFTEN)]
REST = [pytest.param(*one, marks=pytest.mark.soak) for one in ALL if one not in SOME]


@pytest.mark.slow
@pytest.mark.parametrize(("every", "steps"), [*SOME, *REST], ids=str)
def test_killed_at_any_step(short, whole, tmp_path, every, steps):
    for step in steps:
        with pytest.MonkeyPatch.context() as patch:
            kill_at_step(patch, step)
            with pytest.raises(Killed):
                fit(short, out=str(tmp_path), checkpoint_every=every)
    assert not (tmp_path / "model.safetensors").exists()
    fit(short, out=str(tmp_path))
    assert_ends_alike(tmp_path, whole)


WHEN = soaked(["open", "half", "all but one", "written", "renamed"], besides=["half", "renamed"])


@pytest.mark.slow
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("step", soaked([1, 4], besides=[4]))
def test_killed_while_a_checkpoint_is_written(short, whole, tmp_path, when, step):
    write = files.write_whole

    def dying(path, contents, **how):
        if f"step-{step:08d}" not in path.name:
            return write(path, contents, **how)
        count = {"open": 0, "half": len(contents) // 2, "all but one": len(contents) - 1}.get(when, len(contents))
        unfinished = path.with_name(f"{path.name}.4711.part")
        unfinished.write_bytes(contents[:count])
        if when == "renamed":
            unfinished.rename(path)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write_whole", dying)
        with pytest.raises(Killed):
            fit(short, out=str(tmp_path))
    fit(short, out=str(tmp_path))
    assert_ends_alike(tmp_path, whole)
    assert not list(tmp_path.glob("checkpoints/*.part"))


def interrupted(short, folder, step=5):
    with pytest.MonkeyPatch.context() as patch:
        kill_at_step(patch, step)
        with pytest.raises(Killed):
            fit(short, out=str(folder))
    return sorted(folder.glob("checkpoints/*"))


@pytest.mark.slow
def test_the_last_two_are_kept(short, whole, tmp_path):
    assert [path.name[:13] for path in interrupted(short, tmp_path)] == ["step-00000004", "step-00000005"]
    assert [path.name[:13] for path in sorted(whole.glob("checkpoints/*"))] == ["step-00000006", "step-00000007"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "number"),
    [("flipped header", 1), ("flipped weight", 2), ("empty", 1)]
    + [pytest.param(*one, marks=pytest.mark.soak) for one in (("cut", 2), ("flipped header", 2), ("empty", 2))],
)
def test_damaged_checkpoints_are_passed_over_with_a_warning(short, whole, tmp_path, damage, number):
    for path in interrupted(short, tmp_path)[-number:]:
        contents = bytearray(path.read_bytes())
        if damage.startswith("flipped"):
            contents[20 if damage.endswith("header") else -100] ^= 1
        path.write_bytes(contents[: {"cut": len(contents) // 2, "empty": 0}.get(damage)])
    with pytest.warns(UserWarning, match=r"step-00000005-\w+\.safetensors is damaged"):
        fit(short, out=str(tmp_path))
    assert_ends_alike(tmp_path, whole)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_keeps_what_was_good(short, whole, tmp_path, monkeypatch):
    write = files.write_whole

    def full(path, contents, **how):
        if "step-" not in path.name:
            return write(path, contents, **how)
        path.with_name(f"{path.name}.4711.part").write_bytes(contents[:1000])
        raise OSError(28, "No space left on device")

    interrupted(short, tmp_path, step=3)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_whole", full)
        with pytest.raises(RuntimeError, match="No space left"):
            fit(short, out=str(tmp_path))
    fit(short, out=str(tmp_path))
    assert_ends_alike(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics.jsonl", "model.safetensors"])
def test_a_disk_that_is_full_later_is_told_in_one_line(short, whole, tmp_path, monkeypatch, name):
    write = files.write_whole

    def full(path, contents, **how):
        if path.name == name and contents:
            raise OSError(28, "No space left on device")
        write(path, contents, **how)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_whole", full)
        with pytest.raises(RuntimeError, match=r"^\S+: No space left on device$"):
            fit(short, out=str(tmp_path))
    fit(short, out=str(tmp_path))
    assert_ends_alike(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("workers", soaked([0, 2], besides=[2]))
def test_parts_and_workers_go_on_as_well(short, tmp_path, workers):
    dealt = {**short, "accumulate": 2, "workers": workers}
    fit(dealt, out=str(tmp_path / "whole"))
    interrupted(dealt, tmp_path / "run")
    fit(dealt, out=str(tmp_path / "run"))
    assert_ends_alike(tmp_path / "run", tmp_path / "whole")


def test_a_damaged_later_checkpoint_does_not_take_the_place_of_a_good_one(short, tmp_path):
    folder = tmp_path / "checkpoints"
    for step in (50, 100):
        checkpoints.save(folder, step, {"weight": torch.full((3,), step)}, {})
    last = sorted(folder.glob("*"))[-1]
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoints.latest(folder).step == 50
    checkpoints.save(folder, 60, {"weight": torch.full((3,), 60)}, {})
    assert [path.name[:13] for path in sorted(folder.glob("*"))] == ["step-00000050", "step-00000060"]


def test_what_is_nobodys_run_is_not_removed(short, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "precious.pt").write_text("years of work")
    with pytest.raises(UserError, match=r"holds checkpoints, and nothing says of which run"):
        fit(short, out=str(tmp_path))
    assert (tmp_path / "checkpoints" / "precious.pt").exists()


@pytest.mark.slow
def test_gradients_that_are_not_finite_stop_the_run_before_they_are_saved(short, tmp_path, monkeypatch):
    backward = Trainer._backward

    def poisoned(self, *arguments):
        loss = backward(self, *arguments)
        if self.step == 2:
            next(self.raw.parameters()).grad[0] = float("nan")
        return loss

    monkeypatch.setattr(Trainer, "_backward", poisoned)
    said = r"the gradient's norm is nan at step 2 of 7.* the checkpoint of step 2 is good"
    with pytest.raises(RuntimeError, match=said):
        fit(short, out=str(tmp_path))
    assert all(tensor.isfinite().all() for tensor in checkpoints.latest(tmp_path / "checkpoints").tensors.values())


def test_a_finished_run_is_not_trained_again(short, whole, monkeypatch, capsys):
    monkeypatch.setattr(Trainer, "train_step", None)
    result = fit(short, out=str(whole))
    assert "finished already" in capsys.readouterr().out
    assert result.rows == [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert result.metrics["parameters"] == sum(p.numel() for p in result.model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("finished", [False, True])
def test_another_run_is_not_overwritten(short, tmp_path, finished):
    if finished:
        fit(short, out=str(tmp_path))
    else:
        interrupted(short, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.glob("**/*") if path.is_file()}
    with pytest.raises(UserError, match=r"holds another run \(lr = 0.001 there, 0.002 here\)"):
        fit(short, out=str(tmp_path), lr=2e-3)
    assert {path: path.read_bytes() for path in tmp_path.glob("**/*") if path.is_file()} == before
    assert fit(short, out=str(tmp_path), lr=2e-3, force=True).rows[-1]["step"] == STEPS


ANOTHER_RUN = {  # by another value of one field
    "mixer": "pooling", "scale": "micro", "model_options": {"design": "original"}, "drop_path_rate": 0.1,
    "weights": "pretrained", "plugins": ("mine.py",), "recipe": "shapes", "train_size": 32, "validation_size": 20,
    "image_size": 48, "crop_pct": 0.8, "augmentation": {"erasing": 0.1}, "mixup": 0.7, "cutmix": 0.0,
    "mixup_prob": 0.5, "label_smoothing": 0.0, "epochs": 4, "batch_size": 8, "accumulate": 2, "lr": 2e-3,
    "warmup_epochs": 1, "warmup_lr": 1e-5, "min_lr": 1e-6, "weight_decay": 0.1, "clip_grad": None, "ema_decay": None,
    "precision": "bf16", "seed": 1,
}  # fmt: skip
SAME_RUN = {
    "data_root": ".", "channels_last": True, "compile": True, "grad_checkpointing": True, "fused": False,
    "device": "auto", "num_processes": 2, "workers": 1, "checkpoint_every": 2, "tracker": "tensorboard", "out": "moved",
}  # fmt: skip


@pytest.fixture(scope="module")
def begun(short, tmp_path_factory):
    """A run of which two epochs of four are done."""
    folder = tmp_path_factory.mktemp("begun")

    def stop(rows):
        if len(rows) == 2:
            raise Killed

    with pytest.raises(Killed):
        fit(short, out=str(folder), on_row=stop)
    return folder


def test_every_field_makes_another_run_or_the_same():
    assert ANOTHER_RUN.keys() | SAME_RUN.keys() == TrainConfig.model_fields.keys()
    assert not ANOTHER_RUN.keys() & SAME_RUN.keys()


@pytest.mark.parametrize("field", ANOTHER_RUN)
def test_a_run_does_not_go_on_with_a_field_that_decides_its_outcome(short, begun, tmp_path, monkeypatch, field):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("")
    changed = load_config(short, **{field: ANOTHER_RUN[field]})
    with pytest.raises(UserError, match=f"holds another run \\({field} = "):
        RunFolder(changed.model_copy(update={"out": str(begun)})).is_finished()
    assert changed.run_dir() != load_config(short).run_dir()


@pytest.mark.slow
@pytest.mark.parametrize("field", SAME_RUN)
def test_a_run_goes_on_with_a_field_that_says_where_and_how_it_is_computed(
    short, whole, begun, tmp_path, monkeypatch, field
):
    """It goes on from the last checkpoint, and ends as the run that nobody interrupted, but for rounding."""
    # inductor wants a compiler; two processes are tested in test_train_processes.py
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: None)
    monkeypatch.setattr(runs, "launch", lambda config, force: fit(config, num_processes=1))
    folder = tmp_path / "moved"
    shutil.copytree(begun, folder)
    changed = {"out": str(folder)} | {field: str(folder) if field == "out" else SAME_RUN[field]}
    if field != "out":
        assert load_config(short, **{field: SAME_RUN[field]}).run_dir() == load_config(short).run_dir()
    steps = []
    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda self, parts: steps.append(self.step) or step(self, parts))
    fit(short, **changed)
    assert steps == list(range(4, STEPS))
    first, second = (load_file(path / "model.safetensors") for path in (folder, whole))
    for name in second:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-5, msg=name)


def test_a_run_of_an_older_version_goes_on_if_a_field_of_then_decides_no_longer(short, begun, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(begun, folder)
    facts = json.loads((folder / "environment.json").read_text())
    facts["run"] |= {"channels_last": True, "fused": False}
    (folder / "environment.json").write_text(json.dumps(facts))
    run = RunFolder(load_config(short, out=str(folder)))
    assert not run.is_finished()
    assert not run.outdated()


# ---- real kills ------------------------------------------------------------------------------------------------------


def start(path):
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # the same sums in the same order
    command = [sys.executable, "-m", "stm_lab.train", str(path)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_until_finished(config, folder, delays):
    """Start, kill (after the first new checkpoint, and a delay in seconds), and so on; then let it end."""
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(load_config(config, out=str(folder)).to_yaml())
    killed = 0
    for delay in delays:
        child, there = start(path), set(folder.glob("checkpoints/*.safetensors"))
        while child.poll() is None and set(folder.glob("checkpoints/*.safetensors")) == there:
            time.sleep(0.005)
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
    assert start(path).wait() == 0
    return killed


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_real_kill(short, tmp_path):
    longer = short | {"epochs": 10}  # so that the kill does not come too late
    fit(longer, out=str(tmp_path / "whole"))
    assert kill_until_finished(longer, tmp_path / "run", [0.05]) == 1
    assert_ends_alike(tmp_path / "run", tmp_path / "whole", epochs=10)


@pytest.mark.soak
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_twenty_random_kills(few, tmp_path):
    longer = {
        "mixer": "swin", "recipe": few, "epochs": 120, "batch_size": 16, "warmup_epochs": 1, "mixup": 0.8,
        "drop_path_rate": 0.2, "ema_decay": 0.9, "device": "cpu", "checkpoint_every": 2,
        "augmentation": {"flip": True, "crop": "pad", "erasing": 0.3},
    }  # fmt: skip
    kill_until_finished(longer, tmp_path / "whole", [])
    draw = random.Random(0)
    delays = [draw.uniform(0, 0.5) for _ in range(20)]
    assert kill_until_finished(longer, tmp_path / "run", delays) == 20
    assert_ends_alike(tmp_path / "run", tmp_path / "whole", epochs=120)


def test_no_warnings_without_damage(short, tmp_path):
    interrupted(short, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert checkpoints.latest(tmp_path / "checkpoints").step == 5
