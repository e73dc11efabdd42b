"""What mixers and backbone share. Tokens are maps with the channels last, (B, H, W, C), everywhere in this package."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .util.errors import UserError


class TokenConv2d(nn.Conv2d):
    """A convolution over tokens: (B, H, W, C) -> (B, H', W', C').

    The permutations are views: contiguous tokens are exactly a channels_last NCHW tensor, so nothing is copied.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) -> (B, H', W', C')."""
        x = super().forward(x.permute(0, 3, 1, 2))  # (B, H, W, C) -> (B, C', H', W')
        return x.permute(0, 2, 3, 1)  # -> (B, H', W', C')


class PatchConv2d(TokenConv2d):
    """A projection of patches that do not overlap: (B, H, W, C) -> (B, H/patch, W/patch, C'), rounded up.

    What is missing to whole patches at the bottom and right is zero.
    """

    def __init__(self, dim: int, out_dim: int, patch: int) -> None:
        super().__init__(dim, out_dim, patch, stride=patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) -> (B, H/patch, W/patch, C'), rounded up."""
        return super().forward(_whole_patches(x, self.stride[0]))


class MergePatches(nn.Module):
    """The four tokens of each 2x2 patch side by side: (B, H, W, C) -> (B, H/2, W/2, 4C), rounded up with zeros.

    In Swin's order of (row, column): (0, 0), (1, 0), (0, 1), (1, 1).
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) -> (B, H/2, W/2, 4C), rounded up."""
        x = _whole_patches(x, 2)
        B, H, W, C = x.shape
        x = x.view(B, H // 2, 2, W // 2, 2, C).permute(0, 1, 3, 4, 2, 5)  # (B, H/2, W/2, column, row, C)
        return x.reshape(B, H // 2, W // 2, 4 * C)


@torch.fx.wrap
def _whole_patches(x: torch.Tensor, patch: int) -> torch.Tensor:
    missing_rows, missing_cols = (-side % patch for side in x.shape[1:3])
    return F.pad(x, (0, 0, 0, missing_cols, 0, missing_rows)) if missing_rows or missing_cols else x


def check_static(mixer: str, *sides: int) -> None:
    """Raise UserError if `torch.export` leaves the sides of a map open, and the mixer cuts the map by them."""
    if torch.compiler.is_exporting() and any(isinstance(side, torch.SymInt) for side in sides):
        raise UserError(
            f"{mixer}: torch.export with dynamic height or width: how a map is cut depends on its size; export for one "
            "size (the batch may be dynamic)"
        )


def resize_embedding(weight: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(1, H, W, C) -> (1, height, width, C)."""
    if not torch.compiler.is_exporting() and weight.shape[1:3] == (height, width):  # an export may leave sizes open
        return weight
    weight = F.interpolate(weight.permute(0, 3, 1, 2), (height, width), mode="bilinear", align_corners=True)
    return weight.permute(0, 2, 3, 1)


def trunc_normal_init(table: torch.Tensor, std: float = 0.02) -> None:
    """In place: truncated normal as published, but cut at 4 std.

    The published code cuts at +-2 in absolute terms, a hundred std out, where the sampler can return the bound itself,
    a weight of 2 among those of 0.02. A cut at 4 std changes the spread by less than a thousandth.
    """
    nn.init.trunc_normal_(table, std=std, a=-4 * std, b=4 * std)


def num_heads(dim: int, heads: int | None, head_dim: int) -> int:
    """The number of heads: as given, else so that each has `head_dim` channels (one where that does not divide)."""
    if heads is None:
        heads = dim // head_dim if dim % head_dim == 0 else 1
    if heads < 1 or dim % heads:
        raise UserError(f"heads={heads} does not divide dim={dim}")
    return heads
