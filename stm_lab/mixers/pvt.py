"""Spatial-reduction attention (Wang et al. 2021, PVT, arXiv 2102.12122; PVT v2, arXiv 2106.13797).

`pvt` and `pvt_v2` share this mixer. Their networks differ, as their designs say: a position embedding in the first, a
convolution in the MLP in the second.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..layers import Linear, TokenConv2d, num_heads
from ..util.errors import UserError
from .registry import register_mixer


@register_mixer("pvt_v2")
@register_mixer("pvt")
class SpatialReductionAttention(nn.Module):
    """Global attention whose keys and values come from a coarser map, made by a strided convolution.

    Weights are dynamic, the reach is the whole map from the first block on, and nothing in the operator knows about
    distance: locality has to be learned, from the position embedding or the convolution in the MLP.

    (B, H, W, C) -> (B, H, W, C), any H and W: the strided convolution drops the remainder, as published. A side shorter
    than `reduction`, where the published code stops, is padded with zeros to one key.

    Raises UserError if `heads` does not divide `dim`, or `reduction` is less than 1.
    """

    def __init__(self, dim: int, *, heads: int | None = None, reduction: int = 1) -> None:
        super().__init__()
        if reduction < 1:
            raise UserError(f"reduction={reduction} must be at least 1")
        self.heads, self.reduction = num_heads(dim, heads, head_dim=32), reduction
        self.q = Linear(dim, dim)
        self.kv = Linear(dim, 2 * dim)  # channels ([k, v], head, d)
        self.proj = Linear(dim, dim)
        if reduction > 1:
            self.reduce = TokenConv2d(dim, dim, reduction, stride=reduction)
            self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, H, W, C = x.shape
        h, d = self.heads, C // self.heads
        q = self.q(x).view(B, H * W, h, d).transpose(1, 2)  # (B, h, HW, d)
        if self.reduction > 1:
            x = self.norm(self.reduce(_at_least(x, self.reduction)))  # (B, H/R, W/R, C)
        kv = self.kv(x).view(B, x.shape[1] * x.shape[2], 2, h, d)  # sizes in full: B may be 0
        k, v = kv.permute(2, 0, 3, 1, 4)  # each (B, h, HW/RR, d)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(B, H, W, C))

    def macs(self, H: int, W: int) -> int:
        """Projections, the strided convolution, q.k and weights.v."""
        C = self.proj.in_features
        rows, columns = self._keys(H, W)
        keys = rows * columns
        reduce = keys * (self.reduction * C) ** 2 if self.reduction > 1 else 0
        return 2 * H * W * C * C + 2 * keys * C * C + reduce + 2 * H * W * keys * C

    def _keys(self, H: int, W: int) -> tuple[int, int]:
        """Rows and columns of the coarser map."""
        return max(H // self.reduction, 1), max(W // self.reduction, 1)


@torch.fx.wrap  # a trace of the network calls it and does not follow its branch
def _at_least(x: torch.Tensor, side: int) -> torch.Tensor:
    """Tokens (B, H, W, C), padded with zeros at the bottom and right where a side is shorter than `side`."""
    H, W = x.shape[1:3]
    return F.pad(x, (0, 0, 0, max(side - W, 0), 0, max(side - H, 0))) if side > H or side > W else x
