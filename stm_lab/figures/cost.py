"""What a model costs: parameters, multiply-adds, speed, memory; and how little one of them says of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from stm_lab.figures.style import colours, described, grouped, legend_beside, number, plain, styles
from stm_lab.stats import spearman

ROLE_COLOURS = {  # of Okabe and Ito's palette; the parts that all mixers share are grey or pale
    "stem": "#999999",
    "mixers": "#D55E00",
    "MLPs": "#56B4E9",
    "downsampling": "#CCCCCC",
    "head": "#009E73",
    "rest": "#F0E442",
}


def cost_by_part(rows: Sequence[Mapping]) -> Figure:
    """Parameters and multiply-adds of each part of a model, as shares of the whole, with the numbers.

    rows: dictionaries with model, part, parameters, macs, and a last one called total, as `cost` gives.
    """
    *parts, total = rows
    figure = Figure(figsize=(9.5, 1.3 + 0.3 * len(parts)), dpi=120, layout="constrained")
    panels = zip(figure.subplots(1, 2, sharey=True), ("parameters", "macs"), ("parameters", "MACs"), strict=True)
    for axes, key, label in panels:
        shares = [100 * row[key] / max(total[key], 1) for row in parts]
        bars = axes.barh([row["part"] for row in parts], shares, color="#0072B2", height=0.65)
        axes.bar_label(bars, [number(row[key]) for row in parts], padding=4, fontsize=8)
        axes.set(xlabel=f"share of {number(total[key])} {label} (%)", xlim=(0, 1.2 * max(shares)))
        plain(axes, "x")
    axes.invert_yaxis()  # shared: the first part on top in both
    figure.suptitle(total["model"], fontsize=10)
    said = "; ".join(f"{row['part']} {number(row['parameters'])} and {number(row['macs'])}" for row in rows)
    return described(figure, f"Parameters and MACs of {total['model']} by part: {said}.")


def throughput_repeats(model: str, repeats: Sequence[float]) -> Figure:
    """Images a second in each repeat, with their median: level if the machine was left alone."""
    figure = Figure(figsize=(6, 3), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(repeats) + 1), repeats, "o", color="#0072B2")
    axes.axhline(np.median(repeats), color="#D55E00", linewidth=1.5, label=f"median {np.median(repeats):.4g}")
    axes.set(xlabel="repeat", ylabel="images per second", title=model)
    axes.set_ylim(0, 1.15 * max(repeats))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes, "y")
    axes.legend(frameon=False)
    said = f"median {np.median(repeats):.4g}, from {min(repeats):.4g} to {max(repeats):.4g} in {len(repeats)} repeats"
    return described(figure, f"Images a second of {model}: {said}.")


def shares_by_role(rows: Sequence[Mapping], key: str, label: str) -> Figure:
    """What stem, mixers, MLPs, downsampling, head and the rest take of a cost: a bar a model, its total beside it.

    rows: dictionaries with model, role and `key`, of one or more models, each with a row whose role (or part) is total.
    A share below 0, of a rest that was had by difference, is drawn as 0. Raises UserError for rows without the keys.
    """
    groups = grouped(rows, ("model", key), by=("model",))
    totals = {name: next(row[key] for row in of if _role(row) == "total") for (name,), of in groups.items()}
    figure = Figure(figsize=(8.5, 1.4 + 0.42 * len(groups)), dpi=120, layout="constrained")
    axes = figure.subplots()
    shares = {}
    for (name,), of in groups.items():
        shares[name] = {_role(row): max(0.0, 100 * row[key] / (totals[name] or 1)) for row in of}
        left = 0.0
        for role, colour in ROLE_COLOURS.items():
            share = shares[name].get(role, 0.0)
            axes.barh(name, share, left=left, color=colour, height=0.65, edgecolor="white", label=role)
            if share >= 6:
                axes.text(left + share / 2, name, f"{share:.0f}", ha="center", va="center", fontsize=8)
            left += share
        axes.annotate(number(totals[name]), (left, name), (5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set(xlabel=label, xlim=(0, 114))
    axes.invert_yaxis()
    plain(axes, "x")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[: len(ROLE_COLOURS)], labels[: len(ROLE_COLOURS)], loc="outside right center", frameon=False)
    words = (
        f"{name}: " + ", ".join(f"{role} {share:.0f}%" for role, share in of.items() if role in ROLE_COLOURS)
        for name, of in shares.items()
    )
    return described(figure, f"{label} by part. " + "; ".join(words))


def _role(row: Mapping) -> str:
    return row.get("role") or row["part"]


def relative_costs(costs: Mapping[str, Mapping[str, float]], baseline: str) -> Figure:
    """Several meanings of cost side by side, each as a multiple of the baseline's: a line a model, on a log axis.

    costs: {model: {meaning: number}}, all larger than 0, the higher the dearer; the baseline is one of the models.
    Lines that cross are models whose order depends on what "cost" means.
    """
    meanings = list(costs[baseline])
    figure = Figure(figsize=(8.5, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    times = {name: [of[meaning] / costs[baseline][meaning] for meaning in meanings] for name, of in costs.items()}
    for name, style in styles(colours(costs)).items():
        axes.plot(range(len(meanings)), times[name], **style, marker="o", linewidth=2, markersize=5, label=name)
    low, high = min(map(min, times.values())), max(map(max, times.values()))
    axes.set(yscale="log", ylabel=f"times that of {baseline}", ylim=(low / 1.15, high * 1.15))
    axes.set_xticks(range(len(meanings)), [meaning.replace(", ", "\n") for meaning in meanings])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    plain(axes, "y")
    legend_beside(figure, axes)
    words = (
        f"{name}: " + ", ".join(f"{meaning} {value:.2g}" for meaning, value in zip(meanings, of, strict=True))
        for name, of in times.items()
    )
    return described(figure, f"Costs as multiples of {baseline}'s. " + "; ".join(words))


def cost_against_cost(points: Mapping[str, tuple[float, float]], labels: tuple[str, str], title: str = "") -> Figure:
    """One kind of cost over another, a named dot a model, with the rank correlation of the two: 1 is the same order.

    points: {model: (x, y)}. Without correlation for fewer than three models.
    """
    figure = Figure(figsize=(5.6, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, colour in colours(points).items():
        axes.plot(*points[name], "o", color=colour, markersize=8)
        axes.annotate(name, points[name], (7, 4), textcoords="offset points", fontsize=8)
    x, y = zip(*points.values(), strict=True)
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, 1.22 * max(x)), ylim=(0, 1.12 * max(y)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(number)
    said = f"rank correlation {spearman(x, y):+.2f}" if len(points) > 2 else "too few for a correlation"
    axes.set_title(f"{title}: {said}" if title else said, fontsize=10)
    plain(axes)
    words = "; ".join(f"{name} {a:.3g}, {b:.3g}" for name, (a, b) in points.items())
    return described(figure, f"{labels[1]} over {labels[0]}, {said}. {words}")


def macs_over_size(macs: Mapping[str, Mapping[int, float]]) -> Figure:
    """Multiply-adds for each pixel of the image, over the image's side: {model: {side in pixels: MACs of the image}}.

    A level line is a cost that grows as the number of pixels does; one that rises with slope 2 grows with its square.
    """
    figure = Figure(figsize=(7.5, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    each = {name: {side: value / side**2 for side, value in of.items()} for name, of in macs.items()}
    for name, style in styles(colours(macs)).items():
        axes.plot(
            list(each[name]), list(each[name].values()), **style, marker="o", linewidth=2, markersize=4, label=name
        )
    sides = sorted({side for of in macs.values() for side in of})
    axes.set(xscale="log", yscale="log", xlabel="side of the image (pixels)", ylabel="MACs per pixel of the image")
    axes.xaxis.set_major_locator(FixedLocator(sides))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter(number)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plain(axes)
    legend_beside(figure, axes)
    words = (
        f"{name}: {of[min(of)]:.3g} at {min(of)} pixels, {of[max(of)]:.3g} at {max(of)}" for name, of in each.items()
    )
    return described(figure, "MACs for each pixel by the image's side. " + "; ".join(words))
