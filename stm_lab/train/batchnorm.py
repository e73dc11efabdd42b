"""Batch norm over all processes, so that the head normalises a step's images alike however they are dealt out."""

from __future__ import annotations

import torch
import torch.distributed
from torch import nn


class _Sum(torch.autograd.Function):
    """The sum over processes; so the gradient of what each holds is the sum of theirs."""

    @staticmethod
    def forward(_, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total


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
            mean = _Sum.apply(values.mean(1)) / processes
            variance = _Sum.apply((values - mean[:, None]).square().mean(1)) / processes
            with torch.no_grad():
                number = processes * values.shape[1]
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * number / (number - 1), self.momentum)
                self.num_batches_tracked += 1
            scale = self.weight * (variance + self.eps).rsqrt()
            shift = self.bias - mean * scale
            return (x.float() * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def make_global(model: nn.Module) -> None:
    """Let every batch norm of a model see all processes, in place; names and weights stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d
