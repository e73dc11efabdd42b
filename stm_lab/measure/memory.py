"""How much memory does a model take: what autograd keeps for the backward pass, and the most that is held at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from stm_lab.measure._batches import Data, rows_of
from stm_lab.measure._units import OUTSIDE, REST, Setting, Unit, prepared, rows_with_total, step_of, units, whole_step


@dataclass(frozen=True)
class Memory(Setting):
    """Bytes, for a batch.

    weights: of parameters and buffers. activations: what autograd keeps for the backward pass besides weights, each
    storage once; `parts`, a row a module, add up to it, and what several modules keep counts for the first.
    forward_peak: the most that a pass without gradients holds at once, beyond weights and images; None where it cannot
    be measured. training_peak: the same for a forward and backward pass, gradients included, without an optimizer.
    method: how the peaks were measured, in words.
    """

    weights: int
    activations: int
    forward_peak: int | None
    training_peak: int | None
    method: str
    parts: tuple[dict[str, Any], ...]

    def rows(self, by: str = "role") -> list[dict]:
        """One row a role, or with `by="stage"` a role and stage; the last one is the total."""
        (facts,) = rows_of(self, "model device batch_size")
        (whole,) = rows_of(self, "activations forward_peak training_peak weights")
        return rows_with_total(facts, self.parts, by, whole)


def memory(
    model: nn.Module,
    data: Data | None = None,
    *,
    device: str | torch.device | None = None,
    batch_size: int = 8,
    image_size: int | None = None,
) -> Memory:
    """Measure the memory of a forward and of a training step, and by part what autograd keeps, on a copy of the model.

    What autograd keeps is seen by torch's hooks on saved tensors, in training mode, on this device and with its
    kernels: a fused attention kernel does not keep the matrix of weights that a plain one keeps. Peaks are of torch's
    own allocator: on CUDA by its statistics, on the CPU by its profiler, which reports each allocation, scratch memory
    of torch's kernels included and that of other libraries not; they are not measured on other devices.

    The first images of `data`, or noise of `image_size`, as in `throughput`; raises UserError as it does.
    """
    model, images, facts = prepared(model, data, device, batch_size, image_size)
    held = _storages((*model.parameters(), *model.buffers()))
    kept = _kept_by_unit(model.train(), images, held)
    parts = [{"stage": unit.stage, "role": unit.role, "activations": kept.pop(unit.name, 0)} for unit in units(model)]
    parts = [*({"stage": OUTSIDE, "role": REST, "activations": rest} for rest in kept.values()), *parts]

    peak, method = _PEAKS.get(images.device.type, (lambda *_: None, "not measured on this device"))
    forward_peak = peak(step_of(model.eval(), (images,), False), images.device)
    training_peak = peak(whole_step(model.train(), images, True), images.device)
    return Memory(
        **facts,
        weights=sum(held.values()),
        activations=sum(part["activations"] for part in parts),
        forward_peak=forward_peak,
        training_peak=training_peak,
        method=method,
        parts=tuple(parts),
    )


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of each storage once, by its address."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _kept_by_unit(model: nn.Module, images: Tensor, held: dict[int, int]) -> dict[str, int]:
    """Bytes that a forward pass keeps, by the name of the unit that runs when a storage is first saved; "" for none."""
    running, saved, kept = [""], set(held), {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()  # alive as long as the output is: no address is used twice
        if storage.nbytes() and storage.data_ptr() not in saved:
            saved.add(storage.data_ptr())
            kept[running[-1]] = kept.get(running[-1], 0) + storage.nbytes()
        return tensor

    def entered(unit: Unit, *_: object) -> None:
        running.append(unit.name)

    def left(*_: object) -> None:
        running.pop()

    with ExitStack() as hooks, saved_tensors_hooks(pack, lambda tensor: tensor):
        for unit in units(model):
            hooks.enter_context(unit.module.register_forward_pre_hook(partial(entered, unit)))
            hooks.enter_context(unit.module.register_forward_hook(left, always_call=True))
        out = model(images)
    del out
    return kept


# ---- peaks -----------------------------------------------------------------------------------------------------------


def _peak_on_cuda(step: Callable[[], None], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_on_cpu(step: Callable[[], None], _: torch.device) -> int:
    """The highest running sum of what torch's CPU allocator hands out and takes back during the step."""
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


_PEAKS = {  # by the device's type, and how it measures, in words
    "cuda": (_peak_on_cuda, "torch's statistics of its CUDA allocator"),
    "cpu": (_peak_on_cpu, "allocations of torch's CPU allocator, as its profiler reports them"),
}
