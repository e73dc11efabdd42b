"""How fast is a model: images a second, measured, and where the time goes."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from stm_lab.measure._batches import Data, as_images, input_size, model_device, model_name
from stm_lab.measure._units import OUTSIDE, REST, Unit, gathered, units
from stm_lab.pixels import Normalize
from stm_lab.util.devices import resolve_device
from stm_lab.util.errors import UserError


@dataclass(frozen=True, eq=False)
class Throughput:
    """Images a second: `images_per_second` is the median of `repeats`; `quartiles` (25%, 75%) are their spread."""

    model: str
    device: str
    batch_size: int
    image_size: tuple[int, int]
    training: bool
    images_per_second: float
    quartiles: tuple[float, float]
    repeats: np.ndarray

    def rows(self) -> list[dict]:
        return [
            {
                "model": self.model,
                "device": self.device,
                "batch_size": self.batch_size,
                "image_size": list(self.image_size),
                "training": self.training,
                "images_per_second": self.images_per_second,
                "images_per_second_quartiles": list(self.quartiles),
            }
        ]


@dataclass(frozen=True)
class PartTime:
    """Milliseconds for one image, in batches; a part that is several modules takes the sum of theirs."""

    stage: str
    role: str
    milliseconds: float


@dataclass(frozen=True)
class PartTimes:
    """Where the time goes: milliseconds for one image (on the CPU of processor time), of the whole and of each role.

    Each module was timed alone, on the very inputs that it has in the model; `rest` is what the whole takes besides:
    norms, layer scale, residuals. A module that runs alone may find more of its data in the cache than within the
    model, and the rest is so much larger.
    """

    model: str
    device: str
    batch_size: int
    image_size: tuple[int, int]
    training: bool
    milliseconds: float
    parts: tuple[PartTime, ...]

    def rows(self, by: str = "role") -> list[dict]:
        """One row a role, or with `by="stage"` a role and stage, the last one the total."""
        keys = ("stage", "role") if by == "stage" else ("role",)
        facts = {"model": self.model, "device": self.device, "training": self.training}
        total = {**dict.fromkeys(keys, ""), "role": "total", "milliseconds": self.milliseconds}
        return [facts | row for row in (*gathered(self.parts, keys, {"milliseconds": sum}), total)]


def throughput(
    model: nn.Module,
    data: Data | None = None,
    *,
    device: str | torch.device | None = None,
    batch_size: int = 32,
    image_size: int | None = None,
    seconds: float = 2.0,
    training: bool = False,
) -> Throughput:
    """Measure images a second in batches of `batch_size`, over about `seconds` after a warm-up; at least three repeats.

    Forward without gradients or, with `training`, forward and backward in training mode, without an optimizer's step.
    The first images of `data` are used, again and again if there are too few; without data, noise of `image_size`
    (default: the model's own). They are on the device, normalised, before the clock starts. A copy of the model is
    measured, because training moves running statistics and leaves gradients. `device`: default the model's own.
    Raises UserError for an unknown device, data that are no images, batch_size < 1 and seconds <= 0.
    """
    ready = prepared(model, data, device, batch_size, image_size, seconds, "throughput")
    step = _step(ready.model.train(training), ready.images, training)

    repeats = batch_size * _rates(step, ready.device, seconds)
    low, median, high = statistics.quantiles(repeats.tolist(), n=4)
    return Throughput(
        **ready.facts, training=training, images_per_second=median, quartiles=(low, high), repeats=repeats
    )


def time_by_part(
    model: nn.Module,
    data: Data | None = None,
    *,
    device: str | torch.device | None = None,
    batch_size: int = 32,
    image_size: int | None = None,
    seconds: float = 2.0,
    training: bool = False,
) -> PartTimes:
    """Measure where a model's time goes: stem, mixers, MLPs, downsampling, head and the rest, stage by stage.

    The inputs of each of these modules are taken from one pass, then each is timed alone: forward or, with `training`,
    forward and backward. Whole and modules take turns for about `seconds`, five rounds at least; the medians count. On
    the CPU it is processor time, summed over threads, which other programs on the machine lengthen little; elsewhere
    wall time. Everything else, and what is raised, is as in `throughput`.
    """
    ready = prepared(model, data, device, batch_size, image_size, seconds, "time_by_part")
    ready.model.train(training)
    calls = inputs_of_units(ready.model, ready.images)
    steps = [_step(ready.model, ready.images, training), *(alone(unit.module, args, training) for unit, args in calls)]
    whole, *each = (1e3 * second / batch_size for second in _in_turn(steps, ready.device, seconds))
    parts = [PartTime(unit.stage, unit.role, milliseconds) for (unit, _), milliseconds in zip(calls, each, strict=True)]
    parts.append(PartTime(OUTSIDE, REST, whole - sum(each)))
    return PartTimes(**ready.facts, training=training, milliseconds=whole, parts=tuple(parts))


# ---- what `memory` needs as well -------------------------------------------------------------------------------------


class Ready(NamedTuple):
    """A copy of the model on the device, and one normalised batch (B, 3, H, W)."""

    model: nn.Module
    images: Tensor
    device: torch.device

    @property
    def facts(self) -> dict:
        """What every result says of how it was measured."""
        return {
            "model": model_name(self.model),
            "device": str(self.device),
            "batch_size": len(self.images),
            "image_size": tuple(self.images.shape[-2:]),
        }


def prepared(
    model: nn.Module,
    data: Data | None,
    device: str | torch.device | None,
    batch_size: int,
    image_size: int | None,
    seconds: float,
    what: str,
) -> Ready:
    """Raises UserError for an unknown device, data that are no images, batch_size < 1 and seconds <= 0."""
    if batch_size < 1 or not seconds > 0:
        raise UserError(f"{what} needs batch_size >= 1 and seconds > 0, not {batch_size} and {seconds}")
    if data is None:
        height, width = (image_size, image_size) if image_size else input_size(model)
        data = torch.rand(batch_size, 3, height, width, generator=torch.Generator().manual_seed(0))
    pixels = as_images(data, model, image_size, limit=batch_size).pixels
    pixels = pixels[torch.arange(batch_size) % len(pixels)]
    device = model_device(model) if device is None else resolve_device(device)
    return Ready(copy.deepcopy(model).to(device), Normalize(model, device)(pixels), device)


def inputs_of_units(model: nn.Module, images: Tensor) -> list[tuple[Unit, tuple]]:
    """Each unit with a role that one pass calls, with its positional inputs, cut from the graph."""
    caught: dict[str, tuple] = {}

    def catch(name: str) -> Callable:
        def before(_: nn.Module, args: tuple) -> None:
            caught.setdefault(name, tree_map(lambda part: part.detach() if isinstance(part, Tensor) else part, args))

        return before

    parts = [unit for unit in units(model) if unit.role != REST]
    hooks = [unit.module.register_forward_pre_hook(catch(unit.name)) for unit in parts]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [(unit, caught[unit.name]) for unit in parts if unit.name in caught]


def alone(module: nn.Module, args: tuple, training: bool) -> Callable[[], None]:
    """A step of one module: forward or, with `training`, forward and backward, with gradients of its inputs too."""
    in_place = getattr(module, "inplace", False)  # then it gets a copy to overwrite
    if not training:
        return _forward(lambda *given: module(*tree_map(_copied, given) if in_place else given), args)

    def forward_backward() -> None:
        module.zero_grad()
        given = tree_map(_leaf, args)
        given = tree_map(_copied, given) if in_place else given
        out = next(part for part in tree_leaves(module(*given)) if isinstance(part, Tensor))
        if out.requires_grad:
            out.backward(torch.ones_like(out))

    return forward_backward


def _leaf(part: object) -> object:
    return part.detach().requires_grad_(part.is_floating_point()) if isinstance(part, Tensor) else part


def _copied(part: object) -> object:
    return part.clone() if isinstance(part, Tensor) else part


def _forward(module: Callable, args: tuple) -> Callable[[], None]:
    def forward() -> None:
        with torch.inference_mode():
            module(*args)

    return forward


def _step(model: nn.Module, images: Tensor, training: bool) -> Callable[[], None]:
    def forward_backward() -> None:
        model.zero_grad()
        model(images).float().square().mean().backward()

    return forward_backward if training else _forward(model, (images,))


def _in_turn(steps: Sequence[Callable[[], None]], device: torch.device, seconds: float) -> list[float]:
    """The median seconds of each step; all of them take turns. On the CPU, processor time of all threads: where another
    program runs, long steps are interrupted and short ones are not, and the wall clock would not compare them."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    rounds: list[list[float]] = []
    start = time.perf_counter()
    while len(rounds) < 6 or time.perf_counter() - start < seconds:
        rounds.append([_timed(step, 1, device, clock) for step in steps])
    return np.median(rounds[1:], axis=0).tolist()  # the first warms up


def _rates(step: Callable[[], None], device: torch.device, seconds: float, repeats: int = 10) -> np.ndarray:
    """Steps a second in each repeat; a repeat is as many steps as fit into its share of the time, and one at least."""
    _timed(step, 2, device)  # warm-up: memory, kernels chosen, clocks raised
    steps = max(1, round(seconds / repeats / _timed(step, 1, device)))
    rates: list[float] = []
    start = time.perf_counter()
    while len(rates) < 3 or (len(rates) < repeats and time.perf_counter() - start < seconds):
        rates.append(steps / _timed(step, steps, device))
    return np.array(rates)


def _timed(
    step: Callable[[], None], steps: int, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of so many steps."""
    start = clock()
    for _ in range(steps):
        step()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)  # a kernel that was launched has not run yet
    return clock() - start
