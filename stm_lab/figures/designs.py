"""From an original network to the unified one: what each step adds, and what each level of steps does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter

from stm_lab.designs import CORNERS
from stm_lab.figures.cost import few_costs
from stm_lab.figures.draw import beside, board, named_rows
from stm_lab.figures.style import BLUE, CHANCE, by_name, colours, described, drawing, legend, plain
from stm_lab.util.errors import UserError, check_known

LEVEL_COLOURS = {"network": "#0072B2", "block": "#E69F00", "size": "#8C8C8C"}
_NUMBER = EngFormatter(places=2, sep=" ")


@drawing
def design_steps(rows: Sequence[Mapping], metrics: Mapping[str, str], *, title: str = "") -> Figure:
    """A waterfall for each metric: from the first design to the last, a bar a step, in the colour of its level.

    rows: in their order, dictionaries with step, level (None for the first) and every metric; a metric that is None in
    a row is left out there. metrics: key -> label with its unit. The axes do not begin at 0: a bar's length is a
    difference, and the two ends are dots. Raises UserError for fewer than two rows, or a row without a metric.
    """
    if len(rows) < 2:
        raise UserError(f"design_steps: {len(rows)} rows; a step needs the design before it")
    steps = list(by_name(rows, "step", "level", *metrics))
    figure, panels = board(len(metrics), len(metrics), (2.9, 1.4 + 0.36 * len(rows)), room=(2.2, 0), sharey=True)
    said = []
    for axes, (key, label) in zip(panels, metrics.items(), strict=True):
        known = [(place, row) for place, row in enumerate(rows) if row[key] is not None]
        named_rows(axes, steps)
        axes.set_xlabel(label)
        if known:
            _waterfall(axes, known, key)
            said.append(f"{label}: {_short(known[0][1][key])} to {_short(known[-1][1][key])}")
    _level_legend(figure, rows)
    figure.suptitle(title, fontsize=10)
    return described(figure, f"{title} Steps from {steps[0]}: {', '.join(steps[1:])}. {'; '.join(said)}.".strip())


def _waterfall(axes: Axes, known: Sequence[tuple[int, Mapping]], key: str) -> None:
    for (above, before), (place, row) in pairwise(known):
        start, end = before[key], row[key]
        axes.plot([start, start], [above, place], color="0.6", linewidth=0.8, zorder=1)
        colour = LEVEL_COLOURS.get(row["level"], "0.3")
        axes.barh(place, end - start, left=start, height=0.55, color=colour, zorder=2)
        said = _short(end - start, signed=True) if end != start else "0"
        is_last = place == known[-1][0]
        beside(axes, (max(start, end), place), f"{said}, in all {_short(end)}" if is_last else said, (6, 0))
    for place, row in (known[0], known[-1]):
        axes.plot(row[key], place, "o", color="black", markersize=5, zorder=3)
    place, row = known[0]
    beside(axes, (row[key], place), _short(row[key]), (6, 0))
    axes.use_sticky_edges = False  # bars would hold the axis to their ends, and the numbers beside them be cut
    axes.margins(x=0.06)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.5 * (high - low))  # for the numbers at the right
    few_costs(axes)


def _level_legend(figure: Figure, rows: Sequence[Mapping]) -> None:
    levels = [level for level in LEVEL_COLOURS if any(row["level"] == level for row in rows)]
    handles = [Line2D([], [], color=LEVEL_COLOURS[level], linewidth=6, label=f"{level} level") for level in levels]
    legend(figure, handles, "lower center", ncols=3, fontsize=9)


def _short(value: float, *, signed: bool = False) -> str:
    sign = "+" if signed and value > 0 else ""
    return f"{sign}{_NUMBER(value)}" if abs(value) >= 1000 else f"{sign}{value:.3g}"


@drawing
def design_levels(rows: Sequence[Mapping], metrics: Mapping[str, str]) -> Figure:
    """What the steps of each level add up to, in percent of the original: one panel a metric, one group a mixer.

    rows: dictionaries with mixer, step, level and every metric, for each mixer in the order of the steps. metrics: key
    -> label.
    """
    by_mixer = by_name(rows, "mixer", "step", "level", *metrics)
    levels = [level for level in LEVEL_COLOURS if any(row["level"] == level for row in rows)]
    size = (3.2, 1.3 + 0.55 * len(by_mixer))
    figure, panels = board(len(metrics), len(metrics), size, room=(1.6, 0), sharey=True)
    said, height = [], 0.8 / max(len(levels), 1)
    for axes, (key, label) in zip(panels, metrics.items(), strict=True):
        for place, (mixer, group) in enumerate(by_mixer.items()):
            gains = level_gains(group, key)
            for i, level in enumerate(levels):
                percent = 100 * gains.get(level, 0.0) / group[0][key]
                at = place + (i - (len(levels) - 1) / 2) * height
                bar = axes.barh(at, percent, height=0.9 * height, color=LEVEL_COLOURS[level])
                axes.bar_label(bar, [f"{percent:+.1f}"], padding=3, fontsize=8)
                said.append(f"{mixer}, {label}, {level} {percent:+.1f}%")
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.set_xlabel(f"{label}, % of the original")
        axes.margins(x=0.25)
        named_rows(axes, list(by_mixer))
    _level_legend(figure, rows)
    return described(figure, f"Sums of the steps of each level: {'; '.join(said)}.")


def level_gains(rows: Sequence[Mapping], key: str) -> dict[str, float]:
    """The sums of the changes that the steps of each level make; rows in the order of the steps."""
    gains: dict[str, float] = {}
    for before, row in pairwise(rows):
        gains[row["level"]] = gains.get(row["level"], 0) + row[key] - before[key]
    return gains


@drawing
def design_corners(
    rows: Sequence[Mapping], *, metric: str = "top1", label: str = "top-1 accuracy (%)", chance: float | None = None
) -> Figure:
    """Both ways from original to unified, one panel a mixer: the network's steps first, or those of the block.

    rows: dictionaries with mixer, design (original, network, block or unified: which steps were taken), seed and the
    metric. Dots are seeds, lines join the means; beside each line stands the gain. If the two estimates of one level's
    gain differ, its worth depends on the other level. Raises UserError for no rows, or an unknown design.
    """
    by_mixer = by_name(rows, "mixer", "design", "seed", metric)
    figure, panels = board(len(by_mixer), len(by_mixer), (3.6, 3.6), room=(1.2, 0), sharey=True)
    said = []
    for axes, (mixer, colour) in zip(panels, colours(by_mixer).items(), strict=True):
        values = {name: [row[metric] for row in some] for name, some in by_name(by_mixer[mixer], "design").items()}
        for name in values:
            check_known("design", name, CORNERS, "design_corners: ")
        means = {name: mean(of_seeds) for name, of_seeds in values.items()}
        _paths(axes, values, means, colour)
        if chance is not None:
            axes.axhline(chance, **CHANCE)
        axes.set_title(mixer, fontsize=10)
        said.append(f"{mixer}: " + ", ".join(f"{name} {means[name]:.1f}" for name in CORNERS if name in means))
    panels[0].set_ylabel(label)
    ways = (("-", "s", "network first, then block"), ("--", "^", "block first, then network"))
    handles = [Line2D([], [], color="0.3", linestyle=line, marker=mark, label=text) for line, mark, text in ways]
    legend(figure, handles, "lower center", ncols=2, fontsize=9)
    return described(figure, f"{label}, means over seeds: {'; '.join(said)}.")


def _paths(axes: Axes, values: Mapping[str, Sequence[float]], means: Mapping[str, float], colour: str) -> None:
    places = {"original": (0.0, "o"), "network": (0.94, "s"), "block": (1.06, "^"), "unified": (2.0, "o")}
    for name, of_seeds in values.items():
        x, marker = places[name]
        axes.plot([x] * len(of_seeds), of_seeds, marker, color=colour, alpha=0.45, markersize=5)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for way, style, along in (("network", "-", 0.35), ("block", "--", 0.65)):  # so that no number covers another
        for (one, other), share in ((("original", way), along), ((way, "unified"), 1 - along)):
            if one not in means or other not in means:
                continue
            xs, ys = (places[one][0], places[other][0]), (means[one], means[other])
            axes.plot(xs, ys, style, color=colour, linewidth=1.8)
            at = (xs[0] + share * (xs[1] - xs[0]), ys[0] + share * (ys[1] - ys[0]))
            axes.annotate(f"{ys[1] - ys[0]:+.1f}", at, ha="center", va="center", fontsize=8, bbox=box)
    axes.set_xticks([0, 1, 2], ["original", "one level", "unified"])
    axes.set_xlim(-0.3, 2.3)
    axes.margins(y=0.18)
    plain(axes, "y")


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
