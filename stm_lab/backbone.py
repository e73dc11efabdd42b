"""The unified backbone: one stem, one downsampling, one block, one head for every spatial token mixer.

Hu et al. 2022, arXiv 2211.05781. A design names the parts, which stand in `layers.PARTS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, get_type_hints

import torch
from pydantic import Field
from timm.layers import calculate_drop_path_rates
from timm.models import checkpoint_seq
from timm.models._features import feature_take_indices
from torch import nn

from .designs import Design
from .layers import PARTS, PositionEmbedding, PrunedHead, trunc_normal_init
from .mixers import get_mixer
from .published import load_pretrained
from .util.errors import UserError, check_known
from .util.validation import Count, checked


class Stem(nn.ModuleList):
    """Image -> first map: (B, 3, H, W) -> (B, C, H/4, W/4), rounded up; "convs" is two strided 3x3 convolutions.

    It is no nn.Sequential, which timm's `feature_cls="list"` would take apart without the permutations.
    """

    def __init__(self, kind: str, in_chans: int, dim: int, eps: float) -> None:
        super().__init__(PARTS["stem"][kind](in_chans, dim, eps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) images -> (B, C', H/4, W/4), rounded up."""
        x = x.permute(0, 2, 3, 1)  # (B, C, H, W) -> tokens (B, H, W, C)
        for layer in self:
            x = layer(x)
        return x.permute(0, 3, 1, 2)


class Downsample(nn.Sequential):
    """Tokens (B, H, W, C) -> (B, H/2, W/2, C'), rounded up; "conv" is a strided 3x3 convolution, then the norm."""

    def __init__(self, kind: str, dim: int, out_dim: int, eps: float) -> None:
        super().__init__(*PARTS["downsample"][kind](dim, out_dim, eps))


class Stage(nn.Module):
    """Downsampling (but in the first stage), position embedding (pvt), blocks, norm: NCHW map -> NCHW map."""

    def __init__(self, design: Design, stage: int, in_dim: int, map_size: tuple[int, int], drop_path: Sequence) -> None:
        super().__init__()
        dim, mixer, block_of = design.dims[stage], get_mixer(design.mixer), PARTS["branches"][design.branches]
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
        is_normed = PARTS["stage_norms"][design.stage_norms][stage]
        self.norm = nn.LayerNorm(dim, eps=design.stage_eps) if is_normed else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The map before, (B, in_dim, H, W) -> (B, dim, H/2, W/2), rounded up; in the first stage (B, dim, H, W)."""
        x = self.downsample(x.permute(0, 2, 3, 1))  # (B, C, H, W) -> tokens (B, H, W, C)
        x = self.position_embedding(x)
        x = checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)
        return self.norm(x).permute(0, 3, 1, 2)  # -> (B, C, H, W)


class UnifiedBackbone(nn.Module):
    """Stem, four stages and head around the mixer that the design names; a timm model.

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
    `torch.export` work, but not `torch.jit.script`. An export may have a dynamic batch, and a dynamic height and width
    unless the mixer is halo or swin, which cut the map by its size.

    Raises UserError for images of another shape, and for an argument of a wrong type or out of its range.
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
        given = {"num_classes": num_classes, "in_chans": in_chans, "drop_rate": drop_rate}
        types = get_type_hints(UnifiedBackbone.__init__, include_extras=True)
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
        head = PARTS["head"][design.head]
        self.head = head(self.num_features, self.num_classes, global_pool, drop_rate, design.stage_eps)
        self.head_hidden_size = self.head.hidden
        self.init_weights(needs_reset=False)

    def init_weights(self, needs_reset: bool = True) -> None:
        """Draw all weights anew and reset running statistics, in place; timm's hook.

        A model that was built with `device="meta"` and moved by `to_empty` gets its weights here; under the same seed
        they equal those of a model built on that device, in torch's default dtype. `needs_reset` False skips the
        modules' own `reset_parameters`, which have just run in a new model.

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
        """The last map -> logits (B, num_classes), or with `pre_logits` the classifier's input: (B, 1.5 C), or (B, C)
        with another head than the unified one."""
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

        The arguments are timm's: `indices` (the last n if an int, all if None); `norm` changes nothing: a map has
        passed its stage's norm if the design has one there; `stop_early` runs no stage after the last one wanted.
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
        """The linear layer that gives the logits; an identity without classes."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier; `global_pool` None keeps the pooling, "" drops it (num_classes must be 0 then).

        Raises UserError for arguments that do not go together, and for classes of a model that was pruned to its maps.
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
        """Recompute the blocks' activations in the backward pass: less memory, more time."""
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


@torch.fx.wrap  # a trace of the network calls it and does not follow its branch
def _checked_images(x: torch.Tensor, in_chans: int) -> torch.Tensor:
    """The images themselves. Raises UserError for another shape than (B, in_chans, H, W)."""
    if x.ndim != 4 or x.shape[1] != in_chans or 0 in x.shape[2:]:
        raise UserError(f"images must be (B, {in_chans}, H, W) with H and W of at least 1, not {tuple(x.shape)}")
    return x


def _building_on(device: torch.device | str | int | None) -> AbstractContextManager:
    """A context in which new tensors are on `device`. Raises UserError if torch has or knows no such device."""
    if device is None:
        return nullcontext()
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:  # an AssertionError where torch has no CUDA
        said = str(error).splitlines()[0]
        raise UserError(f"device={device!r} is not available ({said}); 'cpu' always is") from error


def _reset(module: nn.Module) -> None:
    """Draw a module's own weights anew, if it has any."""
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()


def _init_weights(module: nn.Module) -> None:
    """Convolutions and projections as published: truncated normal, std 0.02, biases 0 (DCNv3's offsets included)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        trunc_normal_init(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
