"""From rows to tables: the statistics, and what may not be averaged."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from stm_lab import UserError
from stm_lab.course.results import rows, summary


def row(mixer, seed, top1, **changes):
    return {
        "notebook": "00_quickstart",
        "parameters": {"epochs": 1, "mixers": [mixer], "seeds": [seed]},
        "seed": seed,
        "data": "d1",
        "revision": "r",
        "code": "c1",
        "device": "cpu",
        "seconds": 1.0,
        "metrics": {"mixer": mixer, "top1": top1},
    } | changes


@pytest.fixture
def table(tmp_path):
    def table(*recorded):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in recorded))
        return rows(path)

    return table


def runs(**scores):
    return [row(mixer, seed, top1) for mixer, of_seed in scores.items() for seed, top1 in enumerate(of_seed)]


def test_rows_are_flat(table, tmp_path):
    one = row("halo", 0, 50.0, metrics={"mixer": "halo", "parameters": 7, "seconds": 9.5})
    frame = table(one)
    pd.testing.assert_frame_equal(frame, rows(tmp_path))  # the folder is as good as the file
    line = frame.iloc[0]
    assert (line["mixer"], line["parameters"], line["parameters.epochs"], line["data"]) == ("halo", 7, 1, "d1")
    assert line["seconds"] == 9.5  # the metric's, not the row's


def test_no_rows_there(tmp_path):
    with pytest.raises(UserError, match=r"rows\.jsonl"):
        rows(tmp_path)


def test_mean_spread_and_order(table):
    result = summary(table(*runs(swin=[60, 62, 64], halo=[70.0])))
    assert list(result["mixer"]) == ["swin", "halo"]
    assert list(result["n"]) == [3, 1]
    assert list(result["mean"]) == [62, 70]
    assert result["spread"][0] == pytest.approx(np.std([60, 62, 64], ddof=1))
    assert math.isnan(result["spread"][1])
    assert "difference" not in result


def test_differences_are_paired_by_seed(table):
    """The seeds differ far more than the mixers do; paired, the small difference shows."""
    result = summary(table(*runs(identity=[10, 50, 90], halo=[11, 51.1, 90.9])), baseline="identity")
    halo = result.set_index("mixer").loc["halo"]
    differences = np.array([1.0, 1.1, 0.9])
    half = 4.302653 * differences.std(ddof=1) / math.sqrt(3)  # t(0.975, 2), from a printed table
    assert halo["difference"] == pytest.approx(1.0)
    assert (halo["low"], halo["high"]) == pytest.approx((1 - half, 1 + half), rel=1e-5)
    assert halo["statement"] == "above"
    assert result.set_index("mixer").loc["identity", "statement"] == "baseline"


@pytest.mark.parametrize(
    ("scores", "statement"),
    [
        ([40, 41, 42], "above"),
        ([10, 11, 12], "below"),
        ([20, 31, 38], "within the noise"),
        ([40], "one seed"),
        ([30, 30.5, 31], "identical"),
        ([30], "one seed"),
    ],
)
def test_statements(table, scores, statement):
    result = summary(table(*runs(identity=[30, 30.5, 31], halo=scores)), baseline="identity")
    assert result.set_index("mixer").loc["halo", "statement"] == statement


def test_only_common_seeds_are_compared(table):
    recorded = [row("identity", 0, 10.0), row("halo", 1, 20.0)]
    assert summary(table(*recorded), baseline="identity")["statement"][1] == "no seed in common"
    recorded += [row("identity", 1, 18.0), row("identity", 2, 99.0)]
    assert summary(table(*recorded), baseline="identity")["difference"][1] == 2


def test_rows_without_the_metric_are_left_out(table):
    curve = row("halo", 0, 0.0, metrics={"mixer": "halo", "shift": 1, "agreement": 0.5})
    assert list(summary(table(*runs(halo=[50.0]), curve, curve))["mean"]) == [50]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": "d2"}, ["data fingerprint", "d1", "d2"]),
        ({"code": "c2"}, ["code fingerprint", "c1", "c2"]),
        ({"parameters": {"epochs": 9, "mixers": ["swin"], "seeds": [1]}}, ["parameters.epochs", "1", "9"]),
        ({"seed": 0}, ["two rows", "'halo'", "seed 0"]),
    ],
)
def test_what_differs_is_never_averaged_silently(table, changes, expected):
    with pytest.raises(UserError) as caught:
        summary(table(row("halo", 0, 50.0), row("halo", 1, 60.0) | changes))
    assert all(part in str(caught.value) for part in expected)


def test_times_of_two_devices_are_not_averaged(table):
    """The accuracy that was reached on them is."""
    both = [row("halo", seed, 50.0, device=device) for seed, device in enumerate(("cpu", "cuda"))]
    for one in both:
        one["metrics"]["train_seconds"] = 9.0
    assert list(summary(table(*both))["n"]) == [2]
    with pytest.raises(UserError, match='rows differ in device: "cpu", "cuda"; select one of them'):
        summary(table(*both), metric="train_seconds")


@pytest.mark.parametrize("by", ["data", "parameters.recipe"])
def test_grouping_by_what_differs_is_no_averaging(table, by):
    other = row("halo", 0, 60.0, data="d2", parameters={"recipe": "faces"})
    frame = table(row("halo", 0, 50.0, parameters={"recipe": "shapes"}), other)
    assert list(summary(frame, by=by)["mean"]) == [50, 60]


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [({"metric": "top"}, "top1"), ({"by": "mixr"}, "mixer"), ({"baseline": "hallo"}, "halo")],
)
def test_unknown_names(table, arguments, nearest):
    with pytest.raises(UserError, match=f"did you mean '{nearest}'"):
        summary(table(*runs(halo=[50.0])), **arguments)
