"""Spatial token mixers in one backbone, trained alike, then compared (arXiv 2211.05781).

The models are in timm's registry as soon as timm is imported, before this package or after it. Everything else is
imported when it is first used. Importing touches no CUDA, no network and no file.
"""

from importlib import import_module

from wrapt import register_post_import_hook

from .util.errors import UserError

__version__ = "0.1.0"
__all__ = ["UserError", "build_model", "list_mixers", "list_scales", "load_published", "register_mixer"]

_AT = {  # public names and the modules that define them
    "build_model": "models",
    "list_mixers": "mixers",
    "list_scales": "designs",
    "load_published": "published",
    "register_mixer": "mixers",
}
_ROOMS = ("checks", "course", "data", "designs", "explore", "figures", "measure", "mixers", "paper", "predict")
_ROOMS += ("pixels", "stats", "train")

register_post_import_hook(lambda _: import_module("stm_lab.registry"), "timm")


def __getattr__(name: str) -> object:
    try:
        if name == "zoo":
            return import_module("stm_lab.train.zoo")
        if name in _ROOMS:
            return import_module(f"stm_lab.{name}")
        if name in _AT:
            return getattr(import_module(f"stm_lab.{_AT[name]}"), name)
    except Exception as error:
        error.add_note("`stm-lab doctor` says what is wrong with this installation, and what to do")
        raise
    raise AttributeError(f"module 'stm_lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_AT, *_ROOMS, "zoo"])
