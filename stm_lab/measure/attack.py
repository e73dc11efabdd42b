"""How many answers are left when somebody may change every pixel a little, and chooses how."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stm_lab.measure._batches import Data, Images, as_images, check_batch_size, check_classes, evaluating, model_name
from stm_lab.pixels import Normalize
from stm_lab.util.errors import UserError, check_known
from stm_lab.util.progress import progress

ATTACKS = ("fgsm", "pgd", "noise")
NORMS = ("linf", "l2")
LOSSES = ("cross_entropy", "margin")
PIXEL_RANGE = (0.0, 1.0)  # what epsilons are a part of, and what attacked images stay in
UNLABELLED = "to attack its own answers"  # what images alone are good for
DEFAULT_EPSILONS = {"linf": (0, 0.25, 0.5, 1, 2, 4, 8), "l2": (0, 16, 32, 64, 128, 256)}

See = Callable[[Tensor], Tensor]  # pixels (B, 3, H, W) in [0, 1] -> logits (B, K)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an attack may do with one image, beside its epsilon.

    Attributes:
        attack: "fgsm", one step from the image itself; "pgd", `steps` of them, `restarts` times; "noise", no gradient
            at all: `restarts` random points at the edge of the ball.
        norm: "linf", no value of the image moves by more than epsilon; "l2", all together by no more than epsilon, as
            the root of the sum of their squares.
        steps: steps of one start, each a forward and a backward pass.
        step_size: length of a step, as a share of epsilon.
        restarts: starts from other random points.
        random_start: whether "pgd" starts from a random point of the ball, or from the image.
        loss: what is made larger: "cross_entropy", or "margin", the best wrong logit minus the right one, which does
            not go flat where the softmax does.
    """

    attack: str
    norm: str
    steps: int
    step_size: float
    restarts: int
    random_start: bool
    loss: str


