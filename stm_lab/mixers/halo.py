"""Halo attention: blocks that look a few pixels over their fence (Vaswani et al. 2021, HaloNet; arXiv 2103.12731).

Legend of shapes: a x b block, v x w window (block + 2 halo), N = blocks of the padded map, h heads, d channels a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..layers import check_static, num_heads
from ..util.errors import UserError
from .registry import register_mixer


@register_mixer("halo")
class HaloAttention(nn.Module):
    """Blocked local attention: each block of queries attends to the block and a halo around it.

    Weights are dynamic; locality is hard (nothing beyond the window is seen); all blocks share them, so that the map is
    equivariant to shifts by whole blocks. Keys outside the image have weight exactly 0. Queries carry relative height
    and width embeddings, taken from the unscaled query as in the published code.

    (B, H, W, C) -> (B, H, W, C), any H and W: the map is padded to whole blocks, and the padding is never a key. A side
    shorter than a block is one block of that length; the rest of it would be padding alone.

    Raises UserError if `heads` does not divide `dim`, or for a block or halo that is too small.
    """

    def __init__(self, dim: int, *, heads: int | None = None, block: int = 7, halo: int = 3) -> None:
        super().__init__()
        if block < 1 or halo < 0:
            raise UserError(f"block={block} must be at least 1 and halo={halo} at least 0")
        self.heads = num_heads(dim, heads, head_dim=32)
        self.block, self.window, self.halo = block, block + 2 * halo, halo
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)  # channels (head, [k, v], d), as published
        self.proj = nn.Linear(dim, dim)
        head_dim = dim // self.heads
        self.height_rel = nn.Parameter(torch.empty(2 * self.window - 1, head_dim))
        self.width_rel = nn.Parameter(torch.empty(2 * self.window - 1, head_dim))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Both tables as at the start: normal, with the variance of one channel of a head."""
        for table in (self.height_rel, self.width_rel):
            table.normal_().mul_(table.shape[1] ** -0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return self.proj(_attend(self, self.q(x), self.kv(x)))

    def _blocks(self, H: int, W: int) -> tuple[int, int, int, int]:
        """Height and width of a block, and how many there are down and across."""
        a, b = min(self.block, H), min(self.block, W)
        return a, b, -(-H // a), -(-W // b)

    def _windows(self, blocks: int, side: int, device: torch.device) -> torch.Tensor:
        """(blocks, side + 2 halo): along one axis of the padded map, the places of each block's keys."""
        key = torch.arange(side + 2 * self.halo, device=device)
        return torch.arange(blocks, device=device)[:, None] * side + key

    def _inside(self, key: torch.Tensor, size: int) -> torch.Tensor:
        """Which of these places lie in the true map, `size` long."""
        return (key >= self.halo) & (key < self.halo + size)

    def _relative_logits(self, q: torch.Tensor) -> torch.Tensor:
        """(B*N, h, a, b, d) -> (B*N, h, a*b, v*w): each query times the rows of the two tables for its keys."""
        # all rows of the tables are multiplied, as the published MACs count, and each query takes those of its keys
        height = (q @ self.height_rel.t()).gather(-1, self._offsets(q, 2)[:, None].expand(*q.shape[:-1], -1))
        width = (q @ self.width_rel.t()).gather(-1, self._offsets(q, 3).expand(*q.shape[:-1], -1))
        return (height[..., :, None] + width[..., None, :]).flatten(-2).flatten(2, 3)

    def _offsets(self, q: torch.Tensor, axis: int) -> torch.Tensor:
        """(queries, keys) of one axis of a block: the table's row for key j of the window, query i of the block.

        Tables are as long as whole blocks need, 2 window - 1 rows, so that row window - 1 stands for j = i.
        """
        i = torch.arange(q.shape[axis], device=q.device)
        j = torch.arange(q.shape[axis] + 2 * self.halo, device=q.device)
        return self.window - 1 + j - i[:, None]

    def macs(self, H: int, W: int) -> int:
        """Projections, q.k, weights.v, and q times every row of both tables."""
        C = self.proj.in_features
        a, b, rows, cols = self._blocks(H, W)
        keys = (a + 2 * self.halo) * (b + 2 * self.halo)
        attention = rows * a * cols * b * C * (2 * keys + 2 * (2 * self.window - 1))
        return 4 * H * W * C * C + attention


@torch.fx.wrap  # a trace of the network calls it and does not follow its branches
def _attend(mixer: HaloAttention, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
    """Projected tokens, (B, H, W, C) and (B, H, W, 2C) -> what the blocks give, (B, H, W, C)."""
    B, H, W, C = q.shape
    h, d, halo = mixer.heads, C // mixer.heads, mixer.halo
    check_static("halo", H, W)
    a, b, rows, cols = mixer._blocks(H, W)
    v, w = a + 2 * halo, b + 2 * halo
    bottom, right = rows * a - H, cols * b - W

    q = F.pad(q, (0, 0, 0, right, 0, bottom))
    q = q.view(B, rows, a, cols, b, h, d).permute(0, 1, 3, 5, 2, 4, 6)  # (B, rows, cols, h, a, b, d)
    q = q.reshape(B * rows * cols, h, a, b, d)

    # padded after the projection: a key outside the image is 0, and masked besides
    kv = F.pad(kv, (0, 0, halo, halo + right, halo, halo + bottom))
    down, across = mixer._windows(rows, a, kv.device), mixer._windows(cols, b, kv.device)
    # (B, rows*v, cols*w, 2C); `unfold` gives the same, but its backward pass took a fifth of a training
    kv = kv.index_select(1, down.flatten()).index_select(2, across.flatten())
    kv = kv.view(B, rows, v, cols, w, h, 2, d).permute(6, 0, 1, 3, 5, 2, 4, 7)  # (2, B, rows, cols, h, v, w, d)
    keys, values = kv.reshape(2, B * rows * cols, h, v * w, d)

    inside_y, inside_x = mixer._inside(down, H), mixer._inside(across, W)
    outside = ~(inside_y[:, None, :, None] & inside_x[None, :, None, :]).flatten(2).flatten(0, 1)  # (N, v*w)
    bias = mixer._relative_logits(q).unflatten(0, (B, rows * cols))  # (B, N, h, a*b, v*w)
    bias = bias.masked_fill(outside[:, None, None, :], float("-inf")).flatten(0, 1)
    out = F.scaled_dot_product_attention(q.flatten(2, 3), keys, values, attn_mask=bias.to(q.dtype))

    out = out.view(B, rows, cols, h, a, b, d).permute(0, 1, 4, 2, 5, 3, 6)  # (B, rows, a, cols, b, h, d)
    return out.reshape(B, rows * a, cols * b, C)[:, :H, :W]
