"""Our models in timm's registry, for every mixer there is and every one you register.

`unified_<mixer>_<scale>` has the paper's common architecture, `original_<mixer>_<scale>` that of the network that the
mixer comes from.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from http.client import HTTPException
from pathlib import Path

import timm
from timm.models import (
    PretrainedCfg,
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    resolve_pretrained_cfg,
)
from torch import nn

from .backbone import UnifiedBackbone
from .designs import NETWORKS, Design, list_scales, original_facts, original_scales
from .errors import UserError, check_known
from .mixers import get_mixer
from .mixers.registry import on_register, option_names
from .published import checkpoint_filter_fn

default_cfgs = {}  # where timm looks for the pretrained cfgs of what is registered from this module

# arguments of create_model that timm's builder takes; all others are the model's or the design's
_TIMM_ARGS = {
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_model_args",
    "features_only",
    "out_indices",
    "feature_cls",
    "cache_dir",
}
_MODEL_ARGS = set(inspect.signature(UnifiedBackbone).parameters) - {"design"}
# with weights from the paper's authors, micro to base, under these names
_PUBLISHED = {"halo": "halonet", "pvt": "pvt", "swin": "swin", "convnext": "convnext", "dcn_v3": "internimage"}
_ADDRESS = "https://github.com/OpenGVLab/STM-Evaluation/releases/download/cls-ckpt/unified_{family}_{scale}.pth"
_PAPER = {
    "origin_url": "https://github.com/OpenGVLab/STM-Evaluation",
    "paper_name": "Demystify Transformers & Convolutions in Modern Image Deep Networks",
    "paper_ids": "arXiv:2211.05781",
}
_OURS = ("halo", "pvt", "pvt_v2", "swin", "convnext", "dcn_v3", "identity", "pooling")  # nano, trained on `shapes`
WEIGHTS = Path(__file__).parent / "weights"
_SOURCES = ("file", "url", "state_dict", "hf_hub_id", "hf_hub_filename")  # of weights, in a pretrained cfg
_FEATURES = ("getter", "list", "dict", "hook")  # timm's "fx" cannot follow sizes that are computed


def build_model(
    mixer: str,
    scale: str = "micro",
    *,
    design: str | Design = "unified",
    pretrained: bool = False,
    num_classes: int | None = None,
    **design_overrides: object,
) -> UnifiedBackbone:
    """The model of a mixer at a scale.

    Args:
        mixer: a name of `list_mixers()`.
        scale: a name of `list_scales()`.
        design: "unified", the paper's common architecture; "original", the network that the mixer comes from; or a
            `Design` of the mixer, such as a step between the two (`stm_lab.designs.steps`).
        pretrained: load trained weights: at nano ours, of `shapes`, which come with the package; from micro to base
            the paper's, of ImageNet-1k, which are fetched from its authors and converted.
        num_classes: None takes the cfg's: 1000, and 10 at nano.
        **design_overrides: fields of the design (`depths=(2, 2, 2, 2)`), options of its mixer (`window=8`), or
            arguments of `UnifiedBackbone` (`in_chans=1`, `device="cuda"`, `dtype=torch.bfloat16`). Swin's shift follows
            the window unless it is given; heads do not follow the widths, nor halo the block (as in timm).

    A file of weights, published or ours, is loaded by `pretrained=True` with `pretrained_cfg_overlay={"file": path}`,
    or `pretrained_cfg` alike, and a state dict under the key "state_dict": other classes, channels and sizes are
    fitted. A file named by timm's `checkpoint_path` is read by timm itself, strictly: it must have our names, and the
    model's classes, channels and sizes.

    Returns a model of images (B, 3, H, W) -> logits (B, num_classes), H and W from 1 on.
    Raises UserError, naming the nearest, for any name that is not there; for a value of another type than its option's;
    if there are no trained weights of that model, or they cannot be fetched.
    """
    given = design_overrides if num_classes is None else {"num_classes": num_classes, **design_overrides}
    if isinstance(design, Design):
        return _build(mixer, scale, design, pretrained, given)
    check_known("design", design, NETWORKS)
    get_mixer(mixer)
    check_known(
        "scale", scale, _scales(design, mixer), where=f"{mixer}: " if design == "unified" else f"{mixer}, {design}: "
    )
    return timm.create_model(f"{design}_{mixer}_{scale}", pretrained=pretrained, **given)


def _scales(network: str, mixer: str) -> list[str]:
    return list_scales(mixer) if network == "unified" else original_scales(mixer)


def _build(mixer: str, scale: str, design: Design, pretrained: bool, options: Mapping[str, object]) -> UnifiedBackbone:
    """The model of any design; one that is a network of ours gets that one's name."""
    if design.mixer != mixer:
        raise UserError(f"mixer {mixer!r}: the design that was given is one of {design.mixer!r}")
    check_known("scale", scale, list_scales(mixer), where=f"{mixer}: ")
    for network, make in NETWORKS.items():
        if scale in _scales(network, mixer) and design == make(mixer, scale):
            return timm.create_model(f"{network}_{mixer}_{scale}", pretrained=pretrained, **options)
    if pretrained:
        raise UserError(f"{mixer}, {scale}: there are trained weights of the unified design only, not of this one")
    name = f"{mixer}_{scale}"
    _, cfg = _pretrained_cfg("unified", mixer, scale)
    cfg = replace(cfg, architecture=name, custom_load=False, **dict.fromkeys(_SOURCES))
    return _create(name, design, False, pretrained_cfg=cfg, **options)


