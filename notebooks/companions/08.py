"""Notebook 08's own: receptive fields from design to design, and a switch for each step between two designs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import ipywidgets as widgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator

from stm_lab import designs, measure
from stm_lab.explore.shell import Explorer
from stm_lab.figures.draw import board, colour_bar, named_rows
from stm_lab.figures.maps import share_of_field
from stm_lab.figures.style import BLUE, described, drawing
from stm_lab.measure.receptive import high_contribution_area
from stm_lab.models import build_model
from stm_lab.util.errors import UserError

_NUMBER = EngFormatter(places=2, sep=" ")


@drawing
def design_fields(walks: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Receptive fields along one or more paths from design to design: a row per path, a column per step.

    walks: {path: {step: (H, W) contributions, not negative}}, steps in order. All panels share one colour scale, a
    pixel's share of its field. The white square is the smallest centred one that holds half of the field; the number
    is its share of the image. Raises UserError without maps, and for an empty one.
    """
    length = max(map(len, walks.values()))
    figure, panels = board(length * len(walks), length, (1.4, 1.8), room=(1.3, 0.2))
    areas = [{name: high_contribution_area(map_, 0.5) for name, map_ in steps.items()} for steps in walks.values()]
    top = max((map_ / map_.sum()).max() for steps in walks.values() for map_ in steps.values())
    said = []
    for line, area, (way, steps) in zip(panels.reshape(-1, length), areas, walks.items(), strict=True):
        for axes, (name, map_) in zip(line, steps.items(), strict=False):
            image = share_of_field(axes, map_, top)
            axes.set_title(name if axes is line[0] else f"+ {name}", fontsize=9)
            axes.set_xlabel(f"half in {100 * area[name]:.1f}%", fontsize=8, labelpad=2)
        for axes in line[len(steps) :]:
            axes.set_axis_off()
        line[0].set_ylabel(way, fontsize=9)
        said.append(f"{way}: " + ", ".join(f"{name} {100 * share:.1f}%" for name, share in area.items()))
    colour_bar(figure, image, panels, "share of contribution", aspect=25)
    return described(figure, f"Receptive fields, and the share of the area that holds half of each. {'; '.join(said)}.")


def few_costs(axes: Axes) -> None:
    """Few x ticks, written as costs: 1.2 M."""
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_major_locator(MaxNLocator(4))


@drawing
def design_parts(designs: Mapping[str, Sequence[Mapping]], words: Sequence[tuple[str, str, str, str]]) -> Figure:
    """A design between the original and the unified: in words, and the cost of its parts beside those of both.

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
        called = "now (its number beside the part)"
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


_DEFAULT = ("swin", "convnext", "pvt", "pvt_v2", "halo", "dcn_v3")


_COUNTS = ("parameters", "macs")


# The fields of a design that determine the cost of a part: it is counted once for all networks that share them.
_DEPENDS = {
    "stem": ("stem",),
    "mixers": ("depths", "options"),
    "MLPs": ("depths", "mlp_ratios"),
    "downsampling": ("downsample",),
    "head": ("head",),
    "rest": ("depths", "branches", "layer_scale", "stage_norms"),  # norms, scales
}


def design_steps(mixers: Sequence[str] = _DEFAULT, *, scale: str = "tiny", image_size: int | None = None) -> Explorer:
    """A switch for each step from an original network to the unified one: the design in words, its parameters and
    multiply-adds by part beside both ends.

    If the mixer's original lacks a step (it equals the unified network there), its switch changes nothing, and the
    table shows a dash.

    mixers: to choose from, each with an original at this `scale` (see `designs.original_scales`). image_size: side of
    the image that multiply-adds are counted for; default: the model's own.
    Raises UserError without mixers and for unknown names.
    """
    if not mixers:
        raise UserError("design_steps: no mixers")
    names = {mixer: designs.step_names(mixer, scale) for mixer in mixers}
    known = {name.replace(" ", "_"): name for of_mixer in names.values() for name in of_mixer}  # by the control's name

    @cache
    def changed(mixer: str, name: str) -> tuple[str, ...]:
        """The fields and options of a design that a step changes."""
        return tuple(designs.steps(mixer, scale, order=[name])[-1].after)

    costs: dict[tuple, dict] = {}  # by (mixer, part, values of its fields)

    @cache
    def counted(mixer: str, order: tuple[str, ...]) -> tuple[designs.Step, list[dict]]:
        step = designs.steps(mixer, scale, order=order)[-1]
        keys = [
            (mixer, part, *(repr(getattr(step.design, field)) for field in fields)) for part, fields in _DEPENDS.items()
        ]
        if not all(key in costs for key in keys):
            model = build_model(mixer, scale, design=step.design, device="meta")
            found = {row["part"]: row for row in measure.cost(model, image_size=image_size).rows("role")}
            costs.update({key: found.get(key[1], {"part": key[1], "parameters": 0, "macs": 0}) for key in keys})
        rows = [costs[key] for key in keys]
        return step, [*rows, {"part": "total"} | {name: sum(row[name] for row in rows) for name in _COUNTS}]

    def words(mixer: str, step: designs.Step, name: str) -> str:
        """A design's settings of what a step changes; a dash if the mixer's original has no such step."""
        if name not in names[mixer]:
            return "-"
        design = step.design
        values = [getattr(design, field, design.options.get(field)) for field in changed(mixer, name)]
        return ", ".join(dict.fromkeys(_plain(value) for value in values))

    def draw(mixer: str, **taken: bool) -> Figure:
        order = tuple(name for name in names[mixer] if taken[name.replace(" ", "_")])
        unified = counted(mixer, tuple(names[mixer]))  # counted first: designs between the ends then share most parts
        found = {"original": counted(mixer, ()), "now": counted(mixer, order), "unified": unified}
        table = [(name, *(words(mixer, step, name) for step, _ in found.values())) for name in known.values()]
        return design_parts({which: rows for which, (_, rows) in found.items()}, table)

    switches = {word: widgets.Checkbox(False, description=name, indent=False) for word, name in known.items()}
    return Explorer(draw, {"mixer": widgets.Dropdown(options=list(mixers), value=mixers[0]), **switches})


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "none"
    if isinstance(value, float):
        return f"{value:g}" if value else "none"
    return str(value).replace("_", " ")
