"""From an original network to the unified one: what each step adds, and what each level of steps does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import mean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator

from stm_lab.designs import CORNERS
from stm_lab.figures.style import CHANCE, colours, described, grouped, plain
from stm_lab.measure.receptive import high_contribution_area, high_contribution_side
from stm_lab.util.errors import UserError, check_known

LEVEL_COLOURS = {"network": "#0072B2", "block": "#E69F00", "size": "#8C8C8C"}
_NUMBER = EngFormatter(places=2, sep=" ")


def design_steps(rows: Sequence[Mapping], metrics: Mapping[str, str], *, title: str = "") -> Figure:
    """A waterfall for each metric: from the first design to the last, a bar a step, in the colour of its level.

    rows: in their order, dictionaries with step, level (None for the first) and every metric; a metric that is None in
    a row is left out there. metrics: key -> label with its unit. The axes do not begin at 0: a bar's length is a
    difference, and the two ends are dots.
    Raises UserError for fewer than two rows, or a row without one of the metrics.
    """
    if len(rows) < 2:
        raise UserError(f"design_steps: {len(rows)} rows; a step needs the design before it")
    grouped(rows, ("step", "level", *metrics), ("step",))
    figure = Figure(figsize=(2.2 + 2.9 * len(metrics), 1.4 + 0.36 * len(rows)), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    said = []
    for axes, (key, label) in zip(panels, metrics.items(), strict=True):
        _waterfall(axes, rows, key)
        axes.set_xlabel(label)
        values = [row[key] for row in rows if row[key] is not None]
        if values:
            said.append(f"{label}: {_short(values[0])} to {_short(values[-1])}")
    panels[0].set_yticks(range(len(rows)), [row["step"] for row in rows])
    panels[0].invert_yaxis()
    levels = [level for level in LEVEL_COLOURS if any(row["level"] == level for row in rows)]
    handles = [Line2D([], [], color=LEVEL_COLOURS[level], linewidth=6, label=f"{level} level") for level in levels]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=10)
    names = ", ".join(row["step"] for row in rows[1:])
    return described(figure, f"{title} Steps from {rows[0]['step']}: {names}. {'; '.join(said)}.".strip())


def _waterfall(axes: Axes, rows: Sequence[Mapping], key: str) -> None:
    known = [(place, row) for place, row in enumerate(rows) if row[key] is not None]
    for (above, before), (place, row) in pairwise(known):
        start, end = before[key], row[key]
        colour = LEVEL_COLOURS.get(row["level"], "0.3")
        axes.plot([start, start], [above, place], color="0.6", linewidth=0.8, zorder=1)
        axes.barh(place, end - start, left=start, height=0.55, color=colour, zorder=2)
        said = _short(end - start, signed=True) if end != start else "0"
        is_last = (place, row) == known[-1]
        _beside(axes, max(start, end), place, f"{said}, in all {_short(end)}" if is_last else said)
    for place, row in (known[0], known[-1]) if known else ():
        axes.plot(row[key], place, "o", color="black", markersize=5, zorder=3)
    if known:
        place, row = known[0]
        _beside(axes, row[key], place, _short(row[key]))
    axes.use_sticky_edges = False  # bars would hold the axis to their ends, and the numbers beside them be cut
    axes.margins(x=0.06)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.5 * (high - low))  # for the numbers at the right
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    plain(axes, "x")


def _beside(axes: Axes, x: float, y: float, text: str) -> None:
    """To the right of a bar's or a dot's end."""
    axes.annotate(text, (x, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)


def _short(value: float, *, signed: bool = False) -> str:
    sign = "+" if signed and value > 0 else ""
    return f"{sign}{_NUMBER(value)}" if abs(value) >= 1000 else f"{sign}{value:.3g}"


def design_levels(rows: Sequence[Mapping], metrics: Mapping[str, str]) -> Figure:
    """What the steps of each level add up to, in percent of the original: one panel a metric, one group a mixer.

    rows: dictionaries with mixer, step, level and every metric, for each mixer in the order of the steps. metrics: key
    -> label. Raises UserError for no rows, or one without a metric.
    """
    by_mixer = {key[0]: group for key, group in grouped(rows, ("mixer", "step", "level", *metrics), ("mixer",)).items()}
    levels = [level for level in LEVEL_COLOURS if any(row["level"] == level for row in rows)]
    figure = Figure(figsize=(1.6 + 3.2 * len(metrics), 1.3 + 0.55 * len(by_mixer)), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
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
        plain(axes, "x")
    panels[0].set_yticks(range(len(by_mixer)), list(by_mixer))
    panels[0].invert_yaxis()
    handles = [Line2D([], [], color=LEVEL_COLOURS[level], linewidth=6, label=f"{level} level") for level in levels]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return described(figure, f"Sums of the steps of each level: {'; '.join(said)}.")


def level_gains(rows: Sequence[Mapping], key: str) -> dict[str, float]:
    """The sums of the changes that the steps of each level make; rows in the order of the steps."""
    gains: dict[str, float] = {}
    for before, row in pairwise(rows):
        gains[row["level"]] = gains.get(row["level"], 0) + row[key] - before[key]
    return gains


def design_corners(
    rows: Sequence[Mapping], *, metric: str = "top1", label: str = "top-1 accuracy (%)", chance: float | None = None
) -> Figure:
    """Both ways from original to unified, one panel a mixer: the network's steps first, or those of the block.

    rows: dictionaries with mixer, design (original, network, block or unified: which steps were taken), seed and the
    metric. Dots are seeds, lines join the means; beside each line stands the gain. If the two estimates of one level's
    gain differ, its worth depends on the other level.
    Raises UserError for no rows, or a design that is none of these.
    """
    by_mixer = grouped(rows, ("mixer", "design", "seed", metric), ("mixer",))
    figure = Figure(figsize=(1.2 + 3.6 * len(by_mixer), 3.6), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(by_mixer), sharey=True, squeeze=False)[0]
    colour, said = colours(mixer for (mixer,) in by_mixer), []
    for axes, ((mixer,), group) in zip(panels, by_mixer.items(), strict=True):
        values = {key[0]: [row[metric] for row in some] for key, some in grouped(group, (metric,), ("design",)).items()}
        for name in values:
            check_known("design", name, CORNERS, "design_corners: ")
        means = {name: mean(of_seeds) for name, of_seeds in values.items()}
        _paths(axes, values, means, colour[mixer])
        if chance is not None:
            axes.axhline(chance, **CHANCE)
        axes.set_title(mixer, fontsize=10)
        said.append(f"{mixer}: " + ", ".join(f"{name} {means[name]:.1f}" for name in CORNERS if name in means))
    panels[0].set_ylabel(label)
    styles = {"network": ("-", "s", "network first, then block"), "block": ("--", "^", "block first, then network")}
    handles = [Line2D([], [], color="0.3", linestyle=line, marker=m, label=text) for line, m, text in styles.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return described(figure, f"{label}, means over seeds: {'; '.join(said)}.")


def _paths(axes: Axes, values: Mapping[str, Sequence[float]], means: Mapping[str, float], colour: str) -> None:
    places = {"original": 0.0, "network": 0.94, "block": 1.06, "unified": 2.0}
    markers = {"original": "o", "network": "s", "block": "^", "unified": "o"}
    for name, of_seeds in values.items():
        axes.plot([places[name]] * len(of_seeds), of_seeds, markers[name], color=colour, alpha=0.45, markersize=5)
    ways = (("network", "-", 0.35), ("block", "--", 0.65))  # numbers at other places, so that none is on another
    for way, style, along in ways:
        for one, other in (("original", way), (way, "unified")):
            if one not in means or other not in means:
                continue
            xs, ys = (places[one], places[other]), (means[one], means[other])
            axes.plot(xs, ys, style, color=colour, linewidth=1.8)
            share = along if one == "original" else 1 - along
            axes.annotate(
                f"{ys[1] - ys[0]:+.1f}",
                (xs[0] + share * (xs[1] - xs[0]), ys[0] + share * (ys[1] - ys[0])),
                ha="center",
                va="center",
                fontsize=8,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
    axes.set_xticks([0, 1, 2], ["original", "one level", "unified"])
    axes.set_xlim(-0.3, 2.3)
    axes.margins(y=0.18)
    plain(axes, "y")


def design_fields(walks: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Receptive fields along one or more ways from design to design: a row a way, a column a step.

    walks: {way: {step: (H, W) contributions, not negative}}, steps in their order. Colours are one scale for all, of
    the share of its field that a pixel has. The white square is the smallest centred one that holds half of the field,
    the number its share of the image. Raises UserError for no maps, or an empty one.
    """
    length = max((len(steps) for steps in walks.values()), default=0)
    if not length:
        raise UserError("design_fields: no maps")
    sides = {
        way: {name: high_contribution_side(each, 0.5) for name, each in steps.items()} for way, steps in walks.items()
    }
    shares = {way: {name: each / each.sum() for name, each in steps.items()} for way, steps in walks.items()}
    top = max(share.max() for steps in shares.values() for share in steps.values())
    norm = LogNorm(top * 1e-4, top, clip=True)
    figure = Figure(figsize=(1.3 + 1.4 * length, 0.2 + 1.8 * len(walks)), dpi=120, layout="constrained")
    grid = figure.subplots(len(walks), length, squeeze=False)
    said = []
    for line, (way, steps) in zip(grid, shares.items(), strict=True):
        areas = []
        for axes, (name, share) in zip(line, steps.items(), strict=False):
            area, side = 100 * high_contribution_area(share, 0.5), sides[way][name]
            image = axes.imshow(np.maximum(share, norm.vmin), norm=norm, cmap="inferno", interpolation="nearest")
            corner = (share.shape[1] // 2 - side / 2, share.shape[0] // 2 - side / 2)
            axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1.1))
            axes.set(xticks=[], yticks=[])
            axes.set_title(name if axes is line[0] else f"+ {name}", fontsize=9)
            axes.set_xlabel(f"half in {area:.1f}%", fontsize=8, labelpad=2)
            areas.append(f"{name} {area:.1f}%")
        for axes in line[len(steps) :]:
            axes.set_axis_off()
        line[0].set_ylabel(way, fontsize=9)
        said.append(f"{way}: {', '.join(areas)}")
    bar = figure.colorbar(image, ax=list(grid.ravel()), shrink=0.75, aspect=25, pad=0.015)
    bar.set_label("share of contribution", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return described(
        figure,
        f"Receptive fields, and the share of the image in the square that holds half of each. {'; '.join(said)}.",
    )


def design_parts(designs: Mapping[str, Sequence[Mapping]], words: Sequence[tuple[str, str, str, str]]) -> Figure:
    """A design between the original and the unified: in words, and what its parts cost beside those of the two.

    designs: rows by part, as `measure.cost(model).rows("role")` gives, of "original", "now" and "unified". words: for
    each step its name and what the three say.
    """
    figure = Figure(figsize=(11, 3.9), dpi=120)  # laid out by hand: it is drawn anew at every click
    table, *panels = figure.subplots(1, 3, width_ratios=[1.5, 1, 1])
    figure.subplots_adjust(left=0.01, right=0.985, top=0.86, bottom=0.22, wspace=0.55)
    _words_table(table, words)
    parts = list(dict.fromkeys(row["part"] for rows in designs.values() for row in rows if row["part"] != "total"))
    said = []
    for axes, key, label in zip(panels, ("parameters", "macs"), ("parameters", "MACs"), strict=True):
        counts = {name: {row["part"]: row[key] for row in rows} for name, rows in designs.items()}
        now = [counts["now"].get(part, 0) for part in parts]
        axes.barh(range(len(parts)), now, color="#B3B3B3", height=0.6, label="now, and the number beside the part")
        for name, marker, colour, size in (("original", "|", "black", 14), ("unified", "D", "#0072B2", 4)):
            values = [counts[name].get(part, 0) for part in parts]
            axes.plot(values, range(len(parts)), marker, color=colour, markersize=size, label=name, linestyle="")
        axes.set_yticks(
            range(len(parts)), [f"{part}  {_NUMBER(value)}" for part, value in zip(parts, now, strict=True)]
        )
        totals = [f"{name} {_NUMBER(counts[name]['total'])}" for name in designs]
        axes.set_title(f"{label}\n{'  |  '.join(totals)}", fontsize=8, x=0.38)  # from the names on, not from the axis
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(label, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.set_xlim(0, 1.08 * max(max(counts[name].get(part, 0) for part in parts) for name in designs))
        axes.invert_yaxis()
        plain(axes, "x")
        said.append(f"{label}: {', '.join(totals)}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="lower right", ncols=3, frameon=False, fontsize=8)
    choice = ", ".join(f"{name} {now}" for name, _, now, _ in words)
    return described(figure, f"A design with {choice}. {'; '.join(said)}.")


def _words_table(axes: Axes, words: Sequence[tuple[str, str, str, str]]) -> None:
    """Four columns; what `now` says is grey where it is the original's word, and blue where it is the unified one's."""
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
