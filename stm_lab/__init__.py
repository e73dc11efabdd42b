"""Spatial token mixers in one backbone, trained alike, then compared (arXiv 2211.05781).

The models are in timm's registry as soon as timm is imported, before this package or after it. Everything else is
imported when it is first used. Importing touches no CUDA, no network and no file.
"""

from importlib import import_module

from wrapt import register_post_import_hook

from .util.errors import UserError
from .util.modules import lazily

__version__ = "0.1.0"
__all__ = ["UserError", "build_model", "list_mixers", "list_scales", "load_published", "register_mixer"]

_get, _names = lazily(
    __name__,
    {
        **dict.fromkeys(("checks", "course", "data", "explore", "figures", "measure"), ()),
        **dict.fromkeys(("paper", "pixels", "predict", "stats", "tasks", "train", "zoo"), ()),
        "designs": ("list_scales",),
        "mixers": ("list_mixers", "register_mixer"),
        "models": ("build_model",),
        "published": ("load_published",),
    },
)

register_post_import_hook(lambda _: import_module("stm_lab.entrypoints"), "timm")


def __getattr__(name: str) -> object:
    try:
        return _get(name)
    except Exception as error:
        if name in _names():
            error.add_note("`stm-lab doctor` says what is wrong with this installation, and what to do")
        raise


def __dir__() -> list[str]:
    return sorted({*globals(), *_names()})
