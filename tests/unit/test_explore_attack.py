"""The explorer of attacks: it shows what the measure finds, in every state, and answers in time."""


import numpy as np
import pytest
import torch
from speed import Stopwatch
from torch import nn

import stm_lab
from stm_lab.explore import adversarial
from stm_lab.explore.attack import EPSILONS, L2_FACTOR
from stm_lab.measure import adversarial_examples
from stm_lab.util.errors import UserError


class Linear(nn.Module):
    """Two classes whose logits differ by what `weight` finds in the pixels."""

    def __init__(self, seed, classes=2):
        super().__init__()
        weight = torch.randn(classes, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return torch.einsum("bchw,kchw->bk", x - 0.5, self.weight)


def pictures(number=3, side=8):
    """Far from black and white, so that [0, 1] does not stand in the way."""
    return 0.5 + 0.1 * (torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(9)) - 0.5)


@pytest.fixture
def models():
    return {"one": Linear(1), "other": Linear(2)}


def shown(figure):
    """The dots of each network, {name: (before, after)}, in percent."""
    axes = figure.axes[3]
    names = [label.get_text().removeprefix("→ ") for label in axes.get_yticklabels()]
    return dict(zip(names, (tuple(map(float, line.get_xdata())) for line in axes.lines[::3]), strict=True))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attacked", ["one", "other"])
def test_it_shows_what_the_measure_finds(models, norm, attacked):
    images, labels = pictures(), torch.tensor([0, 1, 1])
    figure = adversarial(models, images, labels).figure(model=attacked, image=2, norm=norm, epsilon=2)
    epsilon = 2 * (L2_FACTOR if norm == "l2" else 1)
    found = adversarial_examples(
        models[attacked], (images[2:], labels[2:]), norm=norm, epsilon=epsilon, steps=4, random_start=False
    )
    picture = figure.axes[2].images[0].get_array()
    assert (picture == (255 * found.adversarial[0]).round().permute(1, 2, 0).numpy()).all()
    for name, model in models.items():
        with torch.no_grad():
            expected = [100 * float(model(some).softmax(1)[0, 1]) for some in (images[2:], found.adversarial)]
        np.testing.assert_allclose(shown(figure)[name], expected, atol=1e-3)
    assert f"epsilon {epsilon:g}/255" in figure.get_label()


def test_the_answer_turns_where_the_margin_says(models):
    """Of a linear model the exact distance to the boundary is known: its margin over the sum of |weight|."""
    images = pictures()
    weight = (models["one"].weight[1] - models["one"].weight[0]).detach().double()
    margin = torch.einsum("bchw,chw->b", images.double() - 0.5, weight)
    distance = 255 * margin.abs() / weight.abs().sum()
    explorer = adversarial(models, images)
    turned = 0
    for image, epsilon in ((i, e) for i in range(len(images)) for e in EPSILONS):
        text = explorer.figure(model="one", image=image, norm="linf", epsilon=epsilon).get_label()
        own = int(margin[image] > 0)
        after = 1 - own if epsilon > distance[image] else own
        assert f": one class {own} (" in text
        assert f"becomes class {after} (" in text.split(";")[0]
        turned += own != after
    assert 0 < turned < len(images) * len(EPSILONS)


def test_epsilon_zero_adds_nothing(models):
    figure = adversarial(models, pictures()).figure(epsilon=0)
    assert (figure.axes[0].images[0].get_array() == figure.axes[2].images[0].get_array()).all()
    assert all(before == pytest.approx(after, abs=1e-3) for before, after in shown(figure).values())  # one by one
    assert figure.axes[1].get_title() == "nothing added"


def test_more_epsilon_takes_more(models):
    explorer = adversarial(models, pictures(), torch.tensor([0, 1, 0]))
    left = [shown(explorer.figure(model="one", epsilon=epsilon))["one"][1] for epsilon in EPSILONS]
    assert (np.diff(left) < 0).all()


def test_classes_have_their_names(models):
    text = adversarial(models, pictures(), torch.tensor([0, 1, 0]), ["disc, circle", "ring"]).figure().get_label()
    assert "image 0: disc" in text
    assert "circle" not in text


@pytest.mark.soak
def test_every_state_is_drawn_in_half_a_second():
    """Of every mixer at nano, the image a new one each time."""
    mixers = stm_lab.list_mixers()
    networks = {mixer: stm_lab.build_model(mixer, "nano", num_classes=10).eval() for mixer in mixers}
    explorer = adversarial(networks, pictures(4, 64))
    picture = explorer.widget.children[1]  # the first one loads fonts
    for mixer in mixers:
        stopwatch = Stopwatch()
        for image, norm in ((1, "linf"), (2, "l2"), (3, "linf")):
            before = picture.png
            stopwatch.time(explorer.set, model=mixer, image=image, norm=norm, epsilon=2)
            assert picture.png != before
        assert stopwatch.median < 0.5, (mixer, stopwatch.seconds)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: adversarial({}, x), "no models"),
        (lambda m, x: adversarial(m, x[:0]), "no images"),
        (lambda m, x: adversarial(m, x, torch.tensor([0, 1, 2])), "labels from 0 to 2 for the 2 classes"),
        (lambda m, x: adversarial(m, x, torch.tensor([0])), "labels for 3 images"),
        (lambda m, x: adversarial({**m, "three": Linear(3, 3)}, x), "one has 2 classes, other has 2 classes, three"),
        (lambda m, x: adversarial(m, x, classes=["a"]), "1 names for 2 classes"),
        (lambda m, x: adversarial({"none": nn.Identity()}, x), "no classifier"),
        (lambda m, x: adversarial(m, x).figure(eps=1), "unknown control 'eps'"),
    ],
)
def test_bad_input(models, call, message):
    with pytest.raises(UserError, match=message) as error:
        call(models, pictures())
    assert "\n" not in str(error.value)
