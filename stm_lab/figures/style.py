"""What all figures share: colours, line styles, grids, legends."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter

from stm_lab.util.errors import UserError

# Okabe and Ito's palette, and a grey and further colours that keep the same distance from it and from each other: at
# least 15 in CIELAB, also as seen with protanopia, deuteranopia or tritanopia (Machado et al. 2009).
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
CONTROLS = ("identity", "pooling")
_DASHES = ("-", ":", "-.")
GRID = {"color": "0.9", "linewidth": 0.8}
CHANCE = {"color": "0.4", "linestyle": ":", "linewidth": 1.5, "label": "chance"}


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name: a mixer's own, and for others those of `OTHER_COLOURS` in their order.

    They begin again after the last: lines of one colour are told apart by `styles`.
    """
    names = list(dict.fromkeys(names))
    others = dict(zip((n for n in names if n not in MIXER_COLOURS), itertools.cycle(OTHER_COLOURS), strict=False))
    return {name: MIXER_COLOURS.get(name) or others[name] for name in names}


def accuracy_label(images: str | None) -> str:
    return f"top-1 accuracy (%)\non {images}" if images else "top-1 accuracy (%)"


_LARGE = EngFormatter(places=2, sep=" ")


def number(value: float, _: int | None = None) -> str:
    """A cost in few digits, for ticks as well: 1.23 M for 1,230,000, and 0.5 for half a millisecond, not 500 m."""
    if abs(value) < 999.5:
        return f"{value:.3g}"
    digits, _, prefix = _LARGE(value).partition(" ")
    return f"{float(digits):g} {prefix}".rstrip()


def grouped(rows: Sequence[Mapping], keys: Sequence[str], by: Sequence[str]) -> dict[tuple, list[Mapping]]:
    """Rows by the values of `by`, in order of appearance, once it is sure that each has all `keys`."""
    if not rows:
        raise UserError("no rows to draw")
    groups: dict[tuple, list[Mapping]] = {}
    for i, row in enumerate(rows):
        for key in keys:
            if key not in row:
                raise UserError(f"row {i}: no {key!r}, only {', '.join(row)}")
        groups.setdefault(tuple(row[key] for key in by), []).append(row)
    return groups


def styles(colour: Mapping[str, str]) -> dict[str, dict]:
    """Of lines: controls are dashed, and so is a line whose colour another line has, each time in another way."""
    before: Counter[str] = Counter()
    drawn = {}
    for name, c in colour.items():
        drawn[name] = {"color": c, "linestyle": "--" if name in CONTROLS else _DASHES[before[c] % len(_DASHES)]}
        before[c] += 1
    return drawn


def plain(axes: Axes, grid: str = "both") -> None:
    """No frame but the two axes, and a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, **GRID)
    axes.set_axisbelow(True)


def legend_beside(figure: Figure, axes: Axes) -> None:
    """A legend to the right of the panels, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    handles = [Line2D([], [], color=h.get_color(), linestyle=h.get_linestyle(), linewidth=2.2) for h in handles]
    figure.legend(handles, labels, loc="outside right center", frameon=False)


def framed(
    axes: Axes,
    row: float,
    column: float,
    tall: float = 1,
    wide: float = 1,
    *,
    first: float = -0.5,
    colour: str = "white",
) -> None:
    """A frame, dark outside and light inside, that is seen on any ground: round one token, or `tall` x `wide`.

    first: where row 0 and column 0 begin, as imshow places them; 0 where the image's extent starts there.
    """
    for edge, line in (("black", 3.0), (colour, 1.4)):
        corner = (column + first, row + first)
        axes.add_patch(Rectangle(corner, wide, tall, fill=False, edgecolor=edge, linewidth=line, zorder=6))


def described(figure: Figure, text: str) -> Figure:
    """The figure with its alternative text: what someone who cannot see it is told, numbers rather than colours.

    It is kept as the figure's label, from where notebooks and saved files take it.
    """
    figure.set_label(text)
    return figure
