"""A run watches itself: pure functions of its configuration and rows say what is wrong and what to try.

The thresholds are rules of thumb; those of the last check are measured accuracies of earlier runs, in `bands.yaml`.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stm_lab.train.config import TrainConfig
from stm_lab.util import yaml12

BANDS = Path(__file__).parent / "bands.yaml"

PATIENCE = 0.3  # share of the schedule after which a run should be better than chance
SURE = 3  # standard deviations
EXPLODED = 20  # times the usual norm of the gradient
ODD_LR = 25  # times, or one part in, the published learning rate scaled to the batch
TRIED_LR = 5  # the same, for what is advised: quick's 2e-3, 11 times, has ended every nano in one answer for all
TOO_SHORT = 1000  # steps: on `shapes` and at quick's batch nothing is learnt in the first 600
NARROWEST_BAND = 3.0  # points of accuracy to either side, for machines and versions differ
# a wider band is not judged by: three times halo's spread of 25 points reaches from below chance to above 100%
WIDEST_BAND = 20.0

Row = Mapping[str, Any]


def before(config: TrainConfig) -> list[str]:
    """What looks odd before the first step."""
    usual = _usual_lr(config)
    if config.lr > ODD_LR * usual or config.lr < usual / ODD_LR:
        high = config.lr > usual
        return [
            f"lr = {config.lr:g} is very {'high' if high else 'low'} for batch_size = {config.batch_size} (about "
            f"{usual:.1g} would be usual): {'the loss may jump or stick' if high else 'little may be learnt'}; "
            f"try {_lr_to_try(config)}"
        ]
    return []


def _usual_lr(config: TrainConfig) -> float:
    return 1e-3 * math.sqrt(config.batch_size / 1024)  # the published 1e-3 at 1024; AdamW goes with the square root


def _lr_to_try(config: TrainConfig) -> str:
    """The usual rate instead of an odd one; else a lower and a higher one, unless that moves further from it."""
    usual = _usual_lr(config)
    near = [lr for lr in (config.lr / 5, config.lr * 3) if usual / TRIED_LR <= lr <= usual * TRIED_LR]
    return " and ".join(f"lr={lr:.1g}" for lr in near or [usual])


def during(config: TrainConfig, rows: Sequence[Row], *, steps: int, classes: int, images: int) -> list[str]:
    """What looks wrong after an epoch. `steps`: of the whole run; `images`: of the validation split."""
    return [*_no_better_than_chance(config, rows, steps, 1 / classes, images), *_exploding(rows)]


def _no_better_than_chance(
    config: TrainConfig, rows: Sequence[Row], steps: int, chance: float, images: int
) -> list[str]:
    last, due = rows[-1], [row for row in rows if row["step"] >= PATIENCE * steps]
    if len(due) != 1:
        return []  # said once, when the time comes
    limit = 100 * (chance + SURE * math.sqrt(chance * (1 - chance) / images))
    best = max(last["top1"], last["top1_raw"])
    if best > limit:
        return []
    found = (
        f"after {100 * last['step'] / steps:.0f}% of the schedule top-1 is {best:.1f}%, which is chance "
        f"({100 * chance:.1f}%) within its noise: "
    )
    if steps < TOO_SHORT:
        return [f"{found}{steps:,} steps are too short to judge by; give it more epochs, or more images"]
    return [
        f"{found}either the labels do not belong to the images, or the learning rate ({config.lr:g}) is wrong - try "
        f"{_lr_to_try(config)} - or this is too short for what is asked"
    ]


def _exploding(rows: Sequence[Row]) -> list[str]:
    earlier = [row["grad_norm"] for row in rows[:-1]]
    if not earlier:
        return []
    usual, largest = statistics.median(earlier), rows[-1]["grad_norm_max"]
    if largest <= EXPLODED * usual or usual == 0:
        return []
    return [
        f"the gradient's norm reached {largest:.3g}, {largest / usual:.0f} times the usual: the run is about to "
        "diverge, or one batch is very odd; a lower lr, a longer warm-up or a smaller clip_grad may help"
    ]


def diverged(what: str, value: float, step: int, steps: int, lr: float, kept: int | None) -> str:
    """What to say if the loss, say, is not finite at `step`; `kept`: the step of the last good checkpoint."""
    rest = "there is no checkpoint yet" if kept is None else f"the checkpoint of step {kept} is good, and kept"
    return (
        f"the {what} is {value} at step {step} of {steps}, learning rate {lr:.3g}; a lower lr, a longer warm-up or a "
        f"smaller clip_grad may help; {rest}"
    )


def after(config: TrainConfig, top1: float) -> list[str]:
    """What looks odd about the outcome, if earlier runs of this configuration are on record and agree.

    Top-1 is in percent. A band is mean +- max(3 standard deviations, NARROWEST_BAND), and not wider than WIDEST_BAND.
    """
    band = yaml12.read_mapping(BANDS).get(band_key(config))
    if band is None:
        return []
    width = max(SURE * band["spread"], NARROWEST_BAND)
    if width > WIDEST_BAND or abs(top1 - band["mean"]) <= width:
        return []
    return [
        f"top-1 is {top1:.1f}%, while {band['runs']} earlier run(s) of {config.mixer} {config.scale} on "
        f"{config.recipe} reached {band['mean']:.1f}%, give or take {width:.1f}: other data, "
        "other versions, or a change of the code"
    ]


def band_key(config: TrainConfig) -> str:
    """The key of earlier runs: everything that decides the outcome, but the seed."""
    fields = {name: value for name, value in config.result_fields().items() if name != "seed"}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
    return f"{Path(config.recipe).stem}-{config.mixer}-{config.scale}-{digest}"
