"""Explorers of answers: attacks, corruptions and views show what the measures and the models say, in every state."""

import numpy as np
import pytest
import timm
import torch
from companions import companion
from kinds import KINDS
from torch import nn

import stm_lab
from stm_lab import UserError, measure
from stm_lab.measure.attack import DEFAULT_EPSILONS

OWN_14 = companion("14")
adversarial, L2_FACTOR = OWN_14.adversarial, OWN_14.L2_FACTOR
OWN_12 = companion("12")
corruption, views = companion("13").corruption, OWN_12.views

EPSILONS = DEFAULT_EPSILONS["linf"]
IMAGES = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([4, 2, -1])
FORMS = [f"form {i}" for i in range(10)]
STILL = {"image": 0, "right": 0, "down": 0, "turn": 0.0, "size": 1.0}


@pytest.fixture(scope="module")
def models():
    return {mixer: stm_lab.build_model(mixer, "nano", pretrained=True).eval() for mixer in KINDS}


@pytest.fixture(scope="module")
def one(models):
    return {"pvt": models["pvt"]}


@pytest.mark.parametrize("make", [adversarial, corruption, views])
def test_without_models_images_or_classifiers_they_are_refused(one, make):
    headless = {"a": timm.create_model("test_resnet", num_classes=0)}
    for given, says in (
        (({}, IMAGES), "no models"),
        ((one, IMAGES[:0]), "no images"),
        ((one, torch.full_like(IMAGES, torch.nan)), "nan"),
        ((headless, IMAGES), "no classifier"),
    ):
        with pytest.raises(UserError, match=says) as error:
            make(*given).figure()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [adversarial, corruption])
def test_another_number_of_labels_is_refused(one, make):
    with pytest.raises(UserError, match="labels for 3 images"):
        make(one, IMAGES, LABELS[:1])


# ---- attacked -------------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """Two classes whose logits differ by what `weight` finds in the pixels."""

    def __init__(self, seed, classes=2):
        super().__init__()
        weight = torch.randn(classes, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return torch.einsum("bchw,kchw->bk", x - 0.5, self.weight)


# Far from black and white, so that [0, 1] does not stand in the way.
GREY = 0.5 + 0.1 * (torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(9)) - 0.5)


@pytest.fixture
def linear():
    return {"one": Linear(1), "other": Linear(2)}


def shown(figure):
    """The dots of each network, {name: (before, after)}, in percent."""
    axes = figure.axes[3]
    names = [label.get_text().removeprefix("→ ") for label in axes.get_yticklabels()]
    return dict(zip(names, (tuple(map(float, line.get_xdata())) for line in axes.lines[::3]), strict=True))


@pytest.mark.parametrize(("norm", "attacked"), [("linf", "one"), ("l2", "other")])
def test_it_shows_what_the_measure_finds(linear, norm, attacked):
    labels = torch.tensor([0, 1, 1])
    figure = adversarial(linear, GREY, labels).figure(model=attacked, image=2, norm=norm, epsilon=2)
    epsilon = 2 * (L2_FACTOR if norm == "l2" else 1)
    found = measure.adversarial_examples(
        linear[attacked], (GREY[2:], labels[2:]), norm=norm, epsilon=epsilon, steps=4, random_start=False
    )
    picture = figure.axes[2].images[0].get_array()
    assert (picture == (255 * found.adversarial[0]).round().permute(1, 2, 0).numpy()).all()
    for name, model in linear.items():
        with torch.no_grad():
            expected = [100 * float(model(some).softmax(1)[0, 1]) for some in (GREY[2:], found.adversarial)]
        np.testing.assert_allclose(shown(figure)[name], expected, atol=1e-3)
    assert f"epsilon {epsilon:g}/255" in figure.get_label()


def test_the_answer_turns_where_the_margin_says(linear):
    """Of a linear model the exact distance to the boundary is known: its margin over the sum of |weight|."""
    weight = (linear["one"].weight[1] - linear["one"].weight[0]).detach().double()
    margin = torch.einsum("bchw,chw->b", GREY.double() - 0.5, weight)
    distance = 255 * margin.abs() / weight.abs().sum()
    explorer = adversarial(linear, GREY)
    turned = 0
    for image, epsilon in ((i, e) for i in range(len(GREY)) for e in EPSILONS):
        text = explorer.figure(model="one", image=image, norm="linf", epsilon=epsilon).get_label()
        own = int(margin[image] > 0)
        after = 1 - own if epsilon > distance[image] else own
        assert f": one class {own} (" in text
        assert f"becomes class {after} (" in text.split(";")[0]
        turned += own != after
    assert 0 < turned < len(GREY) * len(EPSILONS)


