"""Paint the numbers of an operator, and see what it makes of a photograph: a kernel, or nine sampling points."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from stm_lab import figures
from stm_lab.explore.pictures import as_shown, clipped, mean_colours, single_images
from stm_lab.explore.shell import Explorer, State
from stm_lab.mixers.dcn_v3 import GRID
from stm_lab.util.errors import UserError

_OWN = "my own"
_LARGEST = 10.0  # of a kernel's numbers
_FARTHEST, _LOGIT = 8.0, 4.0  # the largest offset in tokens, and the largest logit
_LINE = ("x", "y", "logit")  # a line of the field of points


def kernel_painter(
    images: Mapping[str, Tensor], kernels: Mapping[str, Tensor] | None = None, *, side: int = 7
) -> Explorer:
    """A photograph, a kernel of numbers, and the photograph filtered with it, each colour by itself.

    A click on a cell of the kernel puts the number of the slider `paint` there, and makes it "my own"; so does typing
    numbers into the field, row by row. The photograph is padded with 0, as in a network. The picture shows 0 to 1; a
    kernel whose sum is about 0 is shown from a middle grey on.

    images: by name, each (3, H, W) or (1, 3, H, W), uint8 or in [0, 1]. kernels: by name, beside the usual ones, each
    (K, K), odd and at most `side`.
    Raises UserError for no images, an even side, and a kernel that is too large or not square.
    """
    photographs = single_images(images, "kernel_painter")
    if side < 1 or side % 2 == 0:
        raise UserError(f"kernel_painter: side={side} must be odd")
    known = {name: _framed(name, kernel, side) for name, kernel in {**_usual(side), **(kernels or {})}.items()}

    @lru_cache(maxsize=256)
    def filtered(image: str, numbers: tuple[float, ...]) -> np.ndarray:
        shown = torch.from_numpy(as_shown(photographs[image])).permute(2, 0, 1)
        kernel = torch.tensor(numbers, dtype=shown.dtype).view(1, 1, side, side)
        out = F.conv2d(shown[:, None], kernel, padding=side // 2)[:, 0].permute(1, 2, 0).numpy()
        return out + 0.5 if abs(sum(numbers)) < 0.05 else out

    def current(kernel: str, numbers: str) -> np.ndarray:
        largest = np.full(side, _LARGEST)
        return _read(numbers, _OWN, (side, side), largest) if kernel == _OWN else known[kernel]

    def draw(image: str, kernel: str, paint: float, numbers: str) -> Figure:
        values = current(kernel, numbers)
        made = filtered(image, tuple(values.ravel().tolist()))
        shown = as_shown(photographs[image])
        return figures.kernel_applied(shown, values, made, f"{image}, {kernel}", f"a click paints {paint:g}")

    def select(panel: int, x: float, y: float, now: State) -> State:
        if panel != 1:
            return {}
        values = current(now["kernel"], now["numbers"]).copy()
        values[clipped(y, side), clipped(x, side)] = now["paint"]
        return {"kernel": _OWN, "numbers": _written(values)}

    first = next(iter(known))
    controls = {
        "image": widgets.Dropdown(options=list(photographs)),
        "kernel": widgets.Dropdown(options=[*known, _OWN], value=first),
        "paint": widgets.FloatSlider(1.0, min=-2, max=2, step=0.25),
        "numbers": _field(known[first], _OWN, "24em"),
    }
    return Explorer(draw, controls, select=select)


def _usual(side: int) -> dict[str, np.ndarray]:
    y, x = np.indices((side, side)) - side // 2
    identity = np.float64((x == 0) & (y == 0))
    bell = np.exp(-(x**2 + y**2) / (2 * (side / 5) ** 2))
    bell /= bell.sum()
    near = np.float64((abs(x) <= 1) & (abs(y) <= 1))
    return {
        "blur": bell,
        "identity": identity,
        "a single 1 at the upper right": np.float64((x == x.max()) & (y == y.min())),
        "edges, left to right": np.where((abs(x) == 1) & (y == 0), x, 0.0),
        "sharpen": 2 * identity - bell,
        "what pooling does": near / near.sum() - identity,
    }


def _framed(name: str, kernel: Tensor | np.ndarray, side: int) -> np.ndarray:
    """A kernel with zeros around it, so that it has the painter's side."""
    values = np.asarray(kernel.detach().cpu() if isinstance(kernel, Tensor) else kernel, dtype=float)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or len(values) > side or len(values) % 2 == 0:
        raise UserError(f"kernel_painter: {name!r} is {values.shape}; expected an odd square of {side} at most")
    return np.pad(values, (side - len(values)) // 2)


def moved_points(images: Mapping[str, Tensor]) -> Explorer:
    """A photograph as a map of tokens, and the nine points of one of them, moved by hand: what does each find, and what
    comes out?

    A drag over the map moves the point nearest to where the pointer goes down; a click on the map, or on the four
    tokens beside it, moves the chosen point there; a click on a bar chooses its point. The field `numbers` holds all
    nine, a line each: x, y (tokens), logit, whose softmax is the weight. The sliders show and set the chosen line.

    images: by name, each (3, H, W) or (1, 3, H, W), uint8 or in [0, 1]. Raises UserError for no images.
    """
    photographs, side = single_images(images, "moved_points"), 12

    @lru_cache(maxsize=32)
    def tokens(name: str) -> np.ndarray:
        return mean_colours(photographs[name], side, side)

    def draw(image: str, row: int, column: int, point: int, x: float, y: float, logit: float, numbers: str) -> Figure:
        values = _points(numbers)  # x, y and logit are in there
        return figures.sampled_value(tokens(image), values[:, :2], values[:, 2], token=(row, column), point=point)

    start = np.zeros((9, 3))
    start[7] = 0.5, -0.75, 1
    far = {"min": -_FARTHEST, "max": _FARTHEST, "step": 0.05}
    controls = {
        "image": widgets.Dropdown(options=list(photographs)),
        "row": widgets.IntSlider(side // 2, 0, side - 1, description="row (token)"),
        "column": widgets.IntSlider(side // 2, 0, side - 1, description="column (token)"),
        "point": widgets.IntSlider(7, 0, 8),
        "x": widgets.FloatSlider(0.5, **far),
        "y": widgets.FloatSlider(-0.75, **far),
        "logit": widgets.FloatSlider(1.0, min=-_LOGIT, max=_LOGIT, step=0.1),
        "numbers": _field(start, "all points", "18em"),
    }
    return Explorer(draw, controls, select=_put, grab=_nearest_point, follow=_same_line)


def _put(panel: int, x: float, y: float, now: State) -> State:
    """A click on the map or the four tokens puts the chosen point there; one on a bar chooses its point."""
    if panel > 2:
        return {}  # the swatches, which have no places
    if panel == 2:
        return {"point": clipped(y, 9)}
    own = np.array([now["column"], now["row"]]) + GRID[now["point"]]
    along, down = np.clip((np.array([x, y]) - own).round(2), -_FARTHEST, _FARTHEST).tolist()
    return {"x": along, "y": down}


def _nearest_point(panel: int, x: float, y: float, now: State) -> State | None:
    """A drag takes hold of the nearest point of the map, or of the chosen one among its four tokens."""
    if panel > 0:
        return {} if panel == 1 else None
    try:
        offsets = _points(now["numbers"])[:, :2]
    except UserError:
        return None  # the message below the picture says so
    places = np.array([now["column"], now["row"]]) + GRID + offsets
    return {"point": int(np.linalg.norm(places - [x, y], axis=1).argmin())}


def _same_line(changed: str, now: State) -> State:
    """The sliders show the chosen point's line of the field, and the field what the sliders say."""
    if changed not in (*_LINE, "point", "numbers"):
        return {}
    values = _points(now["numbers"])
    if changed not in _LINE:
        return dict(zip(_LINE, values[now["point"]].tolist(), strict=True))
    values[now["point"], _LINE.index(changed)] = now[changed]
    return {"numbers": _written(values)}


def _points(text: str) -> np.ndarray:
    """(9, [x, y, logit])"""
    return _read(text, "all points", (9, 3), np.array([_FARTHEST, _FARTHEST, _LOGIT]))


# ---- a field of numbers ---------------------------------------------------------------------------------------------


def _field(values: np.ndarray, description: str, width: str) -> widgets.Textarea:
    return widgets.Textarea(
        _written(values), description=description, rows=len(values), continuous_update=False, layout={"width": width}
    )


def _written(values: np.ndarray) -> str:
    return "\n".join(" ".join(f"{value:.3g}" for value in row) for row in values)


def _read(text: str, what: str, shape: tuple[int, int], largest: np.ndarray) -> np.ndarray:
    """The numbers of a field, a row in each line; `largest` absolute values by column.

    Raises UserError, for the line below the picture, for anything else.
    """
    rows = [line.split() for line in text.strip().splitlines()]
    if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
        raise UserError(f"{what}: {shape[0]} lines of {shape[1]} numbers are needed, with spaces between")
    try:
        values = np.array(rows, dtype=float)
    except ValueError as error:
        raise UserError(f"{what}: {error}") from None
    if not (np.abs(values) <= largest).all():  # nor NaN
        limits = ", ".join(f"-{most:g} to {most:g}" for most in dict.fromkeys(largest.tolist()))
        raise UserError(f"{what}: a number is too large; its columns hold {limits}")
    return values
