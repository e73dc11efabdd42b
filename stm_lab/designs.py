"""What a network looks like, as data: widths, depths, what a family does its own way, and its mixer's options.

The unified designs are those of Hu et al. 2022 (arXiv 2211.05781, by its published code), scales micro to
large; `nano` is ours, for 64x64 images and CPUs. Everything a design says can be overridden one thing at a time, which
is how single steps of an architecture are studied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral

from .errors import UserError, check_known
from .mixers import get_mixer, option_names

SCALES = ("nano", "micro", "tiny", "small", "base", "large")
NETWORKS = ("unified",)


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
    norm_eps: float = 1e-6  # of the two norms in a block
    mlp_ratios: tuple[int, int, int, int] = (4, 4, 4, 4)
    mlp_conv: bool = False  # a depth-wise 3x3 convolution inside the MLP
    position_embedding: bool = False  # added to the tokens at the start of every stage
    layer_scale: float = 1e-6  # what the residual branches are multiplied with at the start
    drop_path_rate: float = 0.0  # of the last block; it grows linearly from 0 at the first
    img_size: int | tuple[int, int] = 224  # sets the size of position embeddings, nothing else
    options: Mapping[str, object] = field(default_factory=dict)
    stage_options: Mapping[str, tuple] = field(default_factory=dict)
    block_options: Mapping[str, tuple] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("dims", "depths", "mlp_ratios"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or len(value) != 4 or not all(isinstance(v, int) and v > 0 for v in value):
                raise UserError(f"{name} must be four positive integers, one a stage, not {value!r}")
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


def _doubling(dim: int) -> tuple[int, int, int, int]:
    return (dim, 2 * dim, 4 * dim, 8 * dim)


_PYRAMID = ((32, 64, 160, 256), (64, 128, 320, 512))  # pvt's widths, at micro and from tiny on

# mixer: scale: (dims, depths, drop path rate); nano is the same for all
_SIZES: dict[str, dict[str, tuple]] = {
    "halo": {
        "micro": (_doubling(32), (2, 2, 9, 2), 0.0),
        "tiny": (_doubling(96), (2, 2, 6, 2), 0.2),
        "small": (_doubling(96), (2, 2, 18, 2), 0.3),
        "base": (_doubling(128), (2, 2, 18, 2), 0.5),
    },
    "pvt": {
        "micro": (_PYRAMID[0], (2, 2, 3, 2), 0.0),
        "tiny": (_PYRAMID[1], (3, 4, 9, 3), 0.1),
        "small": (_PYRAMID[1], (3, 4, 21, 3), 0.3),
        "base": (_PYRAMID[1], (3, 8, 45, 3), 0.5),
    },
    "pvt_v2": {
        "micro": (_PYRAMID[0], (2, 2, 3, 2), 0.0),
        "tiny": (_PYRAMID[1], (3, 3, 9, 3), 0.1),
        "small": (_PYRAMID[1], (3, 3, 21, 3), 0.3),
        "base": (_PYRAMID[1], (3, 6, 45, 3), 0.5),
    },
    "convnext": {
        "micro": (_doubling(32), (3, 3, 8, 3), 0.0),
        "tiny": (_doubling(96), (2, 2, 9, 2), 0.1),
        "small": (_doubling(96), (2, 2, 24, 2), 0.4),
        "base": (_doubling(128), (2, 2, 24, 2), 0.5),
    },
    "dcn_v3": {
        "micro": (_doubling(32), (2, 2, 9, 2), 0.0),
        "tiny": (_doubling(64), (4, 4, 18, 4), 0.1),
        "small": (_doubling(80), (4, 4, 21, 4), 0.3),
        "base": (_doubling(112), (4, 4, 21, 4), 0.5),
        "large": (_doubling(160), (5, 5, 22, 5), 0.5),
    },
}
_SIZES["swin"] = _SIZES["halo"]

# what each family does its own way; mixers not named here (controls, yours) are built like swin
_FAMILIES: dict[str, dict[str, object]] = {
    "halo": {"norm_eps": 1e-5},
    "pvt": {"norm_eps": 1e-5, "mlp_ratios": (8, 8, 4, 4), "position_embedding": True},
    "pvt_v2": {"norm_eps": 1e-5, "mlp_ratios": (8, 8, 4, 4), "mlp_conv": True},
    "dcn_v3": {"norm_eps": 1e-5},
}


def list_scales(mixer: str | None = None) -> list[str]:
    """The scales there are, smallest first; of one mixer if it is named ("large" exists for dcn_v3 only)."""
    if mixer is None:
        return list(SCALES)
    get_mixer(mixer)
    return [scale for scale in SCALES if scale == "nano" or scale in _sizes(mixer)]


def _sizes(mixer: str) -> dict[str, tuple]:
    return _SIZES.get(mixer, _SIZES["swin"])


def unified(mixer: str, scale: str) -> Design:
    """The unified design of a mixer at a scale. Raises UserError for names that are not there."""
    get_mixer(mixer)
    check_known("scale", scale, list_scales(mixer), where=f"{mixer}: ")
    family, pyramid = _FAMILIES.get(mixer, {}), mixer in ("pvt", "pvt_v2")
    if scale == "nano":
        dims, depths, rate = ((16, 32, 80, 128) if pyramid else _doubling(16)), (2, 2, 4, 2), 0.0
    else:
        dims, depths, rate = _sizes(mixer)[scale]
        if pyramid and scale == "base":
            family = family | {"mlp_ratios": (4, 4, 4, 4)}
    return Design(
        mixer=mixer,
        dims=dims,
        depths=depths,
        drop_path_rate=rate,
        img_size=64 if scale == "nano" else 224,
        **_mixer_options(mixer, scale, dims),
        **family,
    )


def _mixer_options(mixer: str, scale: str, dims: tuple[int, ...]) -> dict[str, dict[str, object]]:
    """The options that any mixer may ask for by name. Windows shrink at nano, whose maps are 16, 8, 4 and 2 wide."""
    nano = scale == "nano"
    if mixer in ("pvt", "pvt_v2"):
        heads = (1, 2, 5, 8)
    else:
        head_dim = 16 if nano or mixer == "dcn_v3" else 32
        heads = tuple(dim // head_dim for dim in dims)
    return {
        "options": {"window": 4, "block": 4, "halo": 2} if nano else {"window": 7, "block": 7, "halo": 3},
        "stage_options": {"heads": heads, "reduction": (4, 2, 1, 1) if nano else (8, 4, 2, 1)},
        "block_options": {"shift": (0, 2) if nano else (0, 3)},
    }
