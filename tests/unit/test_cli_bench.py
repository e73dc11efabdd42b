"""`bench data` measures what training does."""

import re

import numpy as np
import pytest

from stm_lab import cli
from stm_lab.cli.bench import SETTINGS, synthetic_photographs, trained_rate, view_rates
from stm_lab.cli.speed import model_speeds
from stm_lab.data.sources import stored_images


def test_synthetic_photographs_are_like_photographs():
    dataset = synthetic_photographs(4, 256)
    encoded = [image["bytes"] for image in stored_images(dataset)]
    assert len(set(encoded)) == 4
    assert all(20_000 < len(image) < 120_000 for image in encoded)  # 48 photographs at this size: 45 kB on average
    for row in dataset:
        assert (row["image"].format, row["image"].size) == ("JPEG", (341, 256))
        pixels = np.asarray(row["image"], float)
        neighbours = np.corrcoef(pixels[:, 1:].ravel(), pixels[:, :-1].ravel())[0, 1]
        assert neighbours > 0.9  # white noise has none


def test_small_views_take_less_time_than_large_ones():
    small, large = (view_rates(setting, repeats=2, images=16) for setting in SETTINGS)
    assert len(small) == len(large) == 2
    assert min(small) > max(large) > 0


@pytest.mark.soak
def test_the_rates_that_were_promised():
    """3,000 images/s and core at 64 pixels, 150 at 224; the latter here with room for a busy machine: half of that."""
    small, large = (np.median(view_rates(setting, repeats=3, images=256)) for setting in SETTINGS)
    assert small > max(3000, trained_rate(SETTINGS[0]))
    assert large > max(75, trained_rate(SETTINGS[1]))


def test_the_command(capsys, few, monkeypatch):
    monkeypatch.setattr("stm_lab.cli.bench.SETTINGS", SETTINGS[:1])
    assert cli.main(["bench", "data", "--recipe", few, "--repeats", "1"]) == 0
    row = re.search(r"│ 64 .* │ ([\d.]+) +│ [\d, .]+ │ ([\d.]+) +│ ([\d.]+) +│", capsys.readouterr().out)
    views, trained, ratio = map(float, row.groups())
    assert ratio == pytest.approx(views / trained, abs=0.01)


@pytest.mark.slow
def test_a_step_is_compared_with_the_bare_loop(capsys):
    """Of the identity, where the loop around the steps weighs most; with room for a busy machine."""
    assert cli.main(["bench", "train", "--mixer", "identity", "--repeats", "3"]) == 0
    row = re.search(r"identity +│ ([\d.]+) +│ ([\d.]+) +│ ([\d.]+)", capsys.readouterr().out)
    bare, trained, ratio = map(float, row.groups())
    assert ratio == pytest.approx(trained / bare, rel=0.3)
    assert ratio < 1.4


def test_models_are_compared_with_timms(capsys, monkeypatch):
    """Every model of the table is measured, and one that misses its bound says so."""
    table = {"nano": ("test_resnet", ("convnext_nano",), {"convnext": (0.0, 1e9)})}
    monkeypatch.setattr("stm_lab.cli.speed.TABLE", table)
    ((_, own), (other, unbound), (name, (forward, both))) = list(model_speeds("nano", 2, batch=2, side=32))
    assert [speed.ratio for speed in own] == [1.0, 1.0]
    assert (other, name) == ("convnext_nano", "unified_convnext_nano")
    assert [speed.at_least for speed in unbound] == [None, None]
    assert min(forward.rounds) <= max(forward.rounds) > 0
    assert forward.cells()[-1] == "0.0 met"
    assert both.cells()[-1] == "1000000000.0 NOT met"
    assert cli.main(["bench", "models", "--scale", "tny"]) == 2
    assert "unknown scale 'tny'" in capsys.readouterr().err
