"""Where do the points of deformable mixers lie, and which weights do they have?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stm_lab.measure._batches import Data, as_images, evaluating, model_name, rows_of
from stm_lab.measure._sites import mixer_calls, mixer_layers
from stm_lab.mixers.dcn_v3 import GRID, DeformableConvV3
from stm_lab.util.errors import UserError

# Legend of shapes: N images, (H, W) tokens of the layer's map, h groups, P = 9 points.


def finds_nothing(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., [x, y]) in tokens -> (...) bool: at least one token outside a map of that size, where samples are 0."""
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
        """Share of the weight on points that find 0: at least one token outside the map."""
        return float((self.weights * finds_nothing(self.places, self.map_size)).sum(-1).mean())

    @property
    def moving(self) -> float:
        """Standard deviation of a point's offset over tokens and images, in tokens along an axis; mean over points and
        axes. 0 if all tokens have the same offsets."""
        return float(self.offsets.std((0, 1, 2)).mean())

    @property
    def largest_weight(self) -> float:
        """The largest of the nine weights, on average; 1/9 if all are equal."""
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
        shared = {"images": len(self.pixels), "model": self.model}
        names = "layer stage block map_size groups distance outside moving largest_weight"
        return [{"model": self.model, **row} | shared for layer in self.layers for row in rows_of(layer, names)]


def sampling_points(
    model: nn.Module,
    data: Data,
    *,
    image_size: int | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> SamplingPoints:
    """Find where the points of each deformable mixer (DCNv3) lie on images, and their weights.

    model: one with our `dcn_v3` mixers. data: (N, 3, H, W) uint8 or in [0, 1], a pair with labels, or a Dataset, which
    is decoded at `image_size` (default: the model's own). device: default the model's own. seed: of models that draw
    random numbers.

    Raises UserError for a model without such mixers, and invalid data.
    """
    layers = [layer for layer in mixer_layers(model) if isinstance(model.get_submodule(layer.name), DeformableConvV3)]
    if not layers:
        raise UserError(f"{model_name(model)}: no deformable mixer found; build_model('dcn_v3', ...) has some")
    images = as_images(data, model, image_size)
    found: dict[str, list[tuple[np.ndarray, ...]]] = {layer.name: [] for layer in layers}  # those of each batch
    with evaluating(model, device, seed) as device, torch.no_grad():
        for pixels, _ in images.batches(model, device, batch_size):
            for name, (mixer, (tokens, *_), _) in mixer_calls(model, pixels, layers).items():
                found[name].append(tuple(part.float().cpu().numpy() for part in mixer.sampling(tokens)))
    points = []
    for layer in layers:
        offsets, weights = (np.concatenate(parts) for parts in zip(*found[layer.name], strict=True))
        points.append(LayerPoints(layer.name, layer.stage, layer.block, offsets, weights))
    return SamplingPoints(model=model_name(model), pixels=images.pixels, layers=tuple(points))
