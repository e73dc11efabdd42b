"""Answers to corrupted pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from stm_lab.figures.style import colours, described, plain, styles
from stm_lab.util.errors import UserError, check_known

VALUES = {"mean_error": "error (%)", "ce": "CE (% of the baseline's error)", "relative_ce": "relative CE (%)"}


def severity_curves(results: Mapping[str, object]) -> Figure:
    """Error by severity, a panel a corruption; severity 0 is the clean picture.

    results: for each mixer a result of `corruption_errors`, or a list of its seeds', of which the mean is drawn and,
    shaded, the range. Raises UserError for no results and for some that were not measured alike.
    """
    runs = _runs("severity_curves", results)
    first = next(iter(runs.values()))[0]
    columns = min(5, len(first.corruptions))
    lines = -(-len(first.corruptions) // columns)
    figure = Figure(figsize=(1.5 + 1.75 * columns, 0.6 + 1.75 * lines), dpi=120, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    severities = [0, *first.severities]
    for i, (axes, corruption) in enumerate(zip(panels, first.corruptions, strict=False)):
        for name, style in styles(colours(runs)).items():
            values = np.array([[run.clean_error, *run.error[i]] for run in runs[name]])
            axes.plot(severities, values.mean(0), **style, linewidth=1.7, marker="o", markersize=2.5, label=name)
            if len(values) > 1:
                axes.fill_between(
                    severities, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0
                )
        axes.set_title(_words(corruption), fontsize=9)
        axes.set(xticks=severities, ylim=(0, 100))
        axes.tick_params(labelsize=8)
        plain(axes)
    for axes in panels[len(first.corruptions) :]:
        axes.remove()
    figure.supxlabel("severity (0: clean)", fontsize=10)
    figure.supylabel("error (%)", fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    said = [
        f"{name}: {_mean(own, 'clean_error'):.0f}% clean, {np.mean([run.error[:, -1].mean() for run in own]):.0f}% at "
        f"severity {severities[-1]}"
        for name, own in runs.items()
    ]
    return described(figure, "Error by severity, mean of the corruptions: " + "; ".join(said) + ".")


def corruption_heat(results: Mapping[str, object], value: str = "ce") -> Figure:
    """A table in colours: mixers by corruptions, `value` one of mean_error, ce and relative_ce, the mean over seeds.

    Undefined values are left white. Raises UserError for another value, for no results, and for some that were not
    measured alike.
    """
    check_known("value", value, VALUES)
    runs = _runs("corruption_heat", results)
    corruptions = next(iter(runs.values()))[0].corruptions
    table = np.array([np.mean([getattr(run, value) for run in own], 0) for own in runs.values()])  # (mixers, C)
    figure = Figure(figsize=(2.4 + 0.56 * len(corruptions), 1.9 + 0.36 * len(runs)), dpi=120, layout="constrained")
    axes = figure.subplots()
    middle = 50 if value == "mean_error" else 100
    finite = table[np.isfinite(table)]
    reach = max(np.abs(finite - middle).max(initial=0), 1)
    image = axes.imshow(table, cmap="PuOr_r", vmin=middle - reach, vmax=middle + reach, aspect="auto")
    for (line, column), number in np.ndenumerate(table):
        if np.isfinite(number):
            dark = abs(number - middle) > 0.6 * reach
            shown = {"ha": "center", "va": "center", "fontsize": 7, "color": "white" if dark else "black"}
            axes.text(column, line, f"{number:.0f}", **shown)
    axes.set_xticks(
        range(len(corruptions)), [_words(name) for name in corruptions], rotation=40, ha="right", fontsize=8
    )
    axes.set_yticks(range(len(runs)), list(runs), fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, pad=0.01).set_label(VALUES[value], fontsize=8)
    said = [f"{name} {np.nanmean(line):.0f}" for name, line in zip(runs, table, strict=True) if np.isfinite(line).any()]
    return described(figure, f"{VALUES[value]}, mean of the corruptions: " + ", ".join(said) + ".")


def corruption_dots(results: Mapping[str, object]) -> Figure:
    """mCE and relative mCE by mixer, a dot a seed, a bar at their mean. The baseline is at 100.

    Raises UserError for no results, and for some that were not measured alike.
    """
    runs = _runs("corruption_dots", results)
    figure = Figure(figsize=(8.0, 1.4 + 0.34 * len(runs)), dpi=120, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    said = []
    for axes, (value, label) in zip(panels, (("mce", "mCE (%)"), ("relative_mce", "relative mCE (%)")), strict=True):
        means = []
        for line, (name, colour) in enumerate(colours(runs).items()):
            values = [number for number in (getattr(run, value) for run in runs[name]) if np.isfinite(number)]
            if values:
                axes.plot(values, [line] * len(values), "o", color=colour, markersize=7, alpha=0.85)
                axes.plot([np.mean(values)] * 2, [line - 0.3, line + 0.3], color=colour, linewidth=2)
                means.append(f"{name} {np.mean(values):.0f}")
        axes.axvline(100, color="0.4", linewidth=1, linestyle=":")
        axes.set(xlabel=f"{label}\nbelow 100: better than the baseline", ylim=(len(runs) - 0.5, -0.5))
        axes.set_yticks(range(len(runs)), list(runs))
        plain(axes, "x")
        said.append(f"{label}: {', '.join(means) or 'undefined'}.")
    return described(figure, " ".join(said))


def corruption_answers(
    pictures: Sequence[Tensor],
    probabilities: Mapping[str, np.ndarray],
    severity: int,
    *,
    corruption: str,
    classes: Sequence[str] | None = None,
    truth: int | None = None,
) -> Figure:
    """One picture before and after, what each model says to it and how sure it is, and how that changes by severity.

    Args:
        pictures: (3, H, W) in [0, 1], by severity, the clean one first.
        probabilities: of each model (severities, classes), in [0, 1].
        severity: the one that is looked at, 0 for clean.
        corruption: its name. classes: names of the classes, for models with as many; others show numbers.
        truth: the right class. Where it is unknown, the curves follow each model's own answer to the clean picture.

    Panels: clean picture, corrupted picture, answers, curves. Raises UserError for no models.
    """
    if not probabilities:
        raise UserError("corruption_answers: no models")

    def named(of: np.ndarray, number: int) -> str:
        return classes[number] if classes is not None and len(classes) == of.shape[1] else f"class {number}"

    figure, panels = _answers_panels(list(probabilities))
    name = f"{_words(corruption)}, severity {severity}" if severity else "clean"
    own = "" if truth is None else f": {classes[truth] if classes is not None else f'class {truth}'}"
    for axes, picture, title in zip(panels, (pictures[0], pictures[severity]), (f"clean{own}", name), strict=False):
        axes.imshow(np.asarray(picture.permute(1, 2, 0).cpu()), interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=9)
    answers = {model: int(of[severity].argmax()) for model, of in probabilities.items()}
    said = []
    for line, (model, style) in enumerate(styles(colours(probabilities)).items()):
        of, answer = probabilities[model], answers[model]
        sure = 100 * of[severity, answer]
        verdict = "" if truth is None else " - right" if answer == truth else " - wrong"
        filled = style["color"] if truth in (None, answer) else "white"
        panels[2].barh(line, sure, color=filled, edgecolor=style["color"], height=0.72)
        box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
        text = f"{named(of, answer).split(',')[0]}{verdict}"
        panels[2].text(3, line, text, va="center", fontsize=7.5, bbox=box)
        followed = int(of[0].argmax()) if truth is None else truth
        panels[3].plot(100 * of[:, followed], **style, marker="o", markersize=3, linewidth=1.6)
        said.append(f"{model} {text} ({sure:.0f}% sure)")
    _answers_axes(panels[2], panels[3], list(probabilities), severity, len(pictures), truth is not None)
    truly = "" if truth is None else f" The picture{own}."
    return described(figure, f"{name.capitalize()}.{truly} Answers: {'; '.join(said)}.")


def _answers_panels(models: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Two pictures, bars and curves at places computed here: a layout engine would draw everything twice, and an
    explorer has half a second."""
    height, below, side = 2.0 + 0.22 * len(models), 0.5, 1.95  # inches
    names = 0.15 + 0.07 * max(map(len, models))
    left = [0.08, 0.16 + side, 0.2 + 2 * side + names, 3.3 + 2 * side + names]
    width = left[3] + 2.5
    figure = Figure(figsize=(width, height), dpi=100)
    rest = height - below - 0.15
    panels = [
        figure.add_axes((x / width, (below + (rest - side) / 2) / height, side / width, side / height))
        for x in left[:2]
    ]
    panels += [figure.add_axes((x / width, below / height, 2.4 / width, rest / height)) for x in left[2:]]
    return figure, panels


