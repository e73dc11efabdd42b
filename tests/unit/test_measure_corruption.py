"""Corruption errors: models whose errors are known without running the measure, and the published definitions."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from torch import nn

import stm_lab
from stm_lab.measure import ALEXNET, Baseline, CorruptionError, corruption_errors
from stm_lab.measure.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stm_lab.util.errors import UserError

FEW = {"corruptions": ["gaussian_noise", "contrast"], "severities": [1, 3, 5]}


def corruption_error(model, data, **options):
    """The result of one model."""
    return corruption_errors({"model": model}, data, **options)["model"]


class Contrast(nn.Module):
    """Class 1 where the picture's standard deviation is above a bound, else class 0."""

    def __init__(self, bound=0.1):
        super().__init__()
        self.bound = bound

    def forward(self, x):
        return torch.stack([x.new_full((len(x),), self.bound), x.std((1, 2, 3))], 1)


def pictures(count=6):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_against_a_model_that_measures_contrast():
    """Uniform noise has deviation .289; contrast leaves 40, 20 and 5% of it."""
    result = corruption_error(Contrast(), (pictures(), torch.ones(6, dtype=torch.int64)), **FEW)
    assert result.clean_error == 0
    assert result.error.tolist() == [[0, 0, 0], [0, 100, 100]]
    assert result.table == "tiny-imagenet-c"
    assert result.mean_error.tolist() == pytest.approx([0, 200 / 3])


def test_by_hand_over_the_same_corrupted_images():
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3).eval()
    images, labels = pictures(9), torch.arange(9) % 3
    result = corruption_error(model, (images, labels), corruptions=["fog", "shot_noise"], batch_size=4, seed=5)
    normal = [torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std")]
    for i, name in enumerate(("fog", "shot_noise")):
        for j, severity in enumerate(SEVERITIES):
            view = (corrupt(images, name, severity, seed=5) - normal[0]) / normal[1]
            with torch.no_grad():
                answers = torch.cat([model(part) for part in view.split(4)]).argmax(1)
            assert result.error[i, j] == pytest.approx(100 * (answers != labels).float().mean().item())


def test_definitions_of_ce():
    """Table by hand: CE is a ratio of sums, the relative one of sums above the clean errors."""
    ours = made_up([[20, 40], [50, 70]], clean=10)
    theirs = made_up([[40, 60], [50, 50]], clean=20)
    result = ours.against(theirs)
    assert result.ce.tolist() == pytest.approx([60, 120])
    assert result.mce == pytest.approx(90)
    assert result.relative_ce.tolist() == pytest.approx([100 * 40 / 60, 100 * 100 / 60])
    assert theirs.against(theirs).ce.tolist() == pytest.approx([100, 100])
    assert np.isnan(ours.ce).all()
    assert ours.rows()[0]["ce"] is None
    row = result.rows()[-1]
    assert (row["corruption"], row["severity"], row["error"], row["baseline"]) == ("contrast", 5, 70, "made up")


def test_what_the_baseline_does_not_lose_has_no_relative_error():
    result = made_up([[20, 40], [50, 70]], clean=10).against(made_up([[0, 0], [30, 50]], clean=30))
    assert np.isnan(result.ce[0])
    assert np.isnan(result.relative_ce[0])
    assert np.isnan(result.mce)
    assert result.rows()[0]["relative_ce"] is None
    assert result.relative_ce[1] == pytest.approx(100 * 100 / 20)


def made_up(error, clean, names=("fog", "contrast"), severities=(1, 5)):
    return CorruptionError("made up", 10, "imagenet-c", names, severities, clean, np.array(error, float))


def test_alexnet_is_the_published_baseline():
    """Its mCE is 100 by definition; the paper's mean error over all corruptions is 78.9%."""
    error = np.array([[ALEXNET.mean_error[name]] * 5 for name in CORRUPTIONS])
    alexnet = made_up(error, ALEXNET.clean_error, CORRUPTIONS, SEVERITIES).against(ALEXNET)
    assert alexnet.mce == pytest.approx(100)
    assert alexnet.relative_mce == pytest.approx(100)
    assert error.mean() == pytest.approx(78.9, abs=0.05)
    with pytest.raises(UserError, match=r"alexnet: severities \(1, 2, 3, 4, 5\), but \(1, 5\)"):
        made_up([[1, 2], [3, 4]], 1).against(ALEXNET)


def test_a_baseline_is_another_models_result():
    data = (pictures(), torch.ones(6, dtype=torch.int64))
    results = corruption_errors({"model": Contrast(), "other": Contrast(0.04)}, data, **FEW)
    result = results["model"].against(results["other"])
    assert result.baseline.mean_error["contrast"] == pytest.approx(100 / 3)
    assert result.ce[1] == pytest.approx(200)


def test_batches_and_company_change_nothing():
    torch.manual_seed(1)
    models = {name: timm.create_model("test_resnet", num_classes=4) for name in "ab"}
    data = (pictures(7), torch.arange(7) % 4)
    options = {"corruptions": ["glass_blur", "snow", "impulse_noise"], "severities": [5], "seed": 2}
    together = corruption_errors(models, data, batch_size=7, **options)
    for name, model in models.items():
        alone = corruption_error(model, data, batch_size=3, **options)
        np.testing.assert_allclose(alone.error, together[name].error)
        assert alone.clean_error == together[name].clean_error


def test_the_model_is_left_as_it_was():
    model = stm_lab.build_model("swin", "nano").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = corruption_error(model, (torch.rand(2, 3, 48, 40), torch.tensor([1, 2])), **FEW)
    assert ((result.error >= 0) & (result.error <= 100)).all()
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (pictures(), {}, "without labels"),
        ((pictures(), torch.zeros(5, dtype=torch.int64)), {}, "5 labels|5,"),
        ((pictures(), torch.full((6,), 2)), {}, "labels from 2 to 2 for the 2 classes"),
        ((pictures(), torch.zeros(6, dtype=torch.int64)), {"corruptions": ["fogg"]}, "did you mean 'fog'"),
        ((pictures(), torch.zeros(6, dtype=torch.int64)), {"corruptions": []}, "expected some"),
        ((pictures(), torch.zeros(6, dtype=torch.int64)), {"severities": [0]}, "1 to 5"),
        ((pictures(), torch.zeros(6, dtype=torch.int64)), {"table": "cifar-10-c"}, "did you mean|known"),
        ((pictures(), torch.zeros(6, dtype=torch.int64)), {"batch_size": 0}, "at least one image"),
        ((torch.full((1, 3, 32, 32), torch.nan), torch.tensor([0])), {}, "nan"),
        ((torch.zeros(0, 3, 32, 32), torch.zeros(0, dtype=torch.int64)), {}, "no images"),
    ],
)
def test_bad_input(data, options, message):
    with pytest.raises(UserError, match=message) as error:
        corruption_error(Contrast(), data, **options)
    assert "\n" not in str(error.value)


