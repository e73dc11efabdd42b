"""How many answers are left when somebody may change every pixel a little, and chooses how."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stm_lab.measure._batches import (
    Data,
    Images,
    See,
    as_images,
    check_classes,
    evaluating,
    model_name,
    rows_of,
    sight,
)
from stm_lab.util.errors import UserError, check_known

ATTACKS = ("fgsm", "pgd", "noise")
NORMS = ("linf", "l2")
LOSSES = ("cross_entropy", "margin")
PIXEL_RANGE = (0.0, 1.0)  # epsilons are parts of it, and attacked images stay in it
DEFAULT_EPSILONS = {"linf": (0, 0.25, 0.5, 1, 2, 4, 8), "l2": (0, 16, 32, 64, 128, 256)}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an attack may do with one image, besides its epsilon.

    attack: "fgsm", one step from the image itself; "pgd", `steps` steps, `restarts` times; "noise", no gradient, but
        `restarts` random points at the edge of the ball.
    norm: "linf", no value of the image moves by more than epsilon; "l2", the root of the sum of the squared moves is at
        most epsilon.
    step_size: length of a step, each a forward and a backward pass, as a share of epsilon.
    random_start: whether "pgd" starts from a random point of the ball, another for each restart, or from the image.
    loss: what is made larger: "cross_entropy", or "margin", the best wrong logit minus the right one, which does not
        become flat where the softmax does.
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

    @property
    def half_epsilon(self) -> float | None:
        """The epsilon that half of the clean right answers withstand, in 1/255: one number for a curve.

        Between two measured epsilons the curve is a straight line. None where more than half withstand the largest, or
        where no answer was right. Being relative, it compares networks of unequal clean accuracy.
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
        unit = {"epsilon_unit": "1/255 of the pixel range", "pixel_range": PIXEL_RANGE}
        found = {name: getattr(self, name) for name in ("accuracy", "forward_passes", "backward_passes")}
        return rows_of(
            self, "model source truth images", **asdict(self.budget), epsilon=self.epsilons, **unit, **found
        )


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
    included. A lost image is not attacked again, because larger balls hold the smaller ones: accuracy falls with
    epsilon and restarts by construction. The accuracy is an upper bound of the true one, as good as the attack.

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
        UserError: an unknown attack, norm, loss or device, an impossible budget, data that are no images, a model
            without classifier, labels that are none of its classes, logits or gradients that are not finite.
    """
    budget = _budget(attack, norm, steps, step_size, restarts, random_start, loss)
    if source is not None and attack == "noise":
        raise UserError(f"attack 'noise' follows no gradient: leave out the source, {model_name(source)}")
    images = as_images(data, model, image_size)
    sizes = _epsilons(epsilons, norm, images)
    passes = np.zeros((2, len(sizes)), np.int64)  # of images, forward and backward
    tally, clean = np.zeros((len(sizes), budget.restarts), np.int64), 0
    with (
        attackable(model, device, seed) as (sees, device),
        nullcontext((None, None)) if source is None else attackable(source, device, seed) as (follows, _),
    ):
        for places, pixels, labels, logits in seen_batches(model, sees, images, device, batch_size, attack):
            if source is not None:
                _check_source(model, logits, source, follows, pixels[:1])
            passes[0, 0] += len(pixels)
            right = logits.argmax(1) == labels
            clean += int(right.sum())
            for i, epsilon in enumerate(sizes):
                for restart in range(budget.restarts):
                    if epsilon and right.any():
                        held = right.nonzero()[:, 0]
                        start = _start(places[held.cpu()], pixels[held], epsilon / 255, budget, restart, seed)
                        ball = pixels[held], labels[held], epsilon / 255, budget
                        right[held] = _survivors(sees, follows, start, *ball, passes[:, i])
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


@torch.no_grad()
def _check_source(model: nn.Module, logits: Tensor, source: nn.Module, follows: See, pixels: Tensor) -> None:
    others = follows(pixels)
    check_classes(source, others, None)
    if others.shape[1] != logits.shape[1]:
        names = model_name(source), model_name(model)
        raise UserError(f"source: {names[0]} has {others.shape[1]} classes, {names[1]} {logits.shape[1]}")


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
    budget = _budget(attack, norm, steps, step_size, restarts, random_start, loss)
    images = as_images(data, model, image_size)
    (size,) = _epsilons([epsilon], norm, images)
    parts: list[tuple[Tensor, ...]] = []
    with attackable(model, device, seed) as (sees, device):
        for places, pixels, labels, logits in seen_batches(model, sees, images, device, batch_size):
            starts = [_start(places, pixels, size / 255, budget, draw, seed) for draw in range(budget.restarts)]
            adversarial, losses = _worst(sees, starts, pixels, labels, size / 255, budget)
            with torch.no_grad():
                shares = [some.float().softmax(1).max(1) for some in (logits, sees(adversarial))]
            parts.append((pixels, labels, adversarial, losses, *shares[0], *shares[1]))
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
            way.append(losses_of(logits, labels, "cross_entropy"))
            x = ahead
        ways.append(torch.stack(way, 1))
    return worst, torch.stack(ways, 1)


@contextmanager
def attackable(
    model: nn.Module, device: str | torch.device | None, seed: int
) -> Iterator[tuple[See, torch.device]]:
    """The model in eval mode as it sees pixels, with gradients, and its device; see `evaluating`."""
    with evaluating(model, device, seed) as on, torch.enable_grad():
        yield sight(model, on), on


def seen_batches(
    model: nn.Module, sees: See, images: Images, device: torch.device, batch_size: int, attack: str = ""
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Of each batch the places, pixels, labels (else the model's own answers) and logits. `attack`: for progress.

    Raises UserError as `adversarial_accuracy` does.
    """
    told = f"{attack} on {model_name(model)}" if attack else ""
    for places, pixels, labels in images.parts(device, batch_size, told):
        with torch.no_grad():
            logits = sees(pixels)
        check_classes(model, logits, labels, "to attack its own answers")
        yield places, pixels, logits.argmax(1) if labels is None else labels, logits


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
        raise UserError("the gradient with respect to the pixels is not finite; float32 may help")
    return gradient, logits.detach()


