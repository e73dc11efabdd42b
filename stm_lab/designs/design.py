"""What a network looks like, as data: its stem, downsampling, norms, head and blocks, and its mixer's options.

Everything a design says can be overridden one thing at a time, which is how single steps of an architecture are
studied. The words of its parts, and what they build, are `stm_lab.layers.PARTS`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Annotated, Any, get_type_hints

from pydantic import BeforeValidator, Field

from ..mixers import option_names
from ..mixers.registry import option_types
from ..util.errors import UserError, check_known
from ..util.validation import Count, checked, fits

SHARED_OPTIONS = ("heads", "window", "block", "halo", "reduction", "shift")  # of mixers; a design may have them for any

Eps = Annotated[float, Field(ge=0)]  # below 0 it may be the root of a negative number


@functools.cache  # so that a kind is one and the same, and pydantic prepares for it once
def _at_least(kind: Any, least: int, most: int | None = None) -> Any:
    """A tuple of values of one kind."""
    return Annotated[tuple[kind, ...], Field(min_length=least, max_length=most)]


Counts = _at_least(Count, 4, 4)


def _size(size: Any) -> Any:
    return size if isinstance(size, tuple) else (size, size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """One network. Tuples have one entry for each of the four stages. A design cannot change, and has a hash.

    A mixer is given those of its options that its signature has: `options` are the same everywhere, `stage_options`
    hold one value a stage, `block_options` a sequence that is cycled over the blocks of every stage. A `shift` of None
    is half the window (rounded down), as in Swin.

    Types are strict, but NumPy numbers count as numbers and lists as tuples; `img_size` becomes (height, width).

    Raises UserError for an unknown mixer, option or word, and for a value of another type or out of its range.
    """

    mixer: str
    dims: Counts
    depths: Counts
    stem: str = "convs"  # image -> first map, a quarter of its size
    downsample: str = "conv"  # map -> half its size
    stage_norms: str = "all"  # which stages end with a norm
    head: str = "conv"  # the layers before the classifier, and where it pools
    branches: int = 2  # of a block: mixer and MLP each in a branch, or in a row in one
    norm_eps: Eps = 1e-6  # of the norms in a block
    embed_eps: Eps = 1e-6  # of those in stem and downsampling
    stage_eps: Eps = 1e-6  # of those that end a stage, and of a norm in the head
    mlp_ratios: Counts = (4, 4, 4, 4)
    mlp_conv: bool = False  # a depth-wise 3x3 convolution inside the MLP
    position_embedding: bool = False  # added to the tokens at the start of every stage
    layer_scale: Eps = 1e-6  # initial factor of the residual branches; 0: no such scale
    drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of the last block; grows linearly from 0 at the first
    # pixels, one number or (height, width); sets the size of position embeddings, nothing else
    img_size: Annotated[tuple[Count, ...], Field(min_length=2, max_length=2), BeforeValidator(_size)] = 224
    options: Mapping[str, object] = field(default_factory=dict, hash=False)
    stage_options: Mapping[str, Sequence] = field(default_factory=dict, hash=False)
    block_options: Mapping[str, Sequence] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        from ..layers import PARTS  # here, since torch takes seconds to import and a design's words are data

        where = f"design of {self.mixer}"
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in _OF_MIXER:  # this also copies them
            given[name] = dict(given[name]) if isinstance(given[name], Mapping) else given[name]
        found = checked(_own_types(), given, where)
        for name, words in PARTS.items():
            check_known(name, found[name], words, f"{where}: ")
        types = dict.fromkeys(SHARED_OPTIONS, object) | option_types(self.mixer)
        types["shift"] |= None
        of_stages = {option: _at_least(kind, 4, 4) for option, kind in types.items()}
        of_blocks = {option: _at_least(kind, 1) for option, kind in types.items()}
        found["options"] = checked(types, given["options"], where)
        found["stage_options"] = checked(of_stages, given["stage_options"], f"{where}: stage_options")
        found["block_options"] = checked(of_blocks, given["block_options"], f"{where}: block_options")
        for name, value in found.items():
            object.__setattr__(self, name, MappingProxyType(value) if name in _OF_MIXER else value)

    def __reduce__(self) -> tuple:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return _made_of, (values | {name: dict(values[name]) for name in _OF_MIXER},)  # a proxy cannot be pickled

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
        own = {each.name for each in fields(self)} - {"mixer", *_OF_MIXER}
        return own | set(option_names(self.mixer))

    def override(self, **changes: object) -> Design:
        """A design that differs in `changes`: its own fields, or options of its mixer.

        An option is given as one value for all blocks or as a list: one value a stage or, if the design has it vary by
        block (swin's shift), a cycle of blocks. A list that is a value of the option's own type is one value. Raises
        UserError, naming the nearest, for an unknown name.
        """
        of_mixer = option_types(self.mixer)
        options, by_stage, by_block = dict(self.options), dict(self.stage_options), dict(self.block_options)
        direct: dict[str, object] = {}
        for name, value in changes.items():
            check_known("option", name, self.overridable(), where=f"{self.mixer}: ")
            if name not in of_mixer:
                direct[name] = value
            elif _is_one(value, of_mixer[name], name in by_block):
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


def _is_one(value: object, kind: Any, varies_by_block: bool) -> bool:
    """Whether a value is one of an option's type, such as a tuple, and not a list of them."""
    if not isinstance(value, list | tuple):
        return True
    is_list = (len(value) == 4 or varies_by_block) and all(fits(kind, each) for each in value)
    return fits(kind, value) and not is_list


_OF_MIXER = ("options", "stage_options", "block_options")


def _made_of(values: dict[str, Any]) -> Design:
    return Design(**values)


@functools.cache
def _own_types() -> dict[str, Any]:
    return get_type_hints(Design, include_extras=True)
