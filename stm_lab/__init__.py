"""Spatial token mixers in one backbone, trained alike, then compared (arXiv 2211.05781).

Importing registers the models with timm and touches no CUDA, no network and no file.
"""

import traceback as _traceback
import warnings as _warnings
from pathlib import Path as _Path

from .errors import UserError


def _is_ours(error: Exception) -> bool:
    """Whether an error on import is a mistake in this package, and not that another one is missing or broken."""
    if isinstance(error, ImportError):
        return (error.name or "").partition(".")[0] == __name__
    files = [frame.f_code.co_filename for frame, _ in _traceback.walk_tb(error.__traceback__)]
    files = [file for file in files if not file.startswith("<frozen importlib")]
    return _Path(__file__).parent in _Path(files[-1]).parents


try:
    from .designs import list_scales
    from .mixers import list_mixers, register_mixer
    from .models import build_model
    from .published import load_published
except Exception as _error:  # a broken torch or timm raises anything: its libraries' OSError, a RuntimeError, ...
    if _is_ours(_error):
        raise
    _broken = _error
    _why = f"{type(_error).__name__}: {_error}"
    # importing goes on, so that `stm-lab doctor`, which stands below this package, can say what to do
    _warnings.warn(f"stm_lab has no models ({_why}); `stm-lab doctor` says what to do", RuntimeWarning, stacklevel=2)

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'stm_lab' has no attribute {name!r}")
        raise ImportError(f"stm_lab.{name} is not there ({_why}); `stm-lab doctor` says what to do") from _broken


__version__ = "0.1.0"

__all__ = ["UserError", "build_model", "list_mixers", "list_scales", "load_published", "register_mixer"]
