"""What networks are built of: layers over tokens, stems, downsamplings, blocks and heads.

Tokens are maps with the channels last, (B, H, W, C); between stages maps are (B, C, H, W), as timm has them. That is
the same memory in channels_last order, so that going from one to the other is a view. `PARTS` holds the parts of the
unified backbone and of the networks that the mixers come from, by the words of a design.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.layers import DropPath, create_classifier
from torch import nn

from .util.environment import processor
from .util.errors import UserError, check_known

# `torch.fx.wrap`: a trace of a network calls these functions and does not follow their branches

# ---- over tokens -----------------------------------------------------------------------------------------------------


class LinearByConvolution(nn.Linear):
    """nn.Linear that is called as a 1x1 convolution: the same weights, numbers and gradients, to float32's rounding.

    On AMD's processors with AVX-512, MKL multiplies float32 matrices at half of their speed, and oneDNN, which torch's
    convolutions call, does not: 100 and 215 GFLOP/s in a trial on an EPYC, one thread. What is gained is the library's,
    and says nothing about an architecture. On an Intel Xeon (AVX-512, AMX) layers took 0.45 to 2.2 times as long by
    their shapes, and whole tiny networks 0.9 to 1.1 times, so it is not used there. Products of less than 2^23
    multiplications lose by it. Tools that look for `nn.Linear` by its exact type do not find this class.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) is not torch.Tensor
        if is_traced or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        if not torch.backends.mkldnn.enabled or type(self.weight) not in (nn.Parameter, torch.Tensor):
            return super().forward(x)  # a quantized weight is of a class of its own
        if x.shape[-1] != self.in_features:
            return super().forward(x)  # raises what nn.Linear raises
        if not x.dtype == self.weight.dtype == torch.float32 or x.numel() * self.out_features < 2**23:
            return super().forward(x)
        width = math.gcd(x.numel() // self.in_features, 64)  # so that there are many rows: torch asks oneDNN only then
        rows = x.reshape(-1, 1, width, self.in_features).permute(0, 3, 1, 2)  # channels last
        out = F.conv2d(rows, self.weight[:, :, None, None], self.bias)  # (rows, out, 1, width)
        return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)


_IS_AMD = "AMD EPYC" in processor() or "AMD Ryzen" in processor() or "AuthenticAMD" in processor()
Linear = LinearByConvolution if _IS_AMD and torch.backends.cpu.get_cpu_capability() == "AVX512" else nn.Linear


class TokenConv2d(nn.Conv2d):
    """A convolution over tokens: (B, H, W, C) -> (B, H', W', C'); nothing is copied."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x.permute(0, 3, 1, 2))  # (B, H, W, C) -> (B, C', H', W')
        return x.permute(0, 2, 3, 1)  # -> (B, H', W', C')


class PatchConv2d(TokenConv2d):
    """A projection of patches that do not overlap: (B, H, W, C) -> (B, H/patch, W/patch, C'), rounded up with zeros."""

    def __init__(self, dim: int, out_dim: int, patch: int) -> None:
        super().__init__(dim, out_dim, patch, stride=patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(_whole_patches(x, self.stride[0]))


class MergePatches(nn.Module):
    """The four tokens of each 2x2 patch side by side: (B, H, W, C) -> (B, H/2, W/2, 4C), rounded up with zeros.

    In Swin's order of (row, column): (0, 0), (1, 0), (0, 1), (1, 1).
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = _whole_patches(x, 2)
        B, H, W, C = x.shape
        x = x.view(B, H // 2, 2, W // 2, 2, C).permute(0, 1, 3, 4, 2, 5)  # (B, H/2, W/2, column, row, C)
        return x.reshape(B, H // 2, W // 2, 4 * C)


@torch.fx.wrap
def _whole_patches(x: torch.Tensor, patch: int) -> torch.Tensor:
    missing_rows, missing_cols = (-side % patch for side in x.shape[1:3])
    return F.pad(x, (0, 0, 0, missing_cols, 0, missing_rows)) if missing_rows or missing_cols else x


class Mlp(nn.Module):
    """Linear, GELU, Linear, with pvt_v2's depth-wise convolution after the first if asked for."""

    def __init__(self, dim: int, hidden: int, conv: bool) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.conv = TokenConv2d(hidden, hidden, 3, padding=1, groups=hidden) if conv else nn.Identity()
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, H, W, C) -> (B, H, W, C); each by itself, but for the convolution."""
        return self.fc2(F.gelu(self.conv(self.fc1(x))))


class PositionEmbedding(nn.Module):
    """A learned map added to the tokens, resized (bilinear, corners aligned, as published) to their map."""

    def __init__(self, dim: int, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, height, width, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The initial map: truncated normal."""
        trunc_normal_init(self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, H, W, C) -> (B, H, W, C), at any H and W."""
        return x + resize_embedding(self.weight, x.shape[1], x.shape[2])


def biased_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Softmax attention with a bias that may be learned, and -inf where a key is hidden.

    Queries (B, X, Y, L, d), keys and values (B, X, Y, S, d), bias broadcast to (B, X, Y, L, S) -> (B, X, Y, L, d).

    PyTorch has no fused kernel for the gradient of a bias on CPUs, and its fallback costs more than the steps here.
    """
    learns = torch.is_grad_enabled() and bias.requires_grad and not torch.jit.is_tracing()  # a trace serves both
    if learns and q.device.type == "cpu":
        logits = (q * q.shape[-1] ** -0.5) @ k.mT + bias.to(q.dtype)
        return logits.softmax(-1) @ v
    bias = bias.expand(-1, *q.shape[1:3], -1, -1).flatten(1, 2).to(q.dtype)
    out = F.scaled_dot_product_attention(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2), attn_mask=bias)
    return out.unflatten(1, q.shape[1:3])


