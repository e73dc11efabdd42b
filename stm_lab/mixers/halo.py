"""Halo attention: blocks that look a few pixels over their fence (Vaswani et al. 2021, HaloNet; arXiv 2103.12731).

Legend of shapes: b block, w window = b + 2 halo, N = blocks of the padded map, h heads, d channels a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import UserError
from ..layers import padded_note, split_heads
from .registry import register_mixer


@register_mixer("halo")
class HaloAttention(nn.Module):
    """Blocked local attention: each block of queries attends to the block and a halo around it.

    Weights are dynamic; locality is hard (nothing beyond the window is seen); all blocks share them, so that the map is
    equivariant to shifts by whole blocks. Keys outside the image have weight exactly 0. Queries carry relative height
    and width embeddings, taken from the unscaled query as in the published code.

    (B, H, W, C) -> (B, H, W, C), any H and W: the map is padded to whole blocks, and the padding is never a key.

    Raises UserError if `heads` does not divide `dim`, or for a block or halo that is too small.
    """

    def __init__(self, dim: int, *, heads: int | None = None, block: int = 7, halo: int = 3) -> None:
        super().__init__()
        if block < 1 or halo < 0:
            raise UserError(f"block={block} must be at least 1 and halo={halo} at least 0")
        self.heads = split_heads(dim, heads, head_dim=32)
        self.block, self.window, self.halo = block, block + 2 * halo, halo
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)  # channels (head, [k, v], d), as published
        self.proj = nn.Linear(dim, dim)
        head_dim = dim // self.heads
        self.height_rel = nn.Parameter(torch.randn(2 * self.window - 1, head_dim) * head_dim**-0.5)
        self.width_rel = nn.Parameter(torch.randn(2 * self.window - 1, head_dim) * head_dim**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, H, W, C = x.shape
        b, h, d = self.block, self.heads, C // self.heads
        rows, cols = -(-H // b), -(-W // b)
        bottom, right = rows * b - H, cols * b - W

        q = F.pad(self.q(x), (0, 0, 0, right, 0, bottom))
        q = q.view(B, rows, b, cols, b, h, d).permute(0, 1, 3, 5, 2, 4, 6)  # (B, rows, cols, h, b, b, d)
        q = q.reshape(B * rows * cols, h, b * b, d)

        # padded after the projection: a key outside the image is 0, and masked besides
        kv = F.pad(self.kv(x), (0, 0, self.halo, self.halo + right, self.halo, self.halo + bottom))
        kv = kv.unfold(1, self.window, b).unfold(2, self.window, b)  # (B, rows, cols, 2C, w, w)
        kv = kv.reshape(B * rows * cols, h, 2, d, self.window**2).transpose(-1, -2)
        k, v = kv.unbind(2)  # (B*N, h, w*w, d)

        outside = ~self._inside(H, W, rows, cols, x.device)  # (N, w*w)
        bias = self._relative_logits(q).unflatten(0, (B, rows * cols))  # (B, N, h, b*b, w*w)
        bias = bias.masked_fill(outside[:, None, None, :], float("-inf")).flatten(0, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))  # (B*N, h, b*b, d)

        out = out.view(B, rows, cols, h, b, b, d).permute(0, 1, 4, 2, 5, 3, 6)  # (B, rows, b, cols, b, h, d)
        return self.proj(out.reshape(B, rows * b, cols * b, C)[:, :H, :W])

    def _relative_logits(self, q: torch.Tensor) -> torch.Tensor:
        """(B*N, h, b*b, d) -> (B*N, h, b*b, w*w): q . height_rel[w-1 + jy - iy] + q . width_rel[w-1 + jx - ix]."""
        b, w = self.block, self.window
        q = q.unflatten(2, (b, b))
        i, j = torch.arange(b, device=q.device), torch.arange(w, device=q.device)
        offset = w - 1 + j - i[:, None]  # (b, w): the row of the table for query i and key j of one axis
        height = q @ self.height_rel.t()  # (B*N, h, b, b, 2w-1); all rows are multiplied, as the published MACs count
        width = q @ self.width_rel.t()
        height = height.gather(-1, offset[:, None, :].expand(*q.shape[:-1], w))  # by the query's row
        width = width.gather(-1, offset[None, :, :].expand(*q.shape[:-1], w))  # by its column
        return (height[..., :, None] + width[..., None, :]).reshape(*q.shape[:2], b * b, w * w)

    def _inside(self, H: int, W: int, rows: int, cols: int, device: torch.device) -> torch.Tensor:
        """(N, w*w) bool: which keys of each block's window lie in the true H x W map."""
        j = torch.arange(self.window, device=device) - self.halo
        y = torch.arange(rows, device=device)[:, None] * self.block + j  # (rows, w)
        x = torch.arange(cols, device=device)[:, None] * self.block + j  # (cols, w)
        inside_y, inside_x = (y >= 0) & (y < H), (x >= 0) & (x < W)
        return (inside_y[:, None, :, None] & inside_x[None, :, None, :]).reshape(rows * cols, self.window**2)

    def macs(self, H: int, W: int) -> int:
        """Projections, q.k, weights.v, and q times every row of both tables."""
        C = self.proj.in_features
        queries = (-(-H // self.block)) * (-(-W // self.block)) * self.block**2
        attention = queries * C * (2 * self.window**2 + 2 * (2 * self.window - 1))
        return 4 * H * W * C * C + attention

    def padding_note(self, H: int, W: int) -> str:
        """How a map is cut into blocks, and what it is padded to for that."""
        b = self.block
        return f"blocks of {b}x{b}" + padded_note(H, W, b)
