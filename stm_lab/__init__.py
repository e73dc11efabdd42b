"""Spatial token mixers in one backbone, trained alike, then compared (arXiv 2211.05781).

Importing registers the models with timm and touches no CUDA, no network and no file.
"""

from .designs import list_scales
from .errors import UserError
from .mixers import list_mixers, register_mixer
from .models import build_model
from .published import load_published

__version__ = "0.1.0"

__all__ = ["UserError", "build_model", "list_mixers", "list_scales", "load_published", "register_mixer"]
