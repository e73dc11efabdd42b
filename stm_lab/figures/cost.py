"""What a model costs: parameters, multiply-adds, speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from stm_lab.figures.style import plain


def cost_by_part(rows: Sequence[Mapping]) -> Figure:
    """Parameters and multiply-adds of each part of a model, as shares of the whole, with the numbers.

    rows: dictionaries with model, part, parameters, macs, and a last one called total, as `cost` gives.
    """
    *parts, total = rows
    figure = Figure(figsize=(9.5, 1.3 + 0.3 * len(parts)), dpi=120, layout="constrained")
    panels = zip(figure.subplots(1, 2, sharey=True), ("parameters", "macs"), ("parameters", "MACs"), strict=True)
    number = EngFormatter(places=2, sep=" ")
    for axes, key, label in panels:
        shares = [100 * row[key] / max(total[key], 1) for row in parts]
        bars = axes.barh([row["part"] for row in parts], shares, color="#0072B2", height=0.65)
        axes.bar_label(bars, [number(row[key]) for row in parts], padding=4, fontsize=8)
        axes.set(xlabel=f"share of {number(total[key])} {label} (%)", xlim=(0, 1.2 * max(shares)))
        plain(axes, "x")
    axes.invert_yaxis()  # shared: the first part on top in both
    figure.suptitle(total["model"], fontsize=10)
    return figure


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
    return figure
