"""Spatial token mixers: one readable file each, behind one interface (see `registry`)."""

from ..util.modules import lazily
from .registry import get_mixer, list_mixers, option_names, register_mixer

__all__ = [
    "DeformableConvV3",
    "DepthwiseConv",
    "HaloAttention",
    "Identity",
    "Pooling",
    "ShiftedWindowAttention",
    "SpatialReductionAttention",
    "get_mixer",
    "list_mixers",
    "option_names",
    "register_mixer",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "halo": ("HaloAttention",),
        "pvt": ("SpatialReductionAttention",),
        "swin": ("ShiftedWindowAttention",),
        "convnext": ("DepthwiseConv",),
        "dcn_v3": ("DeformableConvV3",),
        "controls": ("Identity", "Pooling"),
        "registry": ("get_mixer", "list_mixers", "option_names", "register_mixer"),
    },
)