def test_epsilon_zero_adds_nothing_and_more_takes_more(linear):
    explorer = adversarial(linear, GREY, torch.tensor([0, 1, 0]))
    figure = explorer.figure(epsilon=0)
    assert (figure.axes[0].images[0].get_array() == figure.axes[2].images[0].get_array()).all()
    assert all(before == pytest.approx(after, abs=1e-3) for before, after in shown(figure).values())
    assert figure.axes[1].get_title() == "nothing added"
    left = [shown(explorer.figure(model="one", epsilon=epsilon))["one"][1] for epsilon in EPSILONS]
    assert (np.diff(left) < 0).all()


def test_classes_have_their_names(linear):
    text = adversarial(linear, GREY, torch.tensor([0, 1, 0]), ["disc, circle", "ring"]).figure().get_label()
    assert "image 0: disc" in text
    assert "circle" not in text


def test_labels_names_and_classes_that_do_not_fit_are_refused(linear):
    for given, says in (
        ((linear, GREY, torch.tensor([0, 1, 2])), "labels from 0 to 2 for the 2 classes"),
        (({**linear, "three": Linear(3, 3)}, GREY), "one has 2 classes, other has 2 classes, three"),
        ((linear, GREY, None, ["a"]), "with 1 names"),
    ):
        with pytest.raises(UserError, match=says):
            adversarial(*given)


# ---- corrupted ------------------------------------------------------------------------------------------------------


