"""Deterministic weights from names and shapes alone, by the rules under which the golden numbers were made.

Every entry is drawn by a generator of its own, seeded with the CRC-32 of its published name, in float32 on the CPU.
"""

import math
import zlib

import torch

_TABLES = ("relative_position_bias_table", "height_rel", "width_rel", "pos_embed")


def draw(name: str, shape: list[int]) -> torch.Tensor:
    """The value of a floating-point entry of a published state dict."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return 1 + 0.1 * torch.rand(shape, generator=generator)
    z = torch.randn(shape, generator=generator)
    fan_in = max(math.prod(shape) // shape[0], 1)
    if name.endswith("running_mean"):
        return 0.1 * z
    if "gamma" in name:
        return 0.5 + 0.1 * z
    if name.endswith(_TABLES):
        return 0.2 * z
    if name.endswith("bias"):
        return 0.05 * z
    if len(shape) == 1 and name.endswith("weight"):  # norms
        return 1 + 0.1 * z
    if name.endswith("sampling_offsets.weight"):
        return z * (0.3 / fan_in**0.5)
    return z * (1.0 / fan_in**0.5)


def fill(manifest: dict) -> dict[str, torch.Tensor]:
    """A published state dict: drawn weights, and zeros for the buffers that carry no information."""
    state = {}
    for name, shape, dtype in manifest["entries"]:
        if dtype.startswith("float") and not name.endswith("attn_mask"):
            state[name] = draw(name, shape)
        else:
            state[name] = torch.zeros(shape, dtype=getattr(torch, dtype))
    return state


def checksum(state: dict[str, torch.Tensor]) -> list[float]:
    """Number, sum and absolute sum, in float64, of the entries that were drawn."""
    drawn = [t.double() for n, t in state.items() if t.is_floating_point() and not n.endswith("attn_mask")]
    return [len(drawn), sum(t.sum().item() for t in drawn), sum(t.abs().sum().item() for t in drawn)]


def image_input() -> torch.Tensor:
    return torch.randn((2, 3, 224, 224), generator=torch.Generator().manual_seed(0))
