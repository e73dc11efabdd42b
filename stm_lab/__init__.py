"""Spatial token mixers in one backbone, trained alike, then compared (arXiv 2211.05781).

Importing registers the models with timm and touches no CUDA, no network and no file.
"""

from .errors import UserError

try:
    from .designs import list_scales
    from .mixers import list_mixers, register_mixer
    from .models import build_model
    from .published import load_published
except Exception as _error:  # torch or timm is missing or broken, and `stm-lab doctor` has to say so
    _broken = _error

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'stm_lab' has no attribute {name!r}")
        why = f"{type(_broken).__name__}: {_broken}"
        raise ImportError(f"stm_lab.{name} is not there ({why}); `stm-lab doctor` says what to do") from _broken


__version__ = "0.1.0"

__all__ = ["UserError", "build_model", "list_mixers", "list_scales", "load_published", "register_mixer"]