def _create(name: str, design: Design, pretrained: bool, **kwargs: object) -> nn.Module:
    _check_options(name, design, kwargs)
    own = {key: kwargs.pop(key) for key in list(kwargs) if key in _TIMM_ARGS | _MODEL_ARGS}
    cfg = _resolve_cfg(name, own.pop("pretrained_cfg", None), own.pop("pretrained_cfg_overlay", None))
    try:
        return build_model_with_cfg(
            UnifiedBackbone,
            name,
            pretrained,
            design=design.override(**kwargs),
            pretrained_cfg=cfg,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter", "flatten_sequential": True},
            **own,
        )
    except (OSError, HTTPException) as error:  # URLError is an OSError, and so is a timeout
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{name}: its weights cannot be fetched ({reason}); get {cfg.url or cfg.hf_hub_id} by other means and give "
            "pretrained_cfg_overlay={'file': path}"
        ) from error
    except RuntimeError as error:
        if "No pretrained weights exist" not in str(error):
            raise
        known = ", ".join(timm.list_pretrained("unified_*"))
        raise UserError(f"{name}: there are no trained weights of it, but of {known}") from error


def _check_options(name: str, design: Design, options: Mapping[str, object]) -> None:
    """Raise a UserError for an option that neither model nor design has."""
    for key in options:
        check_known("option", key, _TIMM_ARGS | _MODEL_ARGS | design.overridable(), where=f"{name}: ")
    if isinstance(wanted := options.get("feature_cls"), str):
        check_known("feature_cls", wanted.lower(), _FEATURES, where=f"{name}: ")


def _resolve_cfg(
    name: str, cfg: str | Mapping[str, object] | PretrainedCfg | None, overlay: Mapping[str, object] | None
) -> PretrainedCfg:
    """timm's cfg for these arguments of `create_model`, but files and addresses are read by our own loader.

    A dictionary lies over the model's own cfg, as an overlay does; a `PretrainedCfg` is taken whole, with its classes.
    Where either names a source of weights, there is no other.

    Raises UserError, naming the nearest, for an entry that a cfg has not.
    """
    given = {**(cfg if isinstance(cfg, Mapping) else {}), **(overlay or {})}
    for key in given:
        check_known("entry of a pretrained cfg", key, {field.name for field in fields(PretrainedCfg)}, f"{name}: ")
    if any(given.get(source) for source in _SOURCES):
        given = dict.fromkeys(_SOURCES) | given
    resolved = resolve_pretrained_cfg(name, None if isinstance(cfg, Mapping) else cfg, given)
    return replace(resolved, custom_load=bool(resolved.custom_load or resolved.file or resolved.url))


def _pretrained_cfg(network: str, mixer: str, scale: str) -> tuple[str, PretrainedCfg]:
    """The tag of a model's weights and its cfg. Images as the paper has them, or 64x64 at nano."""
    size, pool, classes = (64, 2, 10) if scale == "nano" else (224, 7, 1000)
    tag, source, origin = "", {}, _PAPER
    if network == "original":
        facts = original_facts(mixer, scale)
        origin = (
            _PAPER if facts is None else {"paper_name": facts.name, "paper_ids": f"arXiv:{facts.paper.split()[-1]}"}
        )
    elif scale == "nano" and mixer in _OURS:
        tag = "shapes"
        source = {"file": str(WEIGHTS / f"unified_{mixer}_nano.shapes.safetensors"), "custom_load": True}
    elif scale in ("micro", "tiny", "small", "base") and mixer in _PUBLISHED:
        tag = "in1k"
        source = {"url": _ADDRESS.format(family=_PUBLISHED[mixer], scale=scale), "custom_load": True}
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


def _register(mixer: str) -> None:
    """Register a mixer's models with timm. A name registered again needs nothing: mixers are looked up when built.

    Raises UserError for an option that already means something else.
    """
    taken = (_TIMM_ARGS | _MODEL_ARGS | {field.name for field in fields(Design)}).intersection(option_names(mixer))
    if taken:
        raise UserError(f"mixer {mixer!r}: the option {min(taken)!r} is one of the model already; give it another name")
    for network in NETWORKS:
        for scale in _scales(network, mixer):
            name = f"{network}_{mixer}_{scale}"
            if timm.is_model(name):
                continue
            tag, cfg = _pretrained_cfg(network, mixer, scale)
            default_cfgs.update(generate_default_cfgs({f"{name}.{tag}" if tag else name: cfg}))
            globals()[name] = entrypoint = _entrypoint(network, mixer, scale)
            register_model(entrypoint)


def _entrypoint(network: str, mixer: str, scale: str) -> Callable[..., nn.Module]:
    """What timm calls to create a model."""
    name = f"{network}_{mixer}_{scale}"

    def entrypoint(pretrained: bool = False, **kwargs) -> nn.Module:
        return _create(name, NETWORKS[network](mixer, scale), pretrained, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__doc__ = f"The {network} network at scale {scale} with the {mixer} mixer; arguments as `build_model`."
    return entrypoint


on_register(_register)
