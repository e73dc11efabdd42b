"""How slow this machine is just now: bounds in seconds are those of an idle core, and grow with it."""

import time
from functools import cache

import numpy as np
import torch
from matplotlib.figure import Figure

_NOMINAL = 0.2  # seconds of processor time of `_work` on one idle core of an AMD EPYC


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


@cache
def slowness() -> float:
    """How many times as long as on an idle core the same work takes here and now, at least 1."""
    return max(1.0, min(_work() for _ in range(3)) / _NOMINAL)
