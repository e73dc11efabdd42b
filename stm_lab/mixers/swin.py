"""Shifted-window attention (Liu et al. 2021, Swin Transformer; arXiv 2103.14030).

Legend of shapes: w window, L = w*w tokens of a window, N windows of the padded map, h heads, d channels a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import Linear, biased_attention, check_static, kept_by_size, num_heads, trunc_normal_init
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
        self.qkv = Linear(dim, 3 * dim)  # channels ([q, k, v], head, d)
        self.proj = Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, self.heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The bias table as at the start: truncated normal."""
        trunc_normal_init(self.relative_position_bias_table)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        H, W = x.shape[1], x.shape[2]
        qkv = self.qkv(_cut(x, self.window, self.shift))
        return self.proj(_attend(qkv, H, W, self.relative_position_bias_table, self.heads, self.window, self.shift))

    def macs(self, H: int, W: int) -> int:
        """Projections, q.k and weights.v over whole windows."""
        C = self.proj.in_features
        w, _ = _window_and_shift(H, W, self.window, self.shift)
        queries = (-(-H // w)) * (-(-W // w)) * w * w
        return 4 * H * W * C * C + 2 * queries * w * w * C

    def no_weight_decay(self) -> set[str]:
        """Names of parameters of two or more dimensions that weight decay spares."""
        return {"relative_position_bias_table"}


@torch.fx.wrap  # a trace of the network calls it and does not follow its branches
def _cut(x: Tensor, window: int, shift: int) -> Tensor:
    """Tokens (B, H, W, C) -> (B, N*L, C), window by window; (B, H*W, C) if windows need padding, which comes later."""
    H, W = x.shape[1:3]
    check_static("swin", H, W)
    tokens, x = _layout(H, W, window, shift, x.device)[0], x.flatten(1, 2)
    return x.index_select(1, tokens) if len(tokens) == H * W else x


@torch.fx.wrap
def _attend(qkv: Tensor, H: int, W: int, table: Tensor, h: int, window: int, shift: int) -> Tensor:
    """Projected tokens as `_cut` leaves them -> attention inside windows, (B, H, W, C)."""
    tokens, places, rows, hidden = _layout(H, W, window, shift, qkv.device)
    bias = table[rows].permute(2, 0, 1)[None]  # (1, h, L, L)
    if hidden is not None:
        bias = bias.masked_fill(hidden[:, None], float("-inf"))  # (N, h, L, L)
    if len(tokens) > H * W:
        qkv = qkv.index_select(1, tokens)  # (B, H*W, 3C) -> (B, N*L, 3C)
    B, L, C = qkv.shape[0], len(rows), qkv.shape[2] // 3
    qkv = qkv.view(B, len(tokens) // L, L, 3, h, C // h).permute(3, 0, 1, 4, 2, 5).contiguous()
    out = biased_attention(*qkv, bias[None])  # (B, N, h, L, d)
    return out.transpose(2, 3).reshape(B, len(tokens), C).index_select(1, places).view(B, H, W, C)


def _window_and_shift(H: int, W: int, window: int, shift: int) -> tuple[int, int]:
    """Those of a mixer as they are on a map."""
    side = min(H, W)
    return (side, 0) if side <= window else (window, shift)


@kept_by_size
def _layout(H: int, W: int, window: int, shift: int, device: torch.device) -> tuple[Tensor, ...]:
    """Windows on a padded and rolled map: the token at each of their places, (N*L,), an edge's in the padding; the
    place of each token, (H*W,); the bias table's row for each pair of a window's places, (L, L); and the keys that a
    query may not see, (N, L, L) bool, None if it sees them all."""
    w, shift = _window_and_shift(H, W, window, shift)
    i = torch.arange(w, device=device)
    offset = i[:, None] - i + window - 1  # (w, w): query minus key along one axis
    rows = offset[:, None, :, None] * (2 * window - 1) + offset[None, :, None, :]  # (yq, xq, yk, xk)

    y, x = (torch.arange(-(-size // w) * w, device=device) + shift for size in (H, W))  # padded and rolled
    round_y, round_x, y, x = y // len(y), x // len(x), y % len(y), x % len(x)
    tokens = _windows(y.clamp(max=H - 1)[:, None] * W + x.clamp(max=W - 1), w)
    places = torch.arange(tokens.numel(), device=device).view(len(y) // w, len(x) // w, w, w).transpose(1, 2)
    places = places.reshape(len(y), len(x)).roll((shift, shift), (0, 1))[:H, :W]

    hidden = None
    if shift or tokens.numel() > H * W:
        region, padding = _windows(2 * round_y[:, None] + round_x, w), _windows((y >= H)[:, None] | (x >= W), w)
        # the roll joins the map's far sides; queries in the padding see all of their region, or have no softmax
        hidden = (region[:, :, None] != region[:, None]) | (padding[:, None] & ~padding[:, :, None])
    return tokens.flatten(), places.flatten(), rows.reshape(w * w, w * w), hidden


def _windows(x: Tensor, w: int) -> Tensor:
    """A map (H, W) of whole windows -> (N, L)."""
    H, W = x.shape
    return x.view(H // w, w, W // w, w).transpose(1, 2).reshape(-1, w * w)
