"""The unified designs: those of Hu et al. 2022 (arXiv 2211.05781, by its published code), scales micro to large.

`nano` is ours, for 64x64 images and CPUs.
"""

from __future__ import annotations

from ..mixers import list_mixers
from ..util.errors import check_known
from .design import Design

SCALES = ("nano", "micro", "tiny", "small", "base", "large")


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

# how each family differs from swin's, which other mixers (controls, yours) share
_FAMILIES: dict[str, dict[str, object]] = {
    "halo": {"norm_eps": 1e-5},
    "pvt": {"norm_eps": 1e-5, "mlp_ratios": (8, 8, 4, 4), "position_embedding": True},
    "pvt_v2": {"norm_eps": 1e-5, "mlp_ratios": (8, 8, 4, 4), "mlp_conv": True},
    "dcn_v3": {"norm_eps": 1e-5},
}


def list_scales(mixer: str | None = None) -> list[str]:
    """All scales, smallest first; those of one mixer if it is named ("large" exists for dcn_v3 only)."""
    if mixer is None:
        return list(SCALES)
    check_known("mixer", mixer, list_mixers())
    return [scale for scale in SCALES if scale == "nano" or scale in _sizes(mixer)]


def _sizes(mixer: str) -> dict[str, tuple]:
    return _SIZES.get(mixer, _SIZES["swin"])


def unified(mixer: str, scale: str) -> Design:
    """The unified design of a mixer at a scale. Raises UserError for unknown names."""
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
    options: dict[str, object] = {"window": 4, "block": 4, "halo": 2} if nano else {"window": 7, "block": 7, "halo": 3}
    if mixer == "convnext":
        options["projections"] = True  # its original has none
    return {
        "options": options,
        "stage_options": {"heads": heads, "reduction": (4, 2, 1, 1) if nano else (8, 4, 2, 1)},
        "block_options": {"shift": (0, None)},  # every other block, by half the window
    }
