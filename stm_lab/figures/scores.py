"""Accuracies of networks over seeds, and what differences between them tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from stm_lab.figures.draw import beside, board, dots, named_rows
from stm_lab.figures.style import BLUE, CHANCE, RED, by_name, colours, described, dot, drawing, legend, plain
from stm_lab.stats import half_interval
from stm_lab.util.errors import UserError, check_known


@drawing
def accuracy_dots(rows: Sequence[Mapping], baseline: str = "identity", *, chance: float | None = None) -> Figure:
    """Final accuracy, one dot a seed, and beside it the differences to `baseline`, paired by seed.

    The bar is the mean; the line through the differences is the mean's 95% interval (Student's t over seeds; none for
    one seed). An arrowhead marks an interval that leaves the panel; its limits are printed beside it. The panel of
    differences reaches at least one point to each side of 0.
    rows: dictionaries with mixer, seed and top1 (percent), one for each. chance: the accuracy of a guess, in percent.
    Raises UserError for no rows, a row that lacks a key, and a baseline that is not among the mixers.
    """
    runs = by_name(rows, "mixer", "seed", "top1")
    scores = {mixer: {row["seed"]: row["top1"] for row in run} for mixer, run in runs.items()}
    check_known("baseline", baseline, scores, where="accuracy_dots: ")
    differences = {
        mixer: [top1 - scores[baseline][seed] for seed, top1 in by_seed.items() if seed in scores[baseline]]
        for mixer, by_seed in scores.items()
        if mixer != baseline
    }
    figure, (left, right) = board(
        2, 2, (4.75, 0.42 * len(scores)), room=(0, 1.3), width_ratios=(1.1, 1), sharey=True
    )
    intervals, said = {}, []
    for row, (mixer, colour) in enumerate(colours(scores).items()):
        mean, values = np.mean(list(scores[mixer].values())), differences.get(mixer, [])
        said.append(f"{mixer} {mean:.1f}% ({len(scores[mixer])} seed{'s' * (len(scores[mixer]) > 1)})")
        _rings_and_mean(left, list(scores[mixer].values()), row, colour)
        _rings_and_mean(right, values, row, colour)
        if values:
            said[-1] += f", {np.mean(values):+.1f} to {baseline}"
        if (half := half_interval(values)) is not None:
            low, high = intervals[row, colour] = float(np.mean(values) - half), float(np.mean(values) + half)
            said[-1] += f", 95% from {low:+.1f} to {high:+.1f}"
    if chance is not None:
        left.axvline(chance, **CHANCE)
        top = {"xycoords": ("data", "axes fraction"), "va": "bottom", "ha": "center", "color": "0.35"}
        beside(left, (chance, 1), "chance", (0, 2), **top)
    right.axvline(0, color="0.3", linewidth=1)
    right.text(0, list(scores).index(baseline), " baseline", color="0.35", fontsize=8, va="center")
    low, high = right.get_xlim()
    if low > -1 and high < 1:  # otherwise differences of rounding alone, 1e-14, would look large
        right.update_datalim([(-1, 0), (1, 0)])
        right.autoscale_view(scaley=False)
    _intervals(right, intervals)
    left.set_xlabel("top-1 accuracy (%)")
    right.set_xlabel(f"difference to {baseline}, same seed (points)")
    for axes in (left, right):
        named_rows(axes, list(scores))
    return described(figure, f"Top-1 accuracy, means over seeds. {'; '.join(said)}.")


def _rings_and_mean(axes: Axes, values: Sequence[float], row: int, colour: str) -> None:
    axes.plot(values, [row] * len(values), "o", color=colour, markersize=7, fillstyle="none", markeredgewidth=1.5)
    if values:
        axes.plot(np.mean(values), row, "|", color=colour, markersize=17, markeredgewidth=2.8)


def _intervals(axes: Axes, intervals: Mapping[tuple[int, str], tuple[float, float]]) -> None:
    """A line for each interval, by row and colour; the panel grows by at most half its width to each side for them.

    An interval that is cut at the panel's edge has an arrowhead there, and its limits to the right of the panel.
    """
    low, high = map(float, axes.get_xlim())  # of the dots
    room = (low - (high - low) / 2, high + (high - low) / 2)
    for (row, colour), ends in intervals.items():
        axes.plot(ends, [row] * 2, color=colour, linewidth=1.4)
    low, high = map(float, axes.get_xlim())
    edges = (max(low, room[0]), min(high, room[1]))
    axes.set_xlim(edges)
    for (row, colour), ends in intervals.items():
        cut = [(edges[0], "<")] * (ends[0] < edges[0]) + [(edges[1], ">")] * (ends[1] > edges[1])
        for edge, head in cut:
            axes.plot(edge, row, head, color=colour, markersize=7, clip_on=False)
        if cut:
            limits = "{:+.0f} .. {:+.0f}" if max(map(abs, ends)) >= 10 else "{:+.1f} .. {:+.1f}"
            beside(axes, (1, row), limits.format(*ends), (7, 0), xycoords=("axes fraction", "data"), color="0.25")


@drawing
def accuracy_by_mistake(rows: Sequence[Mapping], *, chance: float | None = None) -> Figure:
    """What is left of trained networks whose operator has one wrong line: a dot a seed, in the order of the rows.

    rows: with mistake (a name; None for the operator as it was trained), seed and top1 in percent. The upright line is
    the mean of those as trained. Beside each mistake stands its cost: the mean over seeds of the difference to the same
    network as trained, and the standard deviation of several seeds' differences.
    Raises UserError for no rows, a row that lacks a key, a mistake and seed that come twice, and a mistake with a seed
    that has no row as trained.
    """
    scores: dict[str | None, dict[object, float]] = {}
    for name, found in by_name(rows, "mistake", "seed", "top1").items():
        scores[name] = {row["seed"]: row["top1"] for row in found}
        if len(scores[name]) < len(found):
            raise UserError(f"accuracy_by_mistake: mistake {name!r} has several rows of one seed")
    whole = scores.pop(None, {})
    if lacking := [f"seed {seed!r} ({name})" for name, found in scores.items() for seed in found if seed not in whole]:
        raise UserError(f"accuracy_by_mistake: no row with mistake None, as trained, of {lacking[0]}")
    mean = float(np.mean(list(whole.values())))
    figure, (axes,) = board(1, 1, (8, 1.4 + 0.42 * len(scores)), dpi=110)
    axes.axvline(mean, color=BLUE, linewidth=2, label="as trained")
    if chance is not None:
        axes.axvline(chance, **CHANCE)
    said = []
    for row, (name, by_seed) in enumerate(scores.items()):
        left = list(by_seed.values())
        axes.plot([np.mean(left), mean], [row, row], color="0.6", linewidth=2, zorder=2)
        dots(axes, left, row, RED, size=8)
        cost = _change([top1 - whole[seed] for seed, top1 in by_seed.items()])
        axes.annotate(cost, (1.01, row), xycoords=("axes fraction", "data"), va="center")
        said.append(f"{name} {np.mean(left):.1f}%, {cost}")
    named_rows(axes, list(scores))
    axes.set(xlabel="top-1 accuracy (%), and what the mistake changes (points)", xlim=(0, 100))
    legend(figure, axes, "upper right", ncols=2)
    return described(figure, f"As trained {mean:.1f}%; with one line wrong: {'; '.join(said)}.")


def _change(differences: Sequence[float]) -> str:
    """Their mean, with their standard deviation if they are several."""
    spread = f" (sd {np.std(differences, ddof=1):.1f}, {len(differences)} seeds)" if len(differences) > 1 else ""
    return f"{np.mean(differences):+.1f}{spread}"


@drawing
def switched_off(rows: Sequence[Mapping], *, chance: float | None = None) -> Figure:
    """What is left of trained networks when their mixers are switched off: two dots a mixer, and a line between them.

    rows: with mixer, on and off (top-1 accuracy in percent); those of one mixer are averaged.
    """
    by_mixer = by_name(rows, "mixer", "on", "off")
    figure, (axes,) = board(1, 1, (7.5, 1.3 + 0.38 * len(by_mixer)), dpi=110)
    for row, (name, colour) in enumerate(colours(by_mixer).items()):
        on, off = (float(np.mean([one[key] for one in by_mixer[name]])) for key in ("on", "off"))
        axes.plot([off, on], [row, row], color=colour, linewidth=2, zorder=2)
        dots(axes, [on], row, colour, size=9)
        dots(axes, [off], row, colour, hollow=True, size=9)
    entries = [dot("0.3", "as trained"), dot("0.3", "mixers\nswitched off", markerfacecolor="white")]
    if chance is not None:
        entries.append(axes.axvline(chance, **CHANCE))
    named_rows(axes, list(by_mixer))
    axes.set(xlabel="top-1 accuracy (%)", xlim=(0, None))
    legend(figure, entries)
    return figure


@drawing
def interval_by_seeds(differences: Sequence[float], label: str = "difference (points)") -> Figure:
    """The mean difference after 1, 2, 3 ... seeds with its 95% interval (Student's t), and each seed's own.

    differences: in the order of the seeds. The axis fits the dots and the interval of three seeds; that of two leaves
    it. Raises UserError for fewer than two.
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

    The axis is that of all differences and of the intervals of three and more, so that it stays as `shown` grows.
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

    Left the values of both, a column a seed in the order of `seeds`, pale if not counted yet; right the mean difference
    after 1, 2 ... `count` seeds (Student's t). The axes are those of all seeds, so that they stay as `count` grows; an
    interval of two seeds leaves them. The title says who leads, and whether the interval holds 0. highest: whether the
    higher value leads. Raises UserError for a count outside of 1 to the number of seeds, and for a seed that only one
    of the two has.
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
    """Histograms of the lead that chance alone gives, a panel each, and a line at the lead that was seen."""
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
            axes.text(seen[name], 0.97, " seen", color="#A03F00", va="top", transform=axes.get_xaxis_transform())
            reached = 100 * np.mean(np.asarray(values) >= seen[name])
            said[-1] += f", seen {seen[name]:.1f}, reached in {reached:.0f}%"
        axes.margins(y=0.2)  # room for the word
        axes.set_title(name, fontsize=10)
        plain(axes, "y")
    panels[0].set_ylabel("simulated sweeps (%)")
    figure.supxlabel(label, fontsize=10)
    return described(figure, f"{label}, of simulated sweeps. {'; '.join(said)}.")


@drawing
def intervals(
    rows: Sequence[Mapping], label: str, *, columns: int = 2, digits: int = 1, reach: float | None = None
) -> Figure:
    """Values with their intervals, a panel a claim, a row a source.

    rows: dictionaries with claim, source, value, and low, high (None without an interval: a diamond). digits: after the
    point. reach: where the axis ends to either side; by default it holds all, and is linear up to 1 to either side and
    logarithmic beyond, since intervals of a few seeds may be a hundred times as wide as others.
    """
    groups = by_name(rows, "claim", "source", "value", "low", "high")
    sources = list(dict.fromkeys(row["source"] for row in rows))
    figure, panels = board(len(groups), columns, (4.0, 0.7 + 0.38 * len(sources)), room=(3.0, 0.7), sharey=True)
    end = reach or 1.4 * max(1, *(abs(row[key]) for row in rows for key in ("value", "low", "high") if row[key]))
    ticks = [tick for tick in (1, 10, 100, 1000) if tick < end]
    for axes, (claim, some) in zip(panels, groups.items(), strict=True):
        axes.axvline(0, color="0.3", linewidth=1)
        named_rows(axes, sources, fontsize=8)
        for row in some:
            line, single = sources.index(row["source"]), row["low"] is None
            if not single:
                axes.plot([row["low"], row["high"]], [line, line], color=BLUE, linewidth=2)
            axes.plot(row["value"], line, "D" if single else "o", color=RED if single else BLUE, markersize=6)
            look = {"ha": "center", "va": "baseline", "fontsize": 7, "color": "0.25"}
            beside(axes, (row["value"], line), f"{row['value']:+.{digits}f}", (0, 6), **look)
        axes.set_title(claim, fontsize=9)
        axes.set_xlabel(label, fontsize=9)
        if reach is None:
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xticks([*(-tick for tick in reversed(ticks)), 0, *ticks])
            axes.xaxis.set_major_formatter("{x:+g}")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlim=(-end, end), ylim=(len(sources) - 0.5, -0.8))
    said = "a diamond has no interval"
    figure.supxlabel(said if reach else f"axes are linear to ±1 and logarithmic beyond; {said}", fontsize=8)
    words = []
    for row in rows:
        ends = "" if row["low"] is None else f" ({row['low']:+.{digits}f} to {row['high']:+.{digits}f})"
        words.append(", ".join(filter(None, (row["claim"], row["source"]))) + f": {row['value']:+.{digits}f}{ends}")
    return described(figure, f"{label}. {'; '.join(words)}.")
