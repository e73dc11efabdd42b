"""Halo attention: blocks that also see a border of `halo` tokens (Vaswani et al. 2021, HaloNet; arXiv 2103.12731).

Legend of shapes: a x b block, v x w window (block + 2 halo), N = blocks of the padded map, h heads, d channels a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import Linear, biased_attention, check_static, kept_by_size, num_heads
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
        self.q = Linear(dim, dim, bias=False)
        self.kv = Linear(dim, 2 * dim, bias=False)  # channels (head, [k, v], d), as published
        self.proj = Linear(dim, dim)
        head_dim = dim // self.heads
        self.height_rel = nn.Parameter(torch.empty(2 * self.window - 1, head_dim))
        self.width_rel = nn.Parameter(torch.empty(2 * self.window - 1, head_dim))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Both tables as at the start: normal, std head_dim ** -0.5."""
        for table in (self.height_rel, self.width_rel):
            table.normal_().mul_(table.shape[1] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        tables = torch.cat([self.height_rel, self.width_rel])
        return self.proj(_attend(self.q(x), self.kv(x), tables, self.heads, self.block, self.halo))

    def macs(self, H: int, W: int) -> int:
        """Projections, q.k, weights.v, and q times every row of both tables."""
        C = self.proj.in_features
        a, b, rows, cols = _blocks(H, W, self.block)
        keys = (a + 2 * self.halo) * (b + 2 * self.halo)
        attention = rows * a * cols * b * C * (2 * keys + 2 * (2 * self.window - 1))
        return 4 * H * W * C * C + attention


@torch.fx.wrap  # a trace of the network calls it and does not follow its branches
def _attend(q: Tensor, kv: Tensor, tables: Tensor, h: int, block: int, halo: int) -> Tensor:
    """Projected tokens, (B, H, W, C) and (B, H, W, 2C) -> attention inside blocks, (B, H, W, C)."""
    B, H, W, C = q.shape
    check_static("halo", H, W)
    a, b, rows, cols = _blocks(H, W, block)
    d, N, bottom, right = C // h, rows * cols, rows * a - H, cols * b - W
    q = F.pad(q, (0, 0, 0, right, 0, bottom)) if bottom or right else q  # padding by 0 would copy
    q = q.reshape(B, rows, a, cols, b, h, d).permute(0, 5, 1, 3, 2, 4, 6).reshape(B, h, N, a, b, d)

    places, outside, rows_of = _keys(H, W, block, halo, kv.device)
    kv = kv.reshape(B, H * W, h, 2, d).permute(3, 0, 2, 1, 4).contiguous()  # (2, B, h, H*W, d)
    keys, values = kv.index_select(3, places).view(2, B, h, N, len(places) // N, d)  # sizes in full: B may be 0

    bias = _relative_logits(q, tables, rows_of, a + 2 * halo, outside)  # (B, h, N, a*b, v*w)
    out = biased_attention(q.flatten(3, 4), keys, values, bias)
    out = out.view(B, h, rows, cols, a, b, d).permute(0, 2, 4, 3, 5, 1, 6)  # (B, rows, a, cols, b, h, d)
    return out.reshape(B, rows * a, cols * b, C)[:, :H, :W]


def _relative_logits(q: Tensor, tables: Tensor, rows_of: Tensor, v: int, outside: Tensor | None = None) -> Tensor:
    """(..., a, b, d) -> (..., a*b, v*w): each query times the rows of both tables for its keys, `rows_of` (a*b, v+w).

    Keys whose row or column of the window is `outside`, (..., 1, v+w), get -inf.
    """
    # all rows of the tables are multiplied, as the published MACs count, and each query takes those of its keys
    logits = q.flatten(-3, -2) @ tables.mT  # (..., a*b, both tables)
    logits = logits.gather(-1, rows_of.expand(*logits.shape[:-1], -1))  # (..., a*b, v+w)
    if outside is not None:
        logits = logits.masked_fill(outside, float("-inf"))
    height, width = logits.tensor_split((v,), -1)
    return (height[..., :, None] + width[..., None, :]).flatten(-2)


def _blocks(H: int, W: int, block: int) -> tuple[int, int, int, int]:
    """Height and width of a block, and how many there are down and across."""
    a, b = min(block, H), min(block, W)
    return a, b, -(-H // a), -(-W // b)


@kept_by_size
def _keys(H: int, W: int, block: int, halo: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """What the keys of blocks are: their tokens, (N*v*w,), an edge's outside the map; whether a row or column of a
    window is outside, (N, 1, v+w); and the rows of both tables for them, by query, (a*b, v+w)."""
    a, b, rows, cols = _blocks(H, W, block)
    v, w = (torch.arange(side + 2 * halo, device=device) for side in (a, b))
    y = torch.arange(rows, device=device)[:, None, None, None] * a + v - halo  # (rows, 1, 1, v)
    x = torch.arange(cols, device=device)[:, None, None] * b + w - halo  # (cols, 1, w)
    tokens = y.clamp(0, H - 1).mT * W + x.clamp(0, W - 1)  # (rows, cols, v, w)
    outside = [((place < 0) | (place >= side)).expand(rows, cols, 1, -1) for place, side in ((y, H), (x, W))]
    # a table has one row for each v - i from 1 - window to window - 1, and the width's follows the height's
    middle = block + 2 * halo - 1
    height = middle + v - torch.arange(a, device=device)[:, None, None]  # (a, 1, v)
    width = 3 * middle + 1 + w - torch.arange(b, device=device)[:, None]  # (b, w)
    rows_of = torch.cat([height.expand(-1, b, -1), width.expand(a, -1, -1)], -1)
    return tokens.flatten(), torch.cat(outside, -1).flatten(0, 1), rows_of.flatten(0, 1)
