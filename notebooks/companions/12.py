"""Notebook 12's own: accuracy beside consistency, two protocols, ranks, and an image that is moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from stm_lab.explore.parts import as_floats, as_shown, checked_pixels
from stm_lab.explore.shell import Explorer, State
from stm_lab.figures.draw import board, draw_lines, picture, placed
from stm_lab.figures.scores import AXES, SAME, alike, by_strength, strength_axis
from stm_lab.figures.style import RED, colours, described, drawing, legend, plain
from stm_lab.measure._batches import check_classes, evaluating
from stm_lab.measure.receptive import stage_index
from stm_lab.measure.views import Pictures, folded, scaled, turned
from stm_lab.pixels import Normalize
from stm_lab.stats import spearman
from stm_lab.util.errors import UserError, check_known


@drawing
def invariance_curves(results: Mapping[str, object], *, chance: float | None = None) -> Figure:
    """Plot accuracy and consistency by mixer.

    results: for each mixer a result of `invariance`, or a list of its seeds'. If labels are unknown, the left panel is
    omitted. chance: the accuracy of a random guess, in percent. Raises UserError as `consistency_curves`.
    """
    runs = alike("invariance_curves", results, "kind")
    every = [run for own in runs.values() for run in own]
    kind, labelled = every[0].kind, all(run.accuracy is not None for run in every)
    quantities = {"accuracy": "accuracy (%)"} if labelled else {}
    quantities["consistency"] = SAME
    figure, panels = board(len(quantities), 2, (4.0, 3.6), room=(2.4, 0))
    for axes, (quantity, label) in zip(panels, quantities.items(), strict=True):
        draw_lines(axes, {name: by_strength(own, quantity) for name, own in runs.items()}, markersize=3.5)
        axes.set(xlabel=AXES[kind], ylabel=label)
        strength_axis(axes, kind)
        axes.set_ylim(bottom=0)
    if labelled and chance is not None:
        panels[0].axhline(chance, color="0.4", linestyle=":", linewidth=1.5)
        where = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom", "size": 8}
        panels[0].annotate("chance", (0.99, chance), **where)
    legend(figure, panels[-1])
    return figure


@drawing
def protocols_compared(published: Mapping[str, object], straight: Mapping[str, object]) -> Figure:
    """Plot consistency by the published protocol and by the straight one, one panel per mixer.

    The dotted curve is the published one on its own axis; the dashed one has each of its points at the picture's true
    shift. Dotted and dashed differ by the bent axis, dashed and solid by the black bars (and the missing direction).
    Results as in `invariance_curves`, with one standard view for both protocols. Raises UserError for no results, or
    for mixers that only one of the two has.
    """
    if set(published) != set(straight):
        raise UserError(f"protocols_compared: published {', '.join(published)}; straight {', '.join(straight)}")
    published, straight = (alike("protocols_compared", of, "kind") for of in (published, straight))
    kind = next(iter(straight.values()))[0].kind
    figure, panels = board(len(published), 3, (3.2, 2.7), room=(0, 0.5), sharex=True, sharey=True)
    for axes, (name, colour) in zip(panels, colours(published).items(), strict=True):
        for label, dash, marker, curve in (
            ("published, on its own axis", ":", "s", by_strength(published[name], axis="strengths")),
            ("published, at the true strength", "--", "^", by_strength(published[name])),
            ("straight", "-", "o", by_strength(straight[name])),
        ):
            means = [values.mean() for values in curve.values()]
            look = {"color": colour, "linestyle": dash, "marker": marker, "markersize": 3, "linewidth": 1.6}
            axes.plot(list(curve), means, label=label, **look)
        axes.set_title(name, fontsize=10)
        plain(axes)
    for axes in panels:  # once all is drawn: the panels share their limits
        strength_axis(axes, kind)
    figure.supxlabel(AXES[kind], fontsize=10)
    figure.supylabel("same answer (%)", fontsize=10)
    legend(figure, panels[0], "upper center", ncols=3, fontsize=8)
    return figure


def spearman_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of Spearman's correlation by Fisher's transformation, for at least four pairs; approximate.

    The variance is (1 + r^2 / 2) / (n - 3), of Bonett and Wright (2000, Psychometrika 65). For as few numbers as there
    are mixers the interval is rough, and wide. For a perfect order the transformation is infinite; its interval begins
    where that of the next best order does, in which two neighbours are swapped. Raises UserError for fewer than four.
    """
    if len(x) < 4:
        raise UserError(f"an interval of a correlation needs four pairs of numbers, got {len(x)}")
    n, r = len(x), spearman(x, y)
    most = 1 - 12 / (n * (n * n - 1))  # of orders with two neighbours swapped
    z = math.atanh(min(max(r, -most), most))
    half = NormalDist().inv_cdf(0.975) * math.sqrt((1 + min(abs(r), most) ** 2 / 2) / (n - 3))
    low, high = math.tanh(z - half), math.tanh(z + half)
    return (low, 1.0) if r > 1 - 1e-9 else (-1.0, high) if r < -1 + 1e-9 else (low, high)


