"""Notebook 13's own: errors as a table and as dots, the meaning of severities, and answers to one corrupted image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab.explore.parts import as_floats, checked_pixels, clipped, shares
from stm_lab.explore.shell import Explorer, State
from stm_lab.figures.draw import board, colour_bar, dots, named_rows, numbers, picture, placed
from stm_lab.figures.scores import MEASURED, alike, words
from stm_lab.figures.style import colours, described, drawing, plain, styles
from stm_lab.measure.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stm_lab.util.errors import UserError, check_known

VALUES = {"mean_error": "error (%)", "ce": "CE (% of the baseline's error)", "relative_ce": "relative CE (%)"}


@drawing
def corruption_heat(results: Mapping[str, object], value: str = "ce") -> Figure:
    """Draw a heat map, mixers by corruptions; `value` is mean_error, ce or relative_ce, averaged over seeds.

    Undefined values are left white. Raises UserError for another value, for no results, and for results that were not
    measured alike.
    """
    check_known("value", value, VALUES)
    runs = alike("corruption_heat", results, *MEASURED)
    corruptions = next(iter(runs.values()))[0].corruptions
    table = np.array([np.mean([getattr(run, value) for run in own], 0) for own in runs.values()])  # (mixers, C)
    figure, (axes,) = board(1, 1, (2.4 + 0.56 * len(corruptions), 1.9 + 0.36 * len(runs)))
    middle = 50 if value == "mean_error" else 100
    reach = max(np.nanmax(np.abs(np.append(table, middle) - middle)), 1)
    image = axes.imshow(table, cmap="PuOr_r", vmin=middle - reach, vmax=middle + reach, aspect="auto")
    numbers(axes, image, [f"{number:.0f}" if np.isfinite(number) else "" for number in table.flat])
    called = [words(name) for name in corruptions]
    axes.set_xticks(range(len(corruptions)), called, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(runs)), list(runs), fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    colour_bar(figure, image, [axes], VALUES[value], shrink=1, pad=0.01)
    said = [f"{name} {np.nanmean(line):.0f}" for name, line in zip(runs, table, strict=True) if np.isfinite(line).any()]
    return described(figure, f"{VALUES[value]}, mean of the corruptions: " + ", ".join(said) + ".")


@drawing
def corruption_dots(results: Mapping[str, object]) -> Figure:
    """Plot mCE and relative mCE by mixer, one dot per seed and a bar at their mean. The baseline is at 100.

    Raises UserError for no results, and for results that were not measured alike.
    """
    runs = alike("corruption_dots", results, *MEASURED)
    figure, panels = board(2, 2, (4.0, 0.34 * len(runs)), room=(0, 1.4), sharey=True)
    said = []
    for axes, (value, label) in zip(panels, (("mce", "mCE (%)"), ("relative_mce", "relative mCE (%)")), strict=True):
        means = []
        for row, (name, colour) in enumerate(colours(runs).items()):
            values = [number for number in (getattr(run, value) for run in runs[name]) if np.isfinite(number)]
            if values:
                dots(axes, values, row, colour)
                axes.plot([np.mean(values)] * 2, [row - 0.3, row + 0.3], color=colour, linewidth=2)
                means.append(f"{name} {np.mean(values):.0f}")
        axes.axvline(100, color="0.4", linewidth=1, linestyle=":")
        named_rows(axes, list(runs))
        axes.set_xlabel(f"{label}\nbelow 100: better than the baseline")
        said.append(f"{label}: {', '.join(means) or 'undefined'}.")
    return described(figure, " ".join(said))


@drawing
def corruption_answers(
    pictures: Sequence[Tensor],
    probabilities: Mapping[str, np.ndarray],
    severity: int,
    *,
    corruption: str,
    classes: Sequence[str] | None = None,
    truth: int | None = None,
) -> Figure:
    """Draw an image before and after, with each model's answer and confidence, and the confidence by severity.

    Args:
        pictures: (3, H, W) in [0, 1], by severity, the clean one first.
        probabilities: of each model (severities, classes), in [0, 1].
        severity: the one that is shown, 0 for clean.
        corruption: its name. classes: names of the classes, for models with as many; others show numbers.
        truth: the right class. If it is unknown, the curves follow each model's own answer to the clean picture.

    Panels: clean picture, corrupted picture, answers, curves.
    """

    def named(of: np.ndarray, number: int) -> str:
        return classes[number] if classes is not None and len(classes) == of.shape[1] else f"class {number}"

    is_known = truth is not None
    figure, (clean, corrupted, bars, curves) = _answers_panels(list(probabilities))
    name = f"{words(corruption)}, severity {severity}" if severity else "clean"
    own = f": {classes[truth] if classes is not None else f'class {truth}'}" if is_known else ""
    picture(clean, np.asarray(pictures[0].permute(1, 2, 0).cpu()), f"clean{own}")
    picture(corrupted, np.asarray(pictures[severity].permute(1, 2, 0).cpu()), name)
    said = []
    for row, (model, style) in enumerate(styles(probabilities).items()):
        of = probabilities[model]
        answer, followed = int(of[severity].argmax()), truth if is_known else int(of[0].argmax())
        sure = 100 * of[severity, answer]
        verdict = "" if not is_known else " - right" if answer == truth else " - wrong"
        filled = style["color"] if truth in (None, answer) else "white"
        bars.barh(row, sure, color=filled, edgecolor=style["color"], height=0.72)
        box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
        text = f"{named(of, answer).split(',')[0]}{verdict}"
        bars.text(3, row, text, va="center", fontsize=7.5, bbox=box)
        curves.plot(100 * of[:, followed], **style, marker="o", markersize=3, linewidth=1.6)
        said.append(f"{model} {text} ({sure:.0f}% sure)")
    named_rows(bars, list(probabilities), fontsize=8)
    bars.set_xlim(0, 100)
    bars.set_xlabel("confidence (%)" + ("; hollow: wrong" if is_known else ""), fontsize=8)
    curves.axvline(severity, color="0.4", linewidth=1, linestyle=":")
    curves.set(xticks=range(len(pictures)), ylim=(-2, 102))
    curves.set_xlabel("severity (0: clean)", fontsize=8)
    curves.set_ylabel(f"confidence in the {'right class' if is_known else 'first answer'} (%)", fontsize=8)
    plain(curves)
    for axes in (bars, curves):
        axes.tick_params(labelsize=8)
    truly = f" The picture{own}." if is_known else ""
    return described(figure, f"{name.capitalize()}.{truly} Answers: {'; '.join(said)}.")


def _answers_panels(models: Sequence[str]) -> tuple[Figure, list]:
    """Two pictures, bars and curves, in inches; the bars' names need room."""
    height, below, side = 2.0 + 0.22 * len(models), 0.5, 1.95
    names = 0.15 + 0.07 * max(map(len, models))
    left = [0.08, 0.16 + side, 0.2 + 2 * side + names, 3.3 + 2 * side + names]
    width, rest = left[3] + 2.5, height - below - 0.15
    square = ((below + (rest - side) / 2) / height, side / width, side / height)
    boxes = [(x / width, *square) for x in left[:2]]
    boxes += [(x / width, below / height, 2.4 / width, rest / height) for x in left[2:]]
    return placed((width, height), boxes)


