"""Where deformable mixers look: as they learned it, and as one moves their points oneself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn

from stm_lab.explore.pictures import as_shown, check_models, mean_colours, one_each, place_controls, token_at
from stm_lab.explore.shell import Explorer
from stm_lab.measure._batches import as_images
from stm_lab.measure.sampling import LayerPoints
from stm_lab.measure.sampling import sampling_points as measured
from stm_lab.mixers.dcn_v3 import GRID
from stm_lab.util.errors import UserError

_FARTHEST = 8.0  # tokens, of an offset that is moved by hand
_LOGIT = 4.0
_LINE = ("x", "y", "logit")  # a line of the field


def sampling_points(models: Mapping[str, nn.Module], images: Tensor, *, stage: int = 1) -> Explorer:
    """Where a token takes its samples in trained deformable mixers, drawn over the image: one group, and all of them.

    Choose model, stage, block, group and image; click a token, or move the sliders for its row and column in pixels. A
    stage with fewer blocks or groups shows its last one.

    Args:
        models: models with our `dcn_v3` mixers, by name.
        images: (N, 3, H, W), uint8 or in [0, 1], at the size at which they are shown to the models.
        stage: the one that is shown first, from 1.

    Raises UserError for no models or images, and a model without deformable mixers.
    """
    check_models(models)
    images = as_images(images, next(iter(models.values()))).pixels
    size = tuple(images.shape[-2:])

    @lru_cache(maxsize=256)
    def layers(name: str, image: int) -> dict[int, list[LayerPoints]]:
        """By stage, from 1."""
        found: dict[int, list[LayerPoints]] = {}
        for layer in measured(models[name], images[image : image + 1]).layers:
            found.setdefault((layer.stage or 0) + 1, []).append(layer)
        return found

    def draw(model: str, stage: int, block: int, group: int, image: int, row: int, column: int) -> Figure:
        from stm_lab.figures import sampling_points as drawn

        number, layer = _block_of(model, layers(model, image), stage, block)
        own = min(group, layer.groups)
        y, x = token_at(row, column, size, layer.map_size)
        panels = _group_and_all(layer.places[0, y, x], layer.weights[0, y, x], own)
        title = f"{model}, stage {stage}, block {number}: the token in row {y}, column {x} of {layer.map_size[0]}x"
        title += f"{layer.map_size[1]}"
        return drawn(as_shown(images[image]), panels, size=layer.map_size, token=(y, x), title=title, panel_size=4.3)

    def select(panel: int, x: float, y: float) -> Mapping[str, int]:
        now = explorer.state
        found = layers(now["model"], now["image"])
        cells = _block_of(now["model"], found, now["stage"], now["block"])[1].map_size
        row, column = ((at + 0.5) * pixels / side for at, pixels, side in zip((y, x), size, cells, strict=True))
        if not (0 <= row < size[0] and 0 <= column < size[1]):
            return {}  # outside of the image there are no tokens
        return {"row": int(row), "column": int(column)}

    controls = _layer_controls({name: layers(name, 0) for name in models}, stage)
    explorer = Explorer(draw, {**controls, **place_controls(len(images), size)}, select=select)
    return explorer


def _block_of(model: str, layers: Mapping[int, list[LayerPoints]], stage: int, block: int) -> tuple[int, LayerPoints]:
    """A stage's block, or its last one, with its number. Raises UserError for a stage without such."""
    if stage not in layers:
        known = ", ".join(map(str, layers))
        raise UserError(f"{model} has no deformable mixers in stage {stage}; known: {known}")
    number = min(block, len(layers[stage]))
    return number, layers[stage][number - 1]


