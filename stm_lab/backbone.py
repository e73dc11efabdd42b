"""The unified backbone: one stem, one downsampling, one block, one head for every spatial token mixer.

Hu et al. 2022, arXiv 2211.05781. The stems, downsamplings, blocks and heads of the networks that the mixers come from
stand beside the unified ones, in tables, by the names that a design calls them. Between stages maps are (B, C, H, W),
as timm has them; inside a stage tokens are (B, H, W, C), which is the same memory in channels_last order, so that going
from one to the other is a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, get_type_hints

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.layers import DropPath, calculate_drop_path_rates, create_classifier
from timm.models import checkpoint_seq
from timm.models._features import feature_take_indices
from torch import nn

from .designs import Design
from .designs.design import Count
from .layers import MergePatches, PatchConv2d, TokenConv2d, resize_embedding, trunc_normal_init
from .mixers import get_mixer
from .published import load_pretrained
from .util.errors import UserError, check_known
from .util.validation import checked

torch.fx.wrap("resize_embedding")  # its sizes are compared, which a symbolic trace cannot follow

# a design's word -> layers over tokens, of (channels in, channels out, eps of the norms)
_STEMS = {
    "convs": lambda c, d, eps: (
        TokenConv2d(c, d // 2, 3, stride=2, padding=1),
        nn.LayerNorm(d // 2, eps),
        nn.GELU(),
        TokenConv2d(d // 2, d, 3, stride=2, padding=1),
        nn.LayerNorm(d, eps),
    ),
    "patches": lambda c, d, eps: (PatchConv2d(c, d, 4), nn.LayerNorm(d, eps)),  # Swin, PVT, ConvNeXt
    "overlap": lambda c, d, eps: (TokenConv2d(c, d, 7, stride=4, padding=3), nn.LayerNorm(d, eps)),  # PVT v2
}
_DOWNSAMPLINGS = {
    "conv": lambda c, d, eps: (TokenConv2d(c, d, 3, stride=2, padding=1, bias=False), nn.LayerNorm(d, eps)),
    "merge": lambda c, d, eps: (MergePatches(), nn.LayerNorm(4 * c, eps), nn.Linear(4 * c, d, bias=False)),  # Swin
    "norm_conv": lambda c, d, eps: (nn.LayerNorm(c, eps), PatchConv2d(c, d, 2)),  # ConvNeXt
    "patches": lambda c, d, eps: (PatchConv2d(c, d, 2), nn.LayerNorm(d, eps)),  # PVT
    "overlap": lambda c, d, eps: (TokenConv2d(c, d, 3, stride=2, padding=1), nn.LayerNorm(d, eps)),  # PVT v2
}


# `torch.fx.wrap`: a trace of the network calls these functions and does not follow their branches


@torch.fx.wrap
def _checked_images(x: torch.Tensor, in_chans: int) -> torch.Tensor:
    """The images themselves. Raises UserError for another shape than (B, in_chans, H, W)."""
    if x.ndim != 4 or x.shape[1] != in_chans or 0 in x.shape[2:]:
        raise UserError(f"images must be (B, {in_chans}, H, W) with H and W of at least 1, not {tuple(x.shape)}")
    return x


@torch.fx.wrap
def _checked_tokens(mixed: torch.Tensor, x: torch.Tensor, name: str) -> torch.Tensor:
    """What a mixer made of tokens. Raises UserError, with the mixer's name, if its shape is not that of the tokens."""
    if mixed.shape != x.shape:  # some would be broadcast silently
        shapes = f"{tuple(mixed.shape)} for tokens {tuple(x.shape)}"
        raise UserError(f"mixer {name!r} returns {shapes}; it must keep their shape")
    return mixed


