"""Depth-wise convolution between two projections (after Liu et al. 2022, ConvNeXt; arXiv 2201.03545)."""

from __future__ import annotations

import torch
from torch import nn

from ..layers import Linear, TokenConv2d
from ..util.errors import UserError
from .registry import register_mixer


@register_mixer("convnext")
class DepthwiseConv(nn.Module):
    """A depth-wise convolution, 7x7 by default, between two point-wise projections.

    Weights are static, one kernel a channel, shared by all positions; locality is hard. Outside the image there is 0,
    not the first projection's bias. Without `projections` it is the convolution alone, as in ConvNeXt itself.

    (B, H, W, C) -> (B, H, W, C), any H and W.

    Raises UserError for an even `kernel`.
    """

    def __init__(self, dim: int, *, kernel: int = 7, projections: bool = True) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"kernel={kernel} must be odd, so that it has a middle")
        self.proj_in = Linear(dim, dim) if projections else nn.Identity()
        self.dwconv = TokenConv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.proj_out = Linear(dim, dim) if projections else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj_out(self.dwconv(self.proj_in(x)))

    def macs(self, H: int, W: int) -> int:
        """The projections, if there are any, and the kernel at every position."""
        C, (kernel, _) = self.dwconv.in_channels, self.dwconv.kernel_size
        projections = sum(isinstance(layer, nn.Linear) for layer in (self.proj_in, self.proj_out))
        return H * W * (projections * C * C + kernel**2 * C)
