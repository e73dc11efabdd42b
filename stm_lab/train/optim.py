"""The optimizer and its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from timm.optim import create_optimizer_v2
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
