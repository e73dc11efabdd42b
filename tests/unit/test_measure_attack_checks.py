"""Checks of attacks: models whose gradients are honest, hidden or lying, and whether it is told."""

import json
import math

import pytest
import torch
from kinds import soaked
from torch import nn

import stm_lab
from stm_lab import data
from stm_lab.measure import attack_checks
from stm_lab.measure.attack_checks import Check
from stm_lab.util.errors import UserError

FEW = (1, 16)


@pytest.fixture(scope="module")
def images(few):
    return data.to_tensors(data.load(few, "validation"), 64)


@pytest.fixture(scope="module")
def nano():
    return {mixer: stm_lab.build_model(mixer, "nano", pretrained=True).eval() for mixer in ("convnext", "identity")}


class Wrapped(nn.Module):
    """A trained model behind a front that does something to pixels or to logits."""

    def __init__(self, model, front=lambda x: x, back=lambda x: x):
        super().__init__()
        self.model, self.front, self.back = model, front, back
        self.pretrained_cfg = model.pretrained_cfg

    def forward(self, x):
        return self.back(self.model(self.front(x)))


class Backwards(torch.autograd.Function):
    """Says that the loss falls where it rises."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Elsewhere(torch.autograd.Function):
    """Gives a gradient that has nothing to do with the image."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        noise = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0))
        return noise * gradient.abs().mean()


def failed(checks):
    return {check.name for check in checks.checks if check.passed is False}


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_honest_model_passes_all(nano, images, norm):
    epsilon = 2 if norm == "linf" else 64
    result = attack_checks(nano["convnext"], images, norm=norm, epsilon=epsilon, other=nano["identity"])
    assert failed(result) == set()
    assert result.passed
    assert all(check.passed for check in result.checks)
    assert result.loss_by_step.shape == (2, 11)
    assert json.loads(json.dumps(result.rows())) == result.rows()
    assert len({row["check"] for row in result.rows()}) == len(result.checks) == 9


@pytest.mark.parametrize(
    ("front", "back", "names"),
    [
        # steps of an eighth: the gradient is 0 nearly everywhere
        (lambda x: (8 * x).round() / 8, lambda x: x, {"the gradient is not masked"}),
        (Backwards.apply, lambda x: x, {"loss grows with steps", "noise is weaker", "the gradient is not masked"}),
        (Elsewhere.apply, lambda x: x, {"the gradient is not masked"}),
        (lambda x: x, lambda x: 1e4 * x, {"the gradient is not masked"}),
    ],
    ids=["steps", "backwards", "elsewhere", "saturated"],
)
def test_a_gradient_that_hides_or_lies_is_found(nano, images, front, back, names):
    pixels, labels = images
    model = Wrapped(nano["identity"], front, back)
    result = attack_checks(model, (pixels[:8], labels[:8]), epsilon=4, steps=5, restarts=1, tries=4)
    assert names <= failed(result)
    assert not result.passed


# What becomes of the logits, all with the same answers; whether the loss is then saturated (None: either may be said).
OUTPUTS = {
    "logits": (lambda z: z, False),
    "a twentieth": (lambda z: z / 20, None),
    "log-softmax": (lambda z: (2 * z).log_softmax(1), False),
    "softmax": (lambda z: z.softmax(1), None),
    "20 times": (lambda z: 20 * z, True),
    "softmax of 20 times": (lambda z: (20 * z).softmax(1), True),
}


@pytest.mark.parametrize("output", soaked(OUTPUTS, besides=[name for name in OUTPUTS if OUTPUTS[name][1] is not None]))
def test_an_attack_that_passes_leaves_what_it_leaves_at_any_scale_of_the_logits(nano, images, output):
    """foolbox judges, by following the logits as they are: what it fools is fooled at any scale."""
    foolbox = pytest.importorskip("foolbox")
    pixels, labels = images[0][:10], images[1][:10]
    back, is_saturated = OUTPUTS[output]
    model, little = Wrapped(nano["identity"], back=back), {"steps": 3, "restarts": 1, "tries": 1}
    result = attack_checks(model, (pixels, labels), epsilon=4, **little)
    (check,) = [check for check in result.checks if check.name == "the loss is not saturated"]
    assert is_saturated is None or check.passed is not is_saturated, check.found

    cfg = nano["identity"].pretrained_cfg
    preprocessing = {"mean": cfg["mean"], "std": cfg["std"], "axis": -3}
    honest = foolbox.PyTorchModel(nano["identity"], bounds=(0, 1), device="cpu", preprocessing=preprocessing)
    judge = foolbox.attacks.LinfPGD(rel_stepsize=0.5, steps=3, random_start=False)
    fooled = judge(honest, pixels.float() / 255, labels, epsilons=[4 / 255])[2][0]
    left = 100 * (1 - fooled.double().mean().item())
    assert not check.passed or check.numbers["accuracy_pgd"] <= left + 100 / 10 + 1e-6


def test_a_constant_answer_is_not_robustness():
    class Constant(nn.Module):
        def forward(self, x):
            return x.mean((1, 2, 3))[:, None] * torch.tensor([1e-6, 0.0]) + torch.tensor([5.0, 0.0])

    result = attack_checks(Constant(), torch.rand(4, 3, 8, 8), steps=3, restarts=1, tries=2)
    (check,) = [check for check in result.checks if check.name == "accuracy falls to zero"]
    assert check.passed is False
    assert check.numbers["accuracy_unbounded"] == 100


def test_what_was_not_looked_at_is_neither_passed_nor_failed():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    result = attack_checks(model, torch.rand(4, 3, 8, 8), steps=3, restarts=1, tries=2)
    (check,) = [check for check in result.checks if check.passed is None]
    assert check.name == "another model's attack is weaker"
    assert isinstance(check, Check)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: attack_checks(m, x, epsilon=0), "epsilon = 0: expected a number above 0, at most 128"),
        (lambda m, x: attack_checks(m, x, epsilon=math.nan), "above 0"),
        (lambda m, x: attack_checks(m, x, epsilon=200), "at most 128"),
        (lambda m, x: attack_checks(m, x[:0]), "no images"),
        (lambda m, x: attack_checks(m, x, norm="l1"), "unknown norm 'l1'"),
    ],
)
def test_bad_input(call, message):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(UserError, match=message) as error:
        call(model, torch.rand(2, 3, 8, 8))
    assert "\n" not in str(error.value)
