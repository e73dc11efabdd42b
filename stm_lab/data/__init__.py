"""Data: recipes (YAML), the sources they name, the embedded `shapes`, and the views that training sees."""

from stm_lab.data.loading import command, fingerprint, images_per_class, load, pixels_of, state, take
from stm_lab.data.photographs import PHOTOGRAPHS, photograph
from stm_lab.data.recipe import Recipe, list_recipes, load_recipe
from stm_lab.data.views import to_tensors

__all__ = [
    "PHOTOGRAPHS",
    "Recipe",
    "command",
    "fingerprint",
    "images_per_class",
    "list_recipes",
    "load",
    "load_recipe",
    "photograph",
    "pixels_of",
    "state",
    "take",
    "to_tensors",
]