class Stem(nn.ModuleList):
    """Image -> first map: (B, 3, H, W) -> (B, C, H/4, W/4), rounded up; "convs" is two strided 3x3 convolutions.

    No nn.Sequential: timm's `feature_cls="list"` would take that apart, and leave the permutations out.
    """

    def __init__(self, kind: str, in_chans: int, dim: int, eps: float) -> None:
        super().__init__(_STEMS[kind](in_chans, dim, eps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) images -> (B, C', H/4, W/4), rounded up."""
        x = x.permute(0, 2, 3, 1)  # (B, C, H, W) -> tokens (B, H, W, C)
        for layer in self:
            x = layer(x)
        return x.permute(0, 3, 1, 2)


class Downsample(nn.Sequential):
    """Tokens (B, H, W, C) -> (B, H/2, W/2, C'), rounded up; "conv" is a strided 3x3 convolution, then the norm."""

    def __init__(self, kind: str, dim: int, out_dim: int, eps: float) -> None:
        super().__init__(*_DOWNSAMPLINGS[kind](dim, out_dim, eps))


class Mlp(nn.Module):
    """Linear, GELU, Linear, with pvt_v2's depth-wise convolution after the first if asked for."""

    def __init__(self, dim: int, hidden: int, conv: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.conv = TokenConv2d(hidden, hidden, 3, padding=1, groups=hidden) if conv else nn.Identity()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, H, W, C) -> (B, H, W, C); each by itself, but for the convolution."""
        return self.fc2(F.gelu(self.conv(self.fc1(x))))


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
        """Both layer scales as at the start."""
        for gamma in (self.gamma1, self.gamma2):
            if gamma is not None:
                nn.init.constant_(gamma, self.scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, H, W, C) -> (B, H, W, C)."""
        x = self.residual(x, self.gamma1, self.mix(self.norm1(x)))
        return self.residual(x, self.gamma2, self.mlp(self.norm2(x)))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        """What the mixer makes of tokens (B, H, W, C), in the same shape; UserError if it is another."""
        return _checked_tokens(self.mixer(x), x, self.name)

    def residual(self, x: torch.Tensor, gamma: torch.Tensor | None, branch: torch.Tensor) -> torch.Tensor:
        """Tokens (B, H, W, C) plus a branch of that shape, times gamma (C,) if there is one; it may be dropped."""
        return x + self.drop_path(branch if gamma is None else gamma * branch)


class OneBranchBlock(Block):
    """One residual branch, mixer, norm and MLP in a row (Liu et al. 2022, ConvNeXt, arXiv 2201.03545)."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.norm1 = self.gamma1 = None  # the norm stands between mixer and MLP, the scale behind both

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, H, W, C) -> (B, H, W, C)."""
        return self.residual(x, self.gamma2, self.mlp(self.norm2(self.mix(x))))


_BLOCKS = {2: Block, 1: OneBranchBlock}


class PositionEmbedding(nn.Module):
    """A learned map added to the tokens, resized (bilinear, corners aligned, as published) to the map it meets."""

    def __init__(self, dim: int, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, height, width, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A map as at the start: truncated normal."""
        trunc_normal_init(self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, H, W, C) -> (B, H, W, C), at any H and W."""
        return x + resize_embedding(self.weight, x.shape[1], x.shape[2])


class Stage(nn.Module):
    """Downsampling (but in the first stage), position embedding (pvt), blocks, norm: NCHW map -> NCHW map.

    Originals may have the norm in the last stage only, or in none.
    """

    def __init__(self, design: Design, stage: int, in_dim: int, map_size: tuple[int, int], drop_path: Sequence) -> None:
        super().__init__()
        dim, mixer, block_of = design.dims[stage], get_mixer(design.mixer), _BLOCKS[design.branches]
        self.grad_checkpointing = False
        self.downsample = Downsample(design.downsample, in_dim, dim, design.embed_eps) if stage else nn.Identity()
        self.position_embedding = PositionEmbedding(dim, *map_size) if design.position_embedding else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                block_of(
                    dim,
                    mixer(dim, **design.mixer_options(stage, block)),
                    name=design.mixer,
                    mlp_ratio=design.mlp_ratios[stage],
                    mlp_conv=design.mlp_conv,
                    eps=design.norm_eps,
                    scale=design.layer_scale,
                    drop_path=float(drop_path[block]),
                )
                for block in range(design.depths[stage])
            )
        )
        is_normed = design.stage_norms == "all" or (design.stage_norms == "last" and stage == len(design.dims) - 1)
        self.norm = nn.LayerNorm(dim, eps=design.stage_eps) if is_normed else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The map before, (B, in_dim, H, W) -> (B, dim, H/2, W/2), rounded up; in the first stage (B, dim, H, W)."""
        x = self.downsample(x.permute(0, 2, 3, 1))  # (B, C, H, W) -> tokens (B, H, W, C)
        x = self.position_embedding(x)
        x = checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)
        return self.norm(x).permute(0, 3, 1, 2)  # -> (B, C, H, W)


class Head(nn.Module):
    """Global pooling and the classifier: NCHW map -> (B, classes). Its kinds have layers before or after the pooling.

    `width` is that of the map that is pooled, `hidden` that of what the classifier sees: twice as much where averages
    and maxima stand side by side (catavgmax). Raises UserError for a pooling that is none of timm's or does not go with
    the classes.
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
        """The last map (B, C, H, W) -> logits (B, classes), or with `pre_logits` what gives them, (B, hidden)."""
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
        """As every head's, but for a pooling that changes the width: its norm is fixed. UserError for that."""
        if global_pool == "catavgmax":
            raise UserError("global_pool='catavgmax' doubles the width, and this head's norm has the map's")
        super().reset(num_classes, global_pool)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C); a map without pooling."""
        return self.norm(self.global_pool(x).movedim(1, -1)).movedim(-1, 1)  # a map, if nothing was pooled


_HEADS = {"conv": ConvHead, "linear": Head, "norm_linear": NormHead}


class PrunedHead(nn.Module):
    """What is left of the head of a network that was cut to give feature maps: they pass through."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Identity()

    def reset(self, num_classes: int, global_pool: str | None = None) -> None:
        """No classifier is what it has; nothing is pooled here. Raises UserError for any other."""
        if num_classes or global_pool:
            raise UserError("this model was pruned to its feature maps and has no head; build it anew for a classifier")

    def forward(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """The map (B, C, H, W), as it is."""
        return x


class UnifiedBackbone(nn.Module):
    """Stem, four stages, head, round the mixer that the design names; a timm model.

    Args:
        design: what to build, see `stm_lab.designs`.
        num_classes: classes of the head; 0 leaves the pooled features.
        in_chans: channels of the image.
        global_pool: "avg", "max", "avgmax", "catavgmax", or "" for none (then without classes).
        drop_rate: dropout before the classifier (published: 0).
        device: where to build; None is torch's default. "meta" holds shapes alone.
        dtype: of the weights, which are drawn in torch's default and then rounded; None keeps that.

    Images are (B, in_chans, H, W) with any H and W from 1 on, normalised as `pretrained_cfg` says; logits
    (B, num_classes).

    `torch.compile`, `torch.fx`, torchvision's `create_feature_extractor`, `torch.jit.trace` (one size) and
    `torch.export` work. An export may have a dynamic batch, and a dynamic height and width unless the mixer is halo or
    swin, which cut the map by its size. `torch.jit.script` does not work.

    Raises UserError for images of another shape, an argument out of its range, a device that torch does not have, or a
    `dtype` that is not floating point.
    """

    def __init__(
        self,
        design: Design,
        *,
        num_classes: Annotated[int, Field(ge=0)] = 1000,
        in_chans: Count = 3,
        global_pool: str = "avg",
        drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        types = get_type_hints(UnifiedBackbone.__init__, include_extras=True)
        given = {"num_classes": num_classes, "in_chans": in_chans, "drop_rate": drop_rate}
        given = checked(types, given, f"backbone of {design.mixer}")
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise UserError(f"dtype must be a floating point type such as torch.bfloat16, not {dtype!r}")
        self.design, self.num_classes, self.in_chans = design, given["num_classes"], given["in_chans"]
        self.num_features = design.dims[-1]
        self.feature_info = [
            {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"} for i, dim in enumerate(design.dims)
        ]
        with _building_on(device):
            self._build(global_pool, given["drop_rate"])
        self.to(dtype=dtype)

    def _build(self, global_pool: str, drop_rate: float) -> None:
        design = self.design
        self.stem = Stem(design.stem, self.in_chans, design.dims[0], design.embed_eps)
        height, width = (-(-size // 4) for size in design.img_size)
        drop_path = calculate_drop_path_rates(design.drop_path_rate, list(design.depths), stagewise=True)
        stages, in_dim = [], design.dims[0]
        for i, dim in enumerate(design.dims):
            map_size = (-(-height // 2**i), -(-width // 2**i))
            stages.append(Stage(design, i, in_dim, map_size, drop_path[i]))
            in_dim = dim
        self.stages = nn.Sequential(*stages)
        self.head = _HEADS[design.head](self.num_features, self.num_classes, global_pool, drop_rate, design.stage_eps)
        self.head_hidden_size = self.head.hidden
        self.init_weights(needs_reset=False)

    def init_weights(self, needs_reset: bool = True) -> None:
        """Draw all weights anew, in place; timm's hook. Running statistics start anew, too.

        A model that was built with `device="meta"` and moved by `to_empty` gets its weights here. Under the same seed
        they equal those of a model built on that device, in torch's default dtype. `needs_reset` False leaves out the
        modules' own `reset_parameters`, as right after they were made.

        Raises UserError for a module that has parameters or buffers of its own but no `reset_parameters`.
        """
        if needs_reset:
            for name, module in self.named_modules():
                own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
                if own and not hasattr(module, "reset_parameters"):
                    raise UserError(f"{name} ({type(module).__name__}) has weights, but no reset_parameters()")
            self.apply(_reset)  # children first: the order in which they were made, so that the same numbers are drawn
        self.apply(_init_weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, in_chans, H, W) -> logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_chans, H, W) -> the map of the last stage, (B, C, H/32, W/32), rounded up."""
        return self.stages(self.stem(_checked_images(x, self.in_chans)))

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """The last map -> logits (B, num_classes), or with `pre_logits` what the classifier sees, (B, 1.5 C).

        (B, C) where the design has another head.
        """
        return self.head(x, pre_logits)

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """The stages' maps, (B, C, H, W) each, with the last one before them unless `intermediates_only`.

        The arguments are timm's: `indices` (the last n if an int, all if None); `norm` changes nothing: every map is
        what the next stage or the head gets, and has passed its stage's norm where there is one; `stop_early` runs no
        stage after the last one wanted.
        """
        check_known("output_fmt", output_fmt, ("NCHW",))
        take, last = feature_take_indices(len(self.stages), indices)
        x, maps = self.stem(_checked_images(x, self.in_chans)), []
        for i, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            if i in take:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last of `indices` and, if asked or forced to, the head (timm's contract)."""
        take, last = feature_take_indices(len(self.stages), indices)
        cut = last < len(self.stages) - 1
        del self.stages[last + 1 :]
        if prune_head or cut:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
            self.num_classes, self.head = 0, PrunedHead().train(self.training)
        return take

    def load_pretrained(self, path: str | Path) -> None:
        """Load a file of weights, published or ours, and adapt it to the model's classes, channels and sizes.

        timm calls this for `pretrained=True`. Raises UserError if the file is refused or does not fit.
        """
        load_pretrained(self, path)

    def get_classifier(self) -> nn.Module:
        """The linear layer that gives the logits; an identity where there are no classes."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier; `global_pool` None keeps the pooling, "" drops it (num_classes must be 0 then).

        A model that was pruned to its maps has none, and takes 0 alone. Raises UserError for what does not go together.
        """
        if isinstance(self.head, PrunedHead):
            return self.head.reset(num_classes, global_pool)
        pool = self.head.global_pool.pool_type if global_pool is None else global_pool
        weight = self.stem[0].weight
        self.head.reset(num_classes, pool)
        self.head.fc.apply(_init_weights).to(weight.device, weight.dtype)
        self.head.train(self.training)
        self.num_classes, self.head_hidden_size = num_classes, self.head.hidden

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep no activations of the blocks, but compute them anew in the backward pass: less memory, more time."""
        for stage in self.stages:
            stage.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """Regular expressions that sort parameters by depth (timm, layer-wise learning rates)."""
        stage = [(r"^stages\.(\d+)", None)]
        block = [
            (r"^stages\.(\d+)\.(?:downsample|position_embedding)", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^stages\.(\d+)\.norm", (99999,)),
        ]
        return {"stem": r"^stem", "blocks": stage if coarse else block}

    def no_weight_decay(self) -> set[str]:
        """Parameters of two or more dimensions without weight decay: those that the mixers name.

        One-dimensional parameters have none anyway: layer scale here too, although the published code decays some.
        """
        return {
            f"{name}.{parameter}"
            for name, module in self.named_modules()
            if module is not self and hasattr(module, "no_weight_decay")
            for parameter in module.no_weight_decay()
        }


def _building_on(device: torch.device | str | int | None) -> AbstractContextManager:
    """A context in which new tensors are on `device`. Raises UserError if torch has or knows no such device."""
    if device is None:
        return nullcontext()
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:  # an AssertionError where torch has no CUDA
        said = str(error).splitlines()[0]
        raise UserError(f"device={device!r} is not there ({said}); 'cpu' always is") from error


def _reset(module: nn.Module) -> None:
    """Draw a module's own weights anew, where it has any."""
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()


def _init_weights(module: nn.Module) -> None:
    """Convolutions and projections as published: truncated normal, std 0.02, biases 0 (DCNv3's offsets included)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        trunc_normal_init(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
