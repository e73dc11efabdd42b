"""Shifted-window attention (Liu et al. 2021, Swin Transformer; arXiv 2103.14030).

Legend of shapes: w window, L = w*w tokens of a window, N windows of the padded map, h heads, d channels a head.
"""

from __future__ import annotations

import torch
from torch import nn

from ..layers import biased_attention, check_static, num_heads, trunc_normal_init
from ..util.errors import UserError
from .registry import register_mixer


@register_mixer("swin")
class ShiftedWindowAttention(nn.Module):
    """Attention inside windows that do not overlap; every other block shifts them, so that neighbours exchange.

    Weights are dynamic; locality is hard but not centred (a token at a window's edge sees one side only). All windows
    share a bias by relative position. A window shrinks to the map's shorter side if that fits, and is not shifted then.

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
        return self.proj(_attend(self, self.qkv(_cut(self, x)), x.shape[1], x.shape[2]))

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
        """(N, L, L) bool: the keys that a query may see, after the roll: those of its region (the roll joins the map's
        far sides) in the true map. Queries in the padding see all of their region, or their softmax would be empty."""
        (y, region_y), (x, region_x) = (_rolled_axis(size, w, shift, device) for size in (H, W))
        region = _windows(3 * region_y[:, None] + region_x, w)  # (N, L)
        true = _windows((y < H)[:, None] & (x < W), w)
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
def _cut(mixer: ShiftedWindowAttention, x: torch.Tensor) -> torch.Tensor:
    """Tokens (B, H, W, C) -> (B, N*L, C), window by window; (B, H*W, C) if windows need padding, which comes later."""
    H, W = x.shape[1:3]
    check_static("swin", H, W)
    w, shift = mixer._window_and_shift(H, W)
    tokens = x.flatten(1, 2)
    return tokens if H % w or W % w else tokens.index_select(1, _order(H, W, w, shift, x.device)[0])


@torch.fx.wrap
def _attend(mixer: ShiftedWindowAttention, qkv: torch.Tensor, H: int, W: int) -> torch.Tensor:
    """Projected tokens as `_cut` leaves them -> attention inside windows, (B, H, W, C)."""
    w, shift = mixer._window_and_shift(H, W)
    tokens, positions = _order(H, W, w, shift, qkv.device)
    bias, padded = mixer._relative_bias(w)[None], H % w or W % w  # (1, h, L, L)
    if padded:
        qkv = qkv.index_select(1, tokens)  # (B, H*W, 3C) -> (B, N*L, 3C)
    if shift or padded:
        bias = bias.masked_fill(~mixer._allowed(H, W, w, shift, qkv.device)[:, None], float("-inf"))  # (N, h, L, L)
    B, C = qkv.shape[0], qkv.shape[2] // 3
    qkv = qkv.view(B, len(tokens) // w**2, w**2, 3, mixer.heads, C // mixer.heads).permute(3, 0, 1, 4, 2, 5)
    out = biased_attention(*qkv.contiguous(), bias[None])  # (B, N, h, L, d)
    return out.transpose(2, 3).reshape(B, len(tokens), C).index_select(1, positions).view(B, H, W, C)


def _rolled_axis(size: int, w: int, shift: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Along one axis, padded to whole windows and rolled: the place of each position, and its region (0, 1, 2)."""
    padded = -(-size // w) * w
    i = torch.arange(padded, device=device)
    region = (i >= padded - w).long() + (i >= padded - shift).long() if shift else torch.zeros_like(i)
    return (i + shift) % padded, region


def _order(H: int, W: int, w: int, shift: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each position in all windows its token, (N*L,), an edge's for the padding; of each token its position."""
    y, x = (_rolled_axis(size, w, shift, device)[0] for size in (H, W))
    tokens = _windows(y.clamp(max=H - 1)[:, None] * W + x.clamp(max=W - 1), w).flatten()
    positions = torch.arange(len(tokens), device=device).view(len(y) // w, len(x) // w, w, w).transpose(1, 2)
    return tokens, positions.reshape(len(y), len(x)).roll((shift, shift), (0, 1))[:H, :W].flatten()


def _windows(x: torch.Tensor, w: int) -> torch.Tensor:
    """A map (H, W) of whole windows -> (N, L)."""
    H, W = x.shape
    return x.view(H // w, w, W // w, w).transpose(1, 2).reshape(-1, w * w)