def _answers_axes(
    bars: Axes, curves: Axes, models: Sequence[str], severity: int, severities: int, is_known: bool
) -> None:
    bars.set_yticks(range(len(models)), models, fontsize=8)
    bars.set(ylim=(len(models) - 0.5, -0.5), xlim=(0, 100))
    bars.set_xlabel("confidence (%)" + ("; hollow: wrong" if is_known else ""), fontsize=8)
    curves.axvline(severity, color="0.4", linewidth=1, linestyle=":")
    curves.set(xticks=range(severities), ylim=(-2, 102))
    curves.set_xlabel("severity (0: clean)", fontsize=8)
    curves.set_ylabel(f"confidence in the {'right class' if is_known else 'first answer'} (%)", fontsize=8)
    for axes, grid in ((bars, "x"), (curves, "both")):
        axes.tick_params(labelsize=8)
        plain(axes, grid)


def corruption_sheet(views: Mapping[str, Sequence[Tensor]], severities: Sequence[int] | None = None) -> Figure:
    """Pictures, a column a corruption and a line a severity.

    views: for each corruption its (3, H, W) in [0, 1], one a severity. severities: their numbers; default: from 1 on.
    Raises UserError for no views, and where the numbers of pictures differ.
    """
    counts = {len(pictures) for pictures in views.values()}
    if not views or counts == {0}:
        raise UserError("corruption_sheet: no views")
    lines = counts.pop()
    severities = range(1, lines + 1) if severities is None else severities
    if counts or len(severities) != lines:
        raise UserError("corruption_sheet: not a picture for each severity of each corruption")
    figure = Figure(figsize=(0.78 * len(views) + 0.5, 0.78 * lines + 1.0), dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    grid = figure.subplots(lines, len(views), squeeze=False)
    for column, (name, pictures) in zip(grid.T, views.items(), strict=True):
        for axes, picture in zip(column, pictures, strict=True):
            axes.imshow(np.asarray(picture.permute(1, 2, 0).cpu()), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        column[0].set_title(_words(name), fontsize=7, rotation=35, ha="left", x=0.1)
    for axes, severity in zip(grid[:, 0], severities, strict=True):
        axes.set_ylabel(severity, rotation=0, labelpad=7, va="center", fontsize=8)
    figure.supylabel("severity", fontsize=8)
    numbers = ", ".join(map(str, severities))
    return described(
        figure, f"One picture, corrupted in {len(views)} ways at severities {numbers}: {', '.join(views)}."
    )


def _runs(where: str, results: Mapping[str, object]) -> dict[str, list]:
    """The results of each mixer, in a list."""
    runs = {name: [own] if hasattr(own, "mean_error") else list(own) for name, own in results.items()}
    if not runs or not all(runs.values()):
        raise UserError(f"{where}: no results")
    kinds = {(run.corruptions, run.severities, run.table) for own in runs.values() for run in own}
    if len(kinds) > 1:
        raise UserError(f"{where}: results of different corruptions or severities")
    return runs


def _mean(runs: Sequence, value: str) -> float:
    return float(np.mean([getattr(run, value) for run in runs]))


def _words(name: str) -> str:
    return name.removesuffix("_transform").removesuffix("_compression").replace("_", " ")
