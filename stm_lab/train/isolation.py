"""What surrounds a run in its process: what may not change the run, and what the run may not change."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState, GradientState, is_initialized

from stm_lab.data.views import generators_kept

# What torchrun tells the processes that it starts, and `accelerate launch` through it.
_PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# What launchers and batch systems leave behind, and torchrun or Accelerate would take for the place of one of several.
_LEFT = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|FORK_LAUNCHED"
    r"|(PMI|OMPI_COMM_WORLD|MV2_COMM_WORLD|PET|TORCHELASTIC|FSDP|ACCELERATE)_.*"
)
# What Accelerate would follow though the configuration, which is the whole of a run, says otherwise.
_OVERRULED = re.compile(
    r"ACCELERATE_(GRADIENT_ACCUMULATION_STEPS|GRADIENT_CLIPPING|MIXED_PRECISION|DOWNCAST_BF16|TORCH_DEVICE|DYNAMO_.*)"
)


def is_child() -> bool:
    """Whether a launcher (torchrun, `accelerate launch`) started this process as one of several.

    A world of one is a process of its own, and so is one that lacks a part of what torchrun tells: images of containers
    and batch systems set some of these variables. MPI's and Slurm's do not count, for their tasks may be runs of their
    own.
    """
    world = os.environ.get("WORLD_SIZE", "")
    return all(name in os.environ for name in _PLACE) and world.isdecimal() and int(world) > 1


def own_environment() -> dict[str, str]:
    """The variables of this process but for those of launchers, as a process of its own needs them."""
    return {name: value for name, value in os.environ.items() if not _LEFT.fullmatch(name)}


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Run what is within undisturbed by variables of launchers, and leave the process as it was.

    Put back are Accelerate's state, environment variables, the global generators of random numbers (of `device`, too),
    torch's number of threads, and the filters of warnings.
    """
    variables, threads = dict(os.environ), torch.get_num_threads()
    dropped = _OVERRULED if is_child() else _LEFT
    for name in filter(dropped.fullmatch, variables):
        del os.environ[name]
    try:
        with generators_kept(), _device_generators_kept(device), warnings.catch_warnings(), _own_accelerate_state():
            yield
    finally:
        torch.set_num_threads(threads)
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)


@contextmanager
def _device_generators_kept(device: torch.device) -> Iterator[None]:
    """Put the generators of all devices of this kind back as they were: `torch.manual_seed` seeds them all."""
    if device.type == "cuda":
        states, put_back = torch.cuda.get_rng_state_all(), torch.cuda.set_rng_state_all
    elif device.type == "mps":
        states, put_back = torch.mps.get_rng_state(), torch.mps.set_rng_state
    else:
        yield
        return
    try:
        yield
    finally:
        put_back(states)


@contextmanager
def _own_accelerate_state() -> Iterator[None]:
    """Let an Accelerator be made as if there were none, and put the state of the caller's back.

    Accelerate keeps one state a process, of the first Accelerator's settings, refuses another one's, and has no public
    way to set it aside: `_reset_state` is internal, and forgets. Its documented singletons share one dictionary a
    class, which `vars` of any instance gives; so their contents are set aside here. The least bad way: a patched class
    would depend on more of Accelerate, and a child process for each run would cost seconds.
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
    """The dictionaries of those singletons that somebody has made; asking for the others would make them."""
    made = {
        AcceleratorState: is_initialized(),
        PartialState: PartialState.__new__(PartialState).initialized,
        GradientState: GradientState.__new__(GradientState).initialized,
    }
    return [vars(singleton()) for singleton, there in made.items() if there]
