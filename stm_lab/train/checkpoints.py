"""A run's checkpoints: `checkpoints/step-<step>-<digest>.safetensors`.

The name carries a digest of the file's bytes, so a file that was cut off or changed on the disk is recognised, and the
one before it is taken. What is no tensor is JSON in the file's metadata; nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.distributed.checkpoint import state_dict as whole
from torch.optim import Optimizer

from stm_lab.published import read_facts
from stm_lab.util import files

KEPT = 2
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.safetensors")
# of weights that may be sharded: whole, on the first process, or on all
_ON_FIRST = whole.StateDictOptions(full_state_dict=True, cpu_offload=True)
_ON_ALL = whole.StateDictOptions(full_state_dict=True)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` steps: tensors by name, and facts that JSON can hold."""

    step: int
    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors whose names begin with `prefix.`, without it."""
        start = f"{prefix}."
        return {name.removeprefix(start): tensor for name, tensor in self.tensors.items() if name.startswith(start)}


def save(folder: Path, step: int, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Write a checkpoint as a whole, even if the machine stops meanwhile; the last two are kept.

    Raises OSError if it cannot be written; those before are then untouched.
    """
    folder.mkdir(exist_ok=True)
    contents = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        metadata={"facts": json.dumps({"step": step, **facts}, allow_nan=False)},
    )
    name = f"step-{step:08d}-{_digest(contents)}.safetensors"
    files.write_whole(folder / name, contents, durable=True)
    others = [(at, path) for at, path in _all(folder) if path.name != name]
    kept = [path for at, path in others if at < step][: KEPT - 1]
    for _, path in others:
        if path not in kept:  # older ones, and later ones, which were damaged: else this step would not be done again
            path.unlink(missing_ok=True)
    for unfinished in folder.glob(f"*{files.UNFINISHED}"):
        unfinished.unlink(missing_ok=True)


def latest(folder: Path) -> Checkpoint | None:
    """The last checkpoint that is whole, or None. Damaged ones are passed over with a warning."""
    found = _all(folder)
    for step, path in found:
        contents = path.read_bytes()
        if _digest(contents) == _NAME.fullmatch(path.name)[2]:
            return Checkpoint(step, safetensors.torch.load(contents), json.loads(read_facts(path)["facts"]))
        rest = "no other is whole, so the run starts afresh" if path == found[-1][1] else "taking the one before it"
        warnings.warn(f"{path} is damaged; {rest}", stacklevel=2)
    return None


def _all(folder: Path) -> list[tuple[int, Path]]:
    """Steps and paths, the last first."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*.safetensors"))
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def _digest(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()[:16]


# ---- the tensors of a training ---------------------------------------------------------------------------------------


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's state under its own names, whatever wraps or shards it; on the first process, empty on others."""
    return whole.get_model_state_dict(model, options=_ON_FIRST)


def pack(model: nn.Module, optimizer: Optimizer, ema: ModelEmaV3 | None) -> dict[str, torch.Tensor]:
    """All tensors, named `model.<name>`, `ema.<name>` and `optimizer.<parameter>|<moment>`."""
    states = whole.get_optimizer_state_dict(model, optimizer, options=_ON_FIRST).get("state", {})
    groups = {
        "model": weights_of(model),
        "ema": {} if ema is None else ema.module.state_dict(),
        "optimizer": {f"{name}|{key}": value for name, state in states.items() for key, value in state.items()},
    }
    return {f"{group}.{name}": tensor for group, part in groups.items() for name, tensor in part.items()}


def unpack(checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer, ema: ModelEmaV3 | None) -> None:
    """Put the tensors of a checkpoint back where `pack` found them."""
    whole.set_model_state_dict(model, checkpoint.part("model"), options=_ON_ALL)
    if ema is not None:
        ema.module.load_state_dict(checkpoint.part("ema"))
    state: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in checkpoint.part("optimizer").items():
        parameter, _, key = name.rpartition("|")
        state.setdefault(parameter, {})[key] = tensor
    groups = whole.get_optimizer_state_dict(model, optimizer, options=_ON_ALL)
    whole.set_optimizer_state_dict(model, optimizer, groups | {"state": state}, options=_ON_ALL)
    for weight, moments in optimizer.state.items():
        for key, moment in moments.items():
            # the fused step walks through memory, so moments must lie there as their weights do (channels_last)
            if moment.shape == weight.shape and moment.stride() != weight.stride():
                moments[key] = torch.empty_like(weight, dtype=moment.dtype).copy_(moment)
