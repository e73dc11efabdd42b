"""Halo attention: blocks that also see a border of `halo` tokens (Vaswani et al. 2021, HaloNet; arXiv 2103.12731).

Legend of shapes: a x b block, v x w window (block + 2 halo), N = blocks of the padded map, h heads, d channels a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..layers import biased_attention, check_static, num_heads
from ..util.errors import UserError
from .registry import register_mixer


@register_mixer("halo")
class HaloAttention(nn.Module):
    """Blocked local attention: each block of queries attends to the block and a halo around it.

    Weights are dynamic; locality is hard (nothing beyond the window is seen); all blocks share them, so that the map is
    equivariant to shifts by whole blocks. Keys outside the image have weight exactly 0. Queries carry relative height
    and width embeddings, taken from the unscaled query as in the published code.

    (B, H, W, C) -> (B, H, W, C), any H and W: the map is padded to whole blocks, and the padding is never a key. Blocks
    shrink to a side of the map that is shorter.

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
        """Both tables as at the start: normal, std head_dim ** -0.5."""
        for table in (self.height_rel, self.width_rel):
            table.normal_().mul_(table.shape[1] ** -0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return self.proj(_attend(self, self.q(x), self.kv(x)))

    def _blocks(self, H: int, W: int) -> tuple[int, int, int, int]:
        """Height and width of a block, and how many there are down and across."""
        a, b = min(self.block, H), min(self.block, W)
        return a, b, -(-H // a), -(-W // b)

    def _places(self, blocks: int, side: int, device: torch.device) -> torch.Tensor:
        """(blocks, side + 2 halo): along one axis, the places of each block's keys; some lie outside the map."""
        key = torch.arange(-self.halo, side + self.halo, device=device)
        return torch.arange(blocks, device=device)[:, None] * side + key

    def _relative_logits(self, q: torch.Tensor, outside: torch.Tensor | None = None) -> torch.Tensor:
        """(..., a, b, d) -> (..., a*b, v*w): each query times the rows of the two tables for its keys.

        Keys whose row or column of the window is `outside`, (..., 1, v+w), get -inf.
        """
        a, b, v, w = *q.shape[-3:-1], q.shape[-3] + 2 * self.halo, q.shape[-2] + 2 * self.halo
        # all rows of the tables are multiplied, as the published MACs count, and each query takes those of its keys
        logits = q.flatten(-3, -2) @ torch.cat([self.height_rel, self.width_rel]).mT  # (..., a*b, 2 tables)
        height, width = self._offsets(a, q.device)[:, None], self._offsets(b, q.device)[None] + len(self.height_rel)
        rows = torch.cat([height.expand(a, b, v), width.expand(a, b, w)], -1).flatten(0, 1)  # (a*b, v+w)
        logits = logits.gather(-1, rows.expand(*logits.shape[:-1], v + w))
        if outside is not None:
            logits = logits.masked_fill(outside, float("-inf"))
        height, width = logits.split((v, w), -1)
        return (height[..., :, None] + width[..., None, :]).flatten(-2)

    def _offsets(self, side: int, device: torch.device) -> torch.Tensor:
        """(queries, keys) of one axis of a block: the table's row for key j of the window, query i of the block. Tables
        have 2 window - 1 rows, so row window - 1 stands for j = i."""
        i, j = torch.arange(side, device=device), torch.arange(side + 2 * self.halo, device=device)
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
    """Projected tokens, (B, H, W, C) and (B, H, W, 2C) -> attention inside blocks, (B, H, W, C)."""
    B, H, W, C = q.shape
    h, d = mixer.heads, C // mixer.heads
    check_static("halo", H, W)
    a, b, rows, cols = mixer._blocks(H, W)
    N, bottom, right = rows * cols, rows * a - H, cols * b - W

    q = F.pad(q, (0, 0, 0, right, 0, bottom)) if bottom or right else q  # padding by 0 would copy
    q = q.reshape(B, rows, a, cols, b, h, d).permute(0, 5, 1, 3, 2, 4, 6).reshape(B, h, N, a, b, d)

    # one gather for the keys of all blocks; a place outside the map is that of its edge, and masked
    down, across = mixer._places(rows, a, kv.device), mixer._places(cols, b, kv.device)  # (rows, v), (cols, w)
    place = down.clamp(0, H - 1)[:, None, :, None] * W + across.clamp(0, W - 1)[:, None]  # (rows, cols, v, w)
    kv = kv.reshape(B, H * W, h, 2, d).permute(3, 0, 2, 1, 4).contiguous()  # (2, B, h, H*W, d)
    kv = kv.index_select(3, place.flatten())
    keys, values = kv.view(2, B, h, N, place[0, 0].numel(), d)  # sizes in full: B may be 0

    inside = [(place >= 0) & (place < size) for place, size in ((down, H), (across, W))]
    inside = torch.cat([inside[0][:, None].expand(-1, cols, -1), inside[1].expand(rows, -1, -1)], -1)  # (.., v+w)
    bias = mixer._relative_logits(q, ~inside.flatten(0, 1)[:, None])  # (B, h, N, a*b, v*w)
    out = biased_attention(q.flatten(3, 4), keys, values, bias)

    out = out.view(B, h, rows, cols, a, b, d).permute(0, 2, 4, 3, 5, 1, 6)  # (B, rows, a, cols, b, h, d)
    return out.reshape(B, rows * a, cols * b, C)[:, :H, :W]
