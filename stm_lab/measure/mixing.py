"""What does a token mixer mix: how much each input position contributes to each output position, by the Jacobian."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stm_lab.measure._batches import Data, evaluating, model_name, rows_of
from stm_lab.measure._sites import LAYOUTS, Site, site_in
from stm_lab.util.errors import UserError, check_known
from stm_lab.util.progress import progress

# Legend of shapes: N images, P = H * W positions (output first, input second), C channels, R probes, K positions at a
# time.

_TOKENS_AT_ONCE = 2**19  # numbers in the copies of the tokens that go through the mixer together
_GRADIENTS_AT_ONCE = 2**24  # numbers of the Jacobian held at a time


@dataclass(frozen=True, eq=False)
class MixingMatrix:
    """How a mixer mixes, of `images` inputs.

    matrix: (N, P, P); entry [n, p, q] is the Frobenius norm of the block of the Jacobian that says how output position
        p changes with input position q, at input n; positions count along the rows of the map. The unit is that of
        output per input; compare the numbers of one row, or of two rows.
    map_size: (H, W), with P = H * W. stride: pixels of the image per token, (rows, columns); None for tokens alone.
    probes: random ones, or None where the Jacobian is exact.
    distance: mean distance in tokens from an output position to its inputs, Euclidean, by weight; distance_pixels: in
        pixels of the image, None for tokens alone. uniform_distance: that of a mixer in which every position
        contributes equally to every other. reach: distance / uniform_distance; None for a map of one position.
    own: share of an output position that comes from the position itself, on average.
    lean: (H, W, 2), from each position to the weighted centre of its inputs, in tokens (down, right), mean over images.
        lean_border, lean_inside: its mean length at the outermost positions and at the others, None if there are none.
    border_strength: the mean sum of a row at the outermost positions over that inside, less than 1 where zeros come in;
        None without an inside.
    shared, positional, dynamic: the Jacobian's squared norm in three parts that add up to 1, by estimates without bias
        (which may miss 0 and 1 by chance). shared: what one kernel does at every position and for every input, as a
        convolution. positional: what differs between positions but not between inputs. dynamic: what changes with the
        input. None for a single input.
    over_positions: the share of the squared norm, at one input, that no single kernel at all positions explains; 0 for
        a convolution.
    """

    model: str
    layer: str
    stage: int | None
    block: int | None
    map_size: tuple[int, int]
    stride: tuple[float, float] | None
    images: int
    probes: int | None
    matrix: np.ndarray
    distance: float
    distance_pixels: float | None
    uniform_distance: float
    reach: float | None
    own: float
    lean: np.ndarray
    lean_inside: float | None
    lean_border: float
    border_strength: float | None
    shared: float | None
    positional: float | None
    dynamic: float | None
    over_positions: float

    @property
    def weights(self) -> np.ndarray:
        """(N, P, P): each row of `matrix` as shares that add up to 1; a row of zeros stays."""
        return _shares(self.matrix)

    def rows(self) -> list[dict]:
        """One row: all numbers but the arrays."""
        names = [one.name for one in fields(self) if one.name not in ("matrix", "lean", "stride", "uniform_distance")]
        return rows_of(self, " ".join(names))


def mixing_matrix(
    model: nn.Module,
    data: Data,
    *,
    layer: str | None = None,
    stage: int | None = None,
    block: int = 0,
    probes: int | None = None,
    layout: str | None = None,
    image_size: int | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> MixingMatrix:
    """Measure how much each input position of a token mixer contributes to each of its output positions.

    The mixer alone is measured, between norm and layer scale, without the residual branch, at the tokens that reach it
    in the model. The Jacobian counts every path: in attention the values, and queries and keys through the softmax.

    By default it is exact: one backward pass a channel and output position, P * C for each image. With `probes`, this
    number of passes a position: block J of the Jacobian is seen through random signs v, and the mean of |v J|^2 is the
    squared Frobenius norm. The standard error of a squared entry is at most sqrt(2 / probes) of it, and far smaller for
    averages over positions. All positions and inputs have the same signs: a convolution is static to rounding.

    model: any model with images (N, 3, H, W), (images, labels) or a Dataset as `data`, and one of
        stage, block: the mixer there, as `mixer_layers` lists them;
        layer: the name of any module whose output has the shape of its input. `layout` says which axis is which,
            "NHWC", "NCHW" or "NLC" (ViT: class tokens first, which are held fixed); None finds out or asks.
        With neither, `model` is a mixer itself and `data` tokens (N, H, W, C), floats (or as `layout` says).
    image_size: at which a Dataset is decoded, default the model's own. batch_size: images that go through the model
    together; the mixer's passes are sized by memory, about 100 MB of gradients at a time.
    device: default the model's own. seed: of the signs, and of models that draw random numbers.

    Windows: where timm's block cuts them outside its `attn` (Swin), the whole of `_attn`, on the map, is measured.
    Raises UserError for an unknown layer, stage, block, layout or device, a module that changes the tokens' shape,
    invalid data, and a Jacobian that is not finite.
    """
    if probes is not None and probes < 1:
        raise UserError(f"probes is {probes}; at least one, or None for the exact Jacobian")
    if layout is not None:
        check_known("layout", layout, LAYOUTS)
    with evaluating(model, device, seed) as device:
        found, site, pixels = site_in(model, data, layer, stage, block, layout, image_size, device, batch_size)
        name = found.name or model_name(model)
        sums = _sums(site, probes, torch.Generator().manual_seed(seed), name)
        parts = _shared_parts(sums, site.size, name)
    matrix = sums.squared.clamp_min(0).sqrt().cpu().numpy()
    stride = None if pixels is None else (pixels[0] / site.size[0], pixels[1] / site.size[1])
    return MixingMatrix(
        model=model_name(model),
        layer=found.name or "mixer",
        stage=found.stage,
        block=found.block,
        map_size=site.size,
        stride=stride,
        images=len(site.tokens),
        probes=probes,
        matrix=matrix,
        **_numbers(matrix, site.size, stride),
        **parts,
    )


def _shares(matrix: np.ndarray) -> np.ndarray:
    """Each row of (N, P, P) over its sum; a row of zeros stays."""
    total = matrix.sum(2, keepdims=True)
    return np.divide(matrix, total, out=np.zeros_like(matrix), where=total > 0)


def _numbers(matrix: np.ndarray, size: tuple[int, int], stride: tuple[float, float] | None) -> dict[str, Any]:
    """The numbers of a MixingMatrix that follow from `matrix`, (N, P, P)."""
    weights, strength = _shares(matrix), matrix.sum(2)
    places = np.indices(size).reshape(2, -1).T.astype(float)  # (P, 2): row and column of each position

    def distances(down: float, right: float) -> np.ndarray:
        """(P, P): between positions, for steps of this length along rows and columns."""
        scaled = places * (down, right)
        return np.hypot(*np.moveaxis(scaled[:, None] - scaled, 2, 0))

    def mean(apart: np.ndarray) -> float:
        return float((weights * apart).sum(2)[strength > 0].mean())

    apart = distances(1.0, 1.0)
    distance, uniform = mean(apart), float(apart.mean())
    lean = (weights.mean(0) @ places - places).reshape(*size, 2)
    inside = np.zeros(size, bool)
    inside[1:-1, 1:-1] = True
    leans, strengths = np.hypot(*np.moveaxis(lean, 2, 0)), strength.mean(0).reshape(size)
    within = float(strengths[inside].mean()) if inside.any() else 0.0
    return {
        "distance": distance,
        "distance_pixels": None if stride is None else mean(distances(*stride)),
        "uniform_distance": uniform,
        "reach": distance / uniform if uniform else None,
        "own": float(np.diagonal(weights, axis1=1, axis2=2).mean()),
        "lean": lean,
        "lean_inside": float(leans[inside].mean()) if inside.any() else None,
        "lean_border": float(leans[~inside].mean()),
        "border_strength": float(strengths[~inside].mean()) / within if within else None,
    }


def token_weights(site: Site, row: int, column: int, head: int | None = None) -> np.ndarray:
    """(N, H, W): what each input position contributes to one output position, exactly; a row of `mixing_matrix`.

    With `head`, from 0, to the channels of that head alone, before the last projection mixes the heads.
    Raises UserError for a head that the mixer does not have.
    """
    height, width = site.size
    position = torch.tensor([row * width + column])
    signs = torch.eye(site.channels, dtype=site.tokens.dtype, device=site.tokens.device)
    if head is not None:
        if head not in range(site.heads):
            raise UserError(f"head {head}: the mixer has {site.heads} heads, counted from 0")
        signs = signs.chunk(site.heads)[head]  # channels (head, d)
    with nullcontext() if head is None else site.without_projection():
        gradients = torch.cat([_rows(site, position, part) for part in signs.split(64)])  # (C, N, 1, P, C)
    return gradients.square().sum((0, 2, 4)).sqrt().view(-1, height, width).cpu().numpy()


# ---- the Jacobian ---------------------------------------------------------------------------------------------------


def _rows(site: Site, positions: Tensor, signs: Tensor) -> Tensor:
    """(R, N, K, P, C): for each of the signs v, (R, C'), image and output position, v times the rows of the Jacobian.

    Every image is copied once a position, so that one backward pass of the batch of copies gives each its own.
    """
    count, channels = len(site.tokens), site.tokens.shape[-1]
    which = torch.arange(count, device=site.tokens.device).repeat_interleave(len(positions))  # (N * K,)
    copies = site.tokens[which].requires_grad_()
    with torch.enable_grad():
        out = site(copies, which)  # (N * K, P, C')
        places = positions.to(out.device).repeat(count)
        at = out[torch.arange(len(which), device=out.device), places]  # (N * K, C')
    if not at.requires_grad:  # nothing of the input is used
        return out.new_zeros(len(signs), count, len(positions), *site.tokens.shape[1:])
    gradients = [
        torch.autograd.grad(at, copies, sign.expand_as(at), retain_graph=i < len(signs) - 1)[0]
        for i, sign in enumerate(signs)
    ]
    return torch.stack(gradients).view(len(signs), count, len(positions), -1, channels)


class _Sums(NamedTuple):
    """Sums over the Jacobian of N inputs, which is itself never held.

    squared: (N, P, P), squared norms of its blocks. kernels: (N, R, 2H-1, 2W-1, C), for each displacement (input minus
    output position) the sum of its blocks over positions. static: squared norm of the sum over inputs.
    """

    squared: Tensor
    kernels: Tensor
    static: float


def _sums(site: Site, probes: int | None, generator: torch.Generator, name: str) -> _Sums:
    tokens, (height, width) = site.tokens, site.size
    count, positions, channels = tokens.shape
    signs = torch.eye(channels)
    if probes is not None:
        signs = (torch.randint(2, (probes, channels), generator=generator) * 2.0 - 1) / math.sqrt(probes)
    signs = signs.to(tokens)
    squared = tokens.new_zeros(count, positions, positions)
    kernels, static = tokens.new_zeros(count, len(signs), 2 * height - 1, 2 * width - 1, channels), 0.0

    size = count * positions * channels
    chunk = max(1, min(_TOKENS_AT_ONCE // size, _GRADIENTS_AT_ONCE // (size * len(signs))))
    chunks: Iterable[Tensor] = torch.arange(positions).split(chunk)
    if size * positions * len(signs) > 2**31:  # more than seconds
        chunks = progress(chunks, f"mixing of {name}", unit="part")
    for some in chunks:
        # Signs in parts, because a single position of a large map may be too much; the parts add up.
        step = max(1, _GRADIENTS_AT_ONCE // (size * len(some)))
        for part in (slice(first, first + step) for first in range(0, len(signs), step)):
            gradients = _rows(site, some, signs[part])  # (R, N, K, P, C)
            squared[:, some] += gradients.square().sum((0, 4))
            static += float(gradients.sum(1).double().square().sum())
            gradients = gradients.transpose(0, 1).unflatten(3, site.size)  # (N, R, K, H, W, C)
            for k, position in enumerate(some.tolist()):
                row, column = divmod(position, width)
                down, right = height - 1 - row, width - 1 - column  # displacement of input (0, 0), from the corner
                kernels[:, part, down : down + height, right : right + width] += gradients[:, :, k]
    if not squared.isfinite().all():
        raise UserError(f"{name}: the Jacobian is not finite; float32 may help")
    return _Sums(squared, kernels, static)


def _shared_parts(sums: _Sums, size: tuple[int, int], name: str) -> dict[str, float | None]:
    """`shared`, `positional`, `dynamic` and `over_positions` of a MixingMatrix."""
    down, right = (side - abs(np.arange(-side + 1, side)) for side in size)
    pairs = np.outer(down, right)  # (2H-1, 2W-1), positions with that displacement
    weight = torch.from_numpy(1 / pairs)[..., None].to(sums.kernels.device)
    kernels, count = sums.kernels.double(), len(sums.squared)
    total = float(sums.squared.double().sum())  # of all inputs
    if not total > 0:
        raise UserError(f"{name}: its Jacobian is zero, nothing is mixed and nothing comes through")
    by_kernel = float((kernels.square() * weight).sum())
    shared = positional = dynamic = None
    if count > 1:
        # The mean over pairs of different inputs is that of independent ones: their noise does not count as static.
        static = (sums.static - total) / (count - 1) / total
        of_mean = float((kernels.sum(0).square() * weight).sum())
        shared = (of_mean - by_kernel) / (count - 1) / total
        positional, dynamic = static - shared, 1 - static
    over_positions = 1 - by_kernel / total
    return {"shared": shared, "positional": positional, "dynamic": dynamic, "over_positions": over_positions}
