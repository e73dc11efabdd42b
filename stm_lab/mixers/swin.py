"""Shifted-window attention (Liu et al. 2021, Swin Transformer; arXiv 2103.14030).

Legend of shapes: w window, L = w*w tokens of a window, N windows of the padded map, h heads, d channels a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..layers import check_static, num_heads, trunc_normal_init
from ..util.errors import UserError
from .registry import register_mixer


@register_mixer("swin")
class ShiftedWindowAttention(nn.Module):
    """Attention inside windows that do not overlap; every other block shifts them, so that neighbours meet.

    Weights are dynamic; locality is hard but not centred (a token at a window's edge sees one side only); a bias by
    relative position is shared by all windows. Where the map's shorter side is no larger than the window, the window is
    that side and nothing is shifted.

    (B, H, W, C) -> (B, H, W, C), any H and W: the map is padded to whole windows, and the padding is never a key.

    Raises UserError if `heads` does not divide `dim`, `window` is less than 1, or `shift` is not in [0, window).
    """

    def __init__(self, dim: int, *, heads: int | None = None, window: int = 7, shift: int = 0) -> None:
        super().__init__()
        if window < 1:
            raise UserError(f"window={window} must be at least 1")
        if not 0 <= shift < window:
            raise UserError(f"shift={shift} must be at least 0 and less than window={window}")
        self.heads = num_heads(dim, heads, head_dim=32)
        self.window, self.shift = window, shift
        self.qkv = nn.Linear(dim, 3 * dim)  # channels ([q, k, v], head, d)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, self.heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The bias table as at the start: truncated normal."""
        trunc_normal_init(self.relative_position_bias_table)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return self.proj(_attend(self, self.qkv(x)))

    def _window_and_shift(self, H: int, W: int) -> tuple[int, int]:
        side = min(H, W)
        return (side, 0) if side <= self.window else (self.window, self.shift)

    def _relative_bias(self, w: int) -> torch.Tensor:
        """(h, L, L): row (yq - yk + W-1) * (2W-1) + (xq - xk + W-1) of the table, W the design's window."""
        i = torch.arange(w, device=self.relative_position_bias_table.device)
        offset = i[:, None] - i + self.window - 1  # (w, w): query minus key along one axis
        index = offset[:, None, :, None] * (2 * self.window - 1) + offset[None, :, None, :]  # (yq, xq, yk, xk)
        return self.relative_position_bias_table[index.reshape(w * w, w * w)].permute(2, 0, 1)

    def _allowed(self, H: int, W: int, w: int, shift: int, device: torch.device) -> torch.Tensor:
        """(N, L, L) bool: which key a query may see, after the roll.

        Both must lie in one region (the roll brings the map's far sides together), and the key in the true map. A query
        in the padding may see all of its region, lest its softmax be empty: its output is cropped away.
        """
        (region_y, true_y), (region_x, true_x) = (_rolled_axis(size, w, shift, device) for size in (H, W))
        region = _windows(3 * region_y[:, None] + region_x, w)  # (N, L)
        true = _windows(true_y[:, None] & true_x, w)
        same = region[:, :, None] == region[:, None, :]
        return same & (true[:, None, :] | ~true[:, :, None])

    def macs(self, H: int, W: int) -> int:
        """Projections, q.k and weights.v over whole windows."""
        C = self.proj.in_features
        w, _ = self._window_and_shift(H, W)
        queries = (-(-H // w)) * (-(-W // w)) * w * w
        return 4 * H * W * C * C + 2 * queries * w * w * C

    def no_weight_decay(self) -> set[str]:
        """Names of parameters of two or more dimensions that weight decay spares."""
        return {"relative_position_bias_table"}


@torch.fx.wrap  # a trace of the network calls it and does not follow its branches
def _attend(mixer: ShiftedWindowAttention, qkv: torch.Tensor) -> torch.Tensor:
    """Projected tokens (B, H, W, 3C) -> what the windows give, (B, H, W, C)."""
    B, H, W, C = *qkv.shape[:3], qkv.shape[3] // 3
    check_static("swin", H, W)
    w, shift = mixer._window_and_shift(H, W)
    rows, cols = -(-H // w), -(-W // w)
    h, N, L = mixer.heads, rows * cols, w * w

    qkv = F.pad(qkv, (0, 0, 0, cols * w - W, 0, rows * w - H))
    if shift:
        qkv = qkv.roll((-shift, -shift), (1, 2))
    qkv = qkv.view(B, rows, w, cols, w, 3, h, C // h).permute(5, 0, 1, 3, 6, 2, 4, 7)
    q, k, v = qkv.reshape(3, B, N * h, L, C // h)  # windows beside heads: the mask varies over both, not over B

    bias = mixer._relative_bias(w).expand(N, h, L, L)
    if shift or H % w or W % w:
        bias = bias.masked_fill(~mixer._allowed(H, W, w, shift, qkv.device)[:, None], float("-inf"))
    bias = bias.reshape(1, N * h, L, L).to(q.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (B, N*h, L, d)

    out = out.view(B, rows, cols, h, w, w, C // h).permute(0, 1, 4, 2, 5, 3, 6)  # (B, rows, w, cols, w, h, d)
    out = out.reshape(B, rows * w, cols * w, C)
    if shift:
        out = out.roll((shift, shift), (1, 2))
    return out[:, :H, :W]


def _rolled_axis(size: int, w: int, shift: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Along one axis, padded to whole windows and rolled: the region of each position (0, 1, 2), and if it is true."""
    padded = -(-size // w) * w
    i = torch.arange(padded, device=device)
    region = (i >= padded - w).long() + (i >= padded - shift).long() if shift else torch.zeros_like(i)
    return region, (i + shift) % padded < size


def _windows(x: torch.Tensor, w: int) -> torch.Tensor:
    """(H, W) -> (N, L)."""
    H, W = x.shape
    return x.view(H // w, w, W // w, w).transpose(1, 2).reshape(-1, w * w)
