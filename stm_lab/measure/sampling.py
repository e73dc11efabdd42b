"""Where do the points of deformable mixers lie, and what are they worth?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stm_lab.measure._batches import Data, as_images, evaluating, model_name
from stm_lab.measure._sites import mixer_layers
from stm_lab.mixers.dcn_v3 import GRID, DeformableConvV3
from stm_lab.util.errors import UserError

# Legend of shapes: N images, (H, W) tokens of the layer's map, h groups, P = 9 points.


def finds_nothing(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., [x, y]) in tokens -> (...) bool: a token or more outside of a map of that size, where all is 0."""
    x, y = places[..., 0], places[..., 1]
    return (x <= -1) | (x >= size[1]) | (y <= -1) | (y >= size[0])


@dataclass(frozen=True, eq=False)
class LayerPoints:
    """Points of one layer.

    layer: its module's name; stage, block: from 0. offsets: (N, H, W, h, P, [x, y]), tokens of the map. weights:
    (N, H, W, h, P), which add up to 1 in each group.
    """

    layer: str
    stage: int | None
    block: int | None
    offsets: np.ndarray
    weights: np.ndarray

    @property
    def map_size(self) -> tuple[int, int]:
        return self.offsets.shape[1:3]

    @property
    def groups(self) -> int:
        return self.offsets.shape[3]

    @property
    def places(self) -> np.ndarray:
        """(N, H, W, h, P, [x, y]): where the samples are taken, in tokens; (0, 0) is the middle of the first token."""
        height, width = self.map_size
        own = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)  # (H, W, [x, y])
        return own[:, :, None, None].astype(np.float32) + GRID + self.offsets

    @property
    def distance(self) -> float:
        """Tokens from a token to its samples: the mean by weight."""
        return float((self.weights * np.hypot(*np.moveaxis(GRID + self.offsets, -1, 0))).sum(-1).mean())

    @property
    def outside(self) -> float:
        """Share of the weight on points that find 0: a token or more outside of the map."""
        return float((self.weights * finds_nothing(self.places, self.map_size)).sum(-1).mean())

    @property
    def moving(self) -> float:
        """How much a point's offset differs between tokens and images: its standard deviation in tokens along an axis,
        mean over points and axes. 0 if all tokens look alike."""
        return float(self.offsets.std((0, 1, 2)).mean())

    @property
    def largest_weight(self) -> float:
        """The largest of the nine weights, on average; 1/9 if all are alike."""
        return float(self.weights.max(-1).mean())


@dataclass(frozen=True, eq=False)
class SamplingPoints:
    """Where a model's deformable mixers take their samples.

    pixels: (N, 3, H, W), the images, as they were given. layers: in the model's order.
    """

    model: str
    pixels: Tensor
    layers: tuple[LayerPoints, ...]

    def rows(self) -> list[dict]:
        """One row a layer: its numbers."""
        return [
            {
                "model": self.model,
                "layer": layer.layer,
                "stage": layer.stage,
                "block": layer.block,
                "map_size": list(layer.map_size),
                "groups": layer.groups,
                "images": len(self.pixels),
                "distance": layer.distance,
                "outside": layer.outside,
                "moving": layer.moving,
                "largest_weight": layer.largest_weight,
            }
            for layer in self.layers
        ]


def sampling_points(
    model: nn.Module,
    data: Data,
    *,
    image_size: int | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> SamplingPoints:
    """Where the points of each deformable mixer (DCNv3) lie on images, and their weights.

    model: one with our `dcn_v3` mixers. data: (N, 3, H, W) uint8 or in [0, 1], a pair with labels, or a Dataset, which
    is decoded at `image_size` (default: the model's own). device: default the model's own. seed: of models that draw
    random numbers.

    Raises UserError for a model without such mixers, and data that are none.
    """
    layers = [layer for layer in mixer_layers(model) if isinstance(model.get_submodule(layer.name), DeformableConvV3)]
    if not layers:
        raise UserError(f"{model_name(model)}: no deformable mixer found; build_model('dcn_v3', ...) has some")
    images = as_images(data, model, image_size)
    with (
        _kept(model, [layer.name for layer in layers]) as found,
        evaluating(model, device, seed) as on,
        torch.inference_mode(),
    ):
        for pixels, _ in images.batches(model, on, batch_size):
            model(pixels)
    points = []
    for layer in layers:
        offsets, weights = (torch.cat(parts).numpy() for parts in zip(*found[layer.name], strict=True))
        points.append(LayerPoints(layer.name, layer.stage, layer.block, offsets, weights))
    return SamplingPoints(model=model_name(model), pixels=images.pixels, layers=tuple(points))


@contextmanager
def _kept(model: nn.Module, names: list[str]) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """By mixer, offsets and weights of each batch that goes through the model in here."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}

    def hook(name: str):
        def keep(mixer: nn.Module, args: tuple[Tensor]) -> None:
            found[name].append(tuple(each.float().cpu() for each in mixer.sampling(args[0])))

        return keep

    hooks = [model.get_submodule(name).register_forward_pre_hook(hook(name)) for name in names]
    try:
        yield found
    finally:
        for handle in hooks:
            handle.remove()
