"""Models of every mixer and design, by timm's builder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from http.client import HTTPException

import timm
from timm.models import PretrainedCfg, build_model_with_cfg, resolve_pretrained_cfg
from torch import nn

from .backbone import UnifiedBackbone
from .designs import NETWORKS, Design, list_scales, original_scales
from .mixers import get_mixer
from .mixers.registry import MODEL_ARGS, TIMM_ARGS
from .published import checkpoint_filter_fn
from .util.errors import UserError, check_known

_CFG_ARGS = ("pretrained_cfg", "pretrained_cfg_overlay")
_SOURCES = ("file", "url", "state_dict", "hf_hub_id", "hf_hub_filename")  # of weights, in a pretrained cfg
_FEATURES = ("getter", "list", "dict", "hook", "fx")


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
            the paper's, of ImageNet-1k, which are fetched from its authors and converted. Others are named by timm's
            `pretrained_cfg_overlay={"file": path}` (or "url", "state_dict"), and fitted to other classes and sizes.
        num_classes: None takes the cfg's: 1000, and 10 at nano.
        **design_overrides: fields of the design (`depths=(2, 2, 2, 2)`), options of its mixer (`window=8`), arguments
            of `UnifiedBackbone` (`in_chans=1`, `device="cuda"`, `dtype=torch.bfloat16`) or timm. Swin's shift follows
            the window unless it is given; heads do not follow the widths, nor halo the block (as in timm).

    Returns a model of images (B, 3, H, W) -> logits (B, num_classes), H and W from 1 on.
    Raises UserError, naming the nearest, for an unknown name; for a value of another type than its option's; if there
    are no trained weights of that model, or they cannot be fetched.
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
    name = f"{mixer}_{scale}"
    cfg = timm.get_pretrained_cfg(f"unified_{mixer}_{scale}")
    cfg = replace(cfg, architecture=name, tag="", custom_load=False, **dict.fromkeys(_SOURCES))
    cfg = _resolve_cfg(name, options.get("pretrained_cfg") or {}, options.get("pretrained_cfg_overlay"), cfg)
    if pretrained and not any(getattr(cfg, source) for source in _SOURCES):
        raise UserError(f"{mixer}, {scale}: there are trained weights of the unified design only, not of this one")
    options = {key: value for key, value in options.items() if key not in _CFG_ARGS}
    return create(name, design, pretrained, pretrained_cfg=cfg, **options)


def create(name: str, design: Design, pretrained: bool, **kwargs: object) -> nn.Module:
    """The model that timm knows by `name`, of a design; `kwargs` as `timm.create_model` passes them on.

    Raises UserError for unknown options, and for weights that do not exist, cannot be fetched or do not fit.
    """
    _check_options(name, design, kwargs)
    own = {key: kwargs.pop(key) for key in list(kwargs) if key in TIMM_ARGS | MODEL_ARGS}
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
        check_known("option", key, TIMM_ARGS | MODEL_ARGS | design.overridable(), where=f"{name}: ")
    if isinstance(wanted := options.get("feature_cls"), str):
        check_known("feature_cls", wanted.lower(), _FEATURES, where=f"{name}: ")


def _resolve_cfg(
    name: str,
    cfg: str | Mapping[str, object] | PretrainedCfg | None,
    overlay: Mapping[str, object] | None,
    own: PretrainedCfg | None = None,
) -> PretrainedCfg:
    """timm's cfg for these arguments of `create_model`, but files and addresses are read by our own loader.

    A dictionary lies over the model's own cfg (`own`; timm's by default), as an overlay does; a `PretrainedCfg` is
    taken whole. A source of weights in either is the only one. Raises UserError, naming the nearest, for an unknown
    entry.
    """
    given = {**(cfg if isinstance(cfg, Mapping) else {}), **(overlay or {})}
    for key in given:
        check_known("entry of a pretrained cfg", key, {field.name for field in fields(PretrainedCfg)}, f"{name}: ")
    if any(given.get(source) for source in _SOURCES):
        given = dict.fromkeys(_SOURCES) | given
    resolved = resolve_pretrained_cfg(name, own if isinstance(cfg, Mapping) else cfg, given)
    return replace(resolved, custom_load=bool(resolved.custom_load or resolved.file or resolved.url))