# in inches: side of a map, space between maps, border; heights at which rows of maps and bars begin
_SIDE, _GAP, _EDGE, _HEIGHT = 1.42, 0.13, 0.1, 4.6
_ROWS, _BARS, _BAR = (2.5, 0.82), (0.56, 0.38), 0.14


class Answers(NamedTuple):
    """What one network answers for the standard view (first) and the moved one (second).

    classes: the two answers; confidences: in each, in percent; kept: the confidence in the first answer for the moved
    view, in percent; maps: one number for each cell of one stage's features, (h, w) each; cosine: of the two views'
    features, averaged over the cells, -1 to 1.
    """

    name: str
    classes: tuple[str, str]
    confidences: tuple[float, float]
    kept: float
    maps: tuple[np.ndarray, np.ndarray]
    cosine: float

    @property
    def stays(self) -> bool:
        return self.classes[0] == self.classes[1]


@drawing
def views_compared(views: Sequence[np.ndarray], answers: Sequence[Answers], move: str, stage: str) -> Figure:
    """Draw the standard view above the moved one, and beside each of them one map of features per network.

    A network's two maps have one scale of colours about 0. The bars below are its confidence in its answer for the
    standard view, for both views. A changed answer is framed.
    views: two pictures, (H, W, 3) in [0, 1], the first two panels. move: what was done; stage: whose features are
    drawn; both in words. Raises UserError for no answers, and for another number of views than two.
    """
    if not answers or len(views) != 2:
        raise UserError(f"views_compared: {len(views)} views, {len(answers)} networks; expected two and at least one")
    width = _EDGE + max(5, 1 + len(answers)) * (_SIDE + _GAP)  # the line on top needs its room
    boxes = [(_EDGE / width, bottom / _HEIGHT, _SIDE / width, _SIDE / _HEIGHT) for bottom in _ROWS]
    # everything else in one panel, in inches: twenty panels would take longer to make than to draw
    figure, (*panels, paper) = placed((width, _HEIGHT), [*boxes, (0, 0, 1, 1)])
    for axes, view, title in zip(panels, views, ("standard view", "moved view"), strict=True):
        picture(axes, view)
        axes.set_title(title, fontsize=8, pad=3)
    paper.set_axis_off()
    shade = colours([answer.name for answer in answers])
    for column, answer in enumerate(answers, 1):
        _column(paper, _EDGE + column * (_SIDE + _GAP), answer, shade[answer.name])
    for text, bottom in (("standard", _BARS[0]), ("moved", _BARS[1])):
        paper.text(_EDGE + _SIDE, bottom + _BAR / 2, text, fontsize=7, ha="right", va="center")
    paper.text(width / 2, _HEIGHT - 0.08, f"{move}; {stage}", fontsize=9, ha="center", va="top")
    paper.set(xlim=(0, width), ylim=(0, _HEIGHT), aspect="auto")
    same = sum(answer.stays for answer in answers)
    words = "; ".join(map(_said, answers))
    return described(figure, f"{move}. {same} of {len(answers)} networks keep their answer. {words}. {stage}.")


