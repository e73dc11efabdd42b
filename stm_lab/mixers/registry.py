"""Spatial token mixers by name.

A mixer is a class `M(dim, *, options)` whose `forward` maps tokens (B, H, W, C) to tokens of the same shape, for any H
and W. Two methods are optional: `macs(H, W) -> int`, its cost for one image, and `no_weight_decay() -> set[str]`, the
names of its parameters of two or more dimensions that weight decay spares. Every option needs a default, so that
`M(dim)` works.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from ..util.errors import UserError, check_known
from ..util.validation import can_check

if TYPE_CHECKING:
    from torch import nn

_MODULES = {  # our mixers, in the order of list_mixers(), and their modules: imported with the first use of a class
    "halo": "halo",
    "pvt": "pvt",
    "pvt_v2": "pvt",
    "swin": "swin",
    "convnext": "convnext",
    "dcn_v3": "dcn_v3",
    "identity": "controls",
    "pooling": "controls",
}
# arguments of timm.create_model that its builder takes, those of `UnifiedBackbone` besides the design, and a design's
# fields: no option of a mixer may have such a name
TIMM_ARGS = {"pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "features_only", "out_indices"}
TIMM_ARGS |= {"feature_cls", "cache_dir"}
MODEL_ARGS = {"num_classes", "in_chans", "global_pool", "drop_rate", "device", "dtype"}
DESIGN_FIELDS = {"mixer", "dims", "depths", "stem", "downsample", "stage_norms", "head", "branches", "img_size"}
DESIGN_FIELDS |= {"norm_eps", "embed_eps", "stage_eps", "mlp_ratios", "mlp_conv", "position_embedding", "layer_scale"}
DESIGN_FIELDS |= {"drop_path_rate", "options", "stage_options", "block_options"}
_mixers: dict[str, type[nn.Module] | None] = dict.fromkeys(_MODULES)  # None: not imported yet
_listeners: list[Callable[[str], None]] = []


def register_mixer(name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Class decorator: make a mixer available under `name` in every scale, notebook and measure.

    Registering a name again replaces the mixer silently, so that a notebook cell can be run twice; models that were
    built before keep the old one. Options called heads, window, block, halo, reduction or shift get their values from
    the design instead of their defaults. Convolutions and projections start as the backbone's do (std 0.02);
    parameters that the mixer makes itself are drawn in its `reset_parameters()`, if a model is to draw them anew
    (`init_weights`).

    Raises UserError if the name is no identifier or the class breaks the contract.
    """
    if not name.isidentifier():
        raise UserError(f"a mixer's name must be an identifier such as 'my_mixer', not {name!r}")

    def register(cls: type[nn.Module]) -> type[nn.Module]:
        _check_signature(name, cls)
        if name in _MODULES and cls.__module__ != _module_of(name):
            import_module(_module_of(name))  # now, or its own class would replace this one when it is imported
        _mixers[name] = cls
        for listener in _listeners:
            listener(name)
        return cls

    return register


def _module_of(name: str) -> str:
    return f"{__package__}.{_MODULES[name]}"


def _check_signature(name: str, cls: type[nn.Module]) -> None:
    from torch import nn

    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise UserError(f"mixer {name!r} must be a subclass of torch.nn.Module, not {cls!r}")
    first, *options = inspect.signature(cls).parameters.values() or [None]
    if first is None or first.name != "dim":
        found = "nothing" if first is None else repr(first.name)
        raise UserError(f"mixer {name!r}: the first argument must be called 'dim', not {found}")
    for option in options:
        if option.kind is not option.KEYWORD_ONLY:
            raise UserError(
                f"mixer {name!r}: option {option.name!r} must be keyword-only (a * after dim, and no *args or **kwargs)"
            )
        if option.default is option.empty:
            raise UserError(f"mixer {name!r}: option {option.name!r} needs a default: {cls.__name__}(dim) must work")
        if option.name in TIMM_ARGS | MODEL_ARGS | DESIGN_FIELDS:
            raise UserError(
                f"mixer {name!r}: the option {option.name!r} is one of the model already; give it another name"
            )


def list_mixers() -> list[str]:
    """The registered names, in the order of registration: the paper's, the controls, then yours."""
    return list(_mixers)


def get_mixer(name: str) -> type[nn.Module]:
    """The class of a mixer. Raises UserError, naming the nearest, for a name that is not registered."""
    check_known("mixer", name, _mixers)
    if _mixers[name] is None:
        import_module(_module_of(name))
    return _mixers[name]


def described(name: str) -> tuple[str, dict[str, str]]:
    """The first line of a mixer's docstring, and its options with their defaults, as its source spells them.

    Our mixers that have not been imported yet are not imported for it. Raises UserError as `get_mixer` does.
    """
    check_known("mixer", name, _mixers)
    cls = _mixers[name]
    if cls is not None:
        _, *options = inspect.signature(cls).parameters.values()
        return (inspect.getdoc(cls) or "").partition("\n")[0], {each.name: repr(each.default) for each in options}
    tree = ast.parse(Path(__file__).with_name(f"{_MODULES[name]}.py").read_bytes())
    (definition,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and name in _registered_as(node))
    (made,) = (node for node in definition.body if getattr(node, "name", "") == "__init__")
    defaults = zip(made.args.kwonlyargs, made.args.kw_defaults, strict=True)
    options = {argument.arg: ast.unparse(default) for argument, default in defaults}
    return ast.get_docstring(definition).partition("\n")[0], options


def _registered_as(definition: ast.ClassDef) -> list[str]:
    """The names in the `@register_mixer(name)` above a class."""
    return [each.args[0].value for each in definition.decorator_list if isinstance(each, ast.Call)]


def option_names(name: str) -> list[str]:
    """The options that a mixer's signature has besides `dim`."""
    return list(described(name)[1])


def option_types(name: str) -> dict[str, object]:
    """The annotation of each option; without one, the type of its default: any number for an int, all for None.

    `object` where the annotation is no type.
    """
    cls = get_mixer(name)
    try:
        hints = get_type_hints(cls.__init__)
    except Exception:  # an annotation need not be one that can be evaluated
        hints = {}
    defaults = {key: parameter.default for key, parameter in inspect.signature(cls).parameters.items() if key != "dim"}
    loose = {int: float | int, type(None): object}
    types = {key: hints.get(key, loose.get(type(value), type(value))) for key, value in defaults.items()}
    return {key: hint if can_check(hint) else object for key, hint in types.items()}


def on_register(listener: Callable[[str], None]) -> None:
    """Call `listener(name)` for every mixer there is, and for every one that comes later."""
    _listeners.append(listener)
    for name in _mixers:
        listener(name)
