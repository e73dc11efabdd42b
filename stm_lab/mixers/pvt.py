"""Spatial-reduction attention (Wang et al. 2021, PVT, arXiv 2102.12122; PVT v2, arXiv 2106.13797).

The mixer of `pvt` and `pvt_v2` is one and the same; what differs between the two networks, a position embedding here
and a convolution in the MLP there, is in their designs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import UserError
from ..layers import TokenConv2d, count_lines, split_heads
from .registry import register_mixer


@register_mixer("pvt_v2")
@register_mixer("pvt")
class SpatialReductionAttention(nn.Module):
    """Global attention whose keys and values come from a coarser map, made by a strided convolution.

    Weights are dynamic, the reach is the whole map from the first block on, and nothing in the operator knows about
    distance: locality has to be learned, from the position embedding or the convolution in the MLP.

    (B, H, W, C) -> (B, H, W, C), any H, W >= `reduction`: the strided convolution drops the remainder.

    Raises UserError if `heads` does not divide `dim`, or the map is smaller than `reduction`.
    """

    def __init__(self, dim: int, *, heads: int | None = None, reduction: int = 1) -> None:
        super().__init__()
        if reduction < 1:
            raise UserError(f"reduction={reduction} must be at least 1")
        self.heads, self.reduction = split_heads(dim, heads, head_dim=32), reduction
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)  # channels ([k, v], head, d)
        self.proj = nn.Linear(dim, dim)
        if reduction > 1:
            self.reduce = TokenConv2d(dim, dim, reduction, stride=reduction)
            self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) -> (B, H, W, C), H and W at least the reduction."""
        B, H, W, C = x.shape
        self._check_size(H, W)
        h, d = self.heads, C // self.heads
        q = self.q(x).view(B, H * W, h, d).transpose(1, 2)  # (B, h, HW, d)
        if self.reduction > 1:
            x = self.norm(self.reduce(x))  # (B, H/R, W/R, C)
        kv = self.kv(x).view(B, x.shape[1] * x.shape[2], 2, h, d)  # sizes in full: B may be 0
        k, v = kv.permute(2, 0, 3, 1, 4)  # each (B, h, HW/RR, d)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(B, H, W, C))

    def macs(self, H: int, W: int) -> int:
        """Projections, the strided convolution, q.k and weights.v."""
        C = self.proj.in_features
        keys = (H // self.reduction) * (W // self.reduction)
        reduce = keys * (self.reduction * C) ** 2 if self.reduction > 1 else 0
        return 2 * H * W * C * C + 2 * keys * C * C + reduce + 2 * H * W * keys * C

    def padding_note(self, H: int, W: int) -> str:
        """How many keys a map gives, and what of it the strided convolution drops."""
        R = self.reduction
        self._check_size(H, W)
        dropped = f"; dropped: {count_lines(H % R, W % R)}" if H % R or W % R else ""
        return f"keys {H // R}x{W // R}{dropped}"

    def _check_size(self, H: int, W: int) -> None:
        if min(H, W) < self.reduction:
            raise UserError(f"a {H}x{W} map is smaller than reduction={self.reduction}")
