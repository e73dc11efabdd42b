"""Spatial token mixers: one readable file each, behind one interface (see `registry`)."""

# ruff: noqa: I001 - the order of these imports is the order of list_mixers()
from .halo import HaloAttention
from .pvt import SpatialReductionAttention
from .swin import ShiftedWindowAttention
from .convnext import DepthwiseConv
from .dcn_v3 import DeformableConvV3
from .controls import Identity, Pooling
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
