"""What mixers and backbone share. Tokens are maps with the channels last, (B, H, W, C), everywhere in this package."""

from __future__ import annotations

import torch
from torch import nn

from .errors import UserError


class TokenConv2d(nn.Conv2d):
    """A convolution over tokens: (B, H, W, C) -> (B, H', W', C').

    The permutations are views: contiguous tokens are exactly a channels_last NCHW tensor, so nothing is copied.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x.permute(0, 3, 1, 2))  # (B, H, W, C) -> (B, C', H', W')
        return x.permute(0, 2, 3, 1)  # -> (B, H', W', C')


def init_table(table: torch.Tensor, std: float = 0.02) -> None:
    """In place: truncated normal as published, but cut at 4 std.

    The published code cuts at +-2 in absolute terms, a hundred std out, where the sampler can return the bound itself,
    a weight of 2 among those of 0.02. A cut at 4 std changes the spread by less than a thousandth.
    """
    nn.init.trunc_normal_(table, std=std, a=-4 * std, b=4 * std)


def split_heads(dim: int, heads: int | None, head_dim: int) -> int:
    """The number of heads: as given, else so that each has `head_dim` channels (one where that does not divide)."""
    if heads is None:
        heads = dim // head_dim if dim % head_dim == 0 else 1
    if heads < 1 or dim % heads:
        raise UserError(f"heads={heads} does not divide dim={dim}")
    return heads
