"""Deformable convolution v3 in plain PyTorch (Wang et al. 2023, InternImage; arXiv 2211.05778).

The samples are drawn by `grid_sample`, so that it runs on any device, and on CPUs without gradients by
`embedding_bag`, which holds none of them. It is slower than its authors' CUDA kernel, and in training uses more memory:
nine samples of every value are held at once.

Legend of shapes: h groups ("heads" here, for one name in all designs), d channels a group, P = 9 sampling points.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import Linear, TokenConv2d, kept_by_size, num_heads
from .registry import register_mixer


def _place(n: int | Tensor) -> tuple:
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
        self.offsets = Linear(dim, self.heads * POINTS * 2)  # channels (head, point, [x, y]), pixels of the map
        self.weights = Linear(dim, self.heads * POINTS)  # channels (head, point)
        self.value = Linear(dim, dim)
        self.proj = Linear(dim, dim)

    def sampling(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Where tokens (B, H, W, C) look: offsets (B, H, W, h, P, [x, y]) in pixels of the map, weights (B, H, W, h, P)
        that add up to 1."""
        offsets, logits = self._predict(x)
        return offsets, logits.softmax(-1)

    def _predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, H, W, C) -> offsets (B, H, W, h, P, [x, y]), logits of the weights (B, H, W, h, P)."""
        B, H, W, _ = x.shape
        f = F.gelu(self.norm(self.dwconv(x)))
        return self.offsets(f).view(B, H, W, self.heads, POINTS, 2), self.weights(f).view(B, H, W, self.heads, POINTS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return self.proj(_sampled(self.value(x), *self._predict(x)))

    def macs(self, H: int, W: int) -> int:
        """Projections and the depth-wise convolution; sampling and the weighted sum are no matrix products."""
        C = self.proj.in_features
        return H * W * (2 * C * C + 9 * C + 3 * self.heads * POINTS * C)


@torch.fx.wrap  # a trace of the network calls it: it follows neither branches nor ranges as long as a map
def _sampled(value: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    """The values (B, H, W, C) at the points of each token, offsets (B, H, W, h, P, [x, y]) pixels from its own grid,
    summed with the softmax of logits (B, H, W, h, P): (B, H, W, C)."""
    kept, dtype = value.dtype, torch.promote_types(value.dtype, torch.float32)  # 16 bits round places by 1/32 pixel
    tensors = [tensor.to(dtype) for tensor in (value, offsets, logits)]
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    by_rows = value.device.type == "cpu" and not learns and not is_traced
    return (_sum_of_rows if by_rows else _sum_of_samples)(*tensors).to(kept)


def _sum_of_samples(value: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    """As `_sampled`, with points before tokens: softmax, sampling and sum run along tokens, many at a time."""
    B, H, W, h, P = logits.shape
    maps = value.view(B, H, W, h, value.shape[3] // h).permute(0, 3, 4, 1, 2).flatten(0, 1)  # (B*h, d, H, W)
    samples = F.grid_sample(maps, _grid(offsets), mode="bilinear", padding_mode="zeros", align_corners=False)
    weights = logits.permute(0, 3, 4, 1, 2).reshape(B * h, 1, P, H * W).softmax(2)
    out = (samples * weights).sum(2)  # (B*h, d, P, HW) -> (B*h, d, HW)
    return out.view(B, value.shape[3], H, W).permute(0, 2, 3, 1).contiguous()


def _sum_of_rows(value: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    """As `_sampled`, by one sum for each token and group over 4 P rows: those of the four pixels around each point."""
    B, H, W, h, P = logits.shape
    table = F.pad(value, (0, 0, 1, 1, 1, 1)).view(-1, value.shape[3] // h)  # (B*(H+2)*(W+2)*h, d), zeros around maps
    x, y = (place.clamp_(-1, side) for place, side in zip(_places(offsets), (W, H), strict=True))  # (B, H, W, h, P)
    # the pixel to the left above; where a place is NaN it is some pixel, and the weights are NaN
    left, top = (place.floor().int().clamp_(-1, side - 1) for place, side in ((x, W), (y, H)))
    x, y = x.sub_(left), y.sub_(top)

    weights = (logits - logits.amax(-1, keepdim=True)).exp_()  # torch's softmax is slow over nine numbers
    weights = weights.div_(weights.sum(-1, keepdim=True))
    below = weights * y
    above = weights.sub_(below)
    weights = torch.stack((above * (1 - x), above * x, below * (1 - x), below * x), -2)  # (B, H, W, h, 4, P)

    group, image = (torch.arange(number, dtype=torch.int32, device=value.device) for number in (h, B))
    first = image[:, None, None, None, None] * ((H + 2) * (W + 2) * h) + group[:, None]
    rows = (top.add_(1).mul_(W + 2).add_(left).add_(1)).mul_(h).add_(first)
    rows = torch.stack((rows, rows + h, rows + (W + 2) * h, rows + (W + 3) * h), -2).view(-1, 4 * P)
    return F.embedding_bag(rows, table, per_sample_weights=weights.view(-1, 4 * P), mode="sum").view(value.shape)


def _grid(offsets: Tensor) -> Tensor:
    """Offsets (B, H, W, h, P, [x, y]) in pixels -> grid (B*h, P, HW, [x, y]), -1 to 1 from edge to edge."""
    B, H, W, h, P, _ = offsets.shape
    x, y = (place.permute(0, 3, 4, 1, 2).reshape(B * h, P, H * W) for place in _places(offsets))
    return torch.stack(((2 * x + 1) / W - 1, (2 * y + 1) / H - 1), -1)


def _places(offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets (B, H, W, h, P, [x, y]) in pixels -> where the points are on the map, x and y (B, H, W, h, P)."""
    x, y = _unmoved(*offsets.shape[1:5], offsets.device)
    return x + offsets[..., 0], y + offsets[..., 1]


@kept_by_size
def _unmoved(H: int, W: int, h: int, P: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the points of each token and group are without offsets, x and y (H, W, h, P)."""
    right, down = _place(torch.arange(P, dtype=torch.float32, device=device))
    x = torch.arange(W, device=device)[:, None, None] + right  # (W, 1, P)
    y = torch.arange(H, device=device)[:, None, None, None] + down  # (H, 1, 1, P)
    return x.expand(H, W, h, P).contiguous(), y.expand(H, W, h, P).contiguous()
