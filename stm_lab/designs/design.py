"""What a network looks like, as data: its stem, downsampling, norms, head and blocks, and its mixer's options.

Everything a design says can be overridden one thing at a time, which is how single steps of an architecture are
studied. What the words of `stem`, `downsample`, `head` and `branches` mean is built in `stm_lab.backbone`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import BeforeValidator, Field

from ..mixers import option_names
from ..mixers.registry import option_types
from ..util.errors import UserError, check_known
from ..util.validation import checked

SHARED_OPTIONS = ("heads", "window", "block", "halo", "reduction", "shift")  # of mixers; a design may have them for any

Count = Annotated[int, Field(ge=1)]
Eps = Annotated[float, Field(ge=0)]  # below 0 it may be the root of a negative number


@functools.cache  # so that a kind is one and the same, and pydantic prepares for it once
def _four(kind: Any) -> Any:
    """One value a stage."""
    return Annotated[tuple[kind, ...], Field(min_length=4, max_length=4)]


@functools.cache
def _cycle(kind: Any) -> Any:
    """Values for the blocks of a stage in turn."""
    return Annotated[tuple[kind, ...], Field(min_length=1)]


Counts = _four(Count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """One network. Tuples have one entry for each of the four stages.

    A mixer is given those of its options that its signature has: `options` are the same everywhere, `stage_options`
    hold one value a stage, `block_options` a sequence that is cycled over the blocks of every stage. A `shift` of None
    is half the window (rounded down), as in Swin.

    Types are strict, but NumPy numbers count as numbers and lists as tuples; `img_size` becomes (height, width).

    Raises UserError for an unknown mixer or option, and for a value of another type or out of its range.
    """

    mixer: str
    dims: Counts
    depths: Counts
    stem: Literal["convs", "patches", "overlap"] = "convs"  # image -> first map, a quarter of its size
    downsample: Literal["conv", "merge", "norm_conv", "patches", "overlap"] = "conv"  # map -> half its size
    stage_norms: Literal["all", "last", "none"] = "all"  # which stages end with a norm
    head: Literal["conv", "linear", "norm_linear"] = "conv"  # what stands before the classifier, and where it pools
    branches: Annotated[int, Field(ge=1, le=2)] = 2  # of a block: mixer and MLP each in a branch, or in a row in one
    norm_eps: Eps = 1e-6  # of the norms in a block
    embed_eps: Eps = 1e-6  # of those in stem and downsampling
    stage_eps: Eps = 1e-6  # of those that end a stage, and of a norm in the head
    mlp_ratios: Counts = (4, 4, 4, 4)
    mlp_conv: bool = False  # a depth-wise 3x3 convolution inside the MLP
    position_embedding: bool = False  # added to the tokens at the start of every stage
    layer_scale: Eps = 1e-6  # what the residual branches are multiplied with at the start; 0: no such scale
    drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of the last block; grows linearly from 0 at the first
    img_size: Annotated[
        tuple[Count, ...],
        Field(min_length=2, max_length=2),
        BeforeValidator(lambda size: size if isinstance(size, tuple) else (size, size)),
    ] = 224  # pixels, one number or (height, width); sets the size of position embeddings, nothing else
    options: Mapping[str, object] = field(default_factory=dict, hash=False)
    stage_options: Mapping[str, Sequence] = field(default_factory=dict, hash=False)
    block_options: Mapping[str, Sequence] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        where = f"design of {self.mixer}"
        found = checked(_own_types(), {each.name: getattr(self, each.name) for each in fields(self)}, where)
        types = dict.fromkeys(SHARED_OPTIONS, object) | option_types(self.mixer)
        types["shift"] |= None
        found["options"] = checked(types, self.options, where)
        for name, several in (("stage_options", _four), ("block_options", _cycle)):
            of_each = {option: several(kind) for option, kind in types.items()}
            found[name] = checked(of_each, getattr(self, name), f"{where}: {name}")
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def mixer_options(self, stage: int, block: int) -> dict[str, object]:
        """The options of the mixer in one block: those of the design that the mixer's signature has.

        Raises UserError for a shift of None without a window.
        """
        given = dict(self.options)
        given |= {name: values[stage] for name, values in self.stage_options.items()}
        given |= {name: values[block % len(values)] for name, values in self.block_options.items()}
        if given.get("shift", 0) is None:
            if "window" not in given:
                raise UserError(f"design of {self.mixer}: shift = None is half the window, and there is no window")
            given["shift"] = given["window"] // 2
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
                direct[name] = value
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


@functools.cache
def _own_types() -> dict[str, Any]:
    return get_type_hints(Design, include_extras=True)


CHOICES = {  # what a design may say of these; the first is the unified network's
    **{name: get_args(_own_types()[name]) for name in ("stem", "downsample", "stage_norms", "head")},
    "branches": (2, 1),
}
