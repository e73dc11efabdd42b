"""Attacks: held against a linear model's exact margin, against foolbox, and against their own promises."""

import dataclasses
import json
import math

import numpy as np
import pytest
import timm
import torch
from companions import companion
from kinds import each_kind
from torch import nn

import stm_lab
from stm_lab import data
from stm_lab.measure import adversarial_accuracy, adversarial_examples, invariance
from stm_lab.measure._steps import ATTACKS, NORMS
from stm_lab.util.errors import UserError

half_epsilon = companion("14").half_epsilon

FEW = (1, 12)
NO_HARM = 1e-6  # pixels are float32 in [0, 1]: a difference of two of them is known to 6e-8


class Linear(nn.Module):
    """Logits that are linear in the pixels; two classes whose difference is `weight`."""

    def __init__(self, weight, scale=1.0):
        super().__init__()
        self.weight, self.scale = nn.Parameter(weight), scale

    def forward(self, x):
        half = self.scale * ((x - 0.5) * self.weight).flatten(1).sum(1) / 2
        return torch.stack([-half, half], 1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise_images(n=6, side=16, seed=0):
    return torch.rand(n, 3, side, side, generator=generator(seed))


def linear(side=8, scale=1.0):
    return Linear(torch.randn(3, side, side, generator=generator(7)), scale)


def middle(n=40, side=8):
    """Images far from black and white, so that [0, 1] does not stand in the way."""
    return 0.5 + 0.1 * (noise_images(n, side, seed=1) - 0.5)


def exact_distance(model, images, norm):
    """How far the boundary is from each image, in 1/255: the logits' margin over the dual norm. In float64."""
    weight = model.weight.detach().double()
    margin = ((images.double() - 0.5) * weight).flatten(1).sum(1).abs()
    dual = weight.abs().sum() if norm == "linf" else weight.square().sum().sqrt()
    return 255 * margin / dual


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_a_linear_models_exact_margin(norm, attack, loss):
    """Accuracy falls exactly where the margin over the dual norm says, image by image."""
    model, images = linear(), middle()
    distance = exact_distance(model, images, norm)
    labels = model(images).argmax(1)
    how = {
        "attack": attack,
        "norm": norm,
        "loss": loss,
        "step_size": 1,
    }  # long steps turn into the gradient's direction
    for share in (0.99, 1.01):
        for image, label, far in zip(images[:4], labels, distance, strict=False):
            found = adversarial_examples(model, (image[None], label[None]), epsilon=share * float(far), **how)
            assert (found.adversarial_answers == label) == (share < 1)
    epsilons = distance.quantile(torch.tensor([0.1, 0.35, 0.6, 0.85], dtype=torch.float64)).tolist()
    result = adversarial_accuracy(model, (images, labels), epsilons=epsilons, **how)
    expected = [100 * (distance > epsilon).double().mean().item() for epsilon in epsilons]
    np.testing.assert_allclose(result.accuracy, expected)
    assert result.clean_accuracy == 100


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacked_images_stay_in_range_and_in_the_ball(norm, attack):
    model = timm.create_model("test_resnet", num_classes=5)
    images = noise_images(6, 32)
    images[0], images[1] = 0, 1
    for epsilon in (0, 0.3, 8, 200):
        found = adversarial_examples(model, images, attack=attack, norm=norm, epsilon=epsilon, steps=3)
        assert found.adversarial.dtype == torch.float32
        assert 0 <= found.adversarial.min() <= found.adversarial.max() <= 1
        moved = found.perturbation.double().flatten(1)
        size = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
        assert (size <= epsilon / 255 + NO_HARM).all()
        torch.testing.assert_close(found.images, images)
        if not epsilon:
            assert torch.equal(found.adversarial, images)
            assert torch.equal(found.answers, found.adversarial_answers)


@pytest.mark.parametrize("norm", NORMS)
def test_noise_is_at_the_edge_of_the_ball(norm):
    found = adversarial_examples(linear(), middle(), attack="noise", norm=norm, epsilon=3)
    moved = found.perturbation.flatten(1)
    size = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
    torch.testing.assert_close(size, torch.full_like(size, 3 / 255), rtol=1e-4, atol=0)


def test_epsilon_zero_is_the_accuracy_without_attack():
    model = timm.create_model("test_resnet", num_classes=5)
    data = noise_images(20, 32), torch.arange(20) % 5
    for attack in ATTACKS:
        result = adversarial_accuracy(model, data, attack=attack, epsilons=[0])
        assert result.accuracy == result.clean_accuracy == invariance(model, data, strengths=[0]).accuracy
        assert result.backward_passes == 0


@pytest.fixture(scope="module")
def nano(few):
    """A trained model, with 12 images of the kind that it was trained for."""
    images, labels = data.to_tensors(data.load(few, "validation"), 64)
    return stm_lab.build_model("convnext", "nano", pretrained=True).eval(), images, labels


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("steps", [1, 6])
def test_against_foolbox(nano, norm, steps):
    """The same steps from the same image end at the same loss; and foolbox fools no image that we do not."""
    foolbox = pytest.importorskip("foolbox")
    model, images, labels = nano
    if steps == 1:
        judge = {"linf": foolbox.attacks.LinfFastGradientAttack, "l2": foolbox.attacks.L2FastGradientAttack}[norm]()
        ours = {"attack": "fgsm"}
    else:
        judge = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
        judge = judge(rel_stepsize=0.3, steps=steps, random_start=False)
        ours = {"attack": "pgd", "steps": steps, "step_size": 0.3, "random_start": False}
    cfg = model.pretrained_cfg
    preprocessing = {"mean": cfg["mean"], "std": cfg["std"], "axis": -3}
    theirs = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu", preprocessing=preprocessing)
    pixels = images.float() / 255
    epsilons = [1, 4] if norm == "linf" else [32, 128]
    _, (*attacked,), is_fooled = judge(theirs, pixels, labels, epsilons=[epsilon / 255 for epsilon in epsilons])
    for epsilon, adversarial, fooled in zip(epsilons, attacked, is_fooled, strict=True):
        found = adversarial_examples(model, (images, labels), norm=norm, epsilon=epsilon, **ours)
        with torch.no_grad():
            loss = nn.functional.cross_entropy(theirs(adversarial), labels, reduction="none")
        # float32 sums in another order flip a sign of a gradient near 0 here and there
        np.testing.assert_allclose(found.loss_by_step[:, 0, -1], loss.numpy(), rtol=5e-3, atol=5e-4)
        result = adversarial_accuracy(model, (images, labels), norm=norm, epsilons=[epsilon], **ours)
        assert result.accuracy <= 100 * (1 - fooled.double().mean().item()) + 1e-9
        if steps == 1:
            stay = ~fooled & (found.answers == labels)  # an image that is wrong already is not repaired by an attack
            assert result.accuracy == pytest.approx(100 * stay.double().mean().item())
        assert 0 < fooled.sum() < len(images)


def test_the_models_own_normalisation_is_inside():
    """A model that normalises, and one that is told to, are attacked alike: epsilon is of pixels in both."""
    model, images = linear(), middle()
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.1]).view(3, 1, 1)

    class Inside(nn.Module):
        def forward(self, x):
            return model((x - mean) / std)

    told = linear()
    told.pretrained_cfg = {"mean": mean.flatten().tolist(), "std": std.flatten().tolist()}
    for norm, epsilon in (("linf", 2), ("l2", 20)):
        one, other = (adversarial_examples(m, images, norm=norm, epsilon=epsilon) for m in (Inside(), told))
        torch.testing.assert_close(one.adversarial, other.adversarial)
        np.testing.assert_allclose(one.loss_by_step, other.loss_by_step, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attack", ATTACKS)
def test_batches_and_bytes_change_nothing(attack):
    model = timm.create_model("test_resnet", num_classes=5)
    pixels = torch.randint(0, 256, (9, 3, 32, 32), dtype=torch.uint8, generator=generator())
    labels = torch.arange(9) % 5
    given = {"attack": attack, "epsilons": [1, 8], "steps": 3, "restarts": 2}
    results = [
        adversarial_accuracy(model, (images, labels), batch_size=size, **given)
        for images, size in ((pixels, 4), (pixels, 9), (pixels / 255, 9))
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result.by_restart, results[0].by_restart)
    apart = [
        adversarial_examples(model, pixels, attack=attack, epsilon=4, restarts=2, batch_size=size) for size in (4, 9)
    ]
    assert (apart[0].perturbation - apart[1].perturbation).abs().max() <= 2 * 4 / 255
    start = [found.loss_by_step[:, :, 0] for found in apart]
    np.testing.assert_allclose(start[0], start[1], rtol=1e-4)


def test_another_seed_starts_elsewhere():
    starts = [
        adversarial_examples(linear(), middle(), epsilon=4, seed=seed).loss_by_step[:, 0, 0] for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(starts[0], starts[1])
    assert not np.allclose(starts[0], starts[2])


def test_more_restarts_and_larger_epsilons_are_never_weaker():
    model = timm.create_model("test_resnet", num_classes=5)
    data = noise_images(30, 32), torch.arange(30) % 5
    result = adversarial_accuracy(model, data, steps=2, restarts=3, epsilons=[8, 0.5, 2, 2])
    assert result.epsilons.tolist() == [0.5, 2, 8]
    assert (np.diff(result.by_restart, axis=1) <= 0).all()
    assert (np.diff(result.accuracy) <= 0).all()
    assert (result.accuracy <= result.clean_accuracy).all()
    np.testing.assert_array_equal(result.by_restart[:, -1], result.accuracy)


@pytest.mark.parametrize("attack", ATTACKS)
def test_passes_are_counted_to_the_image(attack):
    seen = {"forward": 0, "backward": 0}

    class Counted(Linear):
        def forward(self, x):
            seen["forward"] += len(x)
            seen["backward"] += len(x) * x.requires_grad
            return super().forward(x)

    model = Counted(linear().weight.detach())
    given = {"attack": attack, "epsilons": [0.2, 0.5, 3], "steps": 4, "restarts": 2}
    result = adversarial_accuracy(model, middle(), **given)
    assert (result.forward_passes[-1], result.backward_passes[-1]) == (seen["forward"], seen["backward"])
    assert (np.diff(result.forward_passes) >= 0).all()
    batched = adversarial_accuracy(model, middle(), batch_size=7, **given)
    np.testing.assert_array_equal(batched.forward_passes, result.forward_passes)


def test_a_saturated_softmax_hides_the_gradient_but_not_from_the_margin():
    """Logits a million apart: the softmax is 1, its gradient exactly 0, and the answers are as easy to turn as ever."""
    model, images = linear(scale=1e6), middle()
    epsilon = float(exact_distance(model, images, "linf").max()) * 1.01
    clean = adversarial_accuracy(model, images, epsilons=[epsilon], random_start=False)
    assert clean.accuracy > 50
    assert adversarial_accuracy(model, images, epsilons=[epsilon], random_start=False, loss="margin").accuracy == 0


def test_transferred_attacks():
    """Another model's gradient: an orthogonal one changes no answer, the same one all that white-box does."""
    model, images = linear(), middle()
    other = linear()
    with torch.no_grad():
        other.weight[:, :, 4:] = 0
        model.weight[:, :, :4] = 0
    epsilon = [float(exact_distance(model, images, "l2").median())]
    given = {"norm": "l2", "epsilons": epsilon, "random_start": False}
    assert adversarial_accuracy(model, images, source=other, **given).accuracy == 100
    white, same = (adversarial_accuracy(model, images, source=source, **given) for source in (None, model))
    assert white.accuracy == same.accuracy == pytest.approx(50, abs=5)
    assert (white.source, same.source) == (None, "Linear")
    assert same.truth == "own answers"


@each_kind
def test_every_kind_of_mixer_is_left_as_it_was(mixer):
    model = stm_lab.build_model(mixer, "nano", num_classes=4).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    result = adversarial_accuracy(model, (noise_images(2, 40), torch.tensor([1, 2])), epsilons=[2], steps=2)
    assert 0 <= result.accuracy <= result.clean_accuracy <= 100
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_half_of_the_answers_of_a_linear_model():
    """Where half of the exact distances are shorter: between the two in the middle."""
    model, images = linear(), middle()
    low, high = exact_distance(model, images, "linf").sort().values[[len(images) // 2 - 1, len(images) // 2]].tolist()
    fine = np.linspace(low - 0.05, high + 0.05, 9).clip(0)
    result = adversarial_accuracy(model, images, attack="fgsm", epsilons=fine)
    step = fine[1] - fine[0]
    assert low - step <= half_epsilon(result) <= high + step


@pytest.mark.parametrize(
    ("epsilons", "clean", "accuracy", "expected"),
    [
        ([0, 1, 2], 80, [80, 60, 20], 1.5),  # half of 80 is half way between 60 and 20
        ([1, 2], 80, [20, 0], 2 / 3),  # from the clean accuracy at 0 on
        ([0, 1, 2], 80, [80, 40, 40], 1),
        ([0, 1], 80, [80, 41], None),  # more than half withstand all
        ([0], 80, [80], None),
        ([0, 1], 0, [0, 0], None),  # nothing to lose
    ],
)
def test_the_half_is_on_the_line_between_two_epsilons(epsilons, clean, accuracy, expected):
    result = adversarial_accuracy(linear(), middle(2), epsilons=[0])
    result = dataclasses.replace(
        result, epsilons=np.array(epsilons, float), clean_accuracy=clean, accuracy=np.array(accuracy, float)
    )
    assert half_epsilon(result) == (None if expected is None else pytest.approx(expected))


def test_rows_say_the_whole_budget():
    result = adversarial_accuracy(linear(), middle(5), norm="l2", epsilons=[0, 8], steps=5, restarts=2)
    none, some = result.rows()
    assert json.loads(json.dumps(some)) == some
    assert {name: some[name] for name in ("attack", "norm", "steps", "step_size", "restarts", "random_start")} == {
        "attack": "pgd", "norm": "l2", "steps": 5, "step_size": 0.5, "restarts": 2, "random_start": True,
    }  # fmt: skip
    assert (some["epsilon"], some["epsilon_unit"]) == (8, "1/255 of the pixel range")
    assert some["pixel_range"] == [0, 1]
    assert (none["accuracy"], none["backward_passes"]) == (100, 0)
    assert some["truth"] == "own answers"
    assert some["forward_passes"] > some["backward_passes"] > 0


IMAGES = noise_images(2, 8)
NAN = torch.full((2, 3, 8, 8), math.nan)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (IMAGES, {"attack": "pdg"}, "did you mean 'pgd'"),
        (IMAGES, {"norm": "l1"}, "unknown norm 'l1'"),
        (IMAGES, {"loss": "hinge"}, "unknown loss 'hinge'"),
        (IMAGES, {"epsilons": []}, r"epsilons \[\]: expected numbers from 0 to 255, in 1/255"),
        (IMAGES, {"epsilons": [-1]}, "expected numbers from 0"),
        (IMAGES, {"epsilons": [256]}, "from 0 to 255"),
        (IMAGES, {"epsilons": [math.nan]}, "expected numbers"),
        (IMAGES, {"epsilons": [4000], "norm": "l2"}, r"from 0 to 3533, in 1/255 of the pixel range \(l2\)"),
        (IMAGES, {"steps": 0}, "steps = 0: must be a whole number, at least 1"),
        (IMAGES, {"restarts": 1.5}, "restarts = 1.5"),
        (IMAGES, {"restarts": 2, "random_start": False}, "all of them would be the same"),
        (IMAGES, {"step_size": 0}, "step_size = 0: a share of epsilon"),
        (IMAGES, {"batch_size": 0}, "at least one image"),
        (IMAGES, {"attack": "noise", "source": linear()}, "follows no gradient"),
        (IMAGES, {"source": timm.create_model("test_resnet", num_classes=5)}, "test_resnet has 5 classes, Linear 2"),
        (IMAGES[:0], {}, "no images"),
        (NAN, {}, "values from nan to nan"),
        (10 * IMAGES, {}, "not yet normalised"),
        ((IMAGES, torch.tensor([0, 2])), {}, "labels from 0 to 2 for the 2 classes"),
        ((IMAGES, torch.tensor([0])), {}, r"\(1,\) labels for 2 images"),
        ([1, 2], {}, "a list"),
    ],
)
def test_bad_input(data, options, message):
    with pytest.raises(UserError, match=message) as error:
        adversarial_accuracy(linear(), data, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("measure", [adversarial_accuracy, adversarial_examples])
def test_models_that_cannot_be_attacked(measure):
    with pytest.raises(UserError, match="no classifier"):
        measure(timm.create_model("test_resnet", num_classes=0), IMAGES)
    with pytest.raises(UserError, match="logits that are not finite"):
        measure(Linear(torch.full((3, 8, 8), math.nan)), IMAGES)