def _column(paper: Axes, left: float, answer: Answers, colour: str) -> None:
    """One network: its name, two maps with the answers above them, and its confidence in the first answer."""
    middle = left + _SIDE / 2
    paper.text(middle, _ROWS[0] + _SIDE + 0.27, answer.name, fontsize=9, ha="center", color=colour, weight="bold")
    top = max(np.abs(values).max() for values in answer.maps) or 1.0
    for row, (values, bottom) in enumerate(zip(answer.maps, _ROWS, strict=True)):
        changed = row == 1 and not answer.stays
        height, width = (_SIDE * length / max(values.shape) for length in values.shape)
        x, y = middle - width / 2, bottom + (_SIDE - height) / 2
        place = {"extent": (x, x + width, y, y + height), "aspect": "auto"}
        paper.imshow(values, **place, vmin=-top, vmax=top, cmap="PuOr", interpolation="nearest")
        title = f"{_short(answer.classes[row])} {answer.confidences[row]:.0f}%"
        paper.text(middle, bottom + _SIDE + 0.06, title, fontsize=8, ha="center", color=RED if changed else "black")
        if changed:
            paper.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=RED, linewidth=3))
    for share, bottom in zip((answer.confidences[0], answer.kept), _BARS, strict=True):
        paper.add_patch(Rectangle((left, bottom), _SIDE, _BAR, color="0.92"))
        paper.add_patch(Rectangle((left, bottom), _SIDE * share / 100, _BAR, color=colour, alpha=0.8))
    first = f"{_short(answer.classes[0])} {answer.confidences[0]:.0f} to {answer.kept:.0f}%"
    paper.text(middle, 0.21, first, fontsize=7, ha="center")
    paper.text(middle, 0.07, f"cosine {answer.cosine:.2f}", fontsize=7, ha="center")


def _short(name: str) -> str:
    """The first of a class's names, short enough for its column."""
    name = name.split(",")[0]
    return name if len(name) <= 14 else f"{name[:13]}."


def _said(answer: Answers) -> str:
    before, after = (f"{name} {sure:.0f}%" for name, sure in zip(answer.classes, answer.confidences, strict=True))
    change = f"still {after}" if answer.stays else f"now {after}, {answer.classes[0]} {answer.kept:.0f}%"
    return f"{answer.name}: {before}, {change}, features cosine {answer.cosine:.2f}"


class _Seen(NamedTuple):
    """One network's view of one picture: `shares` (classes,), and the features (C, h, w) of each stage."""

    shares: Tensor
    features: list[Tensor]


