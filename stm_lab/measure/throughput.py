"""How fast is a model: images a second, measured, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.benchmark import Timer

from stm_lab.measure._batches import Data, rows_of
from stm_lab.measure._units import (
    OUTSIDE,
    REST,
    Setting,
    inputs_of_units,
    prepared,
    rows_with_total,
    step_of,
    whole_step,
)


@dataclass(frozen=True, eq=False)
class Throughput(Setting):
    """Images a second: `images_per_second` is the median of `repeats`; `quartiles` (25%, 75%) are their spread."""

    training: bool
    images_per_second: float
    quartiles: tuple[float, float]
    repeats: np.ndarray

    def rows(self) -> list[dict]:
        """One row."""
        names = "model device batch_size image_size training images_per_second"
        return rows_of(self, names, images_per_second_quartiles=self.quartiles)


@dataclass(frozen=True)
class PartTimes(Setting):
    """Milliseconds for one image (on the CPU of processor time), of the whole model and of `parts`: a row a module.

    Each module was timed alone, on the inputs that it has in the model; `rest` is the remainder of the whole: norms,
    layer scale, residuals. A module that runs alone may find more of its data in the cache, so the rest grows.
    """

    training: bool
    milliseconds: float
    parts: tuple[dict[str, Any], ...]

    def rows(self, by: str = "role") -> list[dict]:
        """One row a role, or with `by="stage"` a role and stage; the last one is the total."""
        (facts,) = rows_of(self, "model device training")
        return rows_with_total(facts, self.parts, by, {"milliseconds": self.milliseconds})


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
    """Measure images a second in batches of `batch_size`, for `seconds` after a warm-up; at least three repeats.

    Forward without gradients or, with `training`, forward and backward in training mode, without an optimizer's step.
    The first images of `data` are used, repeated if there are too few; without data, noise of `image_size` (default:
    the model's own). They are on the device, normalised, before the clock starts. A copy of the model is measured,
    because training moves running statistics and leaves gradients. `device`: default the model's own.
    Raises UserError for an unknown device, data that are no images, batch_size < 1 and seconds <= 0.
    """
    model, images, facts = prepared(model, data, device, batch_size, image_size, seconds)
    step = whole_step(model.train(training), images, training)
    timer = Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
    timer.timeit(1)  # warm-up: memory, kernels chosen, clocks raised
    times = timer.blocked_autorange(min_run_time=seconds).times
    while len(times) < 3:
        times += timer.timeit(1).times

    repeats = batch_size / np.array(times)
    low, median, high = np.quantile(repeats, (0.25, 0.5, 0.75)).tolist()
    return Throughput(**facts, training=training, images_per_second=median, quartiles=(low, high), repeats=repeats)


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

    Each of these modules is timed alone, on inputs that are taken from one pass. Whole and modules take turns for about
    `seconds`, five rounds at least; the medians count. On the CPU it is processor time, summed over threads, which
    depends little on other programs; elsewhere wall time. Everything else, and what is raised, is as in `throughput`.
    """
    model, images, facts = prepared(model, data, device, batch_size, image_size, seconds)
    calls = inputs_of_units(model.train(training), images)
    steps = [whole_step(model, images, training), *(step_of(unit.module, args, training) for unit, args in calls)]
    whole, *each = (1e3 * second / batch_size for second in _in_turn(steps, images.device, seconds))
    places = [*((unit.stage, unit.role) for unit, _ in calls), (OUTSIDE, REST)]
    times = zip(places, [*each, whole - sum(each)], strict=True)
    parts = [{"stage": stage, "role": role, "milliseconds": milliseconds} for (stage, role), milliseconds in times]
    return PartTimes(**facts, training=training, milliseconds=whole, parts=tuple(parts))


def _in_turn(steps: Sequence[Callable[[], None]], device: torch.device, seconds: float) -> list[float]:
    """The median seconds of each step; all of them take turns. On the CPU, processor time of all threads: the wall
    clock would count interruptions by other programs, which hit long steps more often than short ones."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < 6 or time.perf_counter() < end:
        rounds.append([])
        for step in steps:
            start = clock()
            step()
            if device.type != "cpu":
                torch.accelerator.synchronize(device)  # a kernel that was launched has not run yet
            rounds[-1].append(clock() - start)
    return np.median(rounds[1:], axis=0).tolist()  # the first warms up
