"""A run and its process: neither changes the other."""

import os
import random
import warnings

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState, is_initialized

from stm_lab.train import fit, load_config, processes
from stm_lab.train.trainer import Trainer
from stm_lab.util.errors import UserError

FEW = (32, 20)
# What torchrun sets for the second of two processes; see PyTorch's documentation of torchrun.
TORCHRUN = {
    "RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0", "ROLE_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
    "ROLE_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_MAX_RESTARTS": "0", "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip
LEFT_BEHIND = [
    {"WORLD_SIZE": "1"},
    {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "gone", "MASTER_PORT": "1"},
    TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"},
    {"RANK": "3"},
    {"LOCAL_RANK": "0"},
    {"WORLD_SIZE": "4", "RANK": "1", "MASTER_ADDR": "gone", "MASTER_PORT": "1"},  # of a pod for torchrun
    {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
    {"PMI_SIZE": "4", "PMI_RANK": "2"},
    {"SLURM_NTASKS": "4", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"},
    {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
    {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_DYNAMO_BACKEND": "EAGER"},
    {"ACCELERATE_USE_FSDP": "true", "ACCELERATE_USE_CPU": "false"},
]


@pytest.fixture(scope="module")
def short(few):
    return {
        "mixer": "identity", "recipe": few, "epochs": 1, "batch_size": 16, "warmup_epochs": 0, "image_size": 32,
        "device": "cpu", "augmentation": {"flip": True},
    }  # fmt: skip


@pytest.fixture(scope="module")
def plain(short, tmp_path_factory):
    return fit(short, out=str(tmp_path_factory.mktemp("plain"))).model.state_dict()


@pytest.fixture
def no_state():
    """Accelerate as in a fresh process, before and after."""
    singletons = (AcceleratorState, PartialState, GradientState)
    for singleton in singletons:
        singleton._shared_state.clear()
    yield
    for singleton in singletons:
        singleton._shared_state.clear()


def surroundings():
    """What of a process a run might change."""
    return {
        "random": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "variables": dict(os.environ),
        "filters": list(warnings.filters),
        "group": torch.distributed.is_initialized(),
    }


@pytest.mark.parametrize("ends", ["well", "badly", "refused"])
def test_a_run_leaves_the_callers_accelerator_and_process_as_they_were(no_state, short, tmp_path, ends):
    mine = Accelerator(cpu=True, mixed_precision="no", gradient_accumulation_steps=3)
    model, optimizer = torch.nn.Linear(2, 1), None
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model, optimizer = mine.prepare(model, optimizer)

    def state():
        return (
            repr(mine.state),
            mine.mixed_precision,
            mine.gradient_accumulation_steps,
            mine.sync_gradients,
            mine.device,
        )

    before, mine_before = surroundings(), state()

    def stop(rows):
        raise RuntimeError("stop")

    asked = {"precision": "bf16", "out": str(tmp_path)}
    if ends == "well":
        fit(short, **asked)
    elif ends == "badly":
        with pytest.raises(RuntimeError, match="stop"):
            fit(short, **asked, on_row=stop)
    else:
        with pytest.raises(UserError, match="more than the 32 training images"):
            fit(short, **asked, batch_size=64)
    assert surroundings() == before
    assert state() == mine_before
    for step in range(3):
        with mine.accumulate(model):
            assert mine.sync_gradients == (step == 2)
            mine.backward(model(torch.ones(1, 2)).sum())
            assert model.weight.grad.dtype == torch.float32
            optimizer.step()
            optimizer.zero_grad()


def test_after_a_run_an_accelerator_may_have_other_settings(no_state, short, tmp_path):
    """As in a process where nobody has trained."""
    fit(short, out=str(tmp_path))
    assert not is_initialized()
    assert Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=2).mixed_precision == "bf16"


def test_no_function_that_accelerate_calls_internal_is_called(short, tmp_path, monkeypatch):
    for singleton in (AcceleratorState, PartialState, GradientState):
        monkeypatch.setattr(singleton, "_reset_state", None)
    fit(short, precision="bf16", out=str(tmp_path / "a"))
    fit(short, precision="no", out=str(tmp_path / "b"))


@pytest.mark.parametrize("left", LEFT_BEHIND)
def test_variables_that_a_container_or_batch_system_left_behind_make_no_child(monkeypatch, left):
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    assert not processes.is_child()


@pytest.mark.parametrize("left", [LEFT_BEHIND[2], *LEFT_BEHIND[5:7], *LEFT_BEHIND[9:]], ids=str)
def test_variables_that_a_container_or_batch_system_left_behind_change_no_run(
    short, plain, tmp_path, monkeypatch, left
):
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    result = fit(short, out=str(tmp_path / "run"))
    for name, tensor in result.model.state_dict().items():
        assert torch.equal(tensor, plain[name]), name
    assert left.items() <= os.environ.items()

    environments = []
    monkeypatch.setattr(processes, "_run", lambda *started: environments.append(started) or "")
    with pytest.raises(UserError, match="no such folder"):  # nobody has trained
        fit(short, out=str(tmp_path / "two"), num_processes=2)
    ((command, environment),) = environments
    assert command[command.index("--nproc-per-node") + 1] == "2"
    assert not [name for name in left if name in environment and not name.startswith("SLURM_")]


def test_the_place_that_torchrun_gives_is_kept(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert processes.is_child()
    before = dict(os.environ)
    with processes.isolated(torch.device("cpu")):
        assert dict(os.environ) == {n: v for n, v in before.items() if n != "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"}
    assert dict(os.environ) == before


def test_another_number_of_processes_than_was_asked_for_is_refused(short, tmp_path, monkeypatch):
    """A launcher has started them already; one process of the two would otherwise train for both."""
    with pytest.raises(UserError, match="num_processes = 2, but a launcher started 1; leave it out there"):
        Trainer(load_config(short, out=str(tmp_path), num_processes=2))
