"""What a network looks like, as data: its stem, downsampling, norms, head and blocks, and its mixer's options.

Everything a design says can be overridden one thing at a time, which is how single steps of an architecture are
studied. What the words of `stem`, `downsample`, `head` and `branches` mean is built in `stm_lab.backbone`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral

from ..errors import UserError, check_known
from ..mixers import option_names

CHOICES = {  # what a design may say of these; the first is the unified network's
    "stem": ("convs", "patches", "overlap"),
    "downsample": ("conv", "merge", "norm_conv", "patches", "overlap"),
    "stage_norms": ("all", "last", "none"),
    "head": ("conv", "linear", "norm_linear"),
    "branches": (2, 1),
}


def _is_count(value: object) -> bool:
    """Whether a value is a whole number from 1; numpy's are, True is none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """One network. Tuples have one entry for each of the four stages.

    A mixer is given those of its options that its signature has: `options` are the same everywhere, `stage_options`
    hold one value a stage, `block_options` a sequence that is cycled over the blocks of every stage.

    Raises UserError for an entry that makes no network.
    """

    mixer: str
    dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    stem: str = "convs"  # image -> first map, a quarter of its size
    downsample: str = "conv"  # map -> half its size, between stages
    stage_norms: str = "all"  # which stages end with a norm
    head: str = "conv"  # what stands before the classifier, and where it pools
    branches: int = 2  # residual branches of a block: mixer and MLP each in its own, or in a row in one
    norm_eps: float = 1e-6  # of the norms in a block
    embed_eps: float = 1e-6  # of those in stem and downsampling
    stage_eps: float = 1e-6  # of those that end a stage, and of a norm in the head
    mlp_ratios: tuple[int, int, int, int] = (4, 4, 4, 4)
    mlp_conv: bool = False  # a depth-wise 3x3 convolution inside the MLP
    position_embedding: bool = False  # added to the tokens at the start of every stage
    layer_scale: float = 1e-6  # what the residual branches are multiplied with at the start; 0: no such scale
    drop_path_rate: float = 0.0  # of the last block; it grows linearly from 0 at the first
    img_size: int | tuple[int, int] = 224  # sets the size of position embeddings, nothing else
    options: Mapping[str, object] = field(default_factory=dict)
    stage_options: Mapping[str, tuple] = field(default_factory=dict)
    block_options: Mapping[str, tuple] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            check_known(name, getattr(self, name), choices)
        for name in ("dims", "depths", "mlp_ratios"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or len(value) != 4 or not all(map(_is_count, value)):
                raise UserError(f"{name} must be four positive integers, one a stage, not {value!r}")
            object.__setattr__(self, name, tuple(map(int, value)))  # numpy's would go into shapes and JSON
        for name in ("norm_eps", "embed_eps", "stage_eps"):
            if not 0 <= getattr(self, name) < math.inf:  # below 0 it may be the root of a negative number
                raise UserError(f"{name} must be a number of at least 0, not {getattr(self, name)!r}")
        if not 0 <= self.layer_scale < math.inf:
            raise UserError(f"layer_scale must be a number of at least 0 (0: none), not {self.layer_scale!r}")
        if not 0 <= self.drop_path_rate < 1:
            raise UserError(f"drop_path_rate must be in [0, 1), not {self.drop_path_rate!r}")
        sides = self.img_size if isinstance(self.img_size, list | tuple) else (self.img_size, self.img_size)
        if len(sides) != 2 or not all(isinstance(side, Integral) for side in sides):
            raise UserError(f"img_size must be one number or (height, width), not {self.img_size!r}")
        height, width = self.image_shape
        if min(height, width) < 32:
            raise UserError(f"img_size must be at least 32 on both sides, not {height}x{width}")

    @property
    def image_shape(self) -> tuple[int, int]:
        """`img_size` as (height, width)."""
        return (self.img_size, self.img_size) if isinstance(self.img_size, Integral) else tuple(self.img_size)

    def mixer_options(self, stage: int, block: int) -> dict[str, object]:
        """The options of the mixer in one block: those of the design that the mixer's signature has."""
        given = dict(self.options)
        given |= {name: values[stage] for name, values in self.stage_options.items()}
        given |= {name: values[block % len(values)] for name, values in self.block_options.items()}
        return {name: given[name] for name in option_names(self.mixer) if name in given}

    def overridable(self) -> set[str]:
        """The names that `override` takes."""
        own = {f.name for f in fields(self)} - {"mixer", "options", "stage_options", "block_options"}
        return own | set(option_names(self.mixer))

    def override(self, **changes: object) -> Design:
        """A design that differs in `changes`: its own fields, or options of its mixer.

        An option is given as one value for all blocks or as a list: one value a stage, or, where the design has it vary
        by block (swin's shift), a cycle of blocks. Raises UserError, naming the nearest, for what the design has not.
        """
        of_mixer = option_names(self.mixer)
        options, by_stage, by_block = dict(self.options), dict(self.stage_options), dict(self.block_options)
        direct: dict[str, object] = {}
        for name, value in changes.items():
            check_known("option", name, self.overridable(), where=f"{self.mixer}: ")
            if name not in of_mixer:
                direct[name] = tuple(value) if isinstance(value, list) else value
            elif not isinstance(value, list | tuple):
                by_stage.pop(name, None), by_block.pop(name, None)
                options[name] = value
            elif name in by_block and value:
                by_block[name] = tuple(value)
            elif len(value) == 4:
                options.pop(name, None)
                by_stage[name] = tuple(value)
            else:
                raise UserError(f"option {name!r} takes one value, or four (one a stage), not {value!r}")
        return replace(self, options=options, stage_options=by_stage, block_options=by_block, **direct)
