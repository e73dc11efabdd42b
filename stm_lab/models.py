"""Our models in timm's registry: `unified_<mixer>_<scale>`, for every mixer there is and every one you register."""

from __future__ import annotations

import inspect
from dataclasses import fields
from http.client import HTTPException
from pathlib import Path

import timm
from timm.models import PretrainedCfg, build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from .backbone import UnifiedBackbone
from .designs import NETWORKS, Design, list_scales, unified
from .errors import UserError, check_known
from .mixers import get_mixer
from .mixers.registry import on_register, option_names

default_cfgs = {}  # where timm looks for the pretrained cfgs of what is registered from this module

# arguments of create_model that timm's builder takes; all others are the model's or the design's
_TIMM_ARGS = {"pretrained_cfg", "pretrained_cfg_overlay", "features_only", "out_indices", "feature_cls", "cache_dir"}
_MODEL_ARGS = set(inspect.signature(UnifiedBackbone).parameters) - {"design"}
# with weights from the paper's authors, micro to base, under these names
_PUBLISHED = {"halo": "halonet", "pvt": "pvt", "swin": "swin", "convnext": "convnext", "dcn_v3": "internimage"}
_ADDRESS = "https://github.com/OpenGVLab/STM-Evaluation/releases/download/cls-ckpt/unified_{family}_{scale}.pth"
_OURS = ("halo", "pvt", "pvt_v2", "swin", "convnext", "dcn_v3", "identity", "pooling")  # nano, trained on `shapes`
WEIGHTS = Path(__file__).parent / "weights"


def build_model(
    mixer: str,
    scale: str = "micro",
    *,
    design: str = "unified",
    pretrained: bool = False,
    num_classes: int | None = None,
    **design_overrides: object,
) -> UnifiedBackbone:
    """The model of a mixer at a scale.

    Args:
        mixer: a name of `list_mixers()`.
        scale: a name of `list_scales()`.
        design: "unified", the paper's common architecture.
        pretrained: load trained weights: at nano ours, of `shapes`, which come with the package; from micro to base
            the paper's, of ImageNet-1k, which are fetched from its authors and converted.
        num_classes: None takes the cfg's: 1000, and 10 at nano.
        **design_overrides: fields of the design (`depths=(2, 2, 2, 2)`), options of its mixer (`window=8`), or
            arguments of `UnifiedBackbone` (`in_chans=1`).

    Returns a model of images (B, 3, H, W) -> logits (B, num_classes), H and W >= 32.
    Raises UserError, naming the nearest, for any name that is not there; if there are no trained weights of that model,
    or they cannot be fetched.
    """
    check_known("design", design, NETWORKS)
    get_mixer(mixer)
    check_known("scale", scale, list_scales(mixer), where=f"{mixer}: ")
    given = {} if num_classes is None else {"num_classes": num_classes}
    return timm.create_model(f"unified_{mixer}_{scale}", pretrained=pretrained, **given, **design_overrides)


def _create(name: str, design: Design, pretrained: bool, **kwargs: object) -> nn.Module:
    for key in kwargs:
        check_known("option", key, _TIMM_ARGS | _MODEL_ARGS | design.overridable(), where=f"{name}: ")
    own = {key: kwargs.pop(key) for key in list(kwargs) if key in _TIMM_ARGS | _MODEL_ARGS}
    overlay = own.pop("pretrained_cfg_overlay", None) or {}
    if overlay.keys() & {"file", "url"}:
        overlay = {"custom_load": True, **overlay}  # timm would read the file itself, with its own names
    try:
        return build_model_with_cfg(
            UnifiedBackbone,
            name,
            pretrained,
            design=design.override(**kwargs),
            feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
            pretrained_cfg_overlay=overlay,
            **own,
        )
    except (OSError, HTTPException) as error:  # URLError is an OSError, and so is a timeout
        reason, address = getattr(error, "reason", error), timm.get_pretrained_cfg(name).url
        raise UserError(
            f"{name}: its weights cannot be fetched ({reason}); get {address} by other means and give "
            "pretrained_cfg_overlay={'file': path}"
        ) from error
    except RuntimeError as error:
        if "No pretrained weights exist" not in str(error):
            raise
        known = ", ".join(timm.list_pretrained("unified_*"))
        raise UserError(f"{name}: there are no trained weights of it, but of {known}") from error


def _pretrained_cfg(mixer: str, scale: str) -> tuple[str, PretrainedCfg]:
    """The tag of a model's weights and its cfg. Images as the paper has them, or 64x64 at nano."""
    size, pool, classes = (64, 2, 10) if scale == "nano" else (224, 7, 1000)
    tag, source = "", {}
    if scale == "nano" and mixer in _OURS:
        tag = "shapes"
        source = {"file": str(WEIGHTS / f"unified_{mixer}_nano.shapes.safetensors"), "custom_load": True}
    elif scale in ("micro", "tiny", "small", "base") and mixer in _PUBLISHED:
        tag = "in1k"
        source = {"url": _ADDRESS.format(family=_PUBLISHED[mixer], scale=scale), "custom_load": True}
    cfg = PretrainedCfg(
        **source,
        input_size=(3, size, size),
        min_input_size=(3, 32, 32),
        pool_size=(pool, pool),
        num_classes=classes,
        interpolation="bicubic",
        crop_pct=1.0 if scale == "nano" else 0.875,
        first_conv="stem.0",
        classifier="head.fc",
        license="apache-2.0",
        origin_url="https://github.com/OpenGVLab/STM-Evaluation",
        paper_name="Demystify Transformers & Convolutions in Modern Image Deep Networks",
        paper_ids="arXiv:2211.05781",
    )
    return tag, cfg


def _register(mixer: str) -> None:
    """Register a mixer's models with timm. A name registered again needs nothing: mixers are looked up when built.

    Raises UserError for an option that already means something else.
    """
    taken = (_TIMM_ARGS | _MODEL_ARGS | {field.name for field in fields(Design)}).intersection(option_names(mixer))
    if taken:
        raise UserError(f"mixer {mixer!r}: the option {min(taken)!r} is one of the model already; give it another name")
    for scale in list_scales(mixer):
        name = f"unified_{mixer}_{scale}"
        if timm.is_model(name):
            continue
        tag, cfg = _pretrained_cfg(mixer, scale)
        default_cfgs.update(generate_default_cfgs({f"{name}.{tag}" if tag else name: cfg}))

        def entrypoint(pretrained: bool = False, *, _mixer: str = mixer, _scale: str = scale, **kwargs) -> nn.Module:
            return _create(f"unified_{_mixer}_{_scale}", unified(_mixer, _scale), pretrained, **kwargs)

        entrypoint.__name__ = entrypoint.__qualname__ = name
        entrypoint.__doc__ = f"Unified backbone at scale {scale} with the {mixer} mixer; arguments as `build_model`."
        globals()[name] = entrypoint
        register_model(entrypoint)


on_register(_register)
