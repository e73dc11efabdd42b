"""`bench models`: how fast the unified networks are beside timm's, on one thread, with the bounds that were set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import timm
import torch
from torch import nn

from stm_lab import layers
from stm_lab.util.environment import processor

BATCH, SIDE = 8, 224
# scale: timm's model that all of it is relative to, others of timm's, and the bounds set on an AMD EPYC: at least so
# many times as fast as that model, forward and with backward
TABLE: dict[str, tuple[str, tuple[str, ...], dict[str, tuple[float, float]]]] = {
    "tiny": (
        "swin_tiny_patch4_window7_224",
        ("convnext_tiny", "pvt_v2_b2"),
        {
            "halo": (1.1, 1.0),
            "pvt": (1.5, 1.35),
            "pvt_v2": (1.5, 1.2),
            "swin": (1.45, 1.35),
            "convnext": (1.7, 1.4),
            "dcn_v3": (1.05, 0.75),
        },
    ),
    "micro": (
        "pvt_v2_b0",
        ("convnext_atto",),
        {
            "halo": (0.6, 0.65),
            "pvt": (1.25, 1.25),
            "pvt_v2": (1.1, 1.1),
            "swin": (1.0, 1.0),
            "convnext": (1.3, 1.1),
            "dcn_v3": (0.8, 0.6),
        },
    ),
}
COLUMNS = ("model", "forward ms", "ratio", "rounds", "at least", "+ backward", "ratio", "rounds", "at least")


class Speed(NamedTuple):
    """Least milliseconds of a pass, how many times as fast as the reference that is, and that ratio in each round."""

    milliseconds: float
    ratio: float
    rounds: list[float]
    at_least: float | None

    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""
        kept = "" if self.at_least is None else f"{self.at_least} {'met' if self.ratio >= self.at_least else 'NOT met'}"
        spread = f"{min(self.rounds):.2f}-{max(self.rounds):.2f}"
        return f"{self.milliseconds:.0f}", f"{self.ratio:.2f}", spread, kept


def model_speeds(
    scale: str, repeats: int, *, batch: int = BATCH, side: int = SIDE
) -> Iterator[tuple[str, list[Speed]]]:
    """Name, and speed forward (evaluation, no gradients) and forward with backward (training), of each model.

    Models take turns, so that what slows the machine slows all of them; seconds are of the processor, on one thread.
    """
    reference, others, bounds = TABLE[scale]
    of_ours = {f"unified_{mixer}_{scale}": bound for mixer, bound in bounds.items()}
    names = [reference, *others, *of_ours]
    models = {name: timm.create_model(name, num_classes=1000) for name in names}
    images = torch.randn(batch, 3, side, side)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [{name: _seconds(model, images) for name, model in models.items()} for _ in range(repeats + 1)][1:]
    finally:
        torch.set_num_threads(threads)
    for name in names:
        wanted = of_ours.get(name, (None, None))
        speeds = []
        for place, at_least in enumerate(wanted):
            least, own = (min(each[model][place] for each in rounds) for model in (reference, name))
            ratios = [each[reference][place] / each[name][place] for each in rounds]
            speeds.append(Speed(1e3 * own, least / own, ratios, at_least))
        yield name, speeds


def _seconds(model: nn.Module, images: torch.Tensor) -> tuple[float, float]:
    model.eval()
    with torch.no_grad():
        forward = _timed(lambda: model(images))
    model.train()
    both = _timed(lambda: model(images).sum().backward())
    model.zero_grad()
    return forward, both


def _timed(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def machine() -> str:
    """What the numbers hold for, in a line."""
    by = "convolutions" if layers.Linear is layers.LinearByConvolution else "matrix products"
    return (
        f"{processor()}, torch {torch.__version__}, timm {timm.__version__}, {time.strftime('%Y-%m-%d')}; one thread, "
        f"float32, batch {BATCH}, {SIDE} pixels; linear layers are {by}. The bounds are for an AMD EPYC with AVX-512."
    )
