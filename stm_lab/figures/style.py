"""What all figures share: colours, line styles, legends, number formats, and alternative texts."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator

from stm_lab.util.errors import UserError

# Okabe and Ito's palette, a grey, and further colours at the same distance from it and from each other: at least 15 in
# CIELAB, also as seen with protanopia, deuteranopia or tritanopia (Machado et al. 2009).
MIXER_COLOURS = {
    "halo": "#E69F00",
    "swin": "#0072B2",
    "pvt": "#009E73",
    "pvt_v2": "#56B4E9",
    "convnext": "#D55E00",
    "dcn_v3": "#CC79A7",
    "identity": "#000000",
    "pooling": "#5A5A5A",
}
OTHER_COLOURS = ("#9911EE", "#662200", "#BBAA55", "#440055", "#AA77FF", "#110088", "#AA5533", "#003333")
BLUE, RED = "#0072B2", "#D55E00"  # of marks that stand for no mixer
CONTROLS = ("identity", "pooling")
_DASHES = ("-", ":", "-.")
CHANCE = {"color": "0.4", "linestyle": ":", "linewidth": 1.5, "label": "chance"}
_MOST = 6  # points of a line that its alternative text lists
_Arguments = ParamSpec("_Arguments")


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name: a mixer's own; other names take `OTHER_COLOURS` in turn.

    The colours repeat after the last one; `styles` tells lines of one colour apart.
    """
    names = list(dict.fromkeys(names))
    others = dict(zip((n for n in names if n not in MIXER_COLOURS), itertools.cycle(OTHER_COLOURS), strict=False))
    return {name: MIXER_COLOURS.get(name) or others[name] for name in names}


