"""Drawn tasks: which mixer does what, beside what theory said, and how fast it learned it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stm_lab.figures.draw import board, colour_bar, draw_lines, framed, numbers, picture
from stm_lab.figures.style import CHANCE, by_name, colours, described, drawing, legend, styles
from stm_lab.tasks import outcome

_SIGNS = {"solves": "●", "partly": "◐", "fails": "○", None: ""}


@drawing
def task_table(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Tasks by mixers: accuracy in percent, mean over seeds, coloured from chance to 100.

    Below each number stands the prediction, a full, half or empty circle for solves, partly and fails; a cell whose
    prediction was wrong has a frame, and what it did after an arrow. A cell without a prediction has neither.

    rows: dictionaries with task, mixer, seed, accuracy and chance (percent), and predicted unless there is none.
    """
    cells = by_name(rows, ("task", "mixer"), "seed", "accuracy", "chance")
    tasks, mixers = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    share = np.full((len(tasks), len(mixers)), np.nan)
    texts, wrong, said = [""] * share.size, [], []
    for (task, mixer), some in cells.items():
        found = outcome(some)
        accuracy, chance, predicted, did = found
        row, column = tasks.index(task), mixers.index(mixer)
        share[row, column] = 100 * max(accuracy - chance, 0) / (100 - chance)
        sign = _SIGNS[predicted]
        if found.is_wrong:
            wrong.append((row, column))
            sign = f"{sign} → {_SIGNS[did]}"
        texts[row * len(mixers) + column] = f"{accuracy:.0f}\n{sign}".strip()
        said.append(f"{task}, {mixer} {accuracy:.0f}%, {did}" + (f", predicted {predicted}" if predicted else ""))
    figure, (axes,) = board(1, 1, (0.78 * len(mixers), 0.52 * len(tasks)), room=(2.6, 1.1))
    image = picture(axes, share, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    numbers(axes, image, texts)
    for place in wrong:
        framed(axes, *place, colour="#D55E00")
    axes.set_xticks(range(len(mixers)), mixers)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    colour_bar(figure, image, [axes], "from chance (0) to all right (100)")
    axes.set_xlabel("accuracy (%), and the prediction: ● solves  ◐ partly  ○ fails; framed if it was wrong", fontsize=8)
    return described(figure, f"Accuracy of mixers on drawn tasks; {len(wrong)} predictions wrong. {'; '.join(said)}.")


@drawing
def task_curves(rows: Sequence[Mapping[str, Any]], *, columns: int = 4) -> Figure:
    """Accuracy by step on validation draws, a panel a task: means over seeds with their range, at the chosen rates.

    A training that ended early, since it was right, keeps its last accuracy. rows: as `tasks.table` gives them.
    """
    by_task = by_name(rows, "task", "mixer", "seed", "chance", "lr", "curves")
    figure, panels = board(len(by_task), columns, (2.6, 2.3), room=(1.6, 0), sharey=True)
    drawn = styles(colours(row["mixer"] for row in rows))
    for axes, (task, some) in zip(panels, by_task.items(), strict=True):
        curves = [(row["mixer"], dict(map(tuple, row["curves"][f"{row['lr']:g}"]))) for row in some]
        every = sorted({step for _, curve in curves for step in curve})
        points: dict[str, dict[int, list[float]]] = {}
        for mixer, curve in curves:
            for step in every:
                known = curve[max((each for each in curve if each <= step), default=min(curve))]
                points.setdefault(mixer, {}).setdefault(step, []).append(known)
        draw_lines(axes, points, {name: drawn[name] for name in points}, marker="", linewidth=1.6)
        axes.axhline(some[0]["chance"], **CHANCE)
        axes.set_title(task, fontsize=9)
        axes.set_ylim(0, 103)
    figure.supxlabel("step", fontsize=10)
    figure.supylabel("accuracy on validation draws (%)", fontsize=10)
    legend(figure, panels)
    return figure
