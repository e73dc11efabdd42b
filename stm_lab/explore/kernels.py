"""Paint a kernel, and see what it makes of a photograph."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from stm_lab.explore.pictures import as_shown, one_each
from stm_lab.explore.shell import Explorer
from stm_lab.util.errors import UserError

_OWN = "my own"
_MOST = 10.0  # the largest number that a kernel may hold


def kernel_painter(
    images: Mapping[str, Tensor], kernels: Mapping[str, Tensor] | None = None, *, side: int = 7
) -> Explorer:
    """A photograph, a kernel of numbers, and the photograph filtered with it, each colour by itself.

    Choose a kernel, or paint: a click on one of its cells puts the number of the slider `paint` there, and makes it
    "my own"; so does typing numbers into the field, row by row. What is filtered has 0 outside, as in a network. The
    picture shows 0 to 1; a kernel whose sum is about 0 is shown from a middle grey on.

    Args:
        images: by name, each (3, H, W) or (1, 3, H, W), uint8 or in [0, 1].
        kernels: by name, each (K, K) with K <= `side`, odd: trained ones, say; besides those that are there anyway.
        side: of the painted kernel, odd.

    Raises UserError for no images, an even side, and a kernel that is too large or not square.
    """
    if not images:
        raise UserError("kernel_painter: no images; give {name: image}")
    if side < 1 or side % 2 == 0:
        raise UserError(f"kernel_painter: side={side} must be odd")
    pictures = one_each(images)
    known = {name: _framed(name, kernel, side) for name, kernel in {**_classics(side), **(kernels or {})}.items()}

    @lru_cache(maxsize=256)
    def filtered(image: str, numbers: tuple[float, ...]) -> np.ndarray:
        picture = torch.from_numpy(as_shown(pictures[image])).permute(2, 0, 1)
        kernel = torch.tensor(numbers, dtype=picture.dtype).view(1, 1, side, side)
        out = F.conv2d(picture[:, None], kernel, padding=side // 2)[:, 0].permute(1, 2, 0).numpy()
        return out + 0.5 if abs(sum(numbers)) < 0.05 else out

    def current(kernel: str, numbers: str) -> np.ndarray:
        return _read(numbers, side) if kernel == _OWN else known[kernel]

    def draw(image: str, kernel: str, paint: float, numbers: str) -> Figure:
        from stm_lab.figures import kernel_applied

        values = current(kernel, numbers)
        made = filtered(image, tuple(values.ravel().tolist()))
        note = f"a click paints {paint:g}"
        return kernel_applied(as_shown(pictures[image]), values, made, f"{image}, {kernel}", note)

    first = next(iter(known))
    controls = {
        "image": widgets.Dropdown(options=list(pictures), description="image"),
        "kernel": widgets.Dropdown(options=[*known, _OWN], value=first, description="kernel"),
        "paint": widgets.FloatSlider(1.0, min=-2, max=2, step=0.25, description="paint"),
        "numbers": widgets.Textarea(
            _written(known[first]), description=_OWN, rows=side, continuous_update=False, layout={"width": "24em"}
        ),
    }

    def select(panel: int, x: float, y: float) -> Mapping[str, str]:
        if panel != 1:
            return {}
        now = explorer.state
        values = current(now["kernel"], now["numbers"]).copy()
        values[min(max(round(y), 0), side - 1), min(max(round(x), 0), side - 1)] = now["paint"]
        return {"kernel": _OWN, "numbers": _written(values)}

    explorer = Explorer(draw, controls, select=select)
    return explorer


def _classics(side: int) -> dict[str, np.ndarray]:
    middle, place = side // 2, np.arange(side) - side // 2
    identity = np.zeros((side, side))
    identity[middle, middle] = 1
    bell = np.exp(-(place[:, None] ** 2 + place**2) / (2 * (side / 5) ** 2))
    bell /= bell.sum()
    moved = np.zeros((side, side))
    moved[0, -1] = 1
    edge = np.zeros((side, side))
    if side > 1:
        edge[middle, [middle - 1, middle + 1]] = -1, 1
    return {
        "blur": bell,
        "identity": identity,
        "a single 1 at the upper right": moved,
        "edges, left to right": edge,
        "sharpen": 2 * identity - bell,
        "what pooling does": _mean(side) - identity,
    }


def _mean(side: int) -> np.ndarray:
    """The average of 3x3, in the middle."""
    mean, middle = np.zeros((side, side)), side // 2
    reach = min(1, middle)
    mean[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1] = 1 / (2 * reach + 1) ** 2
    return mean


def _framed(name: str, kernel: Tensor | np.ndarray, side: int) -> np.ndarray:
    """A kernel with zeros round it, so that it has the painter's side."""
    values = np.asarray(kernel.detach().cpu() if isinstance(kernel, Tensor) else kernel, dtype=float)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or len(values) > side or len(values) % 2 == 0:
        raise UserError(f"kernel_painter: {name!r} is {values.shape}; expected an odd square of {side} at most")
    return np.pad(values, (side - len(values)) // 2)


def _written(values: np.ndarray) -> str:
    return "\n".join(" ".join(f"{value:.3g}" for value in row) for row in values)


def _read(text: str, side: int) -> np.ndarray:
    """The numbers of the field. Raises UserError, for the line below the picture, where they are no kernel."""
    rows = [line.split() for line in text.strip().splitlines()]
    if len(rows) != side or any(len(row) != side for row in rows):
        raise UserError(f"{_OWN}: {side} lines of {side} numbers are needed, with spaces between")
    try:
        values = np.array([[float(number) for number in row] for row in rows])
    except ValueError as error:
        raise UserError(f"{_OWN}: {error}") from None
    if not (np.abs(values) <= _MOST).all():
        raise UserError(f"{_OWN}: numbers from {-_MOST:g} to {_MOST:g}, please")
    return values