def styles(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Colour and line style for each name: controls are dashed, and each further line of one colour differs."""
    before: Counter[str] = Counter()
    drawn = {}
    for name, colour in colours(names).items():
        dash = "--" if name in CONTROLS else _DASHES[before[colour] % len(_DASHES)]
        drawn[name] = {"color": colour, "linestyle": dash}
        before[colour] += 1
    return drawn


_LARGE = EngFormatter(places=2, sep=" ")


def number(value: float, _: int | None = None) -> str:
    """A cost in few digits, for ticks as well: 1.23 M for 1,230,000, and 0.5 for half a millisecond, not 500 m."""
    if abs(value) < 999.5:
        return f"{value:.3g}"
    digits, _, prefix = _LARGE(value).partition(" ")
    return f"{digits.rstrip('0').rstrip('.')} {prefix}".rstrip()


def by_name(rows: Sequence[Mapping], name: str | tuple[str, ...], *keys: str) -> dict[Any, list[Mapping]]:
    """Rows by their value of `name`, or by the values of several keys, in order of appearance.

    Raises UserError for no rows or a row without one of the keys.
    """
    if not rows:
        raise UserError("no rows to draw")
    names = (name,) if isinstance(name, str) else name
    groups: dict[Any, list[Mapping]] = {}
    for i, row in enumerate(rows):
        for key in (*names, *keys):
            if key not in row:
                raise UserError(f"row {i}: no {key!r}, only {', '.join(row)}")
        groups.setdefault(row[name] if isinstance(name, str) else tuple(row[key] for key in names), []).append(row)
    return groups


def curves_of(rows: Sequence[Mapping], name: str, x: str, y: str) -> dict[Any, dict[Any, list[float]]]:
    """{name: {x: ys}} of rows, x ascending, as `lines` draws them; rows whose y is None are left out.

    Raises UserError for no rows or a row without one of the keys.
    """
    curves: dict[Any, dict[Any, list[float]]] = {}
    for key, some in by_name(rows, name, x, y).items():
        known = [row for row in some if row[y] is not None]
        curves[key] = {at: [row[y] for row in known if row[x] == at] for at in sorted({row[x] for row in known})}
    return curves


def plain(axes: Axes, grid: str = "both") -> None:
    """No frame but the two axes, and a light grid below the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def legend(
    figure: Figure, entries: Axes | Iterable[Axes | Artist], where: str = "right center", **options: Any
) -> None:
    """A legend beside the panels, of all labelled artists of `entries`: panels, or the artists themselves."""
    entries = [entries] if isinstance(entries, Axes) else list(entries)
    handles = {}
    for entry in entries:
        each = entry.get_legend_handles_labels()[0] if isinstance(entry, Axes) else [entry]
        handles |= {handle.get_label(): handle for handle in each if handle.get_label() not in handles}
    figure.legend(handles=list(handles.values()), loc=f"outside {where}", **{"frameon": False, **options})


def dot(colour: str, label: str, **options: Any) -> Line2D:
    """A legend's entry: a dot, or another marker."""
    return Line2D([], [], **{"marker": "o", "linestyle": "", "color": colour, "label": label, **options})


def drawing(draw: Callable[_Arguments, Figure]) -> Callable[_Arguments, Figure]:
    """A public figure: it refuses an empty first argument, and has an alternative text, by default that of `in_words`.

    Raises UserError if the first argument has no items, or only empty ones.
    """

    @functools.wraps(draw)
    def drawn(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Figure:
        first = args[0] if args else next(iter(kwargs.values()))
        items = first.values() if isinstance(first, Mapping) else first
        if hasattr(first, "__len__") and not any(not hasattr(item, "__len__") or len(item) for item in items):
            raise UserError(f"{draw.__name__}: nothing to draw")
        figure = draw(*args, **kwargs)
        return figure if figure.get_label() else described(figure, in_words(figure))

    return drawn


def described(figure: Figure, text: str) -> Figure:
    """The figure with its alternative text, which notebooks and saved files take from the figure's label."""
    figure.set_label(text.replace("\n", " "))
    return figure


def in_words(figure: Figure) -> str:
    """The figure's titles, axes and marks as text: what its labels say, and the numbers that are drawn."""
    panels = [_panel(axes) for axes in figure.axes if axes.get_label() != "<colorbar>"]
    words = [figure.get_suptitle(), figure.get_supylabel(), figure.get_supxlabel(), *panels]
    return ". ".join(" ".join(text.split()) for text in words if text) + "."


def _panel(axes: Axes) -> str:
    labels = " by ".join(filter(None, (axes.get_ylabel(), axes.get_xlabel())))
    rows, columns = _names(axes.yaxis), _names(axes.xaxis)
    if rows and not axes.images:
        marks = [f"{name} {values}" for line, name in rows.items() if (values := _in_row(axes, line))]
    else:
        marks = [_points(line, columns) for line in axes.lines if not line.get_label().startswith("_")]
    if not marks and axes.images and axes.images[0].get_array().ndim == 2 and not axes.texts:
        values = axes.images[0].get_array()
        marks = [f"from {np.nanmin(values):.3g} to {np.nanmax(values):.3g}"]
    marks = marks or [text.get_text() for text in axes.texts if text.get_text().strip()]
    return ": ".join(filter(None, (axes.get_title(), labels, "; ".join(marks))))


def _names(axis: Axis) -> dict[float, str]:
    """The ticks of an axis that has names instead of numbers."""
    if not isinstance(axis.get_major_locator(), FixedLocator):
        return {}
    ticks = axis.get_ticklocs()
    names = dict(zip(ticks, axis.get_major_formatter().format_ticks(ticks), strict=True))
    return names if any(name[:1].isalpha() for name in names.values()) else {}


def _points(line: Line2D, names: Mapping[float, str]) -> str:
    """A labelled line as text: some of its points, or where it stands if it is upright or level."""
    xs, ys = (np.asarray(values, float) for values in line.get_data())
    if len(xs) == 2 and line.get_marker() == "None" and (xs[0] == xs[1] or ys[0] == ys[1]):
        return f"{line.get_label()} at {xs[0] if xs[0] == xs[1] else ys[0]:.3g}"
    known = [(x, y) for x, y in zip(xs, ys, strict=True) if np.isfinite(y)]
    if not known:
        return f"{line.get_label()}: no values"
    listed = known if len(known) <= _MOST else [known[0], max(known, key=lambda point: point[1]), known[-1]]
    places = {x: names.get(x) or _brief(x) for x, _ in listed}
    return f"{line.get_label()}: " + ", ".join(f"{_brief(y)} at {places[x]}" for x, y in dict.fromkeys(listed))


def _brief(value: float) -> str:
    return number(value) if abs(value) >= 10_000 else f"{value:.4g}"


def _in_row(axes: Axes, row: float) -> str:
    """The dots and bars that stand in one row of a panel whose rows have names."""
    dots = (line for line in axes.lines if line.get_marker() == "o")
    values = [x for line in dots for x, y in line.get_xydata() if abs(y - row) < 0.5]
    values += [bar.get_width() for bar in axes.patches if abs(bar.get_y() + bar.get_height() / 2 - row) < 0.5]
    return ", ".join(f"{value:.4g}" for value in values)
