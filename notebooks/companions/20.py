"""For notebook 20: differences as seeds are added, and the leads that chance alone gives."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stm_lab.explore.shell import Explorer
from stm_lab.figures.draw import board
from stm_lab.figures.style import BLUE, RED, colours, described, drawing, plain
from stm_lab.stats import half_interval
from stm_lab.util.errors import UserError, check_known


@drawing
def interval_by_seeds(differences: Sequence[float], label: str = "difference (points)") -> Figure:
    """The mean difference after 1, 2, 3 ... seeds with its 95% interval (Student's t), and that of each seed.

    differences: in the order of the seeds. The axis fits the dots and the interval of three seeds; that of two may
    extend beyond it. Raises UserError for fewer than two.
    """
    if len(differences) < 2:
        raise UserError(f"interval_by_seeds: {len(differences)} differences; an interval takes two")
    figure, (axes,) = board(1, 1, (7.5, 3.8))
    counts = range(1, len(differences) + 1)
    means = _means_and_intervals(axes, differences, len(differences), width=5)
    axes.plot(counts, means, "s-", color=BLUE, label="mean so far, with its 95% interval")
    axes.plot(counts, differences, "o", color="0.25", fillstyle="none", label="this seed's own difference")
    axes.set(xlabel="seeds so far", ylabel=label, xticks=list(counts))
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    halves = [half_interval(differences[:n]) for n in counts[1:]]
    said = "; ".join(
        f"after {n} {mean:+.1f}, 95% from {mean - half:+.1f} to {mean + half:+.1f}"
        for n, mean, half in zip(counts[1:], means[1:], halves, strict=True)
    )
    return described(figure, f"Mean {label} by number of seeds: after 1 {means[0]:+.1f}; {said}.")


def _means_and_intervals(axes: Axes, differences: Sequence[float], shown: int, width: float) -> list[float]:
    """The 95% intervals of the means after 2 ... `shown` differences, red if 0 lies outside; returns these means.

    The axis fits all differences and the intervals of three and more, so it does not change as `shown` grows.
    """
    means = [float(np.mean(differences[:n])) for n in range(1, len(differences) + 1)]
    halves = {n: half_interval(differences[:n]) for n in range(2, len(differences) + 1)}
    for n in range(2, shown + 1):
        mean, half = means[n - 1], halves[n]
        colour = RED if abs(mean) > half else BLUE
        axes.plot([n, n], [mean - half, mean + half], color=colour, linewidth=width, alpha=0.45)
    axes.axhline(0, color="0.3", linewidth=1)
    reach = 1.1 * max(*map(abs, differences), *(abs(means[n - 1]) + half for n, half in halves.items() if n > 2), 1e-9)
    axes.set_ylim(-reach, reach)
    plain(axes, "y")
    return means[:shown]


@drawing
def difference_so_far(
    ours: Mapping[int, float],
    theirs: Mapping[int, float],
    names: tuple[str, str],
    seeds: Sequence[int],
    count: int,
    *,
    label: str = "top-1 accuracy (%)",
    highest: bool = True,
) -> Figure:
    """Two names after the first `count` of `seeds`: their values, and the mean difference with its 95% interval.

    Left: the values of both, one column per seed in the order of `seeds`, pale if not counted yet. Right: the mean
    difference after 1, 2 ... `count` seeds (Student's t). The axes fit all seeds, so they do not change with `count`;
    an interval of two seeds may extend beyond them. The title names the leader and says whether the interval holds 0.
    highest: whether the higher value leads. Raises UserError for a count outside of 1 to the number of seeds, and for
    a seed that only one of the two has.
    """
    if not 1 <= count <= len(seeds) or not all(seed in ours and seed in theirs for seed in seeds):
        raise UserError(f"difference_so_far: {count} of {len(seeds)} seeds that both have; expected 1 to {len(seeds)}")
    figure, (left, right) = board(2, 2, (4.75, 3.6))
    for (name, colour), values, marker in zip(colours(names).items(), (ours, theirs), "os", strict=True):
        for i, seed in enumerate(seeds):
            left.plot(i, values[seed], marker, color=colour, alpha=1 if i < count else 0.2, markersize=7)
        left.plot([], [], marker, color=colour, label=name)
    left.set(xlabel="seed (pale: not counted yet)", ylabel=label, xlim=(-0.5, len(seeds) - 0.5))
    left.set_xticks(range(len(seeds)), list(map(str, seeds)))
    left.legend(frameon=False, fontsize=8)
    plain(left, "y")
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    means = _means_and_intervals(right, differences, count, width=6)
    right.plot(range(1, count + 1), means, "s-", color=BLUE)
    right.set(xlabel="seeds counted", ylabel=f"{names[0]} - {names[1]}")
    right.set(xlim=(0.5, len(seeds) + 0.5), xticks=range(1, len(seeds) + 1))
    said = _lead(names, means[-1], half_interval(differences[:count]), count, highest)
    figure.suptitle(said, fontsize=10)
    return described(figure, f"{names[0]} and {names[1]}, seeds in the order {', '.join(map(str, seeds))}. {said}.")


def _lead(names: tuple[str, str], mean: float, half: float | None, count: int, highest: bool) -> str:
    leader = names[0] if (mean >= 0) == highest else names[1]
    said = f"{count} seed{'s' * (count > 1)}: {leader} leads by {abs(mean):.1f}"
    if half is None:
        return f"{said}; a single seed has no interval"
    verdict = "is clear of 0" if abs(mean) > half else "holds 0"
    return f"{said}; the 95% interval from {mean - half:+.1f} to {mean + half:+.1f} {verdict}"


@drawing
def lucky_leads(leads: Mapping[str, Sequence[float]], seen: Mapping[str, float], label: str) -> Figure:
    """Histograms of the lead that chance alone gives, one panel each, and a line at the observed lead."""
    figure, panels = board(len(leads), len(leads), (9.5 / len(leads), 3.0), sharex=True)
    low = min(np.quantile(values, 0.001) for values in leads.values())
    high = max(*(np.quantile(values, 0.999) for values in leads.values()), *seen.values())
    edges = np.linspace(low, high + 0.05 * (high - low), 40)
    said = []
    for axes, (name, values) in zip(panels, leads.items(), strict=True):
        axes.hist(values, edges, weights=np.full(len(values), 100 / len(values)), color="#56B4E9")
        said.append(f"{name}: by chance {np.median(values):.1f} (median)")
        if name in seen:
            axes.axvline(seen[name], color=RED, linewidth=2)
            axes.text(seen[name], 0.97, " observed", color="#A03F00", va="top", transform=axes.get_xaxis_transform())
            reached = 100 * np.mean(np.asarray(values) >= seen[name])
            said[-1] += f", seen {seen[name]:.1f}, reached in {reached:.0f}%"
        axes.margins(y=0.2)  # room for the word
        axes.set_title(name, fontsize=10)
        plain(axes, "y")
    panels[0].set_ylabel("simulated sweeps (%)")
    figure.supxlabel(label, fontsize=10)
    return described(figure, f"{label}, of simulated sweeps. {'; '.join(said)}.")


def seeds(
    scores: Mapping[str, Mapping[int, float]],
    first: str | None = None,
    second: str | None = None,
    *,
    label: str = "top-1 accuracy (%)",
    highest: bool = True,
) -> Explorer:
    """Compare two names; controls set how many of their shared seeds are counted, and which comes first.

    scores: {seed: value} by name. first, second: the pair shown first; default: the two with the most seeds in common.
    label: what the values are, with their unit. highest: whether the highest wins.
    Raises UserError for scores of which no two have two seeds in common, and for an unknown name.
    """
    common = {
        (one, other): sorted(set(scores[one]) & set(scores[other])) for one, other in itertools.permutations(scores, 2)
    }
    pair = max(common, key=lambda names: len(common[names]), default=None)
    if pair is None or len(common[pair]) < 2:
        raise UserError("seeds: no two names have two seeds in common")
    one, other = first or pair[0], second or pair[1]
    for name in (one, other):
        check_known("name", name, scores, "seeds: ")

    def draw(one: str, other: str, count: int, begin: int) -> Figure:
        if one == other:
            raise UserError(f"{one} and {one}: choose two names that differ")
        shared = common[one, other]
        if not shared:
            raise UserError(f"{one} and {other} have no seed in common")
        at = next((i for i, seed in enumerate(shared) if seed >= begin), 0)
        order = shared[at:] + shared[:at]  # every seed can be the first
        return difference_so_far(
            scores[one], scores[other], (one, other), order, min(count, len(order)), label=label, highest=highest
        )

    everything = sorted(set().union(*scores.values()))
    controls = {
        "one": widgets.Dropdown(options=list(scores), value=one, description="is"),
        "other": widgets.Dropdown(options=list(scores), value=other, description="better than"),
        "count": widgets.IntSlider(1, 1, len(common[pair]), description="seeds counted"),
        "begin": widgets.SelectionSlider(options=everything, value=everything[0], description="beginning with seed"),
    }
    return Explorer(draw, controls)
