"""Exercises of notebook 00: what a comparison needs besides the networks. Accuracies are in percent."""

from __future__ import annotations

import math

from stm_lab.checks.core import Draw, exercise

_NOTEBOOK = "00_quickstart"


# ---- 1: who leads, and when -----------------------------------------------------------------------------------------


def _curves(draw: Draw) -> dict:
    names = ["halo", "swin", "pvt", "convnext", "identity"][: draw.integer(3, 5)]
    epochs = draw.integer(5, 8)
    values = iter(draw.distinct(len(names) * epochs, 10, 90))  # no two alike, so that there is one leader
    return {"curves": {name: [float(next(values)) for _ in range(epochs)] for name in names}}


@exercise(_NOTEBOOK, 1, inputs=_curves, what="list of leaders")
def leaders(curves):
    "{mixer: accuracy after each epoch} -> the name of the best after each epoch."
    return [max(curves, key=lambda name: curves[name][epoch]) for epoch in range(_epochs(curves))]


def _epochs(curves):
    return len(next(iter(curves.values())))


@leaders.mistake("you name the worst after each epoch; the leader is the largest")
def worst(curves):
    return [min(curves, key=lambda name: curves[name][epoch]) for epoch in range(_epochs(curves))]


@leaders.mistake("you name the winner of the last epoch for every epoch; who would have led, had we stopped earlier?")
def winner_of_the_end(curves):
    return [max(curves, key=lambda name: curves[name][-1])] * _epochs(curves)


@leaders.mistake(
    "you compare the best that each mixer had reached so far; after an epoch, that epoch's accuracy counts"
)
def best_so_far(curves):
    return [max(curves, key=lambda name: max(curves[name][: epoch + 1])) for epoch in range(_epochs(curves))]


@leaders.mistake("you compare means over the epochs so far; after an epoch, that epoch's accuracy counts")
def mean_so_far(curves):
    return [max(curves, key=lambda name: sum(curves[name][: epoch + 1])) for epoch in range(_epochs(curves))]


@leaders.mistake("the first epoch is missing: begin at index 0")
def from_the_second(curves):
    return leaders.truth(curves)[1:]


@leaders.mistake("the last epoch is missing: range(n) goes to n - 1 by itself")
def without_the_last(curves):
    return leaders.truth(curves)[:-1]


@leaders.mistake("these are the leaders' accuracies; their names are asked for")
def accuracies(curves):
    return [max(curve[epoch] for curve in curves.values()) for epoch in range(_epochs(curves))]


# ---- 2: the footprint of doing nothing ------------------------------------------------------------------------------


def _layers(draw: Draw) -> dict:
    count = draw.integer(3, 5)
    return {
        "kernels": [draw.choice([3, 5, 7]) for _ in range(count)],
        "strides": [2, *(draw.choice([1, 2, 3]) for _ in range(count - 2)), draw.choice([2, 3])],
    }


@exercise(_NOTEBOOK, 2, inputs=_layers, what="footprint")
def footprint(kernels, strides):
    "Side in pixels of what one output of a stack of convolutions sees; kernels and strides from the image upwards."
    side, step = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        side += (kernel - 1) * step
        step *= stride
    return side


@footprint.mistake(
    "the strides are not used: after a stride of 2, neighbours are two pixels apart, so a kernel spans twice as much"
)
def without_strides(kernels, strides):
    return 1 + sum(kernel - 1 for kernel in kernels)


@footprint.mistake(
    "a layer's own stride moves its outputs, not its inputs: multiply the step *after* adding (kernel - 1) * step"
)
def stride_too_early(kernels, strides):
    side, step = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        step *= stride
        side += (kernel - 1) * step
    return side


@footprint.mistake("each layer adds kernel - 1 steps, not kernel: the middle is there already")
def whole_kernels(kernels, strides):
    side, step = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        side += kernel * step
        step *= stride
    return side


@footprint.mistake("one output sees at least one pixel: begin with a side of 1, not 0")
def from_nothing(kernels, strides):
    return footprint.truth(kernels, strides) - 1


@footprint.mistake("you read the layers from the top; the first kernel is the one that lies on the image")
def from_the_top(kernels, strides):
    return footprint.truth(kernels[::-1], strides[::-1])


@footprint.mistake(
    "these are the pixels between two neighbouring outputs, the product of the strides; how far does one output see?"
)
def distance_of_outputs(kernels, strides):
    return math.prod(strides)


@footprint.mistake("that is the number of pixels; the side is asked for")
def area(kernels, strides):
    return footprint.truth(kernels, strides) ** 2


# ---- 3: how many images ---------------------------------------------------------------------------------------------


def _accuracies(draw: Draw) -> dict:
    return {
        "accuracy": float(draw.choice([7, 12, 28, 64, 83])),
        "difference": draw.choice([0.7, 1.3, 2.3, 3.7]),
    }  # no quotient near a whole number


@exercise(_NOTEBOOK, 3, inputs=_accuracies, what="number of images")
def images_needed(accuracy, difference):
    """The least number of images a network for which two standard errors of the difference of two networks, both right
    in `accuracy` percent, are at most `difference` points. Each network has images of its own, drawn independently."""
    return math.ceil(8 * accuracy * (100 - accuracy) / difference**2)


@images_needed.mistake("that is for one network; of the difference of two, the variances add up: twice as many images")
def of_one_network(accuracy, difference):
    return math.ceil(4 * accuracy * (100 - accuracy) / difference**2)


@images_needed.mistake("that is for one standard error; two are asked for, which takes four times as many images")
def one_error(accuracy, difference):
    return math.ceil(2 * accuracy * (100 - accuracy) / difference**2)


@images_needed.mistake("the standard errors are added as they are; on independent images their squares add up")
def errors_added(accuracy, difference):
    return math.ceil(16 * accuracy * (100 - accuracy) / difference**2)


@images_needed.mistake("round up to a whole image: with fewer, the difference is not seen")
def not_rounded(accuracy, difference):
    return 8 * accuracy * (100 - accuracy) / difference**2


@images_needed.mistake("round up, not down: with fewer images the two errors are larger than the difference")
def rounded_down(accuracy, difference):
    return math.floor(8 * accuracy * (100 - accuracy) / difference**2)


@images_needed.mistake("the accuracy is a share here and the difference in points; both in percent, or both as shares")
def units_mixed(accuracy, difference):
    share = accuracy / 100
    return math.ceil(8 * share * (1 - share) / difference**2)


@images_needed.mistake("the difference is not squared: the standard error falls with the root of the number of images")
def not_squared(accuracy, difference):
    return math.ceil(8 * accuracy * (100 - accuracy) / difference)
