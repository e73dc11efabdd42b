"""What moves the weights: the optimizer, its learning rate, the clipping of gradients, and the average of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn

from stm_lab.train.config import TrainConfig


def make_optimizer(model: nn.Module, lr: float, weight_decay: float, *, fused: bool = True) -> torch.optim.Optimizer:
    """AdamW (betas .9 and .999, eps 1e-8); `fused` updates all parameters in one kernel.

    timm's factory makes two groups: 1-D parameters, biases and what `model.no_weight_decay()` names do not decay.
    """
    return create_optimizer_v2(model, "adamw", lr=lr, weight_decay=weight_decay, fused=fused)


def schedule(config: TrainConfig, steps_per_epoch: int) -> WarmupCosine:
    """The learning rate of a run. Its warm-up is at least one step shorter than the run."""
    steps = max(1, round(config.epochs * steps_per_epoch))
    warmup_steps = min(round(config.warmup_epochs * steps_per_epoch), steps - 1)
    return WarmupCosine(steps, warmup_steps, config.warmup_lr, config.lr, config.min_lr)


@dataclass(frozen=True)
class WarmupCosine:
    """The published learning rate, a function of the step alone: linear warm-up, then half a cosine.

    The warm-up includes its end point, so that the peak comes twice; of the n steps after it, step i < n has
    cos(pi * i / n), so that `final` is never reached (STM-Evaluation's schedule, per iteration).

    Args:
        steps: length of the run; `warmup_steps` of them warm up, fewer than all.
        start, peak, final: learning rates of the first step, at the end of the warm-up, and at the end of the cosine.
    """

    steps: int
    warmup_steps: int
    start: float
    peak: float
    final: float

    def __call__(self, step: int) -> float:
        """The learning rate of `step`, 0 <= step < steps."""
        if step < self.warmup_steps:
            return self.start + (self.peak - self.start) * step / max(self.warmup_steps - 1, 1)
        done = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        return self.final + (self.peak - self.final) * (1 + math.cos(math.pi * done)) / 2


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float | None) -> torch.Tensor:
    """The norm of all gradients together, before they are scaled to a norm of at most `largest`; None: not scaled.

    `torch.nn.utils.clip_grad_norm_` gives the same, but also multiplies gradients that are small enough, by 1; its
    `foreach=True`, which a CPU needs to be as fast, is refused on MPS.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    # on a GPU reading the norm would wait for it, so that all gradients are scaled there, most of them by 1
    if largest is not None and (norm.device.type != "cpu" or not norm.item() + 1e-6 <= largest):
        torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1))
    return norm


class WeightAverage(ModelEmaV3):
    """timm's average of a model's weights and buffers, warmed up; `module` holds it, in evaluation mode.

    timm gathers both models' states at each step, which takes longer than averaging a small model.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__(model, decay=decay, use_warmup=True)
        # where tensors are kept, not the tensors: a model may put another one in a buffer's place
        places = [
            (getattr(ours, kind), getattr(theirs, kind), name)
            for ours, theirs in zip(self.module.modules(), model.modules(), strict=True)
            for kind in ("_parameters", "_buffers")
            for name, tensor in getattr(theirs, kind).items()
            if tensor is not None and name not in theirs._non_persistent_buffers_set
        ]
        self._averaged = [place for place in places if place[1][place[2]].is_floating_point()]
        self._copied = [place for place in places if not place[1][place[2]].is_floating_point()]

    @torch.no_grad()
    def apply_update_(self, _: nn.Module, decay: float) -> None:
        """Move the average towards the model by 1 - decay; whole numbers are copied."""
        averages = [ours[name] for ours, _, name in self._averaged]
        torch._foreach_lerp_(averages, [theirs[name] for _, theirs, name in self._averaged], weight=1 - decay)
        for ours, theirs, name in self._copied:
            ours[name].copy_(theirs[name])
