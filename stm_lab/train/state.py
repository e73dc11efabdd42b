"""The tensors of a training's checkpoint: weights, their average, and the optimizer's moments, whole if sharded."""

from __future__ import annotations

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.distributed.checkpoint import state_dict as whole
from torch.optim import Optimizer

from stm_lab.train.checkpoints import Checkpoint

# of weights that may be sharded: whole, on the first process, or on all
_WHOLE = whole.StateDictOptions(full_state_dict=True, cpu_offload=True)
_EVERYWHERE = whole.StateDictOptions(full_state_dict=True)


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model under its own names, whatever wraps or shards it; empty but on the first process."""
    return whole.get_model_state_dict(model, options=_WHOLE)


def pack(model: nn.Module, optimizer: Optimizer, ema: ModelEmaV3 | None) -> dict[str, torch.Tensor]:
    """All tensors, named `model.<name>`, `ema.<name>` and `optimizer.<parameter>|<moment>`."""
    states = whole.get_optimizer_state_dict(model, optimizer, options=_WHOLE).get("state", {})
    groups = {
        "model": weights_of(model),
        "ema": {} if ema is None else ema.module.state_dict(),
        "optimizer": {f"{name}|{key}": value for name, state in states.items() for key, value in state.items()},
    }
    return {f"{group}.{name}": tensor for group, part in groups.items() for name, tensor in part.items()}


def unpack(checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer, ema: ModelEmaV3 | None) -> None:
    """Put the tensors of a checkpoint back where `pack` found them."""
    whole.set_model_state_dict(model, checkpoint.part("model"), options=_EVERYWHERE)
    if ema is not None:
        ema.module.load_state_dict(checkpoint.part("ema"))
    state: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in checkpoint.part("optimizer").items():
        parameter, _, key = name.rpartition("|")
        state.setdefault(parameter, {})[key] = tensor
    there = whole.get_optimizer_state_dict(model, optimizer, options=_EVERYWHERE)
    whole.set_optimizer_state_dict(model, optimizer, there | {"state": state}, options=_EVERYWHERE)
    for weight, moments in optimizer.state.items():
        for key, moment in moments.items():
            # the fused step walks through memory, so moments must lie there as their weights do (channels_last)
            if moment.shape == weight.shape and moment.stride() != weight.stride():
                moments[key] = torch.empty_like(weight, dtype=moment.dtype).copy_(moment)
