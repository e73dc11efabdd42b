"""One network and one task: a stage of the unified backbone between an embedding of symbols and a read-out a token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from stm_lab.backbone import Stage
from stm_lab.tasks.cells import Settings, design_of
from stm_lab.tasks.definitions import IGNORE, Task, get_task

_TRAINED, _VALIDATED, _TESTED = range(3)  # whose draws are different ones
_SOLVED = 99.5  # percent


class TokenNetwork(nn.Module):
    """Symbols -> embedding -> the blocks of one stage -> logits a token: (B, H, W, F) -> (B, H, W, classes).

    Without stem and downsampling, so that what tokens hear of each other comes from the mixer. Convolutions and
    projections start with the standard deviation of one over the root of their inputs.
    """

    def __init__(self, task: Task, mixer: str, settings: Settings = Settings()) -> None:  # noqa: B008  (frozen)
        super().__init__()
        self.design = design_of(mixer, settings)
        dim, size = settings.dim, task.sizes(settings.height, settings.width)[0]
        first = torch.tensor([0, *task.symbols[:-1]]).cumsum(0)
        self.register_buffer("first", first, persistent=False)  # of each feature's symbols in the embedding
        self.embedding = nn.Embedding(sum(task.symbols), dim)
        self.stage = Stage(self.design, 0, dim, size, [0.0] * settings.depth)
        self.read_out = nn.Linear(dim, task.classes)
        self.apply(_fan_in)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Symbols (B, H, W, F) -> logits (B, H, W, classes)."""
        x = self.embedding(tokens + self.first).sum(-2)  # (B, H, W, F, C) -> (B, H, W, C)
        x = self.stage(x.permute(0, 3, 1, 2))  # -> (B, C, H, W)
        return self.read_out(x.permute(0, 2, 3, 1))


def _fan_in(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        std = module.weight[0].numel() ** -0.5
        nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def batch_of(task: Task, keys: tuple[int, ...], items: range, size: tuple[int, int], device: torch.device) -> tuple:
    """Tokens (B, H, W, F) and labels (B, H, W) on the device."""
    return tuple(torch.from_numpy(each).to(device) for each in task.draw(keys, items, *size))


@torch.no_grad()
def accuracy(network: nn.Module, task: Task, keys: tuple[int, ...], maps: int, size: tuple[int, int]) -> float:
    """The share of the asked tokens that are answered rightly, in percent, over `maps` drawn maps."""
    device, right, asked = next(network.parameters()).device, 0, 0
    for start in range(0, maps, 64):
        tokens, labels = batch_of(task, keys, range(start, min(start + 64, maps)), size, device)
        right += (network(tokens).argmax(-1) == labels).sum().item()
        asked += (labels != IGNORE).sum().item()
    return 100 * right / asked


def steps(task: Task, mixer: str, settings: Settings, *, lr: float, seed: int, device: torch.device) -> Iterator[tuple]:
    """Train a network, and yield (step, network, accuracy on validation draws) each tenth of the steps.

    AdamW at a constant rate after twenty steps of warm-up, so that a longer run begins as a shorter one.
    """
    size = task.sizes(settings.height, settings.width)[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TokenNetwork(task, mixer, settings).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    for step in range(settings.steps):
        items = range(step * settings.batch_size, (step + 1) * settings.batch_size)
        tokens, labels = batch_of(task, (_TRAINED, seed), items, size, device)
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 20)
        loss = F.cross_entropy(network(tokens).flatten(0, 2), labels.flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % settings.every == 0 or step + 1 == settings.steps:
            network.eval()
            yield step + 1, network, accuracy(network, task, (_VALIDATED,), settings.validation_maps, size)
            network.train()


def train(
    task: str | Task,
    mixer: str,
    settings: Settings = Settings(),  # noqa: B008  (frozen)
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_step: Callable[[int, nn.Module, float], None] | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The best network over the grid of learning rates, by validation draws, and its metrics, measured on test draws.

    A training ends when two points of its curve in a row reach 99.5%, and with it the grid.

    Args:
        on_step: called with (step, network, accuracy in percent) each tenth of the steps, for each learning rate.

    Raises:
        UserError: an unknown task, mixer or option; a map too small for the task.
    """
    task, device, started = get_task(task), torch.device(device), time.perf_counter()
    curves: dict[float, list[tuple[int, float]]] = {}
    best = None
    for lr in settings.learning_rates:
        curves[lr] = []
        for step, network, reached in steps(task, mixer, settings, lr=lr, seed=seed, device=device):
            curves[lr].append((step, reached))
            if on_step is not None:
                on_step(step, network, reached)
            if _is_solved(curves[lr]):
                break
        if best is None or reached > curves[best[1]][-1][1]:
            best = network, lr
        if _is_solved(curves[lr]):
            break
    network, lr = best
    _, sizes = task.sizes(settings.height, settings.width)
    network.eval()
    tested = {f"{h}x{w}": accuracy(network, task, (_TESTED,), settings.test_maps, (h, w)) for h, w in sizes}
    return network, {
        "mixer": mixer,
        "accuracy": round(sum(tested.values()) / len(tested), 3),
        "chance": round(task.chance, 3),
        "lr": lr,
        "by_size": {size: round(value, 3) for size, value in tested.items()},
        "curves": {f"{rate:g}": _rounded(curve) for rate, curve in curves.items()},
        "parameters_of_network": sum(parameter.numel() for parameter in network.parameters()),
        "training_seconds": round(time.perf_counter() - started, 2),
    } | predicted(task, mixer)


def _is_solved(curve: list[tuple[int, float]]) -> bool:
    return len(curve) > 1 and min(value for _, value in curve[-2:]) >= _SOLVED


def _rounded(curve: list[tuple[int, float]]) -> list[list[float]]:
    return [[step, round(value, 2)] for step, value in curve]


def predicted(task: Task, mixer: str) -> Mapping[str, str]:
    """What theory says of a mixer, as part of a row; empty for a mixer that it says nothing of."""
    return {"predicted": task.predictions[mixer][0]} if mixer in task.predictions else {}