@dataclass(frozen=True, eq=False)
class AdversarialAccuracy:
    """Right answers, in percent of the images, that stay right whatever the attack finds within each epsilon.

    `epsilons`, (E,) ascending, in 1/255 of the pixel range [0, 1]; `accuracy`, (E,); `by_restart`, (E, R): after the
    first restarts. `forward_passes` and `backward_passes`, (E,): of all images, as far as that epsilon. `truth`:
    what the answers are held against, "labels", or "own answers" of the model where nobody gave labels. `source`: the
    model that the gradient was taken from, if it was another.
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

    @property
    def half_epsilon(self) -> float | None:
        """The epsilon that half of the clean right answers withstand, in 1/255: one number for a curve.

        Between two measured epsilons it is on the straight line; None where more than half withstand the largest, or
        where there was no right answer to lose. Networks of unequal clean accuracy are compared by what each has.
        """
        half = self.clean_accuracy / 2
        if not half or self.accuracy[-1] > half:
            return None
        epsilons = np.concatenate([[0.0], self.epsilons])
        accuracy = np.concatenate([[self.clean_accuracy], self.accuracy])
        last = int(np.argmax(accuracy <= half))  # the first at or below; the one before is above
        way = (accuracy[last - 1] - half) / (accuracy[last - 1] - accuracy[last])
        return float(epsilons[last - 1] + way * (epsilons[last] - epsilons[last - 1]))

    def rows(self) -> list[dict]:
        """One row an epsilon, each with the whole budget."""
        budget = {name: getattr(self.budget, name) for name in self.budget.__dataclass_fields__}
        columns = (self.epsilons, self.accuracy, self.forward_passes, self.backward_passes)
        return [
            {
                "model": self.model,
                "source": self.source,
                "truth": self.truth,
                "images": self.images,
                **budget,
                "epsilon": epsilon,
                "epsilon_unit": "1/255 of the pixel range",
                "pixel_range": list(PIXEL_RANGE),
                "accuracy": accuracy,
                "forward_passes": forward,
                "backward_passes": backward,
            }
            for epsilon, accuracy, forward, backward in zip(*(column.tolist() for column in columns), strict=True)
        ]


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
    along the sign of the gradient ("l2": along the gradient), each brought back into the ball and into [0, 1]. The
    gradient is that with respect to the pixels: the model's own normalisation is inside. An image counts as lost if any
    point on the attack's way gets a wrong answer ("fgsm" and attacks by `source`: the last point), the image itself
    included. Since a ball holds all smaller ones, an image that is lost is not attacked again; so accuracy falls with
    epsilon and restarts by construction, and `attack_checks` attacks anew to see whether it would by itself.

    An attack finds *some* wrong answers: the accuracy is an upper bound of the true one, as good as the attack.

    Args:
        data: images (N, 3, H, W), (images, labels), or a Dataset, which is decoded at `image_size` (default: the
            model's own). Without labels the model's own answers are attacked, and the accuracy is the share that stays.
        attack, norm, steps, restarts, random_start, loss: see `Budget`. "fgsm" is one step and no restart by nature.
        epsilons: in 1/255 of the pixel range, for both norms; default 0 to 8 ("linf"), 0 to 256 ("l2"). 0 is allowed,
            and gives the accuracy without any attack. They are measured in ascending order.
        step_size: share of epsilon; default 2.5 / steps, at most 1, so that every point of the ball is in reach.
        source: another model of the same classes, whose gradient is followed: a transfer attack.
        device: default the model's own. seed: for random starts and noise, which depend on it and on the image's place
            alone, not on batches; and for models that draw random numbers in eval mode.

    Raises:
        UserError: an unknown attack, norm, loss or device, a budget that is none, data that are no images, a model
            without classifier, labels that it has no class for, logits or gradients that are not finite.
    """
    budget = _budget(attack, norm, steps, step_size, restarts, random_start, loss)
    if source is not None and attack == "noise":
        raise UserError(f"attack 'noise' follows no gradient: leave out the source, {model_name(source)}")
    images = as_images(data, model, image_size)
    sizes = _epsilons(epsilons, norm, images)
    passes = np.zeros((2, len(sizes)), np.int64)
    with evaluating(model, device, seed) as device, _in_place(source, device, seed), torch.enable_grad():
        tally = torch.zeros(len(sizes), budget.restarts, dtype=torch.int64)
        clean = 0
        attacked = _Attacked(model, source, device, budget, passes)
        batches = list(_batches(images, batch_size))
        told = progress(batches, f"{attack} on {model_name(model)}", unit="batch") if len(batches) > 3 else batches
        for places, pixels, labels in told:
            pixels, labels, right = attacked.start(pixels, labels)
            clean += int(right.sum())
            for i, epsilon in enumerate(sizes):
                attacked.at = i
                for restart in range(budget.restarts):
                    if epsilon and right.any():
                        held = right.nonzero()[:, 0]
                        start = _starts(places[held.cpu()], pixels[held], budget, restart, seed)
                        right[held] = attacked.survive(pixels[held], labels[held], epsilon / 255, start)
                    tally[i, restart] += right.sum().cpu()
    percent = 100 / len(images.pixels)
    by_restart = tally.numpy() * percent
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


