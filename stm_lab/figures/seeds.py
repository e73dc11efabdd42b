"""How much seeds tell: winners, intervals and luck."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from stm_lab.figures.style import colours, described, plain, styles
from stm_lab.stats import half_interval
from stm_lab.util.errors import UserError


def leaders_by_seed(
    scores: Mapping[str, Mapping[int, float]], label: str = "top-1 accuracy (%)", *, highest: bool = True
) -> Figure:
    """Every run, a column a seed, those of one name joined by a line; a ring is round the best of each seed.

    scores: {seed: value} by name. highest: whether that is the highest value. Raises UserError for no scores.
    """
    if not any(scores.values()):
        raise UserError("leaders_by_seed: no scores")
    figure = Figure(figsize=(7.5, 3.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    for (name, style), marker in zip(styles(colours(scores)).items(), itertools.cycle("os^Dvx"), strict=False):
        seeds = sorted(scores[name])
        axes.plot(seeds, [scores[name][seed] for seed in seeds], **style, marker=marker, linewidth=1.2, label=name)
    seeds = sorted({seed for by_seed in scores.values() for seed in by_seed})
    pick = max if highest else min
    best = [pick(by_seed[seed] for by_seed in scores.values() if seed in by_seed) for seed in seeds]
    axes.plot(seeds, best, "o", color="0.2", markersize=16, fillstyle="none", markeredgewidth=1.2)
    axes.set(xlabel="seed (ring: the winner of this seed)", ylabel=label, xticks=seeds)
    plain(axes, "y")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    winners = {
        seed: next(name for name, by_seed in scores.items() if by_seed.get(seed) == value)
        for seed, value in zip(seeds, best, strict=True)
    }
    said = "; ".join(
        f"seed {seed}: {name}, {value:.1f}" for (seed, name), value in zip(winners.items(), best, strict=True)
    )
    return described(figure, f"{label} by seed, {len(scores)} names. The winner of each: {said}.")


def interval_by_seeds(differences: Sequence[float], label: str = "difference (points)") -> Figure:
    """The mean difference after 1, 2, 3 ... seeds with its 95% interval (Student's t), and each seed's own.

    differences: in the order in which the seeds came. The axis is that of the dots and of the interval of three seeds:
    that of two runs out of it. Raises UserError for fewer than two.
    """
    if len(differences) < 2:
        raise UserError(f"interval_by_seeds: {len(differences)} differences; an interval takes two")
    figure = Figure(figsize=(7.5, 3.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    counts = range(1, len(differences) + 1)
    means = [float(np.mean(differences[:n])) for n in counts]
    halves = {n: half_interval(differences[:n]) for n in counts[1:]}
    for n, half in halves.items():
        is_clear = abs(means[n - 1]) > half
        ends = [means[n - 1] - half, means[n - 1] + half]
        axes.plot([n, n], ends, color="#D55E00" if is_clear else "#0072B2", linewidth=5, alpha=0.45)
    axes.plot(counts, means, "s-", color="#0072B2", label="mean so far, with its 95% interval")
    axes.plot(counts, differences, "o", color="0.25", fillstyle="none", label="this seed's own difference")
    axes.axhline(0, color="0.3", linewidth=1)
    intervals = [abs(means[n - 1]) + half for n, half in halves.items() if n > 2]
    reach = 1.1 * max(*map(abs, differences), *intervals)
    axes.set(xlabel="seeds so far", ylabel=label, xticks=list(counts), ylim=(-reach, reach))
    plain(axes, "y")
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    said = "; ".join(
        f"after {n} {means[n - 1]:+.1f}, 95% from {means[n - 1] - half:+.1f} to {means[n - 1] + half:+.1f}"
        for n, half in halves.items()
    )
    return described(figure, f"Mean {label} by number of seeds: after 1 {means[0]:+.1f}; {said}.")


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

    Left the values of both, a column a seed in the order of `seeds`, pale where it is not counted yet; right the mean
    difference after 1, 2 ... `count` seeds (Student's t). Axes are those of all seeds: they stay as `count` grows, and
    an interval of two seeds runs out of them. The title says who leads, and whether the interval holds 0; `highest`:
    whether that is who has the highest value.
    Raises UserError for a count that is not there, and for a seed that one of the two has not.
    """
    if not 1 <= count <= len(seeds) or not all(seed in ours and seed in theirs for seed in seeds):
        raise UserError(f"difference_so_far: {count} of {len(seeds)} seeds that both have; expected 1 to {len(seeds)}")
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    figure = Figure(figsize=(9.5, 3.6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, style), values, marker in zip(styles(colours(names)).items(), (ours, theirs), "os", strict=True):
        for i, seed in enumerate(seeds):
            left.plot(i, values[seed], marker, color=style["color"], alpha=1 if i < count else 0.2, markersize=7)
        left.plot([], [], marker, color=style["color"], label=name)
    left.set(xlabel="seed (pale: not counted yet)", ylabel=label, xlim=(-0.5, len(seeds) - 0.5))
    left.set_xticks(range(len(seeds)), list(map(str, seeds)))
    left.legend(frameon=False, fontsize=8)

    means = [float(np.mean(differences[:n])) for n in range(1, count + 1)]
    halves = {n: half_interval(differences[:n]) for n in range(2, len(seeds) + 1)}
    for n in range(2, count + 1):
        colour = "#D55E00" if abs(means[n - 1]) > halves[n] else "#0072B2"
        right.plot([n, n], [means[n - 1] - halves[n], means[n - 1] + halves[n]], color=colour, linewidth=6, alpha=0.45)
    right.plot(range(1, count + 1), means, "s-", color="#0072B2")
    right.axhline(0, color="0.3", linewidth=1)
    spans = [abs(float(np.mean(differences[:n]))) + half for n, half in halves.items() if n > 2]
    reach = 1.1 * max(*map(abs, differences), *spans, 1e-9)
    right.set(xlabel="seeds counted", ylabel=f"{names[0]} - {names[1]}", ylim=(-reach, reach))
    right.set(xlim=(0.5, len(seeds) + 0.5), xticks=range(1, len(seeds) + 1))
    for axes in (left, right):
        plain(axes, "y")
    said = _lead(names, means[-1], halves.get(count), count, highest)
    figure.suptitle(said, fontsize=10)
    return described(figure, f"{names[0]} and {names[1]}, seeds in the order {', '.join(map(str, seeds))}. {said}.")


def _lead(names: tuple[str, str], mean: float, half: float | None, count: int, highest: bool) -> str:
    leader = names[0] if (mean >= 0) == highest else names[1]
    said = f"{count} seed{'s' * (count > 1)}: {leader} leads by {abs(mean):.1f}"
    if half is None:
        return f"{said}, and nobody knows how much of it is luck"
    verdict = "is clear of 0" if abs(mean) > half else "holds 0"
    return f"{said}; the 95% interval from {mean - half:+.1f} to {mean + half:+.1f} {verdict}"


def shares_by_seeds(shares: Mapping[str, Mapping[int, float]]) -> Figure:
    """How often something is said by so many seeds: shares in percent {number of seeds: share}, by what is said."""
    figure = Figure(figsize=(7.5, 3.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    drawn = zip(("#0072B2", "#D55E00", "#009E73", "#000000"), ("o-", "s--", "^:", "D-."), strict=True)
    for (name, by_count), (colour, line) in zip(shares.items(), drawn, strict=False):
        axes.plot(list(by_count), list(by_count.values()), line, color=colour, linewidth=2, label=name)
    axes.set(xlabel="seeds in a subset", ylabel="subsets (%)", ylim=(-3, 103))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    said = "; ".join(
        f"{name}: " + ", ".join(f"{share:.0f}% of {count}" for count, share in by_count.items())
        for name, by_count in shares.items()
    )
    return described(figure, f"Share of the subsets of so many seeds. {said}.")


def seeds_needed(needed: Mapping[str, Mapping[float, int]], have: int | None = None, *, unit: str = "points") -> Figure:
    """How many seeds tell a true difference: {difference: seeds} by name, on logarithmic axes.

    have: a number of seeds to mark, of those that are there.
    """
    figure = Figure(figsize=(7.5, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    drawn = zip(("#0072B2", "#D55E00"), ("o-", "s--"), strict=True)
    for (name, by_size), (colour, line) in zip(needed.items(), drawn, strict=False):
        axes.plot(list(by_size), list(by_size.values()), line, color=colour, linewidth=2, markersize=5, label=name)
    if have is not None:
        axes.axhline(have, color="0.4", linestyle=":", linewidth=1.5, label=f"the {have} seeds that we have")
    axes.set(xscale="log", yscale="log", xlabel=f"true difference ({unit})", ylabel="seeds for each of the two")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    plain(axes)
    axes.legend(frameon=False, fontsize=8)
    said = "; ".join(
        f"{name}: " + ", ".join(f"{seeds:.0f} for {size:.3g}" for size, seeds in by_size.items())
        for name, by_size in needed.items()
    )
    had = "" if have is None else f" There are {have}."
    return described(figure, f"Seeds that tell a true difference, in {unit}. {said}.{had}")


def paired_scores(ours: Mapping[int, float], theirs: Mapping[int, float], labels: tuple[str, str]) -> Figure:
    """One dot a seed that both have, the one's value over the other's; on the line they are equal."""
    seeds = [seed for seed in ours if seed in theirs]
    values = [ours[seed] for seed in seeds] + [theirs[seed] for seed in seeds]
    margin = 0.1 * (max(values) - min(values) or 1)
    ends = (min(values) - margin, max(values) + margin)
    figure = Figure(figsize=(4.4, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(ends, ends, color="0.4", linewidth=1)
    for seed in seeds:
        axes.plot(theirs[seed], ours[seed], "o", color="#0072B2")
        axes.annotate(str(seed), (theirs[seed], ours[seed]), xytext=(5, 3), textcoords="offset points", fontsize=8)
    aside = {"xytext": (12, 3), "textcoords": "offset points", "rotation": 45, "color": "0.35", "fontsize": 8}
    axes.annotate("equal", (ends[0], ends[0]), **aside)
    axes.set(xlabel=labels[1], ylabel=labels[0], xlim=ends, ylim=ends, aspect="equal")
    plain(axes)
    said = "; ".join(f"seed {seed}: {ours[seed]:.1f} and {theirs[seed]:.1f}" for seed in seeds)
    ahead = sum(ours[seed] > theirs[seed] for seed in seeds)
    text = f"{labels[0]} and {labels[1]}, a dot a seed. {said}. The first is higher in {ahead} of {len(seeds)}."
    return described(figure, text)


def lucky_leads(leads: Mapping[str, Sequence[float]], seen: Mapping[str, float], label: str) -> Figure:
    """Histograms of the lead that chance alone gives, a panel each, and a line at the one that was seen."""
    figure = Figure(figsize=(9.5, 3.0), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(leads), sharex=True, squeeze=False)[0]
    low = min(np.quantile(values, 0.001) for values in leads.values())
    high = max(*(np.quantile(values, 0.999) for values in leads.values()), *seen.values())
    edges = np.linspace(low, high + 0.05 * (high - low), 40)
    for axes, (name, values) in zip(panels, leads.items(), strict=True):
        axes.hist(values, edges, weights=np.full(len(values), 100 / len(values)), color="#56B4E9")
        if name in seen:
            axes.axvline(seen[name], color="#D55E00", linewidth=2)
            axes.text(seen[name], 0.97, " seen", color="#A03F00", va="top", transform=axes.get_xaxis_transform())
        axes.margins(y=0.2)  # room for the word
        axes.set_title(name, fontsize=10)
        plain(axes, "y")
    panels[0].set_ylabel("simulated sweeps (%)")
    figure.supxlabel(label, fontsize=10)
    said = []
    for name, values in leads.items():
        middle = f"{name}: by chance {np.median(values):.1f} (median)"
        reached = (
            f", seen {seen[name]:.1f}, reached in {100 * np.mean(np.asarray(values) >= seen[name]):.0f}%"
            if name in seen
            else ""
        )
        said.append(middle + reached)
    return described(figure, f"{label}, of simulated sweeps. {'; '.join(said)}.")
