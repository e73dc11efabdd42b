"""Designs between the original and the unified one: in words, and what their parts cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter

from stm_lab.figures.cost import few_costs
from stm_lab.figures.draw import named_rows
from stm_lab.figures.style import BLUE, described, drawing

_NUMBER = EngFormatter(places=2, sep=" ")


@drawing
def design_parts(designs: Mapping[str, Sequence[Mapping]], words: Sequence[tuple[str, str, str, str]]) -> Figure:
    """A design between the original and the unified: in words, and what its parts cost beside those of the two.

    designs: rows by part, as `measure.cost(model).rows("role")` gives them, of "original", "now" and "unified". words:
    for each step its name and its value in the three designs.
    """
    figure = Figure(figsize=(11, 3.9), dpi=120)  # without a layout engine: it is drawn anew at every click
    table, *panels = figure.subplots(1, 3, width_ratios=[1.5, 1, 1])
    figure.subplots_adjust(left=0.01, right=0.985, top=0.86, bottom=0.22, wspace=0.55)
    _words_table(table, words)
    parts = list(dict.fromkeys(row["part"] for rows in designs.values() for row in rows if row["part"] != "total"))
    said = []
    for axes, key, label in zip(panels, ("parameters", "macs"), ("parameters", "MACs"), strict=True):
        counts = {name: {row["part"]: row[key] for row in rows} for name, rows in designs.items()}
        costs = {name: [of.get(part, 0) for part in parts] for name, of in counts.items()}
        called = "now, and the number beside the part"
        axes.barh(range(len(parts)), costs["now"], color="#B3B3B3", height=0.6, label=called)
        for name, marker, colour, size in (("original", "|", "black", 14), ("unified", "D", BLUE, 4)):
            look = {"color": colour, "markersize": size, "linestyle": ""}
            axes.plot(costs[name], range(len(parts)), marker, label=name, **look)
        named_rows(axes, [f"{part}  {_NUMBER(cost)}" for part, cost in zip(parts, costs["now"], strict=True)])
        totals = [f"{name} {_NUMBER(of['total'])}" for name, of in counts.items()]
        axes.set_title(f"{label}\n{'  |  '.join(totals)}", fontsize=8, x=0.38)  # above names and axis
        few_costs(axes)
        axes.set_xlabel(label, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.set_xlim(0, 1.08 * max(map(max, costs.values())))
        said.append(f"{label}: {', '.join(totals)}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower right", ncols=3, frameon=False, fontsize=8)
    choice = ", ".join(f"{name} {now}" for name, _, now, _ in words)
    return described(figure, f"A design with {choice}. {'; '.join(said)}.")


def _words_table(axes: Axes, words: Sequence[tuple[str, str, str, str]]) -> None:
    """Four columns; the word under `now` is grey if it is the original's, and blue if it is the unified one's."""
    axes.axis("off")
    columns, step = (0.0, 0.31, 0.55, 0.79), 1 / (len(words) + 1)
    for x, name in zip(columns, ("step", "original", "now", "unified"), strict=True):
        axes.text(x, 1 - step / 2, name, weight="bold", size=8.5, va="center")
    for line, (name, original, now, unified) in enumerate(words, 1):
        y = 1 - (line + 0.5) * step
        if original != unified:
            colour = {original: "#D9D9D9", unified: "#BBD9EE"}.get(now, "white")
            axes.add_patch(Rectangle((columns[2] - 0.01, y - 0.45 * step), 0.23, 0.9 * step, color=colour))
        shown = (name, original, now, unified) if original != unified else (name, "-")
        for x, word in zip(columns, shown, strict=False):
            axes.text(x, y, word, size=8.5, va="center")
    axes.set(xlim=(0, 1), ylim=(0, 1))