def kept_by_size(make: Callable) -> Callable:
    """Decorate a function of numbers and a device that makes index tensors: they are made once for each, and kept.

    A mixer needs the same ones at each forward, and on a GPU launching their many small kernels takes longer than the
    kernels. They are made anew where they would belong to one trace, export or fake mode.
    """
    kept = functools.lru_cache(maxsize=128)(make)

    @functools.wraps(make)
    def made(*sizes: int | torch.device) -> torch.Tensor | tuple[torch.Tensor, ...]:
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(torch.empty(0)) is not torch.Tensor:
            return make(*sizes)
        with torch.inference_mode(False):  # tensors of that mode could not be used in training later
            return kept(*sizes)

    return made


@torch.fx.wrap
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
    """The number of heads: as given, else so that each has `head_dim` channels (one if that does not divide)."""
    if heads is None:
        heads = dim // head_dim if dim % head_dim == 0 else 1
    if heads < 1 or dim % heads:
        raise UserError(f"heads={heads} does not divide dim={dim}")
    return heads


def check_static(mixer: str, *sides: int) -> None:
    """Raise UserError if `torch.export` leaves the sides of a map open, and the mixer cuts the map by them."""
    if torch.compiler.is_exporting() and any(isinstance(side, torch.SymInt) for side in sides):
        raise UserError(
            f"{mixer}: torch.export with dynamic height or width: how a map is cut depends on its size; export for one "
            "size (the batch may be dynamic)"
        )