def views(
    models: Mapping[str, nn.Module],
    images: Tensor,
    *,
    classes: Mapping[str, Sequence[str]] | None = None,
    stage: int | None = None,
) -> Explorer:
    """Move an image under several networks at once: their answers, their confidence, and one stage's features.

    The image is turned, then scaled, about its middle, then shifted; its mirror image fills the border, as in the
    straight protocol of `measure.invariance`. Features are drawn as one number a cell: where it lies on the axis along
    which the cells of the standard view differ most (their first principal component). A click moves a place to the
    middle of the view.

    models: classifiers with feature maps, by name. images: (N, 3, H, W), uint8 or in [0, 1], as large as the models see
    them. classes: names of each model's classes; others are numbered. stage: the first one, from 1; default: the last.
    Raises UserError for no models or images, and a model without feature maps, classifier or that stage.
    """
    pixels = as_floats(checked_pixels(models, images))
    height, width = pixels.shape[-2:]
    names = dict(classes or {})
    for name in names:
        check_known("model", name, models, "classes: ")
    most = min(stage_index(model, -1) for model in models.values()) + 1
    check_known("stage", stage or most, range(1, most + 1))

    @lru_cache(maxsize=512)
    def seen(name: str, image: int, *move: float) -> _Seen:
        return _seen(models[name], _moved(pixels[image : image + 1], *move), most)

    def draw(image: int, right: int, down: int, turn: float, size: float, stage: int) -> Figure:
        moves = ((0, 0, 0.0, 1.0), (right, down, turn, size))
        answers = [
            _compared(name, names.get(name), *(seen(name, image, *move) for move in moves), stage - 1)
            for name in models
        ]
        shown = [as_shown(_moved(pixels[image : image + 1], *move)[0]) for move in moves]
        return views_compared(shown, answers, _words(*moves[1]), f"features of stage {stage}")

    def select(panel: int, x: float, y: float, now: State) -> State:
        if panel > 1:
            return {}  # features
        away = complex(x, y) - complex(width - 1, height - 1) / 2  # from the middle; y counts downwards
        shift = complex(now["right"], now["down"]) - away
        if panel == 0:  # the standard view, before it is turned and scaled
            shift = -now["size"] * away * np.exp(-1j * np.deg2rad(now["turn"]))
        furthest = width // 2, height // 2
        right, down = np.clip((shift.real, shift.imag), np.negative(furthest), furthest)
        return {"right": round(right), "down": round(down)}

    controls = {
        "image": widgets.IntSlider(0, 0, len(pixels) - 1),
        "right": widgets.IntSlider(width // 8, -(width // 2), width // 2, description="right (pixels)"),
        "down": widgets.IntSlider(0, -(height // 2), height // 2, description="down (pixels)"),
        "turn": widgets.FloatSlider(0, min=-180, max=180, step=5, description="turn (degrees)", readout_format=".0f"),
        "size": widgets.FloatSlider(1, min=0.5, max=2, step=0.05, description="size (times)"),
        "stage": widgets.Dropdown(options=range(1, most + 1), value=stage or most),
    }
    return Explorer(draw, controls, select=select)


def _moved(view: Tensor, right: int, down: int, turn: float, size: float) -> Tensor:
    """(1, 3, H, W), turned counter-clockwise, scaled, shifted; moved by nothing, it is the image to the bit."""
    view = rotate(view, turn) if turn else view
    view = rescale(view, size) if size != 1 else view
    return translate(view, down, right)


def _seen(model: nn.Module, view: Tensor, stages: int) -> _Seen:
    with evaluating(model, None, 0) as device, torch.inference_mode():
        last, features = model.forward_intermediates(Normalize(model, device)(view), indices=list(range(stages)))
        logits = model.forward_head(last)
    check_classes(model, logits, None)
    return _Seen(logits[0].float().softmax(0).cpu(), [feature[0].float().cpu() for feature in features])


def _compared(name: str, classes: Sequence[str] | None, before: _Seen, after: _Seen, stage: int) -> Answers:
    labels = [int(seen.shares.argmax()) for seen in (before, after)]
    features = [seen.features[stage] for seen in (before, after)]
    return Answers(
        name=name,
        classes=tuple(f"class {label}" if classes is None else classes[label] for label in labels),
        confidences=tuple(100 * float(seen.shares[label]) for seen, label in zip((before, after), labels, strict=True)),
        kept=100 * float(after.shares[labels[0]]),
        maps=_maps(*features),
        cosine=float(F.cosine_similarity(*(feature.mean((1, 2)) for feature in features), dim=0)),
    )


def _maps(before: Tensor, after: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Where each cell (C, h, w) of both views lies on the axis along which those of the first differ most, (h, w).

    Not its norm: after a stage's norm layer that is nearly the same in every cell.
    """
    mean = before.mean((1, 2))
    cells = before.flatten(1).T - mean
    axis = torch.linalg.svd(cells, full_matrices=False).Vh[0]
    axis = axis * axis[axis.abs().argmax()].sign()  # of the two directions always the same
    return tuple(torch.tensordot(axis, features - mean[:, None, None], 1).numpy() for features in (before, after))


def _words(right: int, down: int, turn: float, size: float) -> str:
    parts = {
        f"turned by {abs(turn):.0f} degrees {'counter-' if turn > 0 else ''}clockwise": turn,
        f"{abs(right)} pixels to the {'right' if right > 0 else 'left'}": right,
        f"{abs(down)} pixels {'down' if down > 0 else 'up'}": down,
        f"{size:.2f} times as large": size != 1,
    }
    return "Moved: " + (", ".join(text for text, is_said in parts.items() if is_said) or "not at all")


# ---- an image that fills its canvas: shifted, turned, scaled ---------------------------------------------------------


def translate(images: Tensor, down: int, right: int) -> Tensor:
    """Move the content of (..., H, W) by whole pixels, |down| < H and |right| < W; the border mirrors the picture."""
    rows, columns = (
        folded(torch.arange(size) - shift, torch.tensor(size)).to(images.device)
        for size, shift in zip(images.shape[-2:], (down, right), strict=True)
    )
    return images.index_select(-2, rows).index_select(-1, columns)


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Turn (B, 3, H, W) in [0, 1] counter-clockwise about the middle; the border shows the mirror image.

    Multiples of 90 degrees are exact; other angles are interpolated bicubically.
    """
    return turned(Pictures.alike(images), images.shape[-2:], degrees, mirror=True)


def rescale(images: Tensor, factor: float) -> Tensor:
    """Scale the content of (B, 3, H, W) in [0, 1] about the middle: 2 is twice as large. Bicubic, without aliasing; the
    border shows the mirror image."""
    return scaled(Pictures.alike(images), images.shape[-2:], factor, mirror=True)
