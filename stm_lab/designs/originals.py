"""The networks that the mixers come from, as designs of our backbone: layer for layer, as their authors published them.

Facts are from the papers and their published code: Swin (microsoft/Swin-Transformer, arXiv 2103.14030), ConvNeXt
(facebookresearch/ConvNeXt, arXiv 2201.03545), PVT and PVT v2 (whai362/PVT, arXiv 2102.12122 and 2106.13797),
InternImage (OpenGVLab/InternImage, arXiv 2211.05778). Drop path is a matter of training and stays as in the unified
design.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..mixers import get_mixer
from ..util.errors import check_known
from .design import Design
from .unified import SCALES, unified


@dataclass(frozen=True, slots=True)
class Original:
    """A published network, and where our design of it stands.

    Attributes:
        name: the authors'.
        parameters: millions at 1000 classes, as its paper prints them.
        paper: where that is printed.
        timm: timm's model of it, whose parameters our design has exactly, layer scale aside; None if there is none.
        note: in what design or numbers differ from the published, in one sentence; empty where they do not.
    """

    name: str
    parameters: float
    paper: str
    timm: str | None = None
    note: str = ""


_SWIN, _CONVNEXT = "Liu et al. 2021, arXiv 2103.14030", "Liu et al. 2022, arXiv 2201.03545"
_PVT, _PVT_V2 = "Wang et al. 2021, arXiv 2102.12122", "Wang et al. 2021, arXiv 2106.13797"
_NO_TOKEN = "no class token: the last map is pooled instead (1,024 parameters fewer)"
_B0 = "its paper prints 3.4 million parameters, its code has 3.67, and so have timm and we"
_AS_SWIN = "the nearest published network is {name}; this is that, with {mixer} in the place of shifted windows"

# mixer: scale: (the network, its depths)
_PUBLISHED: dict[str, dict[str, tuple[Original, tuple[int, int, int, int]]]] = {
    "swin": {
        "tiny": (Original("Swin-T", 28, _SWIN, "swin_tiny_patch4_window7_224"), (2, 2, 6, 2)),
        "small": (Original("Swin-S", 50, _SWIN, "swin_small_patch4_window7_224"), (2, 2, 18, 2)),
        "base": (Original("Swin-B", 88, _SWIN, "swin_base_patch4_window7_224"), (2, 2, 18, 2)),
    },
    "convnext": {
        "tiny": (Original("ConvNeXt-T", 29, _CONVNEXT, "convnext_tiny"), (3, 3, 9, 3)),
        "small": (Original("ConvNeXt-S", 50, _CONVNEXT, "convnext_small"), (3, 3, 27, 3)),
        "base": (Original("ConvNeXt-B", 89, _CONVNEXT, "convnext_base"), (3, 3, 27, 3)),
    },
    "pvt": {
        "tiny": (Original("PVT-Small", 24.5, _PVT, None, _NO_TOKEN), (3, 4, 6, 3)),
        "small": (Original("PVT-Medium", 44.2, _PVT, None, _NO_TOKEN), (3, 4, 18, 3)),
        "base": (Original("PVT-Large", 61.4, _PVT, None, _NO_TOKEN), (3, 8, 27, 3)),
    },
    "pvt_v2": {
        "micro": (Original("PVT v2 b0", 3.4, _PVT_V2, "pvt_v2_b0", _B0), (2, 2, 2, 2)),
        "tiny": (Original("PVT v2 b2", 25.4, _PVT_V2, "pvt_v2_b2"), (3, 4, 6, 3)),
        "small": (Original("PVT v2 b3", 45.2, _PVT_V2, "pvt_v2_b3"), (3, 4, 18, 3)),
        "base": (Original("PVT v2 b5", 82.0, _PVT_V2, "pvt_v2_b5"), (3, 6, 40, 3)),
    },
    "dcn_v3": {
        "tiny": (
            Original(
                "InternImage-T",
                30,
                "Wang et al. 2023, arXiv 2211.05778",
                None,
                "the nearest published network, but for offsets, which start at random here and at zero there; the "
                "unified network has its stem, downsampling, norms and head from here",
            ),
            (4, 4, 18, 4),
        ),
    },
}

# what the networks of a family have otherwise than the unified one
_SWINS = {
    "stem": "patches",
    "downsample": "merge",
    "stage_norms": "last",
    "head": "linear",
    "layer_scale": 0.0,
    "norm_eps": 1e-5,
    "embed_eps": 1e-5,
    "stage_eps": 1e-5,
}
_FAMILIES: dict[str, dict[str, object]] = {
    "convnext": {
        "stem": "patches",
        "downsample": "norm_conv",
        "stage_norms": "none",
        "head": "norm_linear",
        "branches": 1,
    },
    "pvt": {
        "stem": "patches",
        "downsample": "patches",
        "stage_norms": "last",
        "head": "linear",
        "layer_scale": 0.0,
        "norm_eps": 1e-6,
        "embed_eps": 1e-5,
    },
    "pvt_v2": {
        "stem": "overlap",
        "downsample": "overlap",
        "head": "linear",
        "layer_scale": 0.0,
        "norm_eps": 1e-6,
        "embed_eps": 1e-5,
    },
    "dcn_v3": {"layer_scale": 1.0, "norm_eps": 1e-6},
}


def original_scales(mixer: str) -> list[str]:
    """The scales that have an original, smallest first: those of a published network, and nano."""
    get_mixer(mixer)
    published = _PUBLISHED.get(mixer, _PUBLISHED["swin"])
    return [scale for scale in SCALES if scale == "nano" or scale in published]


def original(mixer: str, scale: str) -> Design:
    """The design of the published network that a mixer comes from.

    At nano, which nobody published, the family's way of building at the unified network's widths and depths. For halo,
    the controls and mixers of your own, Swin's network round the mixer: what is published of HaloNet is a ResNet of
    bottlenecks, which is no design of this backbone.

    Raises UserError for names that are not there, and for a scale at which nothing was published.
    """
    check_known("scale", scale, original_scales(mixer), where=f"{mixer}: original design: ")
    design = replace(unified(mixer, scale), **_FAMILIES.get(mixer, _SWINS))
    if mixer == "convnext":
        design = replace(design, options={**design.options, "projections": False})
    if scale != "nano":
        design = replace(design, depths=_PUBLISHED.get(mixer, _PUBLISHED["swin"])[scale][1])
    if mixer == "pvt" and scale == "base":  # the unified one has 4 everywhere
        design = replace(design, mlp_ratios=(8, 8, 4, 4))
    return design


def original_facts(mixer: str, scale: str) -> Original | None:
    """Which published network `original(mixer, scale)` is, or is nearest to; None at nano.

    Raises UserError as `original` does.
    """
    check_known("scale", scale, original_scales(mixer), where=f"{mixer}: original design: ")
    if scale == "nano":
        return None
    if mixer in _PUBLISHED:
        return _PUBLISHED[mixer][scale][0]
    nearest = _PUBLISHED["swin"][scale][0]
    return replace(nearest, timm=None, note=_AS_SWIN.format(name=nearest.name, mixer=mixer))