def losses_of(logits: Tensor, labels: Tensor, loss: str) -> Tensor:
    """The loss of each image, (B,) float32 or float64; see `Budget`."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if loss == "cross_entropy":
        return nn.functional.cross_entropy(logits, labels, reduction="none")
    right = nn.functional.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(right, -torch.inf).amax(1) - logits[right]


def direction(gradient: Tensor, norm: str) -> Tensor:
    """The direction uphill of length 1 in its norm: signs, or the gradient over its length; 0 for no gradient."""
    return gradient.sign() if norm == "linf" else gradient / _lengths(gradient)


def within(x: Tensor, pixels: Tensor, epsilon: float, norm: str) -> Tensor:
    """The point of the ball round `pixels` nearest to `x`, its values cut to [0, 1].

    Cutting never leaves the ball: it moves values towards the image's own, which are in the range.
    """
    moved = x - pixels
    moved = moved.clamp(-epsilon, epsilon) if norm == "linf" else moved * (epsilon / _lengths(moved)).clamp(max=1)
    return (pixels + moved).clamp(*PIXEL_RANGE)


def _lengths(x: Tensor) -> Tensor:
    """Euclidean lengths of (B, 3, H, W), as (B, 1, 1, 1), never 0."""
    return x.flatten(1).norm(dim=1)[:, None, None, None].clamp(min=1e-30)


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


def _start(places: Tensor, pixels: Tensor, epsilon: float, budget: Budget, draw: int, seed: int) -> Tensor:
    """Where a start of the attack begins, (B, 3, H, W)."""
    x = pixels
    if budget.random_start:
        x = pixels + epsilon * random_points(places, pixels, budget.norm, draw, seed, edge=budget.attack == "noise")
    return within(x, pixels, epsilon, budget.norm)


# ---- arguments ------------------------------------------------------------------------------------------------------


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
    if attack == "pgd" and restarts > 1 and not random_start:
        raise UserError(f"restarts = {restarts}: without a random start all of them would be the same")
    share = min(1.0, 2.5 / steps) if step_size is None else float(step_size)
    if attack == "fgsm":
        steps, share, restarts, random_start = 1, 1.0, 1, False
    elif attack == "noise":
        steps, share, random_start = 0, 0.0, True
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
