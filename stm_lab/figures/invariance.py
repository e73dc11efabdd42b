"""Answers as the picture moves, turns and changes its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from stm_lab.figures.style import GRID, colours, described, legend_beside, plain, styles
from stm_lab.util.errors import UserError

AXES = {
    "translation": "shift (pixels along each moved axis)",
    "rotation": "rotation before the crop (degrees)",
    "rotation_after_crop": "rotation after the crop (degrees)",
    "scale": "size of the content (times as large)",
}
_WAYS = {
    "published, as its axis says": {"linestyle": ":", "marker": "s"},
    "published, at the true strength": {"linestyle": "--", "marker": "^"},
    "straight": {"linestyle": "-", "marker": "o"},
}


def consistency_curves(curves: Mapping[str, object]) -> Figure:
    """How often the answer stays as the picture moves, by mixer.

    curves: for each mixer a result of `invariance`, a list of such results (its seeds), or a pair (strengths, values):
    strengths (S,) in pixels, values in percent, (S,), or (runs, S). The mean is drawn and, shaded, the range.
    Raises UserError for no curves, for values that do not fit their strengths, and for results of several kinds.
    """
    if not curves:
        raise UserError("consistency_curves: no curves")
    figure = Figure(figsize=(6.6, 3.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    said = _draw(
        axes, {name: _read("consistency_curves", name, curve, "consistency") for name, curve in curves.items()}
    )
    kind = _kind("consistency_curves", curves)
    axes.set(xlabel=AXES[kind], ylabel="same answer as for the standard view (%)")
    _limits(axes, kind)
    legend_beside(figure, axes)
    return described(figure, f"Consistency by {AXES[kind]}. {said}")


def invariance_curves(results: Mapping[str, object], *, chance: float | None = None) -> Figure:
    """Accuracy beside consistency, by mixer: what is right, and what stays.

    results: for each mixer a result of `invariance`, or a list of its seeds'. Where labels are unknown the left panel
    is left out. chance: the accuracy of a guess, in percent. Raises UserError as `consistency_curves`.
    """
    if not results:
        raise UserError("invariance_curves: no curves")
    kind = _kind("invariance_curves", results)
    labelled = all(run.accuracy is not None for curve in results.values() for run in _runs(curve))
    quantities = {"accuracy": "accuracy (%)"} if labelled else {}
    quantities["consistency"] = "same answer as for the standard view (%)"
    figure = Figure(figsize=(2.4 + 4.0 * len(quantities), 3.6), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(quantities), squeeze=False)[0]
    said = []
    for axes, (quantity, label) in zip(panels, quantities.items(), strict=True):
        read = {name: _read("invariance_curves", name, curve, quantity) for name, curve in results.items()}
        said.append(f"{quantity.capitalize()}: {_draw(axes, read)}")
        axes.set(xlabel=AXES[kind], ylabel=label)
        _limits(axes, kind)
        axes.set_ylim(bottom=0)
    if labelled and chance is not None:
        panels[0].axhline(chance, color="0.4", linestyle=":", linewidth=1.5)
        panels[0].annotate(
            "chance", (0.99, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom", size=8
        )
    legend_beside(figure, panels[-1])
    return described(figure, f"By {AXES[kind]}. " + " ".join(said))


def protocols_compared(published: Mapping[str, object], straight: Mapping[str, object]) -> Figure:
    """Consistency of the published protocol and of the straight one, a panel a mixer.

    The dotted curve is the published one on its own axis; the dashed one has each of its points where the picture
    really was. What is between dotted and dashed is the bent axis; what is between dashed and solid the black bars (and
    the missing direction). Results as in `invariance_curves`, with one standard view for both protocols.
    Raises UserError for no results, or for mixers that only one of the two has.
    """
    if not published or set(published) != set(straight):
        raise UserError(f"protocols_compared: published {', '.join(published)}; straight {', '.join(straight)}")
    kind = _kind("protocols_compared", straight)
    columns = min(3, len(published))
    lines = -(-len(published) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.7 * lines + 0.5), dpi=120, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    said = []
    for axes, (name, colour) in zip(panels, colours(published).items(), strict=False):
        curves = {
            "published, as its axis says": _read(
                "protocols_compared", name, published[name], "consistency", "strengths"
            ),
            "published, at the true strength": _read("protocols_compared", name, published[name], "consistency"),
            "straight": _read("protocols_compared", name, straight[name], "consistency"),
        }
        for label, (strengths, values) in curves.items():
            axes.plot(strengths, values.mean(0), color=colour, **_WAYS[label], markersize=3, linewidth=1.6, label=label)
        axes.set_title(name, fontsize=10)
        plain(axes)
        strengths, values = curves["published, as its axis says"]
        ends = f"published {values.mean(0)[-1]:.0f}% at nominal {strengths[-1]:g}"
        strengths, values = curves["straight"]
        said.append(f"{name}: {ends}, straight {values.mean(0)[-1]:.0f}% at {strengths[-1]:g}.")
    for axes in panels[len(published) :]:
        axes.remove()
    for axes in panels[: len(published)]:  # once all is drawn: a limit that is set holds for the other panels, too
        _limits(axes, kind)
    figure.supxlabel(AXES[kind], fontsize=10)
    figure.supylabel("same answer (%)", fontsize=10)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=8
    )
    return described(figure, f"Consistency, published and straight, by {AXES[kind]}. " + " ".join(said))


def bent_axis(strengths: Sequence[float], true_strengths: Sequence[float], size: int) -> Figure:
    """What the published translation does to a picture: its true shift, and how much of the view is black.

    strengths, true_strengths: (S,) in pixels, of a published result; size: the view's side in pixels.
    """
    strengths, true = np.asarray(strengths, float), np.asarray(true_strengths, float)
    bar = strengths - true  # on each side: what the picture did not move by
    figure = Figure(figsize=(8.4, 3.2), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(strengths, strengths, color="0.4", linewidth=1, label="as the axis says")
    left.plot(strengths, true, "o-", color="#D55E00", linewidth=2, markersize=4, label="as it is")
    left.set(xlabel="published axis (pixels)", ylabel="shift of the content (pixels)", xlim=(0, None), ylim=(0, None))
    left.legend(frameon=False, fontsize=8)
    share = {"along an axis": 2 * bar / size, "along a diagonal": 1 - (1 - 2 * bar / size) ** 2}
    for (label, values), (colour, line) in zip(share.items(), (("#0072B2", "s-"), ("#009E73", "^--")), strict=True):
        right.plot(strengths, 100 * values, line, color=colour, linewidth=2, markersize=4, label=label)
    right.set(xlabel="published axis (pixels)", ylabel="black part of the view (%)", xlim=(0, None), ylim=(0, None))
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        plain(axes)
    return described(
        figure,
        f"Views of {size} pixels. At {strengths[-1]:g} on the published axis the content has moved by {true[-1]:g}; "
        f"{100 * share['along an axis'][-1]:.0f}% of the view is black for a shift along an axis, "
        f"{100 * share['along a diagonal'][-1]:.0f}% along a diagonal.",
    )


def feature_drift(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, period: int) -> Figure:
    """How far features go from where they were as the picture moves, a line a mixer, with the shifts that repeat.

    curves: for each mixer (shifts, values): pixels, and the change in percent. period: pixels between the upright
    lines, where a network of convolutions repeats. Raises UserError for no curves, and for values that do not fit.
    """
    if not curves:
        raise UserError("feature_drift: no curves")
    read = {name: _read("feature_drift", name, curve, "") for name, curve in curves.items()}
    figure = Figure(figsize=(7.4, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    last = max(shifts[-1] for shifts, _ in read.values())
    for place in np.arange(period, last + 1, period):
        axes.axvline(place, **{**GRID, "color": "0.6"})
    said = []
    for name, style in styles(colours(read)).items():
        shifts, values = read[name]
        axes.plot(shifts, values[0], **style, linewidth=1.8, marker="o", markersize=2.5, label=name)
        back = np.interp(period, shifts, values[0])
        said.append(f"{name} {values[0].max():.0f}% at most, {back:.0f}% at {period}")
    axes.set(xlabel="shift (pixels)", ylabel="change of the averaged features\n(% of what the picture adds)")
    axes.set_xlim(0, last)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 4, 8, 10]))
    plain(axes)
    legend_beside(figure, axes)
    return described(figure, f"Change of the averaged features by shift: {'; '.join(said)}.")


def steady_and_right(rows: Sequence[Mapping], label: str) -> Figure:
    """One dot a mixer (and seed): its accuracy on the standard view against the consistency under some change.

    rows: dictionaries with `mixer`, `accuracy` and `consistency`, in percent. label: which change. Raises UserError for
    no rows.
    """
    if not rows:
        raise UserError("steady_and_right: no rows")
    figure = Figure(figsize=(5.6, 4.0), dpi=120, layout="constrained")
    axes = figure.subplots()
    said = []
    for name, colour in colours([row["mixer"] for row in rows]).items():
        own = [row for row in rows if row["mixer"] == name]
        right, same = ([row[key] for row in own] for key in ("accuracy", "consistency"))
        axes.plot(right, same, "o", color=colour, markersize=8, alpha=0.85, label=name)
        said.append(f"{name} {np.mean(right):.0f}% right, {np.mean(same):.0f}% the same")
    axes.set(xlabel="accuracy on the standard view (%)", ylabel=f"same answer (%), {label}")
    plain(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return described(figure, f"Accuracy on the standard view against consistency, {label}: " + "; ".join(said) + ".")


# ---- what they share -------------------------------------------------------------------------------------------------


def _draw(axes: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    said = []
    for name, style in styles(colours(curves)).items():
        strengths, values = curves[name]
        mean = values.mean(0)
        axes.plot(strengths, mean, **style, linewidth=2, marker="o", markersize=3.5, label=name)
        if len(values) > 1:
            axes.fill_between(strengths, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0)
        said.append(f"{name} {mean[0]:.0f}% at {strengths[0]:g}, {mean[-1]:.0f}% at {strengths[-1]:g}")
    plain(axes)
    return "; ".join(said) + "."


def _limits(axes: Axes, kind: str) -> None:
    axes.set_ylim(top=101)
    if kind == "scale":
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.axvline(1, **{**GRID, "color": "0.6"})
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 3, 5, 10]))


def _runs(curve: object) -> list[object]:
    """The results of one mixer's seeds; none of a pair of numbers."""
    if hasattr(curve, "consistency"):
        return [curve]
    return [run for run in curve if hasattr(run, "consistency")]


def _kind(where: str, curves: Mapping[str, object]) -> str:
    found = {run.kind for curve in curves.values() for run in _runs(curve)}
    if len(found) > 1:
        raise UserError(f"{where}: results of different kinds: {', '.join(sorted(found))}")
    return found.pop() if found else "translation"


def _read(
    where: str, name: str, curve: object, quantity: str, axis: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Strengths (S,) and values (runs, S). axis: which strengths of a result; default: what was really done."""
    runs = _runs(curve)
    if runs:
        curve = (getattr(runs[0], axis or "true_strengths"), [getattr(run, quantity) for run in runs])
    strengths, values = (np.asarray(part, dtype=float) for part in curve)
    values = np.atleast_2d(values)
    if strengths.shape != values.shape[1:]:
        raise UserError(f"{where}: {name} has strengths {strengths.shape} for values {values.shape}")
    return strengths, values
