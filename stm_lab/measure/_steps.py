"""The steps of attacks: what one may do, the loss that it raises, its gradient, the ball, and where it starts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stm_lab.measure._batches import Images, See, check_classes, evaluating, model_name, sight
from stm_lab.util.errors import UserError, check_known

ATTACKS = ("fgsm", "pgd", "noise")
NORMS = ("linf", "l2")
LOSSES = ("cross_entropy", "margin")
PIXEL_RANGE = (0.0, 1.0)  # epsilons are parts of it, and attacked images stay in it
Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # see `under_attack`


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

    @classmethod
    def of(
        cls, attack: str, norm: str, steps: int, step_size: float | None, restarts: int, random_start: bool, loss: str
    ) -> Budget:
        """The budget of these arguments of `adversarial_accuracy`, which raises UserError as this does."""
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
        how = {"steps": steps, "step_size": share, "restarts": restarts, "random_start": random_start}
        return cls(attack=attack, norm=norm, loss=loss, **how)


@contextmanager
def under_attack(
    model: nn.Module, images: Images, device: str | torch.device | None, batch_size: int, seed: int, told: str = ""
) -> Iterator[tuple[See, Iterator[Batch]]]:
    """The model as it sees pixels, with gradients, and its batches; see `evaluating`. told: for progress.

    A batch: the images' places in the data, (B,), pixels, (B, 3, H, W), labels, (B,), else the model's own answers, and
    logits, (B, K). Raises UserError for a model without classifier and for labels that are none of its classes.
    """

    def batches() -> Iterator[Batch]:
        for places, pixels, labels in images.parts(on, batch_size, told and f"{told} on {model_name(model)}"):
            with torch.no_grad():
                logits = sees(pixels)
            check_classes(model, logits, labels, "to attack its own answers")
            yield places, pixels, logits.argmax(1) if labels is None else labels, logits

    with evaluating(model, device, seed) as on, torch.enable_grad():
        sees = sight(model, on)
        yield sees, batches()


def step(sees: See, x: Tensor, pixels: Tensor, labels: Tensor, epsilon: float, budget: Budget) -> tuple[Tensor, Tensor]:
    """The next point of the attack of `pixels` after `x`, (B, 3, H, W), and the logits at `x`, (B, K)."""
    gradient, logits = uphill(sees, x, labels, budget.loss)
    length = budget.step_size * epsilon
    return within(x + length * direction(gradient, budget.norm), pixels, epsilon, budget.norm), logits


def uphill(sees: See, x: Tensor, labels: Tensor, loss: str = "cross_entropy") -> tuple[Tensor, Tensor]:
    """The gradient of each image's loss with respect to its pixels, (B, 3, H, W), and the logits, (B, K)."""
    x = x.detach().requires_grad_()
    logits = sees(x)
    # Images do not mix in eval mode, so the gradient of the sum has each image's own; the weights get none.
    (gradient,) = torch.autograd.grad(losses_of(logits, labels, loss).sum(), x)
    if not gradient.isfinite().all():
        raise UserError("the gradient with respect to the pixels is not finite; float32 may help")
    return gradient, logits.detach()


def losses_of(logits: Tensor, labels: Tensor, loss: str = "cross_entropy") -> Tensor:
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


def start(places: Tensor, pixels: Tensor, epsilon: float, budget: Budget, restart: int, seed: int) -> Tensor:
    """Where a restart of the attack begins, (B, 3, H, W)."""
    x = pixels
    if budget.random_start:
        x = pixels + epsilon * random_points(places, pixels, budget.norm, restart, seed, edge=budget.attack == "noise")
    return within(x, pixels, epsilon, budget.norm)


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


def widest(norm: str, images: Images) -> float:
    """The epsilon, in 1/255, that allows any image: from black to white."""
    return 255 * (1 if norm == "linf" else math.sqrt(images.pixels[0].numel()))
