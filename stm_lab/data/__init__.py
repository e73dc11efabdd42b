"""Data: recipes (YAML), the sources they name, the embedded `shapes`, and the views that training sees."""

from stm_lab.util.modules import lazily

__all__ = [
    "PHOTOGRAPHS",
    "Recipe",
    "describe",
    "fingerprint",
    "list_recipes",
    "load",
    "load_recipe",
    "photograph",
    "pixels_of",
    "state",
    "take",
    "to_tensors",
]

# a recipe is read and checked without the libraries that images need, which take seconds to import
__getattr__, __dir__ = lazily(
    __name__,
    {
        "found": ("take",),
        "loading": ("describe", "fingerprint", "load", "pixels_of", "state"),
        "recipe": ("Recipe", "list_recipes", "load_recipe"),
        "views": ("PHOTOGRAPHS", "photograph", "to_tensors"),
    },
)
