"""How much memory does a model take: what autograd keeps for the backward pass, and the most that is held at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from stm_lab.measure._batches import Data
from stm_lab.measure._units import OUTSIDE, REST, Unit, gathered, units
from stm_lab.measure.throughput import alone, inputs_of_units, prepared

BYTES = ("activations", "forward_peak", "training_peak")


@dataclass(frozen=True)
class PartMemory:
    """Bytes of one module, as in `Memory`; its peaks are those of the module alone, None where not measured."""

    name: str
    stage: str
    role: str
    activations: int
    forward_peak: int | None = None
    training_peak: int | None = None


@dataclass(frozen=True)
class Memory:
    """Bytes, for a batch of `batch_size` images of `image_size` (height, width in pixels).

    Attributes:
        weights: parameters and buffers.
        activations: what autograd keeps for the backward pass besides weights, each storage once: it grows with the
            batch, and it is why training needs so much more memory than running.
        forward_peak: the most that a pass without gradients holds at once, beyond weights and images; None where it
            cannot be measured.
        training_peak: the same of a forward and backward pass, its gradients among it; no optimizer.
        method: how the peaks were measured, in words.
        parts: `activations` add up to the whole; what several modules keep counts for the first. Peaks do not add up.
    """

    model: str
    device: str
    batch_size: int
    image_size: tuple[int, int]
    weights: int
    activations: int
    forward_peak: int | None
    training_peak: int | None
    method: str
    parts: tuple[PartMemory, ...]

    def rows(self, by: str = "role") -> list[dict]:
        """One row a role, or with `by="stage"` a role and stage, the last one the total. Of several modules the sum of
        what they keep, and the largest of their peaks."""
        keys = ("stage", "role") if by == "stage" else ("role",)
        facts = {"model": self.model, "device": self.device, "batch_size": self.batch_size}
        how = {"activations": sum, "forward_peak": max, "training_peak": max}
        whole = {name: getattr(self, name) for name in BYTES}
        total = {**dict.fromkeys(keys, ""), "role": "total", **whole, "weights": self.weights}
        return [facts | row for row in (*gathered(self.parts, keys, how), total)]


def memory(
    model: nn.Module,
    data: Data | None = None,
    *,
    device: str | torch.device | None = None,
    batch_size: int = 8,
    image_size: int | None = None,
    by_part: bool = True,
) -> Memory:
    """Measure the memory of a forward and of a training step, in all and by part. A copy of the model is measured.

    What autograd keeps is seen by torch's hooks on saved tensors, in training mode, on this device and with its
    kernels: a fused attention kernel does not keep the matrix of weights that a plain one does. Peaks are of torch's
    own allocator: on CUDA by its statistics, on the CPU by its profiler, which reports each allocation, scratch memory
    of torch's kernels included and that of other libraries' not; elsewhere not measured.

    by_part: also the peaks of each module alone, which takes a few milliseconds for each.
    The first images of `data`, or noise of `image_size`, as in `throughput`; raises UserError as it does.
    """
    ready = prepared(model, data, device, batch_size, image_size, 1.0, "memory")
    held = _storages((*ready.model.parameters(), *ready.model.buffers()))
    ready.model.train()
    parts = _saved_by_part(ready.model, ready.images, held)

    peak = _PEAKS.get(ready.device.type)
    forward_peak = training_peak = None
    if peak:
        forward_peak = peak(alone(ready.model.eval(), (ready.images,), False), ready.device)
        ready.model.train()
        training_peak = peak(_training(ready.model, ready.images), ready.device)
        ready.model.zero_grad()
        parts = _with_peaks(ready.model, ready.images, parts, peak, ready.device) if by_part else parts
    return Memory(
        **ready.facts,
        weights=sum(held.values()),
        activations=sum(part.activations for part in parts),
        forward_peak=forward_peak,
        training_peak=training_peak,
        method=_METHODS.get(ready.device.type, "not measured on this device"),
        parts=tuple(parts),
    )


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of each storage once, by its address."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _training(model: nn.Module, images: Tensor) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad()
        loss = model(images).float().square().mean()
        if loss.requires_grad:  # else there is nothing to learn
            loss.backward()

    return step


def _saved_by_part(model: nn.Module, images: Tensor, held: dict[int, int]) -> list[PartMemory]:
    """What a forward pass keeps, by the unit that runs when a storage is first saved."""
    parts = units(model)
    running: list[Unit | None] = [None]
    saved: dict[int, int] = dict.fromkeys(held, 0)
    kept: dict[str, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()  # alive as long as the output is: no address is used twice
        if storage.nbytes() and storage.data_ptr() not in saved:
            saved[storage.data_ptr()] = storage.nbytes()
            name = running[-1].name if running[-1] else ""
            kept[name] = kept.get(name, 0) + storage.nbytes()
        return tensor

    def leave(*_: object) -> None:
        running.pop()

    hooks = []
    for unit in parts:
        hooks.append(unit.module.register_forward_pre_hook(lambda _, __, unit=unit: running.append(unit)))
        hooks.append(unit.module.register_forward_hook(leave, always_call=True))
    try:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            out = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    del out
    known = {unit.name for unit in parts}
    outside = [PartMemory("", OUTSIDE, REST, kept[""])] if "" in kept and "" not in known else []
    return outside + [PartMemory(unit.name, unit.stage, unit.role, kept.get(unit.name, 0)) for unit in parts]


def _with_peaks(
    model: nn.Module, images: Tensor, parts: list[PartMemory], peak: Callable, device: torch.device
) -> list[PartMemory]:
    """The same, and the peaks of the units with a role, alone on the inputs that they have in the model."""
    peaks = {}
    for unit, args in inputs_of_units(model, images):
        forward = peak(alone(unit.module, args, False), device)
        peaks[unit.name] = (forward, peak(alone(unit.module, args, True), device))
        unit.module.zero_grad()
    return [
        PartMemory(part.name, part.stage, part.role, part.activations, *peaks.get(part.name, (None, None)))
        for part in parts
    ]


# ---- peaks -----------------------------------------------------------------------------------------------------------


def _peak_on_cuda(step: Callable[[], None], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_on_cpu(step: Callable[[], None], _: torch.device) -> int | None:
    """The highest running sum of what torch's CPU allocator gives and takes back during the step."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else it writes lines to stderr at each start and end
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        step()
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    now = most = 0
    for event in events:
        now += event.nbytes()
        most = max(most, now)
    return most


_PEAKS = {"cuda": _peak_on_cuda, "cpu": _peak_on_cpu}
_METHODS = {
    "cuda": "torch's statistics of its CUDA allocator",
    "cpu": "allocations of torch's CPU allocator, as its profiler reports them",
}
