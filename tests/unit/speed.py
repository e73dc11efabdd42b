"""What an interaction costs on one idle core: bounds in seconds hold on slow and busy machines, too."""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure

_NOMINAL = 0.2  # seconds of processor time of `_work` on one idle core of an AMD EPYC


class Stopwatch:
    """Times what explorers do. Cores that are shared get slower and faster within a second, so that each time stands
    beside the times that the same work took right before it and right after it.
    """

    def __init__(self) -> None:
        _work()  # imports, fonts
        self._before = _work()
        self.seconds: list[float] = []  # of one idle core

    def time(self, act: Callable[..., object], **arguments: object) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            started = time.process_time()
            act(**arguments)
            spent = time.process_time() - started
        finally:
            torch.set_num_threads(threads)
        after = _work()
        slowness = max(1.0, (self._before + after) / 2 / _NOMINAL)
        self.seconds.append(spent / slowness)
        self._before = after

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def _work() -> float:
    """What explorers do: a small network forwards and backwards, and a figure; its seconds of processor time."""
    import stm_lab

    torch.manual_seed(0)
    model = stm_lab.build_model("convnext", "nano", num_classes=10)
    images = torch.rand(4, 3, 64, 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        started = time.process_time()
        for _ in range(4):
            model(images).sum().backward()
        figure = Figure(figsize=(6, 3), layout="constrained")
        for axes in figure.subplots(1, 2):
            axes.plot(np.arange(50))
            axes.set(xlabel="x", ylabel="y", title="t")
        figure.draw_without_rendering()
        return time.process_time() - started
    finally:
        torch.set_num_threads(threads)
