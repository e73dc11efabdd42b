"""Our models in timm's registry, and those of every mixer that you register.

`unified_<mixer>_<scale>` has the paper's common architecture, `original_<mixer>_<scale>` that of the network that the
mixer comes from. `import stm_lab` loads this module as soon as timm is imported; it builds nothing by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import timm
from timm.models import PretrainedCfg, generate_default_cfgs, register_model
from torch import nn

from .mixers.registry import on_register

NAMES = """
unified_halo_nano       unified_halo_micro      unified_halo_tiny       unified_halo_small      unified_halo_base
unified_pvt_nano        unified_pvt_micro       unified_pvt_tiny        unified_pvt_small       unified_pvt_base
unified_pvt_v2_nano     unified_pvt_v2_micro    unified_pvt_v2_tiny     unified_pvt_v2_small    unified_pvt_v2_base
unified_swin_nano       unified_swin_micro      unified_swin_tiny       unified_swin_small      unified_swin_base
unified_convnext_nano   unified_convnext_micro  unified_convnext_tiny   unified_convnext_small  unified_convnext_base
unified_dcn_v3_nano     unified_dcn_v3_micro    unified_dcn_v3_tiny     unified_dcn_v3_small    unified_dcn_v3_base
unified_dcn_v3_large
unified_identity_nano   unified_identity_micro  unified_identity_tiny   unified_identity_small  unified_identity_base
unified_pooling_nano    unified_pooling_micro   unified_pooling_tiny    unified_pooling_small   unified_pooling_base

original_halo_nano      original_halo_tiny      original_halo_small     original_halo_base
original_pvt_nano       original_pvt_tiny       original_pvt_small      original_pvt_base
original_pvt_v2_nano    original_pvt_v2_micro   original_pvt_v2_tiny    original_pvt_v2_small   original_pvt_v2_base
original_swin_nano      original_swin_tiny      original_swin_small     original_swin_base
original_convnext_nano  original_convnext_tiny  original_convnext_small original_convnext_base
original_dcn_v3_nano    original_dcn_v3_tiny
original_identity_nano  original_identity_tiny  original_identity_small original_identity_base
original_pooling_nano   original_pooling_tiny   original_pooling_small  original_pooling_base
""".split()  # noqa: SIM905 - a table is easier to read than a list of 72 strings
WEIGHTS = Path(__file__).parent / "weights"

# with weights from the paper's authors, micro to base, under these names
PUBLISHED = {"halo": "halonet", "pvt": "pvt", "swin": "swin", "convnext": "convnext", "dcn_v3": "internimage"}
_ADDRESS = "https://github.com/OpenGVLab/STM-Evaluation/releases/download/cls-ckpt/unified_{family}_{scale}.pth"
_PAPER = {
    "origin_url": "https://github.com/OpenGVLab/STM-Evaluation",
    "paper_name": "Demystify Transformers & Convolutions in Modern Image Deep Networks",
    "paper_ids": "arXiv:2211.05781",
}
_ORIGINS = {"pvt": "2102.12122", "pvt_v2": "2106.13797", "convnext": "2201.03545", "dcn_v3": "2211.05778"}
_SWIN = "2103.14030"  # of swin, and of the mixers that have no original of their own and stand in its network

default_cfgs = {}  # where timm looks for the pretrained cfgs of what is registered from this module


def _pretrained_cfg(network: str, mixer: str, scale: str) -> tuple[str, PretrainedCfg]:
    """The tag of a model's weights ("" for none) and its cfg: images as in the paper, or of 64x64 at nano."""
    size, pool, classes = (64, 2, 10) if scale == "nano" else (224, 7, 1000)
    tag, source, origin = "", {}, _PAPER
    if network == "original":
        origin = _PAPER if scale == "nano" else {"paper_ids": f"arXiv:{_ORIGINS.get(mixer, _SWIN)}"}
    elif scale == "nano" and (file := WEIGHTS / f"unified_{mixer}_nano.shapes.safetensors").is_file():
        tag, source = "shapes", {"file": str(file), "custom_load": True}
    elif scale != "nano" and mixer in PUBLISHED and scale != "large":
        tag = "in1k"
        source = {"url": _ADDRESS.format(family=PUBLISHED[mixer], scale=scale), "custom_load": True}
    cfg = PretrainedCfg(
        **source,
        input_size=(3, size, size),
        min_input_size=(3, 1, 1),
        pool_size=(pool, pool),
        num_classes=classes,
        interpolation="bicubic",
        crop_pct=1.0 if scale == "nano" else 0.875,
        first_conv="stem.0",
        classifier="head.fc",
        license="apache-2.0",
        **origin,
    )
    return tag, cfg


def _register(name: str) -> None:
    """Register a model with timm. A name registered again needs nothing: mixers are looked up when built."""
    if timm.is_model(name):
        return
    network, mixer, scale = parts(name)
    tag, cfg = _pretrained_cfg(network, mixer, scale)
    default_cfgs.update(generate_default_cfgs({f"{name}.{tag}" if tag else name: cfg}))
    globals()[name] = entrypoint = _entrypoint(name, network, mixer, scale)
    register_model(entrypoint)


def parts(name: str) -> tuple[str, str, str]:
    """Network, mixer and scale of a model's name, "unified_pvt_v2_nano"; empty strings for what it lacks."""
    network, _, rest = name.partition("_")
    mixer, _, scale = rest.rpartition("_")
    return network, mixer, scale


def _entrypoint(name: str, network: str, mixer: str, scale: str) -> Callable[..., nn.Module]:
    """The function that timm calls to create a model."""

    def entrypoint(pretrained: bool = False, **kwargs) -> nn.Module:
        from .designs import NETWORKS  # here: importing timm must not load the core early
        from .models import create

        return create(name, NETWORKS[network](mixer, scale), pretrained, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__doc__ = f"The {network} network at scale {scale} with the {mixer} mixer; arguments as `build_model`."
    return entrypoint


def _register_own(mixer: str) -> None:
    """Register the models of a user's mixer: those that swin has."""
    if mixer in {parts(name)[1] for name in NAMES}:
        return
    for name in NAMES:
        network, other, scale = parts(name)
        if other == "swin":
            _register(f"{network}_{mixer}_{scale}")


for _name in NAMES:
    _register(_name)
on_register(_register_own)
