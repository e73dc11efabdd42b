"""However a step is dealt out - to processes, in parts - the training stays."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from stm_lab.pixels import EvaluationView
from stm_lab.train import __main__ as command
from stm_lab.train import fit, load_config, load_run, processes, trainer
from stm_lab.train.batches import Batches, load_splits
from stm_lab.train.folder import model_of
from stm_lab.util.errors import UserError

FEW = (64, 50)  # images to train and to validate on
# The order in which numbers are added up differs, and AdamW divides by small square roots; more steps, more difference.
TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def short(few):
    """Eight steps; no drop path, whose draws are by place in the batch. An odd number of validation images."""
    return {
        "mixer": "swin", "recipe": few, "epochs": 2, "batch_size": 16, "warmup_epochs": 0.5, "validation_size": 49,
        "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1, "drop_path_rate": 0.0, "ema_decay": 0.9, "device": "cpu",
        "augmentation": {"flip": True, "crop": "pad", "erasing": 0.3}, "lr": 1e-4,
    }  # fmt: skip


@pytest.fixture(scope="module")
def alone(short, tmp_path_factory):
    return fit(short, out=str(tmp_path_factory.mktemp("alone")))


def assert_alike(rows, weights, alone):
    for row, expected in zip(rows, alone.rows, strict=True):
        for name in ("loss", "grad_norm", "validation_loss"):
            assert row[name] == pytest.approx(expected[name], rel=TOLERANCE), name
        assert abs(row["top1"] - expected["top1"]) <= 100 / 49 + 1e-9  # at most one image on the edge
        assert row["step"] == expected["step"]
    for (name, one), other in zip(weights.items(), alone.model.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=2e-4, msg=name)


@pytest.mark.parametrize(
    ("processes", "accumulate", "batch_size"),
    [(1, 1, 24), (1, 4, 24), (2, 1, 40), (2, 2, 24), (2, 2, 40), (4, 2, 16), (4, 2, 48)],
)
def test_all_parts_of_a_step_are_the_step_and_mixing_pairs_the_same_images(processes, accumulate, batch_size):
    """Mixing pairs a part's i-th image with its i-th from the back."""
    whole = list(Batches(100, batch_size, seed=0))
    parts = processes * accumulate
    dealt = [
        list(Batches(100, batch_size, seed=0, parts=parts, first=rank * accumulate, count=accumulate))
        for rank in range(processes)
    ]
    for step, batch in enumerate(whole):
        mine = [part for rank in dealt for part in rank[step * accumulate : (step + 1) * accumulate]]
        assert sorted(row for part in mine for row in part) == sorted(batch)
        assert {len(part) for part in mine} == {batch_size // parts}
        pairs = {frozenset(pair) for part in mine for pair in zip(part, part[::-1], strict=True)}
        assert pairs == {frozenset(pair) for pair in zip(batch, batch[::-1], strict=True)}


def test_an_epoch_can_start_in_its_middle():
    whole = Batches(100, 12, seed=0, parts=2, first=1, count=1)
    everything = list(whole)
    whole.start = 3
    assert list(whole) == everything[3:]
    assert len(whole) == len(everything) - 3


@pytest.mark.slow
def test_accumulation_gives_the_same_curve_but_for_batch_norm(short, tmp_path, monkeypatch):
    """The head's batch norm sees one part at a time; with a norm within each image all stays."""

    def without(config, *sizes):
        model = model_of(config, *sizes)
        model.head.norm = torch.nn.GroupNorm(1, model.head_hidden_size)
        return model

    monkeypatch.setattr(trainer, "model_of", without)
    whole, dealt = (trainer.Trainer(load_config(short, out=str(tmp_path / str(n)), accumulate=n)).run() for n in (1, 4))
    assert_alike(dealt.rows, dealt.model.state_dict(), whole)


@pytest.mark.slow
def test_accumulation_with_batch_norm_stays_near(short, alone, tmp_path):
    run = fit(short, out=str(tmp_path), accumulate=2)
    for row, expected in zip(run.rows, alone.rows, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=0.02)


def torchrun(config, folder, processes=2):
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(load_config(config, out=str(folder)).to_yaml())
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--master-port", str(port), "-m", "stm_lab.train", str(path)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_two_processes_are_children_and_give_the_curve_of_one(short, alone, tmp_path, capfd):
    run = fit(short, out=str(tmp_path / "run"), num_processes=2)
    assert_alike(run.rows, run.model.state_dict(), alone)
    assert json.loads((run.run_dir / "environment.json").read_text())["processes"] == 2
    said = capfd.readouterr()
    assert "8/8 (100%) steps" in said.out
    assert said.out.count("(ema) in ") == 1  # one process speaks
    assert "UserWarning" not in said.out + said.err


def test_what_children_say_is_raised_here(monkeypatch):
    monkeypatch.setattr(processes, "as_child", lambda *_: [sys.executable, "-c", "print('error: x\\nmore'); exit(1)"])
    with pytest.raises(UserError, match=r"^x$"):
        processes.launch(load_config("quick", num_processes=2), force=False)


def test_what_is_wrong_stands_in_the_launchers_report_too(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "report.json"))
    assert command.main(["quick", "-p", "mixer=swinn"]) == 2
    said = json.loads((tmp_path / "report.json").read_text())["message"]
    assert "unknown mixer 'swinn'; did you mean 'swin'?" in said


def test_what_cannot_be_dealt_out_is_refused(short, tmp_path):
    with pytest.raises(UserError, match=r"batch_size = 20 must be a multiple of 8: .*accumulate = 4"):
        fit(short, out=str(tmp_path), batch_size=20, accumulate=4)
    with pytest.raises(UserError, match=r"batch_size = 18 must be a multiple of 4: 2 process\(es\)"):
        fit(short, out=str(tmp_path), num_processes=2, batch_size=18)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_shares_hold_each_validation_image_once_and_are_equally_long(short, world):
    shares = [load_splits(load_config(short), EvaluationView(64), rank, world)[1] for rank in range(world)]
    assert len({len(labels) for _, labels in shares}) == 1
    counted = torch.cat([images[labels >= 0] for images, labels in shares])
    whole, _ = load_splits(load_config(short), EvaluationView(64), 0, 1)[1]
    assert sorted(image.numpy().tobytes() for image in counted) == sorted(image.numpy().tobytes() for image in whole)


@pytest.mark.soak
def test_two_processes_go_on_where_they_were_killed(short, tmp_path):
    config = load_config(short, checkpoint_every=1)
    for name in ("whole", "run"):
        assert torchrun(config, tmp_path / name).returncode == 0
    last = sorted((tmp_path / "run" / "checkpoints").glob("*"))[-1]
    last.unlink()  # as if they had been killed in the last step
    (tmp_path / "run" / "model.safetensors").unlink()
    assert torchrun(config, tmp_path / "run").returncode == 0
    first, second = (load_run(tmp_path / name).state_dict() for name in ("run", "whole"))
    for name in second:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