# The meaning of a severity's numbers. For 224 pixels those of elastic_transform are multiples of 244, as in the script
# (whose authors note that 224 was meant).
MEANING = {
    "gaussian_noise": "standard deviation",
    "shot_noise": "photons of a white pixel",
    "impulse_noise": "share of the values that become 0 or 1",
    "defocus_blur": "radius of the disk, and sigma of the blur that smooths its edge",
    "glass_blur": "sigma, distance of the copied pixels, number of repeats",
    "motion_blur": "radius and sigma of the trail",
    "zoom_blur": "first, end and step of the enlargements that are averaged",
    "snow": "mean and deviation of the flakes' noise, its enlargement, threshold, radius and sigma of their trails, "
    "share of the image that is not whitened",
    "frost": "weight of the image, weight of the frost",
    "fog": "thickness, and decay of its structure per octave",
    "brightness": "increase of the value (of hue, saturation, value)",
    "contrast": "remaining share of the deviation from the mean",
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
    """Explore every model's prediction and confidence for one image, by corruption and severity.

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
        return corruption_answers(shown, of_models, severity, corruption=corruption, classes=classes, truth=truth)

    def select(panel: int, x: float, y: float, _: State) -> State:
        return {"severity": clipped(x, len(SEVERITIES) + 1)} if panel == 3 else {}

    controls = {
        "corruption": widgets.Dropdown(options=[(name.replace("_", " "), name) for name in CORRUPTIONS]),
        "severity": widgets.IntSlider(3, 0, len(SEVERITIES)),
        "image": widgets.IntSlider(0, 0, len(pixels) - 1),
    }
    return Explorer(draw, controls, select=select)
