"""Controls that are not in the paper (after Yu et al. 2022, MetaFormer; arXiv 2111.11418).

They have no parameters: any accuracy reached with them comes from stem, downsampling and MLPs alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .registry import register_mixer


@register_mixer("identity")
class Identity(nn.Module):
    """Mixes nothing: tokens meet only in the stem's and the downsamplings' convolutions. (B, H, W, C), any H and W."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) -> the same tensor."""
        return x

    def macs(self, H: int, W: int) -> int:
        """0 multiply-adds."""
        return 0


@register_mixer("pooling")
class Pooling(nn.Module):
    """3x3 average minus the token itself: static, local, the same for all channels. (B, H, W, C), any H and W.

    Padding is not counted in the average.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        mean = F.avg_pool2d(x.permute(0, 3, 1, 2), 3, stride=1, padding=1, count_include_pad=False)
        return mean.permute(0, 2, 3, 1) - x

    def macs(self, H: int, W: int) -> int:
        """0 multiply-adds: sums are not counted."""
        return 0