# ---- blocks ----------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Two residual branches, mixer and MLP, each normed before and scaled after. The mixer is handed in.

    Tokens (B, H, W, C) -> (B, H, W, C). A `scale` of 0 leaves the branches as they are, without parameters.
    Raises UserError, with the mixer's `name`, if it returns another shape.
    """

    def __init__(
        self,
        dim: int,
        mixer: nn.Module,
        *,
        name: str,
        mlp_ratio: int,
        mlp_conv: bool,
        eps: float,
        scale: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.name, self.scale = name, float(scale)
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.mixer = mixer
        self.gamma1 = nn.Parameter(torch.empty(dim)) if scale else None
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_ratio * dim, mlp_conv)
        self.gamma2 = nn.Parameter(torch.empty(dim)) if scale else None
        self.drop_path = DropPath(drop_path)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The initial layer scales."""
        for gamma in (self.gamma1, self.gamma2):
            if gamma is not None:
                nn.init.constant_(gamma, self.scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.residual(x, self.gamma1, self.mix(self.norm1(x)))
        return self.residual(x, self.gamma2, self.mlp(self.norm2(x)))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        """The mixer's output for tokens (B, H, W, C), in the same shape; UserError if it is another."""
        return _checked_tokens(self.mixer(x), x, self.name)

    def residual(self, x: torch.Tensor, gamma: torch.Tensor | None, branch: torch.Tensor) -> torch.Tensor:
        """Tokens (B, H, W, C) plus a branch of that shape, times gamma (C,) if there is one; it may be dropped."""
        if gamma is not None and (self.drop_path.drop_prob == 0 or not self.training):
            return torch.addcmul(x, gamma, branch)
        return x + self.drop_path(branch if gamma is None else gamma * branch)


class OneBranchBlock(Block):
    """One residual branch, mixer, norm and MLP in a row (Liu et al. 2022, ConvNeXt, arXiv 2201.03545)."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.norm1 = self.gamma1 = None  # the norm stands between mixer and MLP, the scale after both

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.residual(x, self.gamma2, self.mlp(self.norm2(self.mix(x))))


@torch.fx.wrap
def _checked_tokens(mixed: torch.Tensor, x: torch.Tensor, name: str) -> torch.Tensor:
    """A mixer's output for tokens. Raises UserError, with the mixer's name, if its shape is not that of the tokens."""
    if mixed.shape != x.shape:  # some would be broadcast silently
        shapes = f"{tuple(mixed.shape)} for tokens {tuple(x.shape)}"
        raise UserError(f"mixer {name!r} returns {shapes}; it must keep their shape")
    return mixed


# ---- heads -----------------------------------------------------------------------------------------------------------


class Head(nn.Module):
    """Global pooling and the classifier: NCHW map -> (B, classes). Subclasses add layers before or after the pooling.

    `width` is that of the map that is pooled, `hidden` that of the classifier's input: twice as much for catavgmax,
    which has averages and maxima side by side. Raises UserError for a pooling that is none of timm's or does not go
    with the classes.
    """

    def __init__(self, dim: int, num_classes: int, global_pool: str, drop_rate: float, eps: float) -> None:
        super().__init__()
        self.width = self.build(dim, eps)
        self.drop = nn.Dropout(drop_rate)
        self.reset(num_classes, global_pool)

    def build(self, dim: int, eps: float) -> int:
        """Make the layers of this kind; returns `width`."""
        return dim

    def reset(self, num_classes: int, global_pool: str) -> None:
        """A new pooling and classifier; the layers of this kind stay. Raises UserError as the class says."""
        check_known("global_pool", global_pool, ("avg", "max", "avgmax", "catavgmax", ""))
        if num_classes < 0:
            raise UserError(f"num_classes must be at least 0 (0: no classifier), not {num_classes}")
        if num_classes and not global_pool:
            raise UserError(f"num_classes={num_classes} does not go with global_pool={global_pool!r}")
        self.global_pool, self.fc = create_classifier(self.width, num_classes, global_pool)
        self.hidden = self.width * self.global_pool.feat_mult()

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, hidden)."""
        return self.global_pool(x)

    def forward(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """The last map (B, C, H, W) -> logits (B, classes), or with `pre_logits` the classifier's input (B, hidden)."""
        x = self.drop(self.pool(x))
        return x if pre_logits else self.fc(x)


class ConvHead(Head):
    """The unified one: 1x1 convolution to 1.5 times the width, BatchNorm, GELU, then pooling."""

    def build(self, dim: int, eps: float) -> int:
        """Convolution and norm; returns 1.5 times `dim`."""
        hidden = int(1.5 * dim)
        self.conv = nn.Conv2d(dim, hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        return hidden

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, hidden), hidden being 1.5 C; a map of that many channels without pooling."""
        return self.global_pool(F.gelu(self.norm(self.conv(x))))


class NormHead(Head):
    """ConvNeXt's: pooling, then the only norm of the trunk."""

    def build(self, dim: int, eps: float) -> int:
        """The norm; returns `dim`."""
        self.norm = nn.LayerNorm(dim, eps=eps)
        return dim

    def reset(self, num_classes: int, global_pool: str) -> None:
        """As every head's, but the norm has a fixed width. UserError for a pooling that changes it."""
        if global_pool == "catavgmax":
            raise UserError("global_pool='catavgmax' doubles the width, and this head's norm has the map's")
        super().reset(num_classes, global_pool)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C); a map without pooling."""
        return self.norm(self.global_pool(x).movedim(1, -1)).movedim(-1, 1)  # a map, if nothing was pooled


class PrunedHead(nn.Module):
    """What is left of the head of a network that was cut to give feature maps: they pass through."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Identity()

    def reset(self, num_classes: int, global_pool: str | None = None) -> None:
        """Raises UserError for anything but no classifier and no pooling."""
        if num_classes or global_pool:
            raise UserError("this model was pruned to its feature maps and has no head; build it anew for a classifier")

    def forward(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """The map (B, C, H, W), as it is."""
        return x


# ---- the parts by the words of a design ------------------------------------------------------------------------------

# field of a `Design`: its words, the unified network's first, and what they build
PARTS = {
    "stem": {  # (channels in, channels out, eps of the norms) -> layers over tokens
        "convs": lambda c, d, eps: (
            TokenConv2d(c, d // 2, 3, stride=2, padding=1),
            nn.LayerNorm(d // 2, eps),
            nn.GELU(),
            TokenConv2d(d // 2, d, 3, stride=2, padding=1),
            nn.LayerNorm(d, eps),
        ),
        "patches": lambda c, d, eps: (PatchConv2d(c, d, 4), nn.LayerNorm(d, eps)),  # Swin, PVT, ConvNeXt
        "overlap": lambda c, d, eps: (TokenConv2d(c, d, 7, stride=4, padding=3), nn.LayerNorm(d, eps)),  # PVT v2
    },
    "downsample": {  # the same
        "conv": lambda c, d, eps: (TokenConv2d(c, d, 3, stride=2, padding=1, bias=False), nn.LayerNorm(d, eps)),
        "merge": lambda c, d, eps: (MergePatches(), nn.LayerNorm(4 * c, eps), nn.Linear(4 * c, d, bias=False)),  # Swin
        "norm_conv": lambda c, d, eps: (nn.LayerNorm(c, eps), PatchConv2d(c, d, 2)),  # ConvNeXt
        "patches": lambda c, d, eps: (PatchConv2d(c, d, 2), nn.LayerNorm(d, eps)),  # PVT
        "overlap": lambda c, d, eps: (TokenConv2d(c, d, 3, stride=2, padding=1), nn.LayerNorm(d, eps)),  # PVT v2
    },
    "stage_norms": {  # whether each of the four stages ends with a norm
        "all": (True, True, True, True),
        "last": (False, False, False, True),
        "none": (False, False, False, False),
    },
    "head": {"conv": ConvHead, "linear": Head, "norm_linear": NormHead},
    "branches": {2: Block, 1: OneBranchBlock},
}
