"""Can an adversarial accuracy be believed: does the attack do what an attack that works must do?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from stm_lab.measure._batches import Data, Images, as_images, model_name, rows_of
from stm_lab.measure._steps import NORMS, Budget, direction, losses_of, under_attack, uphill, widest
from stm_lab.measure.attack import adversarial_accuracy, adversarial_examples
from stm_lab.util.errors import UserError, check_known


@dataclass(frozen=True)
class Check:
    """One thing that holds for an attack that works: `passed` (None: not tried), and what was `found`, in words and in
    `numbers` (accuracies in percent)."""

    name: str
    expected: str
    passed: bool | None
    found: str
    numbers: dict[str, float]


@dataclass(frozen=True, eq=False)
class AttackChecks:
    """`checks` of one attack of one model at `epsilon`, in 1/255 of the pixel range [0, 1].

    `loss_by_step`, (R, steps + 1): mean cross-entropy over the images, of each restart. `passed`: none has failed.
    """

    model: str
    budget: Budget
    epsilon: float
    images: int
    checks: tuple[Check, ...]
    loss_by_step: np.ndarray

    @property
    def passed(self) -> bool:
        return not any(check.passed is False for check in self.checks)

    def rows(self) -> list[dict]:
        """One row a check."""
        (shared,) = rows_of(self, "model images", norm=self.budget.norm, epsilon=self.epsilon)
        return [
            {**shared, "check": c.name, "expected": c.expected, "passed": c.passed, "found": c.found, **c.numbers}
            for c in self.checks
        ]


def attack_checks(
    model: nn.Module,
    data: Data,
    *,
    norm: str = "linf",
    epsilon: float = 1,
    steps: int = 10,
    restarts: int = 2,
    tries: int = 10,
    other: nn.Module | None = None,
    limit: int | None = 32,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    image_size: int | None = None,
    seed: int = 0,
) -> AttackChecks:
    """Attack in ways whose order is known beforehand, and check that the numbers come in that order.

    A model that hides its gradient looks robust to an attack that follows it. The checks are those that Athalye et al.
    2018 (arXiv 1802.00420) and Carlini et al. 2019 (arXiv 1902.06705, section 5) recommend; shares of images are
    compared with one image's tolerance. Passing proves nothing; failing says that the accuracy under this attack is not
    that of the model.

    Cross-entropy depends on the logits' scale: where the softmax rounds to 1, its gradient is lost. So PGD is compared
    with an attack of the margin, whose direction does not depend on it (as AutoAttack's DLR loss: Croce and Hein 2020,
    arXiv 2003.01690), and no right answer may have a softmax of exactly 1. For outputs that are probabilities the
    margin is that of their logarithms.

    Args:
        epsilon: above 0, in 1/255 of the pixel range. steps, restarts: of the PGD that is checked.
        tries: random points of noise, an image each.
        other: a model of the same classes, whose attacks are then tried on `model`.
        limit: the largest number of images of `data`, from the first on; None takes all.
        The rest as for `adversarial_accuracy`.

    Raises:
        UserError: as that does, and for an epsilon that leaves nothing to check.
    """
    images = as_images(data, model, image_size, limit)
    check_known("norm", norm, NORMS)
    reach = widest(norm, images)
    if not 0 < epsilon <= reach / 2:
        raise UserError(f"epsilon = {epsilon}: expected a number above 0, at most {reach / 2:.0f}, in 1/255 ({norm})")
    given = images.pixels if images.labels is None else images
    where = {"device": device, "batch_size": batch_size, "seed": seed}

    def left(at: float = epsilon, **how: object) -> float:
        """Percent of the images that PGD leaves, or another attack."""
        how = {"norm": norm, "steps": steps, "restarts": restarts, **where, **how}
        return float(adversarial_accuracy(model, given, epsilons=[at], **how).accuracy[0])

    examples = adversarial_examples(model, given, norm=norm, epsilon=epsilon, steps=steps, restarts=restarts, **where)
    noise = adversarial_examples(model, given, norm=norm, epsilon=epsilon, attack="noise", restarts=tries, **where)
    one, pgd = 100 / len(images.pixels) + 1e-9, left()  # one image, in percent
    by_epsilon = {0: left(0), epsilon / 2: left(epsilon / 2), epsilon: pgd, 2 * epsilon: left(2 * epsilon)}
    certain, are_probabilities, *slopes = _gradients(model, images, **where)
    with _logarithms(model) if are_probabilities else nullcontext():
        margin = left(loss="margin")
    checks = (
        _loss_grows(examples.loss_by_step),
        _falls_to_zero(left(reach), reach),
        _larger_is_stronger(by_epsilon, one),
        _against("fgsm", left(attack="fgsm", restarts=1), pgd, one),
        _against("more", left(steps=2 * steps, restarts=2 * restarts), pgd, max(2.0, one)),
        _is_not_saturated(margin, pgd, one, certain, are_probabilities),
        _noise_is_weaker(left(attack="noise", restarts=tries), pgd, examples.loss_by_step, noise.loss_by_step),
        _against("transfer", None if other is None else left(source=other), pgd, one),
        _gradient_is_true(*slopes),
    )
    ways = examples.loss_by_step.mean(0)
    return AttackChecks(model_name(model), examples.budget, float(epsilon), len(images.pixels), checks, ways)


# ---- the checks: what is expected, and what was found ----------------------------------------------------------------


def _loss_grows(losses: np.ndarray) -> Check:
    """losses: (N, R, steps + 1)."""
    way = losses.mean((0, 1))
    first, last, top = float(way[0]), float(way[-1]), float(way.max())
    return Check(
        "loss grows with steps",
        "the last point of the way is the highest, within 2%",
        last > first and last >= 0.98 * top,
        f"cross-entropy from {first:.3g} at the start to {last:.3g} after {len(way) - 1} steps, highest {top:.3g}",
        {"loss_first": first, "loss_last": last, "loss_highest": top},
    )


def _falls_to_zero(unbounded: float, reach: float) -> Check:
    expected = f"no answer stands when any image is allowed (epsilon {reach:.0f}/255)"
    found, numbers = f"{unbounded:.1f}% stand", {"accuracy_unbounded": unbounded}
    return Check("accuracy falls to zero", expected, unbounded == 0, found, numbers)


def _larger_is_stronger(by_epsilon: dict[float, float], one: float) -> Check:
    """by_epsilon: accuracies, the first without attack, in ascending order of epsilon."""
    (_, clean), *attacked = by_epsilon.items()
    said = ", ".join(f"{accuracy:.1f}% at {epsilon:g}/255" for epsilon, accuracy in attacked)
    return Check(
        "larger epsilon is stronger",
        "accuracy does not rise with epsilon, each attacked anew",
        all(later <= earlier + one for earlier, later in itertools.pairwise(by_epsilon.values())),
        f"{clean:.1f}% without attack, {said}",
        {"accuracy_clean": clean, **{f"accuracy_at_{epsilon:g}": accuracy for epsilon, accuracy in attacked}},
    )


# What PGD is compared with: the check's name, what is expected, and the name of the other attack.
_RIVALS = {
    "fgsm": ("many steps beat one", "PGD leaves no more than FGSM", "FGSM"),
    "more": (
        "the budget is enough",
        "twice the steps and twice the restarts find less than 2 points more, or one image",
        "PGD with four times as many passes",
    ),
    "transfer": (
        "another model's attack is weaker",
        "following another model's gradient leaves no fewer answers",
        "the other model's gradient",
    ),
}


def _against(rival: str, accuracy: float | None, pgd: float, slack: float) -> Check:
    """PGD, which leaves `pgd` percent, finds as much as its rival, within `slack` points; None: it was not tried."""
    name, expected, called = _RIVALS[rival]
    if accuracy is None:
        return Check(name, expected, None, "not tried", {})
    found = f"{called} leaves {accuracy:.1f}%, PGD {pgd:.1f}%"
    return Check(name, expected, pgd - accuracy <= slack, found, {f"accuracy_{rival}": accuracy, "accuracy_pgd": pgd})


def _is_not_saturated(margin: float, pgd: float, slack: float, certain: float, are_probabilities: bool) -> Check:
    """certain: percent of the right answers; see `_gradients`."""
    what = ("probability", "the margin of the logarithms") if are_probabilities else ("softmax", "the margin")
    return Check(
        "the loss is not saturated",
        "the margin of the logits as loss finds no more than one image more, and no right answer has a softmax of 1",
        pgd - margin <= slack and certain == 0,
        f"{what[1]} leaves {margin:.1f}%, PGD {pgd:.1f}%; {certain:.1f}% of the right answers have a {what[0]} of 1",
        {"accuracy_margin": margin, "accuracy_pgd": pgd, "certain_percent": certain},
    )


def _noise_is_weaker(accuracy: float, pgd: float, attacked: np.ndarray, noise: np.ndarray) -> Check:
    """attacked: (N, R, steps + 1) and noise: (N, tries, 1) cross-entropies."""
    beaten = 100 * float((noise.max((1, 2)) > attacked.max((1, 2))).mean())
    return Check(
        "noise is weaker",
        "random points of the same size leave no fewer answers, and find no higher loss for any image",
        accuracy >= pgd and beaten == 0,
        f"{noise.shape[1]} random points leave {accuracy:.1f}%, PGD {pgd:.1f}%; "
        f"they find a higher loss for {beaten:.1f}% of the images",
        {"accuracy_noise": accuracy, "accuracy_pgd": pgd, "noise_higher_percent": beaten},
    )


def _gradient_is_true(predicted: np.ndarray, seen: np.ndarray) -> Check:
    """Slopes of the loss along the gradient, (N,): by autograd, and by differences."""
    there = predicted > 0
    none = 100 * float(1 - there.mean())
    error = float(np.median(abs(seen[there] / predicted[there] - 1))) if there.any() else 1.0
    return Check(
        "the gradient is not masked",
        "no image without gradient; along it the loss rises as it says, within 10% for the median image",
        none == 0 and error <= 0.1,
        f"{none:.1f}% of the images have no gradient; slope off by {100 * error:.2g}% (median)",
        {"without_gradient_percent": none, "slope_error_percent": 100 * error},
    )


# ---- what the model gives at the images themselves -------------------------------------------------------------------


def _gradients(
    model: nn.Module, images: Images, device: str | torch.device | None, batch_size: int, seed: int
) -> tuple[float, bool, np.ndarray, np.ndarray]:
    """What the loss's gradient is worth at the images themselves.

    Percent of the right answers whose softmax is exactly 1, where cross-entropy has lost its gradient; whether the
    outputs are probabilities already, which are then compared with 1 themselves; and the loss's slope along its
    gradient, per unit of pixel length, (N,), twice: the gradient's length, and the central difference over a step that
    should change the loss by 0.04 in all.
    """
    found = []
    with under_attack(model, images, device, batch_size, seed) as (sees, batches):
        for _, pixels, labels, logits in batches:
            gradient, _ = uphill(sees, pixels, labels)
            slope = gradient.flatten(1).norm(dim=1)
            far = math.sqrt(pixels[0].numel()) / 255  # where the loss is flat, one 255th in every value
            half = (0.02 / slope.clamp(min=1e-30)).clamp(max=far)[:, None, None, None]
            way = half * direction(gradient, "l2")
            with torch.no_grad():
                above, below = (losses_of(sees(pixels + sign * way), labels) for sign in (1, -1))
            found.append((logits, logits.argmax(1) == labels, slope, (above - below) / (2 * half.flatten())))
    logits, is_right, *slopes = (torch.cat(part) for part in zip(*found, strict=True))
    are_probabilities = bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-3).all())
    shares = logits if are_probabilities else logits.softmax(1)
    certain = shares[is_right].amax(1) == 1
    percent = 100 * float(certain.sum()) / max(1, len(certain))
    return percent, are_probabilities, *(slope.double().cpu().numpy() for slope in slopes)


@contextmanager
def _logarithms(model: nn.Module) -> Iterator[None]:
    """Within, the model gives the logarithms of its probabilities, which are logits of the same answers."""
    with model.register_forward_hook(lambda *call: call[-1].clamp(min=torch.finfo(call[-1].dtype).tiny).log()):
        yield