class _Attacked:
    """A model under attack, image batches at a time; `passes`, (2, E), counts images forward and backward at `at`."""

    def __init__(
        self, model: nn.Module, source: nn.Module | None, device: torch.device, budget: Budget, passes: np.ndarray
    ):
        self.model, self.source, self.device, self.budget = model, source, device, budget
        self.passes, self.at = passes, 0
        self.sees = sight(model, device)
        self.follows = None if source is None else sight(source, device)

    def start(self, pixels: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The batch on the device: pixels in [0, 1], what the answers are held against, and whether they are right."""
        pixels = as_pixels(pixels, self.device)
        logits = self._seen(pixels)
        check_classes(self.model, logits, labels, UNLABELLED)
        if self.follows is not None:
            self._check_source(pixels[:1], logits.shape[1])
        answers = logits.argmax(1)
        labels = answers if labels is None else labels.to(self.device)
        return pixels, labels, answers == labels

    def survive(self, pixels: Tensor, labels: Tensor, epsilon: float, start: Tensor | None) -> Tensor:
        """Which of the images (B, 3, H, W) keep their answer from `start` (None: the images) on; (B,) bool."""
        held = torch.ones(len(pixels), dtype=torch.bool, device=self.device)
        follows = self.follows or self.sees
        judged = self.follows is None and self.budget.attack == "pgd"  # at each point of the way, or at the last alone
        left = held.nonzero()[:, 0]  # places of those that are still attacked
        x = within(pixels if start is None else pixels + epsilon * start, pixels, epsilon, self.budget.norm)
        for _ in range(self.budget.steps):
            ahead, logits = step(follows, x, pixels[left], labels[left], epsilon, self.budget)
            self.passes[:, self.at] += len(left)
            x = ahead
            if judged:
                kept = logits.argmax(1) == labels[left]
                held[left] = kept
                left, x = left[kept], x[kept]
                if not len(left):
                    return held
        held[left] = self._seen(x).argmax(1) == labels[left]
        return held

    @torch.no_grad()
    def _check_source(self, pixels: Tensor, classes: int) -> None:
        logits = self.follows(pixels)
        check_classes(self.source, logits, None)
        if logits.shape[1] != classes:
            names = model_name(self.source), model_name(self.model)
            raise UserError(f"source: {names[0]} has {logits.shape[1]} classes, {names[1]} {classes}")

    @torch.no_grad()
    def _seen(self, pixels: Tensor) -> Tensor:
        self.passes[0, self.at] += len(pixels)
        return self.sees(pixels)


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

    They are floats. A picture file holds whole 255ths: rounding moves values by up to half of one, and changes of less
    vanish. Arguments and errors are those of `adversarial_accuracy`; every image is attacked to the end. epsilon 0
    gives the images back.
    """
    budget = _budget(attack, norm, steps, step_size, restarts, random_start, loss)
    images = as_images(data, model, image_size)
    (size,) = _epsilons([epsilon], norm, images)
    parts: list[tuple] = []
    with evaluating(model, device, seed) as device, torch.enable_grad():
        attacked = _Attacked(model, None, device, budget, np.zeros((2, 1), np.int64))
        for places, pixels, labels in _batches(images, batch_size):
            pixels, labels, _ = attacked.start(pixels, labels)
            starts = [_starts(places, pixels, budget, restart, seed) for restart in range(budget.restarts)]
            adversarial, losses = _worst(attacked.sees, pixels, labels, size / 255, starts, budget)
            with torch.no_grad():
                shares = [attacked.sees(some).float().softmax(1).max(1) for some in (pixels, adversarial)]
            parts.append((pixels, labels, adversarial, losses, *(part for share in shares for part in share)))
    pixels, labels, adversarial, losses, sure, answers, later_sure, later = (
        torch.cat(part).cpu() for part in zip(*parts, strict=True)
    )
    return AdversarialExamples(
        model=model_name(model),
        budget=budget,
        epsilon=float(size),
        images=pixels,
        labels=labels,
        adversarial=adversarial,
        answers=answers,
        confidence=100 * sure,
        adversarial_answers=later,
        adversarial_confidence=100 * later_sure,
        loss_by_step=losses.numpy(),
    )


def _worst(
    sees: See, pixels: Tensor, labels: Tensor, epsilon: float, starts: Sequence[Tensor | None], budget: Budget
) -> tuple[Tensor, Tensor]:
    """The points of highest loss, (B, 3, H, W), and the cross-entropy on the way there, (B, R, steps + 1)."""
    worst, highest = pixels, torch.full((len(pixels),), -torch.inf, device=pixels.device)
    ways = []
    for start in starts:
        x = within(pixels if start is None else pixels + epsilon * start, pixels, epsilon, budget.norm)
        way = []
        for i in range(budget.steps + 1):
            if i < budget.steps:
                ahead, logits = step(sees, x, pixels, labels, epsilon, budget)
            else:
                with torch.no_grad():
                    logits = sees(x)
            height = losses_of(logits, labels, budget.loss)
            is_better = height > highest
            worst = torch.where(is_better[:, None, None, None], x, worst)
            highest = torch.where(is_better, height, highest)
            way.append(losses_of(logits, labels, "cross_entropy"))
            x = ahead if i < budget.steps else x
        ways.append(torch.stack(way, 1))
    return worst, torch.stack(ways, 1)


# ---- one step -------------------------------------------------------------------------------------------------------


def step(sees: See, x: Tensor, pixels: Tensor, labels: Tensor, epsilon: float, budget: Budget) -> tuple[Tensor, Tensor]:
    """The next point of the attack of `pixels` after `x`, (B, 3, H, W), and the logits at `x`, (B, K)."""
    gradient, logits = uphill(sees, x, labels, budget.loss)
    length = budget.step_size * epsilon
    return within(x + length * direction(gradient, budget.norm), pixels, epsilon, budget.norm), logits


def uphill(sees: See, x: Tensor, labels: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """The gradient of each image's loss with respect to its pixels, (B, 3, H, W), and the logits, (B, K)."""
    x = x.detach().requires_grad_()
    logits = sees(x)
    # Images do not mix in eval mode, so the gradient of the sum has each image's own; the weights get none.
    (gradient,) = torch.autograd.grad(losses_of(logits, labels, loss).sum(), x)
    if not gradient.isfinite().all():
        raise UserError("the gradient with respect to the pixels is not finite; float32 may mend it")
    return gradient, logits.detach()


def losses_of(logits: Tensor, labels: Tensor, loss: str) -> Tensor:
    """The loss of each image, (B,) float32 or float64; see `Budget`."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if loss == "cross_entropy":
        return nn.functional.cross_entropy(logits, labels, reduction="none")
    right = nn.functional.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(right, -torch.inf).amax(1) - logits[right]


def direction(gradient: Tensor, norm: str) -> Tensor:
    """The way uphill of length 1 in its norm: signs, or the gradient over its length; 0 where there is none."""
    if norm == "linf":
        return gradient.sign()
    return gradient / lengths(gradient).clamp(min=1e-30)


def within(x: Tensor, pixels: Tensor, epsilon: float, norm: str) -> Tensor:
    """The point of the ball round `pixels` nearest to `x`, its values cut to [0, 1].

    Cutting never leaves the ball: it moves values towards the image's own, which are in the range.
    """
    moved = x - pixels
    if norm == "linf":
        moved = moved.clamp(-epsilon, epsilon)
    else:
        moved = moved * (epsilon / lengths(moved).clamp(min=1e-30)).clamp(max=1)
    return (pixels + moved).clamp(*PIXEL_RANGE)


def lengths(x: Tensor) -> Tensor:
    """Euclidean lengths of (B, 3, H, W), as (B, 1, 1, 1)."""
    return x.flatten(1).norm(dim=1)[:, None, None, None]


def as_pixels(pixels: Tensor, device: torch.device) -> Tensor:
    """Bytes or floats (B, 3, H, W) as float32 in [0, 1] on the device."""
    scale = 255 if pixels.dtype == torch.uint8 else 1
    return (pixels.to(device).float() / scale).clamp(*PIXEL_RANGE)


def random_points(places: Tensor, like: Tensor, norm: str, draw: int, seed: int, *, edge: bool) -> Tensor:
    """A random point of the unit ball for each image, (B, 3, H, W); at its edge (a corner, for "linf") if asked.

    It depends on the seed, the image's place in the data and `draw` alone: not on batches, nor on the device.
    """
    points = []
    for place in places.tolist():
        generator = torch.Generator().manual_seed(((seed * 1_000_003 + draw) * 1_000_003 + place) % 2**63)
        if norm == "linf":
            point = 2 * torch.rand(like.shape[1:], generator=generator) - 1
            point = point.sign() if edge else point
        else:
            point = torch.randn(like.shape[1:], generator=generator)
            radius = 1.0 if edge else float(torch.rand((), generator=generator)) ** (1 / point.numel())
            point = point * (radius / point.norm())
        points.append(point)
    return torch.stack(points).to(like)


def _starts(places: Tensor, pixels: Tensor, budget: Budget, restart: int, seed: int) -> Tensor | None:
    if not budget.random_start:
        return None
    return random_points(places, pixels, budget.norm, restart, seed, edge=budget.attack == "noise")


def sight(model: nn.Module, device: torch.device) -> See:
    """Pixels to logits, the model's normalisation inside. Raises UserError for logits that are not finite."""
    normalise = Normalize(model, device)

    def sees(pixels: Tensor) -> Tensor:
        logits = model(normalise(pixels))
        if not logits.isfinite().all():
            raise UserError(f"{model_name(model)}: gives logits that are not finite; float32 may mend it")
        return logits

    return sees


# ---- what is asked for ----------------------------------------------------------------------------------------------


def _budget(
    attack: str, norm: str, steps: int, step_size: float | None, restarts: int, random_start: bool, loss: str
) -> Budget:
    for what, value, known in (("attack", attack, ATTACKS), ("norm", norm, NORMS), ("loss", loss, LOSSES)):
        check_known(what, value, known)
    for what, value in (("steps", steps), ("restarts", restarts)):
        if value < 1 or value != int(value):
            raise UserError(f"{what} = {value}: must be a whole number, at least 1")
    if step_size is not None and not 0 < step_size <= 2:
        raise UserError(f"step_size = {step_size}: a share of epsilon, above 0; 2 crosses the whole ball")
    if attack == "fgsm":
        return Budget(attack=attack, norm=norm, steps=1, step_size=1.0, restarts=1, random_start=False, loss=loss)
    if attack == "noise":
        return Budget(attack=attack, norm=norm, steps=0, step_size=0.0, restarts=restarts, random_start=True, loss=loss)
    if restarts > 1 and not random_start:
        raise UserError(f"restarts = {restarts}: without a random start all of them would be the same")
    share = min(1.0, 2.5 / steps) if step_size is None else float(step_size)
    return Budget(
        attack=attack, norm=norm, steps=steps, step_size=share, restarts=restarts, random_start=random_start, loss=loss
    )


def _epsilons(epsilons: Sequence[float] | None, norm: str, images: Images) -> list[float]:
    """Ascending, each once."""
    given = DEFAULT_EPSILONS[norm] if epsilons is None else list(epsilons)
    reach = 255 * (1 if norm == "linf" else math.sqrt(images.pixels[0].numel()))  # from black to white
    if not len(given) or not all(math.isfinite(e) and 0 <= e <= reach for e in given):
        raise UserError(
            f"epsilons {list(given)}: expected numbers from 0 to {reach:.0f}, in 1/255 of the pixel range ({norm})"
        )
    return sorted(set(map(float, given)))


def _batches(images: Images, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Places in the data, pixels and labels (None where nobody knows them)."""
    check_batch_size(batch_size)
    for places in torch.arange(len(images.pixels)).split(batch_size):
        yield places, images.pixels[places], None if images.labels is None else images.labels[places]


def batches_on(
    model: nn.Module, sees: See, images: Images, device: torch.device, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels in [0, 1] on the device, with their labels or else the model's own answers. Raises as an attack does."""
    for _, pixels, labels in _batches(images, batch_size):
        pixels = as_pixels(pixels, device)
        with torch.no_grad():
            logits = sees(pixels)
        check_classes(model, logits, labels, UNLABELLED)
        yield pixels, logits.argmax(1) if labels is None else labels.to(device)


def _in_place(source: nn.Module | None, device: torch.device, seed: int) -> AbstractContextManager:
    """The source in eval mode on the device, as long as it is needed."""
    return nullcontext() if source is None else evaluating(source, device, seed)
