"""Exercises of notebook 07: the network around the mixer. Tokens are maps (B, H, W, C) unless said otherwise."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stm_lab.checks.core import Draw, exercise

_NOTEBOOK = "07_the_unified_backbone"


# ---- 1: what a token of the stem sees -------------------------------------------------------------------------------


def _chains(draw: Draw) -> dict:
    layers = []
    for _ in range(draw.integer(2, 4)):
        kernel = draw.integer(2, 7)
        layers.append((kernel, draw.integer(1, 4), draw.integer(0, kernel - 1)))
    return {"place": draw.integer(3, 20), "layers": layers}


def _seen(place, layers):
    first = last = place
    for kernel, stride, padding in layers:
        first, last = first * stride - padding, last * stride - padding + kernel - 1
    return first, last


@exercise(_NOTEBOOK, 1, inputs=_chains, what="span", cases=12)
def seen(place, layers):
    "(first, last) pixel along one axis, both included, that a token sees; layers (kernel, stride, padding), in order."
    return _seen(place, layers[::-1])


@seen.mistake("you begin at the image; start at the token, and go through the *last* layer first")
def from_the_image(place, layers):
    return _seen(place, layers)


@seen.mistake("the padding is not used: the first window begins `padding` places before the map")
def without_padding(place, layers):
    return _seen(place, [(kernel, stride, 0) for kernel, stride, _ in layers[::-1]])


@seen.mistake("the padding has the wrong sign: a window begins at place * stride - padding")
def padding_added(place, layers):
    return _seen(place, [(kernel, stride, -padding) for kernel, stride, padding in layers[::-1]])


@seen.mistake("the strides are not used: two neighbours of a map lie `stride` places apart in the map before")
def without_strides(place, layers):
    return _seen(place, [(kernel, 1, padding) for kernel, _, padding in layers[::-1]])


@seen.mistake("your last place is one after the last: a window of `kernel` places ends at its first + kernel - 1")
def one_after(place, layers):
    first = last = place
    for kernel, stride, padding in layers[::-1]:
        first, last = first * stride - padding, last * stride - padding + kernel
    return first, last


@seen.mistake("that is one layer's window, the last one's; each place in it has its own window in the map before")
def last_layer_alone(place, layers):
    return _seen(place, layers[-1:])


@seen.mistake("that is the window of the first layer alone; `place` counts tokens after the last layer")
def first_layer_alone(place, layers):
    return _seen(place, layers[:1])


@seen.mistake("you take half a kernel to either side of the middle; that is wrong unless the padding is half a kernel")
def about_the_middle(place, layers):
    return _seen(place, [(kernel // 2 * 2 + 1, stride, kernel // 2) for kernel, stride, _ in layers[::-1]])


# ---- 2: a norm with the channels first ------------------------------------------------------------------------------


def _maps(draw: Draw) -> dict:
    channels, height, width = draw.distinct(3, 3, 9)
    x = 2 * draw.normal(draw.integer(2, 3), channels, height, width) + 0.7
    return {"x": x, "weight": draw.normal(channels), "bias": draw.normal(channels), "eps": 0.1 * draw.integer(1, 5)}


def _normed(x, weight, bias, eps, over=(1,), unbiased=False):
    mean, variance = x.mean(over, keepdim=True), x.var(over, unbiased=unbiased, keepdim=True)
    return weight[:, None, None] * (x - mean) / (variance + eps).sqrt() + bias[:, None, None]


@exercise(_NOTEBOOK, 2, inputs=_maps, what="map")
def norm_first(x, weight, bias, eps):
    "(B, C, H, W), (C,), (C,), number -> (B, C, H, W): each token normed over its own channels."
    return _normed(x, weight, bias, eps)


@norm_first.mistake("your mean is taken over the last axis, which holds columns here; the channels are axis 1")
def last_axis(x, weight, bias, eps):
    return _normed(x, weight, bias, eps, (3,))


@norm_first.mistake("you norm each channel over its map (instance norm); norm each token over its channels, axis 1")
def instance_norm(x, weight, bias, eps):
    return _normed(x, weight, bias, eps, (2, 3))


@norm_first.mistake("you norm each channel over batch and map, as BatchNorm does: images depend on each other")
def batch_norm(x, weight, bias, eps):
    return _normed(x, weight, bias, eps, (0, 2, 3))


@norm_first.mistake("you norm over channels and map together: tokens depend on each other; average over axis 1 only")
def whole_map(x, weight, bias, eps):
    return _normed(x, weight, bias, eps, (1, 2, 3))


@norm_first.mistake("your variance divides by C - 1; divide by C: `unbiased=False`")
def unbiased(x, weight, bias, eps):
    return _normed(x, weight, bias, eps, unbiased=True)


@norm_first.mistake("eps is added to the root; add it to the variance, under the root")
def eps_outside(x, weight, bias, eps):
    mean, std = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True).sqrt()
    return weight[:, None, None] * (x - mean) / (std + eps) + bias[:, None, None]


@norm_first.mistake("eps is not used: take the root of the variance + eps")
def without_eps(x, weight, bias, eps):
    return _normed(x, weight, bias, 0.0)


@norm_first.mistake("you divide by the variance; divide by its root")
def by_variance(x, weight, bias, eps):
    mean, variance = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    return weight[:, None, None] * (x - mean) / (variance + eps) + bias[:, None, None]


@norm_first.mistake("weight and bias are not used: each channel has its own factor and offset")
def without_weights(x, weight, bias, eps):
    return _normed(x, torch.ones_like(weight), torch.zeros_like(bias), eps)


@norm_first.mistake("the mean is not subtracted: take x - mean, then divide")
def without_mean(x, weight, bias, eps):
    variance = x.var(1, unbiased=False, keepdim=True)
    return weight[:, None, None] * x / (variance + eps).sqrt() + bias[:, None, None]


@norm_first.mistake("weight times (normed + bias): add the bias last, without the weight")
def bias_inside(x, weight, bias, eps):
    return _normed(x, weight, weight * bias, eps)


# ---- 3: the block, from memory --------------------------------------------------------------------------------------


def _blocks(draw: Draw) -> dict:
    channels, height, width = draw.distinct(3, 3, 7)
    tables = [draw.normal(channels, channels) for _ in range(2)]
    scales = [(draw.normal(channels), draw.normal(channels)) for _ in range(2)]

    def mixer(x):
        return (x + 2 * x.roll((1, 1), (1, 2))) @ tables[0]

    def mlp(x):
        return F.gelu(x) @ tables[1]

    def norm1(x):
        return F.layer_norm(x, (channels,), *scales[0])

    def norm2(x):
        return F.layer_norm(x, (channels,), *scales[1])

    return {
        "x": draw.normal(2, height, width, channels),
        "mixer": mixer,
        "mlp": mlp,
        "norm1": norm1,
        "norm2": norm2,
        "gamma1": draw.normal(channels),
        "gamma2": draw.normal(channels),
    }


@exercise(_NOTEBOOK, 3, inputs=_blocks, what="map")
def block(x, mixer, mlp, norm1, norm2, gamma1, gamma2):
    "(B, H, W, C), four functions of maps, (C,), (C,) -> (B, H, W, C)."
    x = x + gamma1 * mixer(norm1(x))
    return x + gamma2 * mlp(norm2(x))


@block.mistake("the norms come after the sums (post-norm, as in 2017); here each branch norms what it *reads*")
def post_norm(x, mixer, mlp, norm1, norm2, gamma1, gamma2):
    x = norm1(x + gamma1 * mixer(x))
    return norm2(x + gamma2 * mlp(x))


@block.mistake("the norms come after mixer and MLP; put them before: mixer(norm1(x)), mlp(norm2(x))")
def norm_after(x, mixer, mlp, norm1, norm2, gamma1, gamma2):
    x = x + gamma1 * norm1(mixer(x))
    return x + gamma2 * norm2(mlp(x))


@block.mistake("your block has no norms: mixer(norm1(x)), mlp(norm2(x))")
def without_norms(x, mixer, mlp, norm1, norm2, gamma1, gamma2):
    x = x + gamma1 * mixer(x)
    return x + gamma2 * mlp(x)


@block.mistake("the layer scales are not used: multiply the output of each branch by its gamma, channel by channel")
def without_scales(x, mixer, mlp, norm1, norm2, gamma1, gamma2):
    x = x + mixer(norm1(x))
    return x + mlp(norm2(x))


@block.mistake("gamma scales the whole sum; it must scale only the output of the branch")
def scaled_sum(x, mixer, mlp, norm1, norm2, gamma1, gamma2):
    x = gamma1 * (x + mixer(norm1(x)))
    return gamma2 * (x + mlp(norm2(x)))


@block.mistake("gamma scales the input of the branch; it must scale the output")
def scaled_input(x, mixer, mlp, norm1, norm2, gamma1, gamma2):
    x = x + mixer(gamma1 * norm1(x))
    return x + mlp(gamma2 * norm2(x))


@block.mistake("both branches read the same x; the MLP must read x after the mixer's branch was added")
def parallel(x, mixer, mlp, norm1, norm2, gamma1, gamma2):
    return x + gamma1 * mixer(norm1(x)) + gamma2 * mlp(norm2(x))


@block.mistake("the MLP's branch is not added to what it reads: write `x + ...` twice")
def lost_stream(x, mixer, mlp, norm1, norm2, gamma1, gamma2):
    x = x + gamma1 * mixer(norm1(x))
    return gamma2 * mlp(norm2(x))


@block.mistake("the second sum starts from the block's input, so the mixer's output is lost")
def lost_mixer(x, mixer, mlp, norm1, norm2, gamma1, gamma2):
    mixed = x + gamma1 * mixer(norm1(x))
    return x + gamma2 * mlp(norm2(mixed))


@block.mistake("you add to the *normed* map; add to x itself")
def normed_stream(x, mixer, mlp, norm1, norm2, gamma1, gamma2):
    x = norm1(x)
    x = norm2(x + gamma1 * mixer(x))
    return x + gamma2 * mlp(x)


@block.mistake("mixer and MLP are exchanged; the mixer comes first")
def mlp_first(x, mixer, mlp, norm1, norm2, gamma1, gamma2):
    x = x + gamma2 * mlp(norm2(x))
    return x + gamma1 * mixer(norm1(x))


@block.mistake("the two gammas are exchanged: gamma1 is the mixer's")
def exchanged(x, mixer, mlp, norm1, norm2, gamma1, gamma2):
    x = x + gamma2 * mixer(norm1(x))
    return x + gamma1 * mlp(norm2(x))


@block.mistake("norm1 is used twice; each branch has its own norm")
def one_norm(x, mixer, mlp, norm1, norm2, gamma1, gamma2):
    x = x + gamma1 * mixer(norm1(x))
    return x + gamma2 * mlp(norm1(x))


# ---- 4: how deep a network trains -----------------------------------------------------------------------------------


def _depths(draw: Draw) -> dict:
    depths = [draw.integer(2, 9) for _ in range(4)]
    for stage in draw.distinct(2, 0, 3):  # stages of one block, in which a rate that restarts cannot grow
        depths[stage] = 1
    return {"depths": tuple(depths), "rate": draw.integer(5, 90) / 100}


def _on(rates):
    return 2.0 * sum(1 - rate for rate in rates)


@exercise(_NOTEBOOK, 4, inputs=_depths, what="number of branches")
def branches_on(depths, rate):
    "Blocks in each stage, the last block's rate -> residual branches that are on for an image, on average."
    blocks = sum(depths)
    return _on([rate * number / (blocks - 1) for number in range(blocks)])


@branches_on.mistake("every block has the full rate; it grows from 0 in the first block to `rate` in the last")
def constant(depths, rate):
    return _on([rate] * sum(depths))


@branches_on.mistake("block k of N has k / N of the rate, so the last one stays below it; divide by N - 1")
def by_blocks(depths, rate):
    return _on([rate * number / sum(depths) for number in range(sum(depths))])


@branches_on.mistake("your first block can be dropped, but its rate is 0; count blocks from 0, and divide by N - 1")
def from_one(depths, rate):
    return _on([rate * number / sum(depths) for number in range(1, sum(depths) + 1)])


@branches_on.mistake("your rate restarts in every stage; it must grow through all stages")
def by_stage(depths, rate):
    return _on([rate * number / max(depth - 1, 1) for depth in depths for number in range(depth)])


@branches_on.mistake("all blocks of a stage have the same rate in your count; it grows from block to block")
def stage_by_stage(depths, rate):
    return _on([rate * stage / 3 for stage, depth in enumerate(depths) for _ in range(depth)])


@branches_on.mistake("you count blocks; each has two branches, the mixer's and the MLP's")
def blocks_on(depths, rate):
    return branches_on.truth(depths, rate) / 2


@branches_on.mistake("you count the branches that are dropped; count those that are *on*")
def dropped(depths, rate):
    return 2.0 * sum(depths) - branches_on.truth(depths, rate)


@branches_on.mistake("all branches are on in your count; that is evaluation, not training")
def all_on(depths, rate):
    return 2.0 * sum(depths)


# ---- 5: the widest network for a budget -----------------------------------------------------------------------------


def _budgets(draw: Draw) -> dict:
    depths = tuple(draw.integer(1, 4) for _ in range(4))
    classes, width = draw.integer(2, 100), 2 * draw.integer(4, 12)
    exactly = _count(width, depths, classes)
    return {"budget": exactly - draw.integer(0, 1), "depths": depths, "classes": classes}


def _count(
    d,
    depths,
    classes,
    *,
    stem=1,
    bias=1,
    norm=2,
    down_bias=0,
    down=1,
    scales=2,
    stage_norm=1,
    ratio=4,
    conv=1,
    batch_norm=2,
    doubled=True,
    fc_bias=1,
):
    half = d // 2
    total = stem * (27 * half + bias * half + norm * half + 9 * half * d + bias * d + norm * d)
    for stage, depth in enumerate(depths):
        C = d * 2**stage if doubled else d
        before = C // 2 if doubled else C
        if stage:
            total += down * (9 * before * C + down_bias * C + norm * C)
        total += depth * (2 * ratio * C * C + bias * (ratio * C + C) + 2 * norm * C + scales * C)
        total += stage_norm * norm * C
    hidden = int(1.5 * C) if conv else C
    total += conv * (C * hidden + batch_norm * hidden)
    return total + hidden * classes + fc_bias * classes


def _widest(budget, depths, classes, **counted):
    d = 2
    while _count(d + 2, depths, classes, **counted) <= budget:
        d += 2
    return d, _count(d, depths, classes, **counted)


@exercise(_NOTEBOOK, 5, inputs=_budgets, what="width and count", cases=8)
def widest(budget, depths, classes):
    "(d, its parameters): the largest even d whose identity network, widths d to 8d, has at most `budget` of them."
    return _widest(budget, depths, classes)


@widest.mistake("your network is over the budget by one step: return the last width that still fits")
def one_over(budget, depths, classes):
    d, _ = _widest(budget, depths, classes)
    return d + 2, _count(d + 2, depths, classes)


@widest.mistake("the network must have *at most* `budget` parameters: one that meets it exactly fits")
def strictly_below(budget, depths, classes):
    return _widest(budget - 1, depths, classes)


widest.mistakes_of(
    _widest,
    {
        "the layer scales are missing in your count: two vectors of C numbers in every block": {"scales": 0},
        "the norms at the end of the stages are missing in your count, 2C each": {"stage_norm": 0},
        "your downsampling convolutions have a bias; they must not, since a norm follows": {"down_bias": 1},
        "the biases of stem and MLPs are missing in your count": {"bias": 0},
        "your norms have C numbers; they have 2C, a factor and an offset for each channel": {"norm": 1},
        "you count the BatchNorm's running mean and variance, which are not learned": {"batch_norm": 4},
        "the 1x1 convolution of the head is missing, and its BatchNorm: the classifier reads 1.5 times 8d": {"conv": 0},
        "the downsampling is missing in your count: a 3x3 convolution and a norm between two stages": {"down": 0},
        "the stem is missing in your count": {"stem": 0},
        "your widths stay d in all stages; they must double: d, 2d, 4d, 8d": {"doubled": False},
        "the classifier's bias is missing in your count, one number for each class": {"fc_bias": 0},
    },
)
