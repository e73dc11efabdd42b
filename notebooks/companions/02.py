"""Explorer of notebook 02: paint a kernel, and see how it filters a photograph."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from stm_lab.explore.parts import as_shown, clipped, matrix_field, matrix_text, read_matrix, single_images
from stm_lab.explore.shell import Explorer, State
from stm_lab.figures.draw import limits, numbers, picture, placed
from stm_lab.figures.style import described, drawing
from stm_lab.util.errors import UserError


@drawing
def kernel_applied(
    image: np.ndarray, kernel: np.ndarray, filtered: np.ndarray, title: str = "", note: str = ""
) -> Figure:
    """Draw an image, a kernel with its numbers, and the filtered image.

    image, filtered: (H, W, 3), in [0, 1]; values outside are clipped. kernel: (K, K).
    title: of the figure; note: above the kernel.
    """
    figure, panels = placed((10.2, 3.75), [(x, 0.03, 0.31, 0.84) for x in (0.01, 0.345, 0.68)])
    picture(panels[0], image.clip(0, 1), "the image")
    name = f"the kernel, sum {kernel.sum():.3g}{f'; {note}' if note else ''}"
    texts = [f"{value:.2g}" for value in kernel.flat]
    numbers(panels[1], picture(panels[1], kernel, name, **limits([kernel], True)), texts)
    picture(panels[2], filtered.clip(0, 1), "the filtered image")
    figure.suptitle(title, fontsize=10)
    rows = " / ".join(" ".join(texts[i : i + len(kernel)]) for i in range(0, kernel.size, len(kernel)))
    change = float(np.abs(filtered.clip(0, 1) - image.clip(0, 1)).mean())
    text = f"Kernel {rows}; its sum is {kernel.sum():.3g}. The image changes by {change:.3f} on average."
    return described(figure, f"{title}. {text}" if title else text)


_OWN = "my own"


_LARGEST = 10.0  # of a kernel's numbers


def kernel_painter(
    images: Mapping[str, Tensor], kernels: Mapping[str, Tensor] | None = None, *, side: int = 7
) -> Explorer:
    """Explore a photograph, a kernel, and the photograph filtered with it, each colour separately.

    A click on a cell of the kernel writes the number of the slider `paint` there and selects the kernel "my own"; so
    does typing numbers into the field, row by row. The photograph is padded with 0, as in a network. The picture shows
    0 to 1; if a kernel's sum is about 0, 0.5 is added.

    images: by name, each (3, H, W) or (1, 3, H, W), uint8 or in [0, 1]. kernels: by name, in addition to the usual
    ones, each (K, K), odd and at most `side`.
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
        return read_matrix(numbers, _OWN, (side, side), largest) if kernel == _OWN else known[kernel]

    def draw(image: str, kernel: str, paint: float, numbers: str) -> Figure:
        values = current(kernel, numbers)
        made = filtered(image, tuple(values.ravel().tolist()))
        shown = as_shown(photographs[image])
        return kernel_applied(shown, values, made, f"{image}, {kernel}", f"a click paints {paint:g}")

    def select(panel: int, x: float, y: float, now: State) -> State:
        if panel != 1:
            return {}
        values = current(now["kernel"], now["numbers"]).copy()
        values[clipped(y, side), clipped(x, side)] = now["paint"]
        return {"kernel": _OWN, "numbers": matrix_text(values)}

    first = next(iter(known))
    controls = {
        "image": widgets.Dropdown(options=list(photographs)),
        "kernel": widgets.Dropdown(options=[*known, _OWN], value=first),
        "paint": widgets.FloatSlider(1.0, min=-2, max=2, step=0.25),
        "numbers": matrix_field(known[first], _OWN, "24em"),
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
