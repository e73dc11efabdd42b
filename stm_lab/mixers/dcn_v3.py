"""Deformable convolution v3 in plain PyTorch (Wang et al. 2023, InternImage; arXiv 2211.05778).

The samples are drawn by `grid_sample`, so that it runs on any device. It is slower than its authors' CUDA kernel, and
uses more memory: nine samples of every value are held at once.

Legend of shapes: h groups ("heads" here, for one name in all designs), d channels a group, P = 9 sampling points.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..layers import TokenConv2d, num_heads
from .registry import register_mixer


def _place(n: int | torch.Tensor) -> tuple:
    """The kernel's n-th point, n a number or a tensor -> its x and y; x slow and y fast, as published."""
    return n // 3 - 1, n % 3 - 1


GRID = np.array([_place(n) for n in range(3 * 3)], np.float32)  # (P, [x, y]), tokens: what offsets are added to
POINTS = len(GRID)


@register_mixer("dcn_v3")
class DeformableConvV3(nn.Module):
    """Nine points a group, moved by offsets and weighted by a softmax, both computed from the tokens.

    Weights are dynamic and so is where they look: local at the start, anywhere once learned. All positions share the
    projections; values are sampled bilinearly, and 0 outside the image.

    (B, H, W, C) -> (B, H, W, C), any H and W.

    Raises UserError if `heads` does not divide `dim`.
    """

    def __init__(self, dim: int, *, heads: int | None = None) -> None:
        super().__init__()
        self.heads = num_heads(dim, heads, head_dim=16)
        self.dwconv = TokenConv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.offsets = nn.Linear(dim, self.heads * POINTS * 2)  # channels (head, point, [x, y]), pixels of the map
        self.weights = nn.Linear(dim, self.heads * POINTS)  # channels (head, point)
        self.value = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def sampling(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where tokens (B, H, W, C) look: offsets (B, H, W, h, P, [x, y]) in pixels of the map, weights (B, H, W, h, P)
        that add up to 1."""
        offsets, logits = self._predict(x)
        return offsets, logits.softmax(-1)

    def _predict(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (B, H, W, C) -> offsets (B, H, W, h, P, [x, y]), logits of the weights (B, H, W, h, P)."""
        B, H, W, _ = x.shape
        f = F.gelu(self.norm(self.dwconv(x)))
        return self.offsets(f).view(B, H, W, self.heads, POINTS, 2), self.weights(f).view(B, H, W, self.heads, POINTS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, H, W, C = x.shape
        h, d = self.heads, C // self.heads
        offsets, logits = self._predict(x)
        grid = _grid(offsets)
        # points before tokens: softmax, sampling and sum then run along tokens, many at a time
        weights = logits.permute(0, 3, 4, 1, 2).reshape(B * h, 1, POINTS, H * W).softmax(2)

        value = self.value(x)
        maps = value.view(B, H, W, h, d).permute(0, 3, 4, 1, 2).reshape(B * h, d, H, W).to(grid.dtype)
        samples = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        out = (samples * weights).sum(2)  # (B*h, d, P, HW) -> (B*h, d, HW)
        out = out.view(B, h, d, H, W).permute(0, 3, 4, 1, 2).reshape(B, H, W, C)
        return self.proj(out.to(value.dtype))

    def macs(self, H: int, W: int) -> int:
        """Projections and the depth-wise convolution; sampling and the weighted sum are no matrix products."""
        C = self.proj.in_features
        return H * W * (2 * C * C + 9 * C + 3 * self.heads * POINTS * C)


@torch.fx.wrap  # a trace of the network calls it: it cannot follow ranges as long as a map
def _grid(offsets: torch.Tensor) -> torch.Tensor:
    """Offsets (B, H, W, h, P, [x, y]) in pixels -> grid (B*h, P, HW, [x, y]), -1 to 1 from edge to edge."""
    B, H, W, h, P, _ = offsets.shape
    # half precision would round positions by up to 1/32 pixel on a 56-pixel map
    dtype, device = torch.promote_types(offsets.dtype, torch.float32), offsets.device
    right, down = (step[:, None, None] for step in _place(torch.arange(P, device=device)))  # no copy from the host
    dx, dy = offsets.to(dtype).permute(5, 0, 3, 4, 1, 2).contiguous()  # (B, h, P, H, W)
    x = torch.arange(W, device=device) + right + dx
    y = torch.arange(H, device=device)[:, None] + down + dy
    return torch.stack(((2 * x + 1) / W - 1, (2 * y + 1) / H - 1), -1).reshape(B * h, P, H * W, 2)
