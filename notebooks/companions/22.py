"""Notebook 22's own: a map of a task with its answers, what one token's answer hears, and both as training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stm_lab.explore.shell import Explorer
from stm_lab.figures.draw import board, framed, numbers, picture
from stm_lab.figures.style import described, drawing
from stm_lab.tasks import TokenNetwork, get_task
from stm_lab.util.errors import UserError

Trained = Mapping[tuple[str, str], list[tuple[int, TokenNetwork]]]  # (task, mixer): [(step, network then)]


@drawing
def task_maps(maps: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """One map of each task, {name: (tokens (H, W, F), labels (H, W))}: the input above, what is right below.

    Where a token has two features, both stand in its cell. Labels below 0 are not asked and left empty.
    """
    figure, panels = board(2 * len(maps), len(maps), (2.3, 2.4))
    for column, (name, (tokens, labels)) in enumerate(maps.items()):
        _cells(panels[column], tokens[..., -1], tokens, name)
        _cells(panels[column + len(maps)], np.where(labels >= 0, labels, np.nan), labels[..., None], "what is right")
    return described(figure, f"One map of each task, with its labels: {', '.join(maps)}.")


def _cells(axes: Axes, values: np.ndarray, told: np.ndarray, title: str) -> None:
    axes.set_facecolor("0.92")
    image = picture(axes, np.asarray(values, float), title, cmap="cividis", vmin=0, vmax=8)
    texts = [" ".join(map(str, cell)) for cell in told.reshape(-1, told.shape[-1])]
    numbers(axes, image, ["" if np.isnan(value) else text for value, text in zip(np.ravel(values), texts, strict=True)])


def hears(network: TokenNetwork, tokens: torch.Tensor, place: tuple[int, int]) -> np.ndarray:
    """How much the answer of one token changes with each token's embedding: norms of the Jacobian, (H, W).

    tokens: (H, W, F). The largest is 1, unless all are 0.
    """
    with torch.no_grad():
        x = network.embedding(tokens[None] + network.first).sum(-2)
    x.requires_grad_()
    logits = network.read_out(network.stage(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))[0, place[0], place[1]]
    squares = sum(torch.autograd.grad(logit, x, retain_graph=True)[0].square().sum(-1) for logit in logits)
    norms = squares[0].sqrt().cpu().numpy()
    return norms / (norms.max() or 1)


@drawing
def heard_maps(maps: Mapping[str, tuple[np.ndarray, tuple[int, int]]], wanted: Mapping[str, tuple[int, int]]) -> Figure:
    """What one token's answer hears, a panel a network: {name: (map (H, W), place)}; the token is framed.

    wanted: by name, the token that has the right answer, framed in red.
    """
    figure, panels = board(len(maps), 4, (2.4, 2.6))
    for axes, (name, (heard, place)) in zip(panels, maps.items(), strict=True):
        picture(axes, heard, name, cmap="cividis", vmin=0, vmax=1)
        framed(axes, *place)
        if name in wanted:
            framed(axes, *wanted[name], colour="#D55E00")
    return described(figure, f"What the framed token's answer hears, of {', '.join(maps)}.")


def watch(trained: Trained, side: int) -> Explorer:
    """Task and mixer, a map, a token and a step of the training: the input, what is right, the answers, and what the
    token's answer hears. A click on a map chooses the token. side: of the maps, in tokens."""
    if not trained:
        raise UserError("watch: no networks")
    steps = [step for step, _ in max(trained.values(), key=len)]
    names = [list(dict.fromkeys(key[part] for key in trained)) for part in (0, 1)]

    @lru_cache(maxsize=256)
    def answered(task: str, mixer: str, number: int, step: int) -> tuple:
        of = trained[task, mixer]
        network = max((one for one in of if one[0] <= step), default=of[0], key=lambda one: one[0])[1]
        tokens, labels = get_task(task).draw((7,), range(number, number + 1), side, side)
        with torch.no_grad():
            answers = network(torch.from_numpy(tokens)).argmax(-1)[0].numpy()
        return network, tokens[0], labels[0], answers

    def draw(task: str, mixer: str, map: int, step: int, row: int, column: int) -> Figure:
        network, tokens, labels, answers = answered(task, mixer, map, step)
        asked = labels >= 0
        figure, panels = board(4, 4, (2.5, 2.7))
        _cells(panels[0], tokens[..., -1], tokens, f"{task}: the input")
        _cells(panels[1], np.where(asked, labels, np.nan), labels[..., None], "what is right")
        right = 100 * (answers == labels)[asked].mean()
        _cells(panels[2], np.where(asked, answers, np.nan), answers[..., None], f"{mixer}, step {step}: {right:.0f}%")
        wrong = np.nonzero(asked & (answers != labels))
        panels[2].plot(wrong[1], wrong[0], "x", color="#D55E00", markersize=11, markeredgewidth=2)
        picture(panels[3], hears(network, torch.from_numpy(tokens), (row, column)), "what the token hears", vmin=0)
        for axes in panels:
            framed(axes, row, column)
        said = f"{task}, {mixer} at step {step}: {right:.0f}% right; the token in row {row}, column {column} is framed."
        return described(figure, said)

    controls = {
        "task": widgets.Dropdown(options=names[0]),
        "mixer": widgets.Dropdown(options=names[1]),
        "map": widgets.IntSlider(min=0, max=19),
        "step": widgets.SelectionSlider(options=steps, value=steps[-1]),
        "row": widgets.IntSlider(min=0, max=side - 1, value=side // 2),
        "column": widgets.IntSlider(min=0, max=side - 1, value=side - 1),
    }

    def select(panel: int, x: float, y: float, state: Mapping) -> dict[str, int]:
        inside = [min(max(round(value), 0), side - 1) for value in (y, x)]
        return {"row": inside[0], "column": inside[1]}

    return Explorer(draw, controls, select=select)