def _group_and_all(places: np.ndarray, weights: np.ndarray, group: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Places (h, 9, 2) and weights (h, 9) of a token: those of one group, from 1, and of all, if there are more."""
    panels = {f"group {group} of {len(places)}": (places[group - 1], weights[group - 1])}
    if len(places) > 1:
        panels[f"all {len(places)} groups"] = (places.reshape(-1, 2), weights.reshape(-1))
    return panels


def _layer_controls(layers: Mapping[str, Mapping[int, list[LayerPoints]]], stage: int) -> dict[str, widgets.Widget]:
    """By model and stage, its layers -> controls that choose any of them; the stage first, if there is one."""
    stages = sorted({number for found in layers.values() for number in found})
    blocks = [found[number] for found in layers.values() for number in found]
    groups = max(layer.groups for block in blocks for layer in block)
    first = stage if stage in stages else stages[0]
    return {
        "model": widgets.Dropdown(options=list(layers), description="model"),
        "stage": widgets.Dropdown(options=stages, value=first, description="stage"),
        "block": widgets.IntSlider(1, 1, max(map(len, blocks)), description="block"),
        "group": widgets.IntSlider(1, 1, groups, description="group"),
    }


def moved_points(images: Mapping[str, Tensor], *, side: int = 12) -> Explorer:
    """A photograph as a map of tokens, and the nine points of one of them, moved by hand: what does each find, and what
    comes out?

    Drag a point over the map: the one nearest to where the pointer goes down is chosen, and follows the pointer until
    it is let go. Or choose a point; move it by its two offsets (in tokens) and change its logit, whose softmax is the
    weight; or click the map, or the four tokens beside it: the chosen point goes there. A click on a bar chooses its
    point. The field `numbers` holds all nine, a line each: x, y, logit, and says it all: the sliders show the chosen
    point's line, and write into it. So `figure` takes `numbers`; where `x`, `y` or `logit` are given, they are written
    into the point's line.

    Args:
        images: by name, each (3, H, W) or (1, 3, H, W), uint8 or in [0, 1].
        side: of the map, tokens.

    Raises UserError for no images and a map of fewer than 2 tokens or more than 40.
    """
    if not images:
        raise UserError("moved_points: no images; give {name: image}")
    if not 2 <= side <= 40:
        raise UserError(f"moved_points: side={side} must be 2 to 40")
    pictures = one_each(images)

    @lru_cache(maxsize=32)
    def tokens(name: str) -> np.ndarray:
        """(side, side, 3): the mean colour of each token's patch."""
        return mean_colours(pictures[name], side, side)

    def draw(image: str, row: int, column: int, point: int, x: float, y: float, logit: float, numbers: str) -> Figure:
        from stm_lab.figures import sampled_value

        values = _read(numbers)  # x, y and logit are in there
        return sampled_value(tokens(image), values[:, :2], values[:, 2], token=(row, column), point=point)

    def select(panel: int, x: float, y: float) -> Mapping[str, float]:
        if panel > 2:
            return {}  # the swatches, which have no places
        now = explorer.state
        if panel == 2:
            return {"point": min(max(round(y), 0), 8)}
        own = np.array([now["column"], now["row"]]) + GRID[now["point"]]
        along, down = np.clip((np.array([x, y]) - own).round(2), -_FARTHEST, _FARTHEST).tolist()
        return {"x": along, "y": down}

    def grab(panel: int, x: float, y: float) -> Mapping[str, int] | None:
        if panel > 1:
            return None  # bars and swatches are not moved
        if panel == 1:
            return {}  # the four tokens of the chosen point
        now = explorer.state
        try:
            offsets = _read(now["numbers"])[:, :2]
        except UserError:
            return None  # the picture's message says so
        places = np.array([now["column"], now["row"]]) + GRID + offsets
        return {"point": int(np.linalg.norm(places - [x, y], axis=1).argmin())}

    controls = _point_controls(list(pictures), side)
    explorer = _Moved(draw, controls, select=select, grab=grab)
    _together(explorer, controls)
    return explorer


class _Moved(Explorer):
    """One whose sliders x, y and logit are a line of its field."""

    def figure(self, **state: Any) -> Figure:
        given = {name: state.pop(name) for name in _LINE if name in state}
        if given:
            now = {**self.state, **state}
            values = _read(now["numbers"])
            if not 0 <= now["point"] < len(values):
                raise UserError(f"point={now['point']}: 0 to {len(values) - 1}")
            for name, value in given.items():
                values[now["point"], _LINE.index(name)] = value
            state["numbers"] = _written(values)
        return super().figure(**state)


def _point_controls(names: list[str], side: int) -> dict[str, widgets.Widget]:
    start = np.zeros((9, 3))
    start[7] = 0.5, -0.75, 1
    far = {"min": -_FARTHEST, "max": _FARTHEST, "step": 0.05}
    return {
        "image": widgets.Dropdown(options=names, description="image"),
        "row": widgets.IntSlider(side // 2, 0, side - 1, description="row (token)"),
        "column": widgets.IntSlider(side // 2, 0, side - 1, description="column (token)"),
        "point": widgets.IntSlider(7, 0, 8, description="point"),
        "x": widgets.FloatSlider(0.5, description="x", **far),
        "y": widgets.FloatSlider(-0.75, description="y", **far),
        "logit": widgets.FloatSlider(1.0, min=-_LOGIT, max=_LOGIT, step=0.1, description="logit"),
        "numbers": widgets.Textarea(
            _written(start), description="all points", rows=9, continuous_update=False, layout={"width": "18em"}
        ),
    }


def _together(explorer: Explorer, controls: Mapping[str, widgets.Widget]) -> None:
    """The sliders show the chosen point's line of the field, and the field what the sliders say."""
    sliders = [controls[name] for name in _LINE]

    def load(_: object) -> None:
        try:
            values = _read(controls["numbers"].value)
        except UserError:
            return  # the picture's message says so
        with explorer.quietly():
            for slider, value in zip(sliders, values[controls["point"].value].tolist(), strict=True):
                slider.unobserve(keep, "value")
                slider.value = value
                slider.observe(keep, "value")

    def keep(_: object) -> None:
        try:
            values = _read(controls["numbers"].value)
        except UserError:
            return
        values[controls["point"].value] = [slider.value for slider in sliders]
        with explorer.quietly():
            controls["numbers"].unobserve(load, "value")
            controls["numbers"].value = _written(values)
            controls["numbers"].observe(load, "value")

    controls["point"].observe(load, "value")
    controls["numbers"].observe(load, "value")
    for slider in sliders:
        slider.observe(keep, "value")


def _written(values: np.ndarray) -> str:
    return "\n".join(" ".join(f"{value:.3g}" for value in line) for line in values)


def _read(text: str) -> np.ndarray:
    """(9, [x, y, logit]). Raises UserError, for the line below the picture, where the field holds something else."""
    lines = [line.split() for line in text.strip().splitlines()]
    if len(lines) != 9 or any(len(line) != 3 for line in lines):
        raise UserError("all points: nine lines of x, y and logit are needed, with spaces between")
    try:
        values = np.array([[float(number) for number in line] for line in lines])
    except ValueError as error:
        raise UserError(f"all points: {error}") from None
    if not (np.abs(values[:, :2]) <= _FARTHEST).all() or not (np.abs(values[:, 2]) <= _LOGIT).all():
        raise UserError(f"all points: x and y from {-_FARTHEST:g} to {_FARTHEST:g}, logits to {_LOGIT:g}, please")
    return values
