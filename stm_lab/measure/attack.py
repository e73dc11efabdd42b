"""How many answers are left when somebody may change every pixel a little, and chooses how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stm_lab.measure._batches import Data, Images, See, as_images, check_classes, evaluating, model_name, rows_of, sight
from stm_lab.measure._steps import PIXEL_RANGE, Budget, losses_of, start, step, under_attack, widest
from stm_lab.util.errors import UserError

DEFAULT_EPSILONS = {"linf": (0, 0.25, 0.5, 1, 2, 4, 8), "l2": (0, 16, 32, 64, 128, 256)}


@dataclass(frozen=True, eq=False)
class AdversarialAccuracy:
    """Right answers, in percent of the images, that stay right whatever the attack finds within each epsilon.

    `epsilons`, (E,) ascending, in 1/255 of the pixel range [0, 1]; `accuracy`, (E,); `by_restart`, (E, R): after the
    first restarts. `forward_passes` and `backward_passes`, (E,): of all images, up to that epsilon. `truth`: "labels",
    or "own answers" of the model for images without labels. `source`: another model that gave the gradient, or None.
    """

    model: str
    source: str | None
    truth: str
    images: int
    budget: Budget
    clean_accuracy: float
    epsilons: np.ndarray
    accuracy: np.ndarray
    by_restart: np.ndarray
    forward_passes: np.ndarray
    backward_passes: np.ndarray

    def rows(self) -> list[dict]:
        """One row an epsilon, each with the whole budget."""
        unit = {"epsilon_unit": "1/255 of the pixel range", "pixel_range": PIXEL_RANGE}
        found = {name: getattr(self, name) for name in ("accuracy", "forward_passes", "backward_passes")}
        return rows_of(self, "model source truth images", **asdict(self.budget), epsilon=self.epsilons, **unit, **found)


def adversarial_accuracy(
    model: nn.Module,
    data: Data,
    *,
    attack: str = "pgd",
    norm: str = "linf",
    epsilons: Sequence[float] | None = None,
    steps: int = 10,
    step_size: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
    loss: str = "cross_entropy",
    source: nn.Module | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    image_size: int | None = None,
    seed: int = 0,
) -> AdversarialAccuracy:
    """Attack every image within balls of growing epsilon, and count the answers that stay right.

    FGSM is that of Goodfellow et al. 2015 (arXiv 1412.6572), PGD that of Madry et al. 2018 (arXiv 1706.06083): steps
    along the sign of the gradient ("l2": along the gradient), each projected back into the ball and into [0, 1]. The
    gradient is that with respect to the pixels: the model's own normalisation is inside. An image counts as lost if any
    point on the attack's way gets a wrong answer ("fgsm" and attacks by `source`: the last point), the image itself
    included. A lost image is not attacked again: accuracy falls with epsilon and restarts by construction. It is an
    upper bound of the true one, as good as the attack.

    Args:
        data: images (N, 3, H, W), (images, labels), or a Dataset, which is decoded at `image_size` (default: the
            model's own). Without labels the model's own answers are attacked, and the accuracy is the share that stays.
        attack, norm, steps, restarts, random_start, loss: see `Budget`. "fgsm" is one step and no restart by nature.
        epsilons: in 1/255 of the pixel range, for both norms; default 0 to 8 ("linf"), 0 to 256 ("l2"). 0 gives the
            accuracy without any attack. They are measured in ascending order.
        step_size: share of epsilon; default 2.5 / steps, at most 1, so that every point of the ball is in reach.
        source: another model of the same classes, whose gradient is followed: a transfer attack.
        device: default the model's own. seed: for random starts and noise, which depend on it and on the image's place
            alone, not on batches; and for models that draw random numbers in eval mode.

    Raises:
        UserError: an unknown attack, norm, loss or device, an impossible budget, data that are no images, a model
            without classifier, labels that are none of its classes, logits or gradients that are not finite.
    """
    budget = Budget.of(attack, norm, steps, step_size, restarts, random_start, loss)
    if source is not None and attack == "noise":
        raise UserError(f"attack 'noise' follows no gradient: leave out the source, {model_name(source)}")
    images = as_images(data, model, image_size)
    sizes = _epsilons(epsilons, norm, images)
    passes = np.zeros((2, len(sizes)), np.int64)  # of images, forward and backward
    tally, clean = np.zeros((len(sizes), budget.restarts), np.int64), 0
    with ExitStack() as stack:
        sees, batches = stack.enter_context(under_attack(model, images, device, batch_size, seed, attack))
        follows = None if source is None else sight(source, stack.enter_context(evaluating(source, device, seed)))
        for places, pixels, labels, logits in batches:
            if source is not None:
                _check_source(model, logits, source, follows, pixels[:1])
            passes[0, 0] += len(pixels)
            right = logits.argmax(1) == labels
            clean += int(right.sum())
            for i, epsilon in enumerate(sizes):
                for restart in range(budget.restarts):
                    if epsilon and right.any():
                        held = right.nonzero()[:, 0]
                        x = start(places[held.cpu()], pixels[held], epsilon / 255, budget, restart, seed)
                        ball = pixels[held], labels[held], epsilon / 255, budget
                        right[held] = _survivors(sees, follows, x, *ball, passes[:, i])
                    tally[i, restart] += int(right.sum())
    percent = 100 / len(images.pixels)
    by_restart = tally * percent
    return AdversarialAccuracy(
        model=model_name(model),
        source=None if source is None else model_name(source),
        truth="own answers" if images.labels is None else "labels",
        images=len(images.pixels),
        budget=budget,
        clean_accuracy=clean * percent,
        epsilons=np.array(sizes, float),
        accuracy=by_restart[:, -1],
        by_restart=by_restart,
        forward_passes=passes[0].cumsum(),
        backward_passes=passes[1].cumsum(),
    )


def _epsilons(epsilons: Sequence[float] | None, norm: str, images: Images) -> list[float]:
    """Ascending, each once."""
    given, reach = DEFAULT_EPSILONS[norm] if epsilons is None else list(epsilons), widest(norm, images)
    if not len(given) or not all(math.isfinite(e) and 0 <= e <= reach for e in given):
        raise UserError(
            f"epsilons {list(given)}: expected numbers from 0 to {reach:.0f}, in 1/255 of the pixel range ({norm})"
        )
    return sorted(set(map(float, given)))


@torch.no_grad()
def _check_source(model: nn.Module, logits: Tensor, source: nn.Module, follows: See, pixels: Tensor) -> None:
    others = follows(pixels)
    check_classes(source, others, None)
    if others.shape[1] != logits.shape[1]:
        names = model_name(source), model_name(model)
        raise UserError(f"source: {names[0]} has {others.shape[1]} classes, {names[1]} {logits.shape[1]}")


def _survivors(
    sees: See,
    follows: See | None,
    x: Tensor,
    pixels: Tensor,
    labels: Tensor,
    epsilon: float,
    budget: Budget,
    passes: np.ndarray,
) -> Tensor:
    """Which of the images (B, 3, H, W) keep their answer on the way from `x`, (B,) bool; adds to `passes`, (2,)."""
    held = torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
    left = held.nonzero()[:, 0]  # places of the images that are still attacked
    is_judged = follows is None and budget.attack == "pgd"  # at each point of the way; else at the last alone
    for _ in range(budget.steps):
        x, logits = step(follows or sees, x, pixels[left], labels[left], epsilon, budget)
        passes += len(left)
        if is_judged:
            kept = logits.argmax(1) == labels[left]
            held[left] = kept
            left, x = left[kept], x[kept]
            if not len(left):
                return held
    passes[0] += len(left)
    with torch.no_grad():
        held[left] = sees(x).argmax(1) == labels[left]
    return held


@dataclass(frozen=True, eq=False)
class AdversarialExamples:
    """Images, and the worst that an attack found for each within `epsilon`, in 1/255 of the pixel range.

    `images` and `adversarial`, (N, 3, H, W) float32 in [0, 1], on the CPU; `labels`, (N,), what was attacked; `answers`
    and `adversarial_answers`, (N,), with their `confidence` and `adversarial_confidence`, softmax in percent.
    `loss_by_step`, (N, R, steps + 1): the cross-entropy on the way, from the start on.
    """

    model: str
    budget: Budget
    epsilon: float
    images: Tensor
    labels: Tensor
    adversarial: Tensor
    answers: Tensor
    confidence: Tensor
    adversarial_answers: Tensor
    adversarial_confidence: Tensor
    loss_by_step: np.ndarray

    @property
    def perturbation(self) -> Tensor:
        """(N, 3, H, W): what was added to the pixels."""
        return self.adversarial - self.images


def adversarial_examples(
    model: nn.Module,
    data: Data,
    *,
    attack: str = "pgd",
    norm: str = "linf",
    epsilon: float = 1,
    steps: int = 10,
    step_size: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
    loss: str = "cross_entropy",
    device: str | torch.device | None = None,
    batch_size: int = 64,
    image_size: int | None = None,
    seed: int = 0,
) -> AdversarialExamples:
    """The attacked images themselves: of each, the point with the highest loss among all that the attack passed.

    They are floats. A picture file holds whole 255ths: rounding moves values by up to half of one, and smaller changes
    vanish. Arguments and errors are those of `adversarial_accuracy`; every image is attacked to the end. epsilon 0
    returns the images.
    """
    budget = Budget.of(attack, norm, steps, step_size, restarts, random_start, loss)
    images = as_images(data, model, image_size)
    (size,) = _epsilons([epsilon], norm, images)
    parts: list[tuple[Tensor, ...]] = []
    with under_attack(model, images, device, batch_size, seed) as (sees, batches):
        for places, pixels, labels, logits in batches:
            starts = [start(places, pixels, size / 255, budget, restart, seed) for restart in range(budget.restarts)]
            adversarial, losses = _worst(sees, starts, pixels, labels, size / 255, budget)
            with torch.no_grad():
                before, after = (some.float().softmax(1).max(1) for some in (logits, sees(adversarial)))
            answers = before.indices, 100 * before.values, after.indices, 100 * after.values
            parts.append((pixels, labels, adversarial, *answers, losses))
    *tensors, losses = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    return AdversarialExamples(model_name(model), budget, size, *tensors, losses.numpy())


def _worst(
    sees: See, starts: Sequence[Tensor], pixels: Tensor, labels: Tensor, epsilon: float, budget: Budget
) -> tuple[Tensor, Tensor]:
    """The points of highest loss, (B, 3, H, W), and the cross-entropy on the way there, (B, R, steps + 1)."""
    worst, highest = pixels, torch.full((len(pixels),), -torch.inf, device=pixels.device)
    ways = []
    for x in starts:
        way = []
        for i in range(budget.steps + 1):
            if i < budget.steps:
                ahead, logits = step(sees, x, pixels, labels, epsilon, budget)
            else:
                with torch.no_grad():
                    ahead, logits = x, sees(x)
            height = losses_of(logits, labels, budget.loss)
            is_better = height > highest
            worst = torch.where(is_better[:, None, None, None], x, worst)
            highest = torch.where(is_better, height, highest)
            way.append(losses_of(logits, labels))
            x = ahead
        ways.append(torch.stack(way, 1))
    return worst, torch.stack(ways, 1)
