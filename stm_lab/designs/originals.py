"""The networks that the mixers come from, as designs of our backbone: layer for layer, as their authors published them.

Facts are from the papers and their published code: Swin (microsoft/Swin-Transformer, arXiv 2103.14030), ConvNeXt
(facebookresearch/ConvNeXt, arXiv 2201.03545), PVT and PVT v2 (whai362/PVT, arXiv 2102.12122 and 2106.13797),
InternImage (OpenGVLab/InternImage, arXiv 2211.05778). Drop path is a matter of training and stays as in the unified
design.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..mixers import list_mixers
from ..util.errors import check_known
from .design import Design
from .unified import SCALES, unified


@dataclass(frozen=True, slots=True)
class Original:
    """A published network that a design of ours follows.

    Attributes:
        name: the authors'.
        parameters: millions at 1000 classes, as its paper prints them.
        paper: where that is printed.
        timm: timm's model of it, whose parameters our design has exactly, layer scale aside; None if there is none.
        note: in what design or numbers differ from the published, in one sentence; empty if they do not.
    """

    name: str
    parameters: float
    paper: str
    timm: str | None = None
    note: str = ""


_PAPERS = {
    "swin": "Liu et al. 2021, arXiv 2103.14030",
    "convnext": "Liu et al. 2022, arXiv 2201.03545",
    "pvt": "Wang et al. 2021, arXiv 2102.12122",
    "pvt_v2": "Wang et al. 2021, arXiv 2106.13797",
    "dcn_v3": "Wang et al. 2023, arXiv 2211.05778",
}
# mixer: scale: (name, millions of parameters, timm's model, depths)
_PUBLISHED: dict[str, dict[str, tuple[str, float, str | None, tuple[int, int, int, int]]]] = {
    "swin": {
        "tiny": ("Swin-T", 28, "swin_tiny_patch4_window7_224", (2, 2, 6, 2)),
        "small": ("Swin-S", 50, "swin_small_patch4_window7_224", (2, 2, 18, 2)),
        "base": ("Swin-B", 88, "swin_base_patch4_window7_224", (2, 2, 18, 2)),
    },
    "convnext": {
        "tiny": ("ConvNeXt-T", 29, "convnext_tiny", (3, 3, 9, 3)),
        "small": ("ConvNeXt-S", 50, "convnext_small", (3, 3, 27, 3)),
        "base": ("ConvNeXt-B", 89, "convnext_base", (3, 3, 27, 3)),
    },
    "pvt": {
        "tiny": ("PVT-Small", 24.5, None, (3, 4, 6, 3)),
        "small": ("PVT-Medium", 44.2, None, (3, 4, 18, 3)),
        "base": ("PVT-Large", 61.4, None, (3, 8, 27, 3)),
    },
    "pvt_v2": {
        "micro": ("PVT v2 b0", 3.4, "pvt_v2_b0", (2, 2, 2, 2)),
        "tiny": ("PVT v2 b2", 25.4, "pvt_v2_b2", (3, 4, 6, 3)),
        "small": ("PVT v2 b3", 45.2, "pvt_v2_b3", (3, 4, 18, 3)),
        "base": ("PVT v2 b5", 82.0, "pvt_v2_b5", (3, 6, 40, 3)),
    },
    "dcn_v3": {"tiny": ("InternImage-T", 30, None, (4, 4, 18, 4))},
}
_NOTES = {
    "PVT v2 b0": "the paper prints 3.4 million parameters; its code, timm and this package have 3.67",
    "pvt": "no class token: the last map is pooled instead (1,024 parameters fewer)",
    "dcn_v3": "the nearest published network, but for offsets, which start at random here and at zero there; the "
    "unified network has its stem, downsampling, norms and head from here",
}
# how each family differs from the unified design
_LINEAR = {"head": "linear", "layer_scale": 0.0, "embed_eps": 1e-5}
_LAST_NORM = {"stage_norms": "last", "norm_eps": 1e-5, "stage_eps": 1e-5}
_POOLED_NORM = {"stage_norms": "none", "head": "norm_linear"}
_BY_FAMILY: dict[str, dict[str, object]] = {
    "swin": _LINEAR | _LAST_NORM | {"stem": "patches", "downsample": "merge"},
    "convnext": _POOLED_NORM | {"stem": "patches", "downsample": "norm_conv", "branches": 1},
    "pvt": _LINEAR | {"stem": "patches", "downsample": "patches", "stage_norms": "last", "norm_eps": 1e-6},
    "pvt_v2": _LINEAR | {"stem": "overlap", "downsample": "overlap", "norm_eps": 1e-6},
    "dcn_v3": {"layer_scale": 1.0, "norm_eps": 1e-6},
}


def _family(mixer: str) -> str:
    """The mixer whose network a mixer comes from, or stands in: swin's for halo, the controls and your own."""
    check_known("mixer", mixer, list_mixers())
    return mixer if mixer in _PUBLISHED else "swin"


def original_scales(mixer: str) -> list[str]:
    """The scales that have an original, smallest first: those of a published network, and nano."""
    published = _PUBLISHED[_family(mixer)]
    return [scale for scale in SCALES if scale == "nano" or scale in published]


def original(mixer: str, scale: str) -> Design:
    """The design of the published network that a mixer comes from.

    At nano, which nobody published, it is the family's way of building at the unified network's widths and depths. For
    halo, the controls and mixers of your own it is Swin's network with that mixer: what is published of HaloNet is a
    ResNet of bottlenecks, which is no design of this backbone.

    Raises UserError for unknown names, and for a scale at which nothing was published.
    """
    check_known("scale", scale, original_scales(mixer), where=f"{mixer}: original design: ")
    family = _family(mixer)
    design = replace(unified(mixer, scale), **_BY_FAMILY[family])
    if mixer == "convnext":
        design = replace(design, options={**design.options, "projections": False})
    if scale != "nano":
        design = replace(design, depths=_PUBLISHED[family][scale][-1])
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
    family = _family(mixer)
    name, millions, timm, _ = _PUBLISHED[family][scale]
    if family != mixer:
        note = f"the nearest published network is {name}; this is {name} with {mixer} instead of shifted windows"
        return Original(name, millions, _PAPERS[family], None, note)
    return Original(name, millions, _PAPERS[family], timm, _NOTES.get(name, _NOTES.get(mixer, "")))
