"""What does a model cost: parameters and multiply-adds, counted; images a second, measured."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stm_lab.devices import resolve_device
from stm_lab.errors import UserError
from stm_lab.measure._batches import as_images, input_size, model_device, model_name
from stm_lab.pixels import Normalize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stm_lab.measure._batches import Data

OWN = "(own)"  # what belongs to the model itself and to none of its parts: a class token, a product in its forward


@dataclass(frozen=True)
class PartCost:
    """One part of a model, by its name in the model: parameters, and multiply-adds for one image."""

    name: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """`parameters`; `macs`: multiply-adds (1 MAC = one multiplication and one addition) for one image of `image_size`.

    `parts` add up to both, in the order of the model; `image_size` is (height, width) in pixels.
    """

    model: str
    image_size: tuple[int, int]
    parameters: int
    macs: int
    parts: tuple[PartCost, ...]

    def rows(self) -> list[dict]:
        """One row a part, the last one the total."""
        parts = (*self.parts, PartCost("total", self.parameters, self.macs))
        return [{"model": self.model, "part": p.name, "parameters": p.parameters, "macs": p.macs} for p in parts]

    def figure(self) -> Figure:
        from stm_lab.figures import cost_by_part

        return cost_by_part(self.rows())


def cost(model: nn.Module, data: Data | None = None, *, image_size: int | tuple[int, int] | None = None) -> Cost:
    """Count parameters and multiply-adds, in all and by part. Runs nothing: a copy without storage is traced.

    MACs are those of convolutions and matrix products, attention's among them; norms, activations, softmax, pooling and
    deformable sampling are not counted: `macs_torch_flopcounter`, half of what torch's FlopCounterMode calls FLOPs. The
    paper (arXiv 2211.05781) prints fvcore's total, which adds a charge for norms, pooling and sampling.

    image_size: one number or (height, width); default: that of the images in `data`, without data the model's own.
    Raises UserError for data that are no images.
    """
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    if image_size is None and data is not None:
        image_size = tuple(as_images(data, model, limit=1).pixels.shape[-2:])
    height, width = image_size or input_size(model)

    shadow = _without_storage(model).eval()
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    # A fused attention kernel hides its two products from the counter: ask for plain ones.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        shadow(torch.empty(1, 3, height, width, dtype=dtype, device="meta"))
    flops = {name: sum(by_operator.values()) for name, by_operator in counter.get_flop_counts().items()}

    parameters, macs = _parameters(model), flops.get("Global", 0) // 2
    root = type(shadow).__name__
    parts = [
        PartCost(name, _parameters(part), flops.get(f"{root}.{name}", 0) // 2) for name, part in _parts(model).items()
    ]
    own = PartCost(OWN, parameters - sum(p.parameters for p in parts), macs - sum(p.macs for p in parts))
    if own.parameters or own.macs:
        parts.insert(0, own)
    return Cost(model_name(model), (height, width), parameters, macs, tuple(parts))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _without_storage(model: nn.Module) -> nn.Module:
    """A copy on the meta device. Telling deepcopy what each tensor becomes means that no weight is ever copied."""
    shadows: dict[int, object] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        shadow = torch.empty_like(tensor, device="meta", requires_grad=False)
        shadows[id(tensor)] = nn.Parameter(shadow, requires_grad=False) if isinstance(tensor, nn.Parameter) else shadow
    return copy.deepcopy(model, shadows)


def _parts(model: nn.Module) -> dict[str, nn.Module]:
    """The model's children; one that holds the stages (timm's `feature_info` has their names) is opened."""
    stages = {info["module"] for info in getattr(model, "feature_info", ())}
    parts = {}
    for name, child in model.named_children():
        opened = any(stage.startswith(f"{name}.") for stage in stages) or isinstance(child, nn.ModuleList)
        grandchildren = {f"{name}.{inner}": module for inner, module in child.named_children()} if opened else {}
        parts |= grandchildren or {name: child}
    return {name: part for name, part in parts.items() if not isinstance(part, nn.Identity | nn.Dropout)}


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

    def figure(self) -> Figure:
        from stm_lab.figures import throughput_repeats

        return throughput_repeats(self.model, self.repeats)


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
    if batch_size < 1 or not seconds > 0:
        raise UserError(f"throughput needs batch_size >= 1 and seconds > 0, not {batch_size} and {seconds}")
    if data is None:
        height, width = (image_size, image_size) if image_size else input_size(model)
        data = torch.rand(batch_size, 3, height, width, generator=torch.Generator().manual_seed(0))
    pixels = as_images(data, model, image_size, limit=batch_size).pixels
    pixels = pixels[torch.arange(batch_size) % len(pixels)]
    device = model_device(model) if device is None else resolve_device(device)
    step = _step(copy.deepcopy(model).to(device).train(training), Normalize(model, device)(pixels), training)

    repeats = batch_size * _rates(step, device, seconds)
    low, median, high = statistics.quantiles(repeats.tolist(), n=4)
    size = tuple(pixels.shape[-2:])
    return Throughput(model_name(model), str(device), batch_size, size, training, median, (low, high), repeats)


def _step(model: nn.Module, images: Tensor, training: bool) -> Callable[[], None]:
    def forward() -> None:
        with torch.inference_mode():
            model(images)

    def forward_backward() -> None:
        model.zero_grad()
        model(images).float().square().mean().backward()

    return forward_backward if training else forward


def _rates(step: Callable[[], None], device: torch.device, seconds: float, repeats: int = 10) -> np.ndarray:
    """Steps a second in each repeat; a repeat is as many steps as fit into its share of the time, and one at least."""

    def timed(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)  # a kernel that was launched has not run yet
        return time.perf_counter() - start

    timed(2)  # warm-up: memory, kernels chosen, clocks raised
    steps = max(1, round(seconds / repeats / timed(1)))
    rates: list[float] = []
    start = time.perf_counter()
    while len(rates) < 3 or (len(rates) < repeats and time.perf_counter() - start < seconds):
        rates.append(steps / timed(steps))
    return np.array(rates)
