"""A mixer of one's own, on the bench: what it learns to fetch from afar, and who it hears beside what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stm_lab.figures.style import colours, described, framed, grouped, legend_beside, number, plain, styles
from stm_lab.util.errors import UserError

_MARKERS = "osD^vP*X"


def fetched(rows: Sequence[Mapping]) -> Figure:
    """What is left of the error when a mixer alone has learned to bring tokens from `offset` columns away.

    rows: with mixer, offset (tokens) and error (share of the target's square: 1 is knowing nothing, 0 all); those of
    one mixer and offset are averaged. Raises UserError for no rows or one that lacks a key.
    """
    by_mixer = grouped(rows, ("mixer", "offset", "error"), ("mixer",))
    figure = Figure(figsize=(7.5, 3.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    said = []
    drawn = styles(colours(name for (name,) in by_mixer))
    for marker, ((name,), some) in zip(_MARKERS * len(by_mixer), by_mixer.items(), strict=False):
        means = {}
        for row in sorted(some, key=lambda row: row["offset"]):
            means.setdefault(row["offset"], []).append(row["error"])
        means = {offset: float(np.mean(errors)) for offset, errors in means.items()}
        axes.plot(
            list(means), list(means.values()), **drawn[name], marker=marker, markersize=6, linewidth=2, label=name
        )
        said.append(f"{name} {', '.join(f'{offset}: {error:.2f}' for offset, error in means.items())}")
    offsets = sorted({row["offset"] for row in rows})
    axes.axhline(1, color="0.4", linestyle=":", linewidth=1.5, label="knows nothing")
    axes.set(xlabel="asked for: the token so many columns to the left", ylabel="error left (share)", xticks=offsets)
    axes.set_ylim(-0.05, max(1.15, 1.05 * max(row["error"] for row in rows)))
    plain(axes)
    legend_beside(figure, axes)
    return described(figure, f"Error left by distance in tokens, 1 is knowing nothing. {'; '.join(said)}.")


def mixer_bench(
    name: str,
    heard: np.ndarray,
    place: tuple[int, int],
    curves: Mapping[str, Mapping[int, int]],
    side: int,
    facts: Mapping[str, str],
) -> Figure:
    """A mixer with some options: who the framed token hears; its cost over the side of the map, beside others; facts.

    Args:
        name: the mixer's, among those of `curves`.
        heard: (H, W) contributions to the token, not negative. place: its row and column.
        curves: {mixer: {side of the map: multiply-adds}}; those with 0 are not drawn, the axes are logarithmic.
        side: the one that is marked.
        facts: {what: text}, to the right.

    Raises UserError if `curves` lacks the mixer.
    """
    if name not in curves:
        raise UserError(f"mixer_bench: no curve of {name!r}")
    figure = Figure(figsize=(10.4, 3.7), dpi=100)
    left = figure.add_axes((0.02, 0.06, 0.3, 0.84))
    share = _heard(left, heard, place)
    left.set_title(f"{name}: heard by the framed token", fontsize=10)
    middle = figure.add_axes((0.405, 0.15, 0.235, 0.75))
    _costs(middle, name, curves, side)
    line = 0.88
    for what, text in facts.items():
        figure.text(0.765, line, what, fontsize=8, color="0.35", va="top")
        figure.text(0.765, line - 0.047, text, fontsize=9, va="top")
        line -= 0.128
    tokens = int((share > 1e-9).sum())
    told = ", ".join(f"{what}: {text}" for what, text in facts.items())
    row, column = place
    return described(
        figure,
        f"{name}: the token in row {row}, column {column} hears {tokens} of {heard.size}. {told}. Multiply-adds at "
        f"side {side}: {'; '.join(f'{other} {number(of[side])}' for other, of in curves.items())}.",
    )


def _heard(axes: Axes, heard: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    """Contributions relative to the largest, by colour on three decades; grey where there is none."""
    share = np.asarray(heard, float) / (np.max(heard) or 1)
    axes.set_facecolor("0.92")
    shown = np.where(share > 1e-9, np.log10(share.clip(1e-3)), np.nan)
    axes.imshow(shown, cmap="cividis", vmin=-3, vmax=0, interpolation="nearest")
    framed(axes, *place)
    axes.set(xticks=[], yticks=[])
    return share


def _costs(axes: Axes, name: str, curves: Mapping[str, Mapping[int, int]], side: int) -> None:
    drawn = styles(colours(curves))
    for other, of in curves.items():
        points = {side: macs for side, macs in of.items() if macs > 0}
        if points:
            width = 3.2 if other == name else 1.3
            axes.plot(list(points), list(points.values()), **drawn[other], linewidth=width, label=other)
    if curves[name][side] > 0:
        axes.plot(side, curves[name][side], "o", color=drawn[name]["color"], markersize=8)
    sides = sorted({one for of in curves.values() for one in of})
    axes.set(xscale="log", yscale="log", xlabel="side of the map (tokens)")
    axes.set_title("multiply-adds", fontsize=10)
    axes.set_xticks(sides, [str(one) for one in sides])
    axes.minorticks_off()
    axes.tick_params(labelsize=8)
    plain(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8, handlelength=1.3)