def test_baselines_that_were_not_measured_alike():
    ours = made_up([[1, 2], [3, 4]], 1)
    with pytest.raises(UserError, match=r"severities \(1, 2\), but \(1, 5\)"):
        ours.against(made_up([[1, 2], [3, 4]], 1, severities=(1, 2)))
    with pytest.raises(UserError, match=r"severities \(1, 2, 3, 4, 5\), but \(1, 5\)"):
        ours.against(Baseline("b", 1.0, {"fog": 3.0, "contrast": 4.0}))  # known of all five severities
    with pytest.raises(UserError, match="table imagenet-c, but tiny-imagenet-c"):
        replace(ours, table="tiny-imagenet-c").against(ours)
    with pytest.raises(UserError, match="images 20, but 10"):
        ours.against(replace(ours, images=20))
    with pytest.raises(UserError, match="contrast"):
        ours.against(Baseline("b", 1.0, {"fog": 3.0}, severities=(1, 5)))
    assert ours.against(Baseline("b", 1.0, {"fog": 3.0, "contrast": 7.0}, severities=(1, 5))).ce.tolist() == [50, 50]


def test_a_baseline_of_several_seeds_is_their_mean():
    seeds = [made_up([[20, 40], [50, 70]], 10), made_up([[40, 60], [50, 30]], 20)]
    baseline = Baseline.of(seeds)
    assert (baseline.clean_error, baseline.images) == (15, 10)
    assert baseline.mean_error == {"fog": 40, "contrast": 50}
    assert np.mean([one.against(baseline).ce for one in seeds], 0).tolist() == pytest.approx([100, 100])
    with pytest.raises(UserError, match="no results"):
        Baseline.of([])
    with pytest.raises(UserError, match="different corruptions"):
        Baseline.of([seeds[0], replace(seeds[1], images=11)])
