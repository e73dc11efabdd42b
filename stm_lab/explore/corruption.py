"""Corrupt a picture, one's own too, more and more, and see what several networks make of it, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab.explore.pictures import check_models
from stm_lab.explore.shell import Explorer
from stm_lab.measure._batches import as_images, check_classes, evaluating
from stm_lab.measure.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stm_lab.pixels import Normalize
from stm_lab.util.errors import UserError, check_known


def corruption(
    models: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor | None = None,
    *,
    classes: Sequence[str] | None = None,
    corruptions: Sequence[str] = CORRUPTIONS,
    seed: int = 0,
) -> Explorer:
    """Choose corruption, severity and image: prediction and confidence of every model, and how they change by severity.

    A click into the curves sets the severity. All severities of a corruption and an image are computed when they are
    first looked at, and kept: the slider waits for nothing. The corruptions are those that `corruption_errors` makes of
    these images with this seed.

    Args:
        models: any timm models with a classifier, by name.
        images: (N, 3, H, W), uint8 or in [0, 1], at the size at which they are shown to the models.
        labels: (N,) the right classes, -1 where nobody knows (a picture of one's own); None: of none of them.
        classes: names of the classes in the labels' order, for the models with as many.
        corruptions: what there is to choose from.

    Raises UserError for no models or images, labels that do not fit them, an unknown corruption, and, where it is
    drawn, for a model without a classifier.
    """
    check_models(models)
    if not corruptions:
        raise UserError("no corruptions to choose from")
    for name in corruptions:
        check_known("corruption", name, CORRUPTIONS)
    pixels = as_images(images, next(iter(models.values()))).pixels
    known = [-1] * len(pixels) if labels is None else labels.tolist()
    if len(known) != len(pixels):
        raise UserError(f"{len(known)} labels for {len(pixels)} images")
    if classes is not None and max(known) >= len(classes):
        raise UserError(f"label {max(known)}, but {len(classes)} names of classes")

    @lru_cache(maxsize=256)
    def views(name: str, image: int) -> Tensor:
        """(5, 3, H, W): the picture at the five severities; (1, 3, H, W) for "clean"."""
        one = pixels[image : image + 1]
        if name == "clean":
            return one.float() / 255 if one.dtype == torch.uint8 else one.float()
        return torch.cat([corrupt(one, name, severity, seed=seed, first=image) for severity in SEVERITIES])

    @lru_cache(maxsize=2048)
    def probabilities(model: str, name: str, image: int) -> np.ndarray:
        """(5, classes), (1, classes) for "clean"."""
        network = models[model]
        with evaluating(network, None, seed) as device, torch.inference_mode():
            logits = network(Normalize(network, device)(views(name, image)))
        check_classes(network, logits, None)
        return logits.float().softmax(1).cpu().numpy()

    def draw(corruption: str, severity: int, image: int) -> Figure:
        from stm_lab.figures import corruption_answers

        kinds = ("clean", corruption)
        shown = torch.cat([views(kind, image) for kind in kinds])
        answers = {model: np.concatenate([probabilities(model, kind, image) for kind in kinds]) for model in models}
        truth = known[image] if known[image] >= 0 else None
        if truth is not None and truth >= min(of.shape[1] for of in answers.values()):
            raise UserError(f"image {image}: label {truth}, which not every model has a class for")
        return corruption_answers(shown, answers, severity, corruption=corruption, classes=classes, truth=truth)

    controls = {
        "corruption": widgets.Dropdown(
            options=[(name.replace("_", " "), name) for name in corruptions], description="corruption"
        ),
        "severity": widgets.IntSlider(3, 0, len(SEVERITIES), description="severity"),
        "image": widgets.IntSlider(0, 0, len(pixels) - 1, description="image"),
    }

    def select(panel: int, x: float, y: float) -> Mapping[str, int]:
        return {"severity": min(max(round(x), 0), len(SEVERITIES))} if panel == 3 else {}

    return Explorer(draw, controls, select=select)
