"""Notebook 13's own: what severities mean, and what several networks say of one corrupted image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab import figures
from stm_lab.explore.parts import as_floats, checked_pixels, clipped, shares
from stm_lab.explore.shell import Explorer, State
from stm_lab.measure.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stm_lab.util.errors import UserError

# The meaning of a severity's numbers. For 224 pixels those of elastic_transform are multiples of 244, as in the script
# (whose authors note that 224 was meant).
MEANING = {
    "gaussian_noise": "standard deviation",
    "shot_noise": "photons of a white pixel",
    "impulse_noise": "share of the values that become 0 or 1",
    "defocus_blur": "radius of the disk, and sigma of the blur that smooths its edge",
    "glass_blur": "sigma, how far pixels are copied from, how many times",
    "motion_blur": "radius and sigma of the trail",
    "zoom_blur": "first, end and step of the enlargements that are averaged",
    "snow": "mean and deviation of the flakes' noise, its enlargement, threshold, radius and sigma of their trails, "
    "share of the image that is not whitened",
    "frost": "weight of the image, weight of the frost",
    "fog": "thickness, and how fast its structure decays from octave to octave",
    "brightness": "what is added to the value (of hue, saturation, value)",
    "contrast": "what is left of the deviation from the mean",
    "elastic_transform": "largest random shift times blur, sigma of that blur, reach of the affine corners",
    "pixelate": "side of the reduced image, as a share",
    "jpeg_compression": "quality",
}


def corruption(
    models: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor | None = None,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> Explorer:
    """Prediction and confidence of every model for one image, by corruption and severity.

    The corruptions are those that `corruption_errors` makes of these images with this seed.

    models: classifiers, by name. images: (N, 3, H, W), uint8 or in [0, 1], as large as the models see them. labels:
    (N,) the right classes, -1 where they are unknown; default: all are. classes: their names, for the models with as
    many. seed: of the corruptions, and for models that draw random numbers in eval mode.
    Raises UserError for no models or images, and another number of labels; where it is drawn, for a model without a
    classifier or without a class for the label.
    """
    pixels = checked_pixels(models, images, labels)

    @lru_cache(maxsize=256)
    def views(name: str, image: int) -> Tensor:
        """(6, 3, H, W): the picture by severity, from 0."""
        one = pixels[image : image + 1]
        worse = [corrupt(one, name, severity, seed=seed, first=image) for severity in SEVERITIES]
        return torch.cat([as_floats(one), *worse])

    @lru_cache(maxsize=2048)
    def answers(model: str, name: str, image: int) -> np.ndarray:
        """(6, classes)"""
        return shares(models[model], views(name, image), seed).numpy()

    def draw(corruption: str, severity: int, image: int) -> Figure:
        of_models = {model: answers(model, corruption, image) for model in models}
        truth = None if labels is None or labels[image] < 0 else int(labels[image])
        counts = [of.shape[1] for of in of_models.values()] + ([] if classes is None else [len(classes)])
        if truth is not None and truth >= min(counts):
            raise UserError(f"image {image}: label {truth}, which is not a class of every model, or has no name")
        shown = views(corruption, image)
        return figures.corruption_answers(
            shown, of_models, severity, corruption=corruption, classes=classes, truth=truth
        )

    def select(panel: int, x: float, y: float, _: State) -> State:
        return {"severity": clipped(x, len(SEVERITIES) + 1)} if panel == 3 else {}

    controls = {
        "corruption": widgets.Dropdown(options=[(name.replace("_", " "), name) for name in CORRUPTIONS]),
        "severity": widgets.IntSlider(3, 0, len(SEVERITIES)),
        "image": widgets.IntSlider(0, 0, len(pixels) - 1),
    }
    return Explorer(draw, controls, select=select)
