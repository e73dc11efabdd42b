"""A run and processes: its place among several, child processes of its own, and what a process keeps of a run."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed
from accelerate import PartialState
from accelerate.state import AcceleratorState, GradientState, is_initialized
from torch import nn
from torch.distributed.nn.functional import all_reduce  # its gradient is summed over processes, too

from stm_lab.data.views import generators_kept
from stm_lab.train.config import TrainConfig
from stm_lab.util.devices import cores
from stm_lab.util.errors import UserError
from stm_lab.util.processes import as_child

# What torchrun tells the processes that it starts, and `accelerate launch` through it.
_PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# What launchers and batch systems leave behind, and torchrun or Accelerate would take for the place of one of several.
_LEFT = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|FORK_LAUNCHED"
    r"|(PMI|OMPI_COMM_WORLD|MV2_COMM_WORLD|PET|TORCHELASTIC|FSDP|ACCELERATE)_.*"
)
# What Accelerate would follow although the configuration, which is the whole of a run, says otherwise.
_OVERRULED = re.compile(
    r"ACCELERATE_(GRADIENT_ACCUMULATION_STEPS|GRADIENT_CLIPPING|MIXED_PRECISION|DOWNCAST_BF16|TORCH_DEVICE|DYNAMO_.*)"
)
_VERDICTS = ("error: ", "failed: ")  # how the lines begin in which `stm_lab.train` says why it ends


def is_child() -> bool:
    """Whether a launcher (torchrun, `accelerate launch`) started this process as one of several.

    Images of containers and batch systems set some of torchrun's variables; only all of them, with a world of more than
    one, count. MPI's and Slurm's do not count, since their tasks may be runs of their own.
    """
    world = os.environ.get("WORLD_SIZE", "")
    return all(name in os.environ for name in _PLACE) and world.isdecimal() and int(world) > 1


# ---- child processes -------------------------------------------------------------------------------------------------


def launch(config: TrainConfig, *, force: bool) -> None:
    """Train in `config.num_processes` child processes, which torchrun starts; their output is passed on as it comes.

    They are never forked from this process, which may have touched CUDA.

    Raises:
        UserError: the children said that the input was wrong.
        RuntimeError: the training failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "config.yaml"
        one = config.model_copy(update={"num_processes": 1, "out": str(config.run_dir())})
        path.write_text(one.to_yaml(), encoding="utf-8")
        processes = ["--standalone", "--nproc-per-node", str(config.num_processes)]
        training = ["-m", "stm_lab.train", str(path), *(["--force"] if force else [])]
        command = as_child("torch.distributed.run", *processes, *training)
        environment = {name: value for name, value in os.environ.items() if not _LEFT.fullmatch(name)}
        environment |= {"OMP_NUM_THREADS": str(max(1, cores() // config.num_processes))}
        verdict = _run(command, environment)
    if verdict.startswith("error: "):
        raise UserError(verdict.removeprefix("error: "))
    if verdict:
        raise RuntimeError(verdict.removeprefix("failed: "))


def _run(command: list[str], environment: dict[str, str]) -> str:
    """Run a command to its end and pass its lines on; why it failed, or ""."""
    said, verdict = [], ""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        try:
            for line in child.stdout:
                said.append(line.rstrip())
                verdict = verdict or (said[-1] if line.startswith(_VERDICTS) else "")
                if not verdict:  # torchrun's report of its children's status follows, which says no more
                    print(line, end="", flush=True)
        except BaseException:
            child.terminate()  # torchrun ends its children
            raise
    if child.returncode and not verdict:
        return f"the child processes ended with status {child.returncode}: {' '.join(said[-3:])}"
    return verdict


# ---- one run in a process --------------------------------------------------------------------------------------------


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Keep variables of launchers from a run, and leave the process as it was.

    Restored are Accelerate's state, environment variables, the global random number generators (`device`'s, too),
    torch's number of threads, and the filters of warnings.
    """
    variables, threads = dict(os.environ), torch.get_num_threads()
    on_gpu = torch.get_device_module(device) if device.type != "cpu" else None
    drawn = None if on_gpu is None else on_gpu.get_rng_state()
    dropped = _OVERRULED if is_child() else _LEFT
    for name in filter(dropped.fullmatch, variables):
        del os.environ[name]
    try:
        with generators_kept(), warnings.catch_warnings(), _own_accelerate_state():
            yield
    finally:
        if on_gpu is not None:
            on_gpu.set_rng_state(drawn)
        torch.set_num_threads(threads)
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)


@contextmanager
def _own_accelerate_state() -> Iterator[None]:
    """Let a run make its Accelerator as if the caller had none.

    Accelerate keeps one state a process, that of its first Accelerator, and refuses one with other settings. It has no
    public way to set a state aside, but each of its documented singletons shares one dictionary, `vars` of any
    instance, whose contents are set aside here.
    """
    kept = [(shared, dict(shared)) for shared in _accelerate_states()]
    for shared, _ in kept:
        shared.clear()
    try:
        yield
    finally:
        for shared in _accelerate_states():
            shared.clear()
        for shared, content in kept:
            shared.update(content)


def _accelerate_states() -> list[dict]:
    """The dictionaries of the singletons that were made; asking for the others would make them."""
    made = {
        AcceleratorState: is_initialized(),
        PartialState: PartialState.__new__(PartialState).initialized,
        GradientState: GradientState.__new__(GradientState).initialized,
    }
    return [vars(singleton()) for singleton, exists in made.items() if exists]


# ---- batch norm over all processes -----------------------------------------------------------------------------------


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose training statistics are those of all processes, which hold equally many images.

    torch's SyncBatchNorm does this on CUDA alone.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W), B being this process's share; in training all processes must call it."""
        if not self.training:
            return super().forward(x)
        processes = torch.distributed.get_world_size()
        with torch.autocast(x.device.type, enabled=False):
            values = x.float().transpose(0, 1).flatten(1)  # (B, C, H, W) -> (C, B * H * W)
            mean = all_reduce(values.mean(1)) / processes
            variance = all_reduce((values - mean[:, None]).square().mean(1)) / processes
            with torch.no_grad():
                number = processes * values.shape[1]
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * number / (number - 1), self.momentum)
                self.num_batches_tracked += 1
            scale = self.weight * (variance + self.eps).rsqrt()
            shift = self.bias - mean * scale
            return (x.float() * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def make_batch_norms_global(model: nn.Module) -> None:
    """Let every batch norm of a model see all processes, in place; names and weights stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d