@pytest.fixture
def corrupted(models):
    return corruption(models, IMAGES, LABELS, classes=FORMS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fog", "jpeg_compression"])
def test_right_and_wrong_are_those_of_the_measure(models, corrupted, name):
    counted = measure.corruption_errors(models, (IMAGES[:2], LABELS[:2]), corruptions=[name])
    for severity in (1, 3, 5):
        labels = [corrupted.figure(corruption=name, severity=severity, image=i).get_label() for i in (0, 1)]
        for mixer in models:
            told = [label.split(f"{mixer} form ")[1].split("(")[0] for label in labels]
            wrong = 50 * sum("wrong" in text for text in told)
            assert wrong == pytest.approx(counted[mixer].error[0, severity - 1]), (mixer, severity)


def test_severity_0_is_the_picture(corrupted):
    clean, view, *_ = corrupted.figure(corruption="snow", severity=0).axes
    np.testing.assert_allclose(view.images[0].get_array(), IMAGES[0].permute(1, 2, 0))
    np.testing.assert_allclose(clean.images[0].get_array(), view.images[0].get_array())
    assert view.get_title() == "clean"


def test_a_picture_of_ones_own_has_no_right_answer(corrupted):
    label = corrupted.figure(image=2).get_label()
    assert "right" not in label
    assert "wrong" not in label
    assert "halo form" in label


def test_models_of_other_classes_show_numbers():
    other = {"b": timm.create_model("test_resnet", num_classes=4)}
    assert "b class " in corruption(other, IMAGES[:1], torch.tensor([3]), classes=FORMS).figure().get_label()
    with pytest.raises(UserError, match="label 9, which is not a class of every model"):
        corruption(other, IMAGES[:1], torch.tensor([9])).figure()


def test_a_label_without_a_name_is_said(one):
    with pytest.raises(UserError, match="or has no name"):
        corruption(one, IMAGES, LABELS, classes=["a", "b"]).figure()


def test_a_click_into_the_curves_sets_the_severity(corrupted):
    corrupted.click(3, 4.2, 50)
    assert corrupted.state == {"corruption": "gaussian_noise", "severity": 4, "image": 0}
    corrupted.click(2, 1, 1)
    assert corrupted.state["severity"] == 4


# ---- moved ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def moved(models):
    return views(models, IMAGES)


def panels(figure):
    """The arrays of all pictures in a figure, in order: two views, then two maps for each network."""
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


def test_without_a_move_both_rows_are_alike(moved):
    figure = moved.figure(**STILL)
    standard, view, *maps = panels(figure)
    np.testing.assert_array_equal(standard, IMAGES[0].permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(view, standard)
    assert len(maps) == 2 * len(KINDS)
    for before, after in zip(maps[::2], maps[1::2], strict=True):
        np.testing.assert_array_equal(before, after)
    text = figure.get_label()
    assert "4 of 4 networks keep their answer" in text
    assert text.count("cosine 1.00") == 4


def test_the_view_is_turned_scaled_and_shifted(one):
    figure = views(one, IMAGES).figure(image=2, right=5, down=-3, turn=30.0, size=1.4)
    expected = OWN_12.translate(OWN_12.rescale(OWN_12.rotate(IMAGES[2:], 30), 1.4), -3, 5)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(panels(figure)[1], expected, atol=1e-6)
    text = figure.get_label()
    for part in ("turned by 30 degrees counter-clockwise", "5 pixels to the right", "3 pixels up", "1.40 times"):
        assert part in text


@pytest.mark.parametrize("stage", [1, 4])
def test_answers_and_features_are_those_of_the_model(one, stage):
    """Once more by the model itself, on the view; the whole network, and timm's own way to its features."""
    model, classes = one["pvt"], list("abcdefghij")
    figure = views(one, IMAGES, classes={"pvt": classes}, stage=stage).figure(**{**STILL, "right": 9})
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    pooled, axis = [], []
    for view, drawn in zip((IMAGES[:1], OWN_12.translate(IMAGES[:1], 0, 9)), panels(figure)[2:], strict=True):
        with torch.inference_mode():
            batch = (view - mean) / std
            share, label = model(batch).softmax(1).max(1)
            (feature,) = model.forward_intermediates(batch, indices=[stage - 1], intermediates_only=True)
        assert f"{classes[label]} {100 * share.item():.0f}%" in figure.get_label()
        feature = feature[0].double().numpy()
        pooled.append(torch.from_numpy(feature.mean((1, 2))))
        if not axis:  # of the standard view: the eigenvector of the covariance of its cells
            middle = feature.mean((1, 2), keepdims=True)
            axis.append(np.linalg.eigh(np.cov(feature.reshape(len(feature), -1)))[1][:, -1])
        expected = np.tensordot(axis[0], feature - middle, 1)
        sign = np.sign((expected * drawn).sum())
        np.testing.assert_allclose(drawn, sign * expected, atol=1e-3 * np.abs(expected).max())
    cosine = pooled[0] @ pooled[1] / (pooled[0].norm() * pooled[1].norm())
    assert f"cosine {cosine:.2f}" in figure.get_label()


@pytest.fixture(scope="module")
def identity():
    return {"identity": stm_lab.build_model("identity", "nano", num_classes=10).eval()}


def test_features_of_convolutions_move_by_cells_with_the_picture(identity):
    """A shift by the stem's stride moves the first map by one cell, away from the edges: where nothing else mixes."""
    _, _, before, after = panels(views(identity, IMAGES, stage=1).figure(**{**STILL, "right": 8, "down": 4}))
    np.testing.assert_allclose(after[4:-4, 5:-4], before[3:-5, 3:-6], atol=1e-5 * np.abs(before).max())


def test_an_answer_that_changes_is_framed_and_said(models):
    square = torch.zeros(1, 3, 64, 64)
    square[..., 20:40, 12:36] = 1
    figure = views(models, square).figure(right=30, size=2.0)
    frames = sum(not patch.get_fill() for patch in figure.axes[2].patches)
    assert frames == figure.get_label().count(", now ") > 0
    assert f"{4 - frames} of 4 networks keep" in figure.get_label()


def is_in_the_middle(explorer):
    """Whether the bright spot is; its mirror images may be anywhere else."""
    view = panels(explorer.figure())[1][..., 0]
    return view[30:34, 30:34].max() > 0.8 * view.max()


@pytest.mark.parametrize(
    ("place", "moves"), [((40, 20), {}), ((31, 33), {"turn": 90.0}), ((10, 56), {"turn": -35.0, "size": 0.8})]
)
def test_a_click_takes_the_place_to_the_middle(identity, place, moves):
    """In either picture; of a picture with one bright spot, that has been turned, made smaller, and moved before."""
    spot = torch.zeros(1, 3, 64, 64)
    spot[..., place[1] - 1 : place[1] + 2, place[0] - 1 : place[0] + 2] = 1
    explorer = views(identity, spot)
    explorer.set(**{**STILL, **moves})
    explorer.click(0, *place)
    assert is_in_the_middle(explorer)
    explorer.set(right=explorer.state["right"] - 4, down=explorer.state["down"] + 3)
    assert not is_in_the_middle(explorer)
    explorer.click(1, 31.5 - 4, 31.5 + 3)
    assert is_in_the_middle(explorer)
    before = explorer.state
    explorer.click(2, 3, 2)  # features
    assert explorer.state == before


def test_any_timm_model_and_other_names_and_stages():
    model = {"resnet": timm.create_model("test_resnet", num_classes=7).eval()}
    assert "resnet: class " in views(model, IMAGES, stage=1).figure(right=4).get_label()
    with pytest.raises(UserError, match="did you mean 'resnet'"):
        views(model, IMAGES, classes={"resnets": ["a"]})
    with pytest.raises(UserError, match="unknown stage 7"):
        views(model, IMAGES, stage=7)
