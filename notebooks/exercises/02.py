"""Exercises of notebook 02: depth-wise convolution. Maps are (B, H, W, C), kernels (C, K, K), K odd."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from stm_lab.checks.core import Draw, exercise

_NOTEBOOK = "02_depthwise_convolution"


def _filtered(x, kernel, *, padding=None, dilation=1):
    """A depth-wise convolution by torch: (B, H, W, C) -> (B, H', W', C)."""
    padding = dilation * (kernel.shape[-1] // 2) if padding is None else padding
    out = F.conv2d(x.permute(0, 3, 1, 2), kernel[:, None], padding=padding, dilation=dilation, groups=len(kernel))
    return out.permute(0, 2, 3, 1)


# ---- 1: holes in the kernel -----------------------------------------------------------------------------------------


def _dilations(draw: Draw) -> dict:
    height, width = draw.distinct(2, 7, 12)
    channels = draw.integer(2, 4)
    side = draw.choice([3, 5])
    return {
        "x": draw.normal(2, height, width, channels),
        "kernel": draw.normal(channels, side, side),
        "dilation": draw.integer(2, 3),
    }


@exercise(_NOTEBOOK, 1, inputs=_dilations, what="filtered map")
def dilated(x, kernel, dilation):
    "(B, H, W, C), (C, K, K) -> (B, H, W, C): depth-wise, neighbours `dilation` tokens apart, 0 outside the map."
    return _filtered(x, kernel, dilation=dilation)


@dilated.mistake("the dilation is not used: neighbours stand side by side")
def without_dilation(x, kernel, dilation):
    return _filtered(x, kernel)


@dilated.mistake("the padding K // 2 is too small: the kernel reaches dilation * (K // 2) over the border")
def little_padding(x, kernel, dilation):
    return _filtered(x, kernel, padding=kernel.shape[-1] // 2, dilation=dilation)


@dilated.mistake("nothing is padded, so the map shrinks by dilation * (K - 1)")
def no_padding(x, kernel, dilation):
    return _filtered(x, kernel, padding=0, dilation=dilation)


@dilated.mistake("your kernel is rotated by 180 degrees, as in mathematics; networks do not rotate it")
def turned(x, kernel, dilation):
    return _filtered(x, kernel.flip(1, 2), dilation=dilation)


@dilated.mistake("your kernel is transposed: its first axis counts rows, its second columns")
def transposed(x, kernel, dilation):
    return _filtered(x, kernel.mT, dilation=dilation)


@dilated.mistake("all channels use the kernel of channel 0; depth-wise means one kernel each")
def one_kernel(x, kernel, dilation):
    return _filtered(x, kernel[:1].expand_as(kernel), dilation=dilation)


@dilated.mistake("the map wraps around at the borders (torch.roll); tokens outside the map are 0")
def wraps_round(x, kernel, dilation):
    half = kernel.shape[-1] // 2
    return sum(
        x.roll((-(j - half) * dilation, -(i - half) * dilation), (1, 2)) * kernel[:, j, i]
        for j in range(kernel.shape[1])
        for i in range(kernel.shape[2])
    )


@dilated.mistake("every channel sums over all channels: that is a full convolution, not a depth-wise one")
def dense(x, kernel, dilation):
    return _filtered(x, kernel, dilation=dilation).sum(-1, keepdim=True).expand_as(x)


# ---- 2: what the original block costs -------------------------------------------------------------------------------


def _sizes(draw: Draw) -> dict:
    height, width = draw.distinct(2, 5, 60)
    return {"height": height, "width": width, "channels": draw.integer(3, 96), "kernel": draw.choice([3, 5, 7, 9])}


def _block(height, width, C, K, *, conv=None, ratio=4, linears=2, biases=1, norm=2, gamma=1, factor=1, tokens=None):
    """Parameters and multiply-adds of depth-wise convolution, norm, MLP and layer scale, with one part changed."""
    conv = C * K * K if conv is None else conv
    inner = linears * ratio * C * C
    hidden_biases = (ratio * C + C) if linears == 2 else ratio * C
    parameters = conv + inner + biases * (C + hidden_biases) + norm * C + gamma * C
    return parameters, factor * (height * width if tokens is None else tokens) * (conv + inner)


@exercise(_NOTEBOOK, 2, inputs=_sizes, what="cost")
def original_block(height, width, channels, kernel):
    "(parameters, multiply-adds of one image) of ConvNeXt's own block: depth-wise, norm, C -> 4C -> C, layer scale."
    C, K = channels, kernel
    parameters = (C * K * K + C) + 2 * C + (4 * C * C + 4 * C) + (4 * C * C + C) + C
    return parameters, height * width * (C * K * K + 8 * C * C)


@original_block.mistake(
    "you count a full convolution, C * C * K * K; a depth-wise one has one kernel a channel"
)
def dense_cost(height, width, channels, kernel):
    return _block(height, width, channels, kernel, conv=channels**2 * kernel**2)


@original_block.mistake("the MLP is missing: C -> 4C -> C has 8 C * C weights")
def without_mlp(height, width, channels, kernel):
    C, K = channels, kernel
    return C * K * K + C + 2 * C + C, height * width * C * K * K


original_block.mistakes_of(
    _block,
    {
        "you count one layer of the MLP; it has two, C -> 4C and 4C -> C": {"linears": 1},
        "the biases are missing among the parameters: C, 4C and C numbers": {"biases": 0},
        "the norm's scale and shift are missing among the parameters: 2C numbers": {"norm": 0},
        "the layer scale is missing among the parameters: C numbers": {"gamma": 0},
        "your cost is twice what it should be: count a multiply-add as one, not two (FLOPs)": {"factor": 2},
        "the multiply-adds are those of one token; the map has height * width of them": {"tokens": 1},
    },
)


@original_block.mistake("the kernel has K * K numbers, you count K")
def kernel_not_squared(height, width, channels, kernel):
    return _block(height, width, channels, kernel, conv=channels * kernel)


# ---- 3: the same as a matrix ----------------------------------------------------------------------------------------


def _kernels(draw: Draw) -> dict:
    height, width = draw.distinct(2, 3, 6)
    side = draw.choice([3, 5])
    return {"kernel": draw.normal(side, side), "height": height, "width": width}


def _matrix(kernel, height, width):
    """Column q is the response to an impulse at q."""
    impulses = torch.eye(height * width, dtype=torch.float64).view(-1, height, width, 1)
    return _filtered(impulses, kernel[None]).flatten(1).T


@exercise(_NOTEBOOK, 3, inputs=_kernels, what="mixing matrix")
def as_matrix(kernel, height, width):
    "(K, K) -> (P, P), P = height * width: entry [p, q] is the weight of input token q in output token p; 0 if too far."
    return _matrix(kernel, height, width)


@as_matrix.mistake(
    "your output is the mixing matrix's transpose: row p belongs to *output* token p, column q to input token q"
)
def matrix_transposed(kernel, height, width):
    return _matrix(kernel, height, width).T


@as_matrix.mistake("the map wraps around at its borders: neighbours outside the map have no column")
def matrix_wraps(kernel, height, width):
    half, matrix = kernel.shape[0] // 2, torch.zeros(height * width, height * width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            for j in range(len(kernel)):
                for i in range(len(kernel)):
                    q = (y + j - half) % height * width + (x + i - half) % width
                    matrix[y * width + x, q] += kernel[j, i]
    return matrix


@as_matrix.mistake("neighbours beyond the end of a row land in the next row: check their *column*, too")
def leaks_into_next_row(kernel, height, width):
    half, count = kernel.shape[0] // 2, height * width
    matrix = torch.zeros(count, count, dtype=torch.float64)
    for p in range(count):
        for j in range(len(kernel)):
            for i in range(len(kernel)):
                q = p + (j - half) * width + i - half
                if 0 <= q < count:
                    matrix[p, q] += kernel[j, i]
    return matrix


@as_matrix.mistake("the tokens are counted column by column; p = row * width + column")
def matrix_by_columns(kernel, height, width):
    return _matrix(kernel.T, width, height)


@as_matrix.mistake("your kernel is transposed: its first axis counts rows")
def kernel_transposed(kernel, height, width):
    return _matrix(kernel.T, height, width)


@as_matrix.mistake("the rows at the border are normalised; their sums should be smaller, because tokens outside are 0")
def border_normalised(kernel, height, width):
    inside = _matrix(torch.ones_like(kernel), height, width).sum(1, keepdim=True)
    return _matrix(kernel, height, width) * kernel.numel() / inside


@as_matrix.mistake("your kernel is not centred: place (j, i) belongs to the token at offset (j - K // 2, i - K // 2)")
def not_centred(kernel, height, width):
    half = kernel.shape[0] // 2
    impulses = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)
    padded = F.pad(impulses, (0, 2 * half, 0, 2 * half))
    return F.conv2d(padded, kernel[None, None]).flatten(1).T


# ---- 4: how far a stack of them sees --------------------------------------------------------------------------------


def _stacks(draw: Draw) -> dict:
    count = draw.integer(2, 5)
    strides = [draw.integer(1, 2) for _ in range(count)]
    strides[0] = 2  # so that the strides matter
    return {"kernels": [draw.choice([3, 5, 7]) for _ in range(count)], "strides": strides}


@exercise(_NOTEBOOK, 4, inputs=_stacks, what="side", cases=8)
def receptive_field(kernels, strides):
    "The side, in pixels, of the square that one output of these convolutions sees; they are applied in this order."
    return 1 + sum((kernel - 1) * math.prod(strides[:i]) for i, kernel in enumerate(kernels))


@receptive_field.mistake("the strides are not used: after a stride of 2 one step is two pixels")
def without_strides(kernels, strides):
    return 1 + sum(kernel - 1 for kernel in kernels)


@receptive_field.mistake("a layer's own stride widens its own step; only the strides *before* it should")
def own_stride(kernels, strides):
    return 1 + sum((kernel - 1) * math.prod(strides[: i + 1]) for i, kernel in enumerate(kernels))


@receptive_field.mistake("the sides of the kernels are added; each layer adds only K - 1 steps")
def sides_added(kernels, strides):
    return sum(kernel * math.prod(strides[:i]) for i, kernel in enumerate(kernels))


@receptive_field.mistake("the pixel in the middle is missing: an empty stack sees 1")
def one_missing(kernels, strides):
    return sum((kernel - 1) * math.prod(strides[:i]) for i, kernel in enumerate(kernels))


@receptive_field.mistake("the sides of the kernels are multiplied; each layer adds to the field")
def multiplied(kernels, strides):
    return math.prod(kernels)


@receptive_field.mistake("you count to one side only: a kernel reaches K // 2 to the left and to the right")
def one_side(kernels, strides):
    return 1 + sum((kernel // 2) * math.prod(strides[:i]) for i, kernel in enumerate(kernels))


@receptive_field.mistake("you add the strides; the step before a layer is their product")
def strides_added(kernels, strides):
    return 1 + sum((kernel - 1) * max(1, sum(strides[:i])) for i, kernel in enumerate(kernels))


# ---- 5: two kernels in one ------------------------------------------------------------------------------------------


def _pairs(draw: Draw) -> dict:
    channels = draw.integer(2, 4)
    small, large = sorted(draw.distinct(2, 1, 4))
    return {
        "large": draw.normal(channels, 2 * large + 1, 2 * large + 1),
        "small": draw.normal(channels, 2 * small - 1, 2 * small - 1),
    }


def _beside(large, small):
    return (large.shape[-1] - small.shape[-1]) // 2


@exercise(_NOTEBOOK, 5, inputs=_pairs, what="kernel")
def merged(large, small):
    "(C, K, K), (C, k, k), k < K, both odd -> (C, K, K): the sum of both kernels and the identity."
    kernel = large + F.pad(small, [_beside(large, small)] * 4)
    kernel[:, large.shape[-1] // 2, large.shape[-1] // 2] += 1
    return kernel


@merged.mistake("the identity is missing: a kernel with a single 1 in its middle gives back its input")
def without_identity(large, small):
    return large + F.pad(small, [_beside(large, small)] * 4)


@merged.mistake("the small kernel is added in the upper left corner of the large one; it belongs in the middle")
def in_the_corner(large, small):
    gap = 2 * _beside(large, small)
    kernel = large + F.pad(small, [0, gap, 0, gap])
    kernel[:, large.shape[-1] // 2, large.shape[-1] // 2] += 1
    return kernel


@merged.mistake("the identity is added everywhere; it is 1 in the middle and 0 elsewhere")
def ones_everywhere(large, small):
    return large + F.pad(small, [_beside(large, small)] * 4) + 1


@merged.mistake("your identity is a matrix with ones on its diagonal; as a kernel it is a single 1 in the middle")
def eye(large, small):
    side = large.shape[-1]
    return large + F.pad(small, [_beside(large, small)] * 4) + torch.eye(side, dtype=large.dtype)


@merged.mistake("the small kernel replaces the middle of the large one; it should be added to it")
def replaced(large, small):
    kernel, gap = large.clone(), _beside(large, small)
    kernel[:, gap : gap + small.shape[-1], gap : gap + small.shape[-1]] = small
    kernel[:, large.shape[-1] // 2, large.shape[-1] // 2] += 1
    return kernel


@merged.mistake("that is one kernel applied after the other; parallel branches are added")
def one_after_the_other(large, small):
    half = small.shape[-1] // 2
    kernel = F.conv2d(large[None], small.flip(1, 2)[:, None], padding=half, groups=len(small))[0]
    kernel[:, large.shape[-1] // 2, large.shape[-1] // 2] += 1
    return kernel


@merged.mistake("the small kernel is missing")
def large_alone(large, small):
    kernel = large.clone()
    kernel[:, large.shape[-1] // 2, large.shape[-1] // 2] += 1
    return kernel
