"""Trainings as rows: the same numbers, in the course's form, grouped by what was trained alike."""

import json
import re

import pytest
from companions import companion

from stm_lab import build_model, measure, paper, zoo
from stm_lab.course import leaderboard, results, trainings
from stm_lab.util.errors import UserError
from stm_lab.util.paths import notebooks_dir

OWN_10, OWN_21 = companion("10"), companion("21")


def _write(rows, file):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def _written(rows, tmp_path):
    return results.records(_write(rows, tmp_path / "rows.jsonl"))


def test_shipped_rows_are_an_experiment(tmp_path):
    rows = trainings.shipped_rows()
    (experiment,) = OWN_21.experiments(_written(rows, tmp_path))
    assert experiment.title == "shapes, 64 px, 12 epochs, 10,000 images"
    assert set(experiment.scores) == {row["metrics"]["mixer"] for row in rows}
    assert experiment.scores["swin"] == {0: experiment.means()["swin"]}
    assert results.summary(results.rows(tmp_path / "rows.jsonl"), baseline="identity")["n"].tolist() == [1] * len(rows)


def test_rows_of_the_course_are_one_too():
    records = results.records(notebooks_dir() / "sweeps" / "rows_of_shapes.jsonl")
    first, *_ = OWN_21.experiments(records)
    assert first.title == "shapes, 32 px, 6 epochs, 4,000 images"
    assert len(first.scores["swin"]) >= 3


def test_rows_of_trainings_with_three_seeds_come_along():
    file = notebooks_dir() / "sweeps" / "rows_of_trainings.jsonl"
    found = {experiment.recipe: experiment for experiment in OWN_21.experiments(trainings.records())[:2]}
    for recipe in ("shapes", "tiny-imagenet-40"):
        for mixer in ("halo", "swin", "pvt", "convnext", "dcn_v3", "identity"):
            assert sorted(found[recipe].scores[mixer]) == [0, 1, 2], f"{recipe}, {mixer}"
    text = file.read_text(encoding="utf-8")
    assert "data_root" not in text
    assert not re.search(r'"/\w', text), "a path of the machine that trained them"
    table = leaderboard(file, baseline="identity")
    assert len(table.attrs["verdict"]) == 2
    assert "tiny-imagenet-40" in set(table["parameters.recipe"])


def test_times_of_all_the_papers_networks_come_along():
    rows = results.records(notebooks_dir() / "sweeps" / "rows_of_times.jsonl")
    assert {(row["mixer"], row["scale"]) for row in rows} == {(one.mixer, one.scale) for one in paper.published()}
    assert all(row["milliseconds"] > 0 for row in rows)


@pytest.mark.slow
def test_counts_in_shipped_rows_are_those_of_today():
    """Multiply-adds are counted, not measured: rows of other days must say the same of the same network."""
    rows = results.records(notebooks_dir() / "sweeps" / "rows_of_shapes.jsonl")
    counts = {row["mixer"]: row["macs"] for row in rows if "macs" in row}
    for mixer, macs in counts.items():
        assert macs == measure.cost(build_model(mixer, "nano", num_classes=10), image_size=32).macs, mixer
    board = results.records(notebooks_dir() / "sweeps" / "rows_of_own_mixer.jsonl")
    for mixer, macs, parameters in {(row["mixer"], row["macs"], row["params"]) for row in board if "params" in row}:
        if mixer != "my_mixer":
            narrowed = companion("19").equal_width(mixer, "nano", parameters, image_size=32)
            assert (narrowed.parameters, narrowed.macs) == (parameters, macs), mixer


def test_none_is_the_recipes_own_value(tmp_path):
    """A configuration that says 64 pixels and all 10,000 images is that which says None for both."""
    first = trainings.shipped_rows()[0]
    other = json.loads(json.dumps(first))
    other["seed"] = 1
    other["parameters"] |= {"image_size": 64, "train_size": 10_000}
    (experiment,) = OWN_21.experiments(_written([first, other], tmp_path))
    assert len(experiment.scores[first["metrics"]["mixer"]]) == 2


def test_what_was_trained_otherwise_stands_apart(tmp_path):
    first = trainings.shipped_rows()[0]
    longer, later = json.loads(json.dumps(first)), json.loads(json.dumps(first))
    longer["parameters"]["epochs"] = 24.0
    later["metrics"]["top1"], later["code"] = 1.0, "another"
    found = OWN_21.experiments(_written([first, longer, later], tmp_path))
    assert [experiment.title.split(", ")[2] for experiment in found] == ["12 epochs", "24 epochs"]
    assert found[0].means() == {first["metrics"]["mixer"]: 1.0}
    assert found[0].notes == ("rows of 2 states of the code", "1 rows for a mixer and seed that a later row replaces")


@pytest.mark.slow
def test_a_training_is_a_row(tmp_path):
    from stm_lab import train

    run = train.fit(
        "quick", mixer="identity", epochs=1, warmup_epochs=0.2, train_size=64, validation_size=32, image_size=32,
        seed=5, out=str(tmp_path / "identity-s5"),
    )  # fmt: skip
    (row,) = trainings.training_rows(tmp_path)
    assert row["metrics"]["mixer"] == "identity"
    assert row["metrics"]["top1"] == run.metrics["top1"]
    assert (row["seed"], row["parameters"]["train_size"], row["notebook"]) == (5, 64, "train")
    assert row["data"]
    assert row["code"]
    (subject,) = zoo.load(["identity"], tmp_path)
    assert trainings.records(tmp_path)[0]["top1"] == run.metrics["top1"]
    assert OWN_10.known_accuracy(subject, tmp_path) == (run.metrics["top1"], "shapes")


def test_known_accuracy_where_somebody_wrote_it():
    shipped = {row["metrics"]["mixer"]: row["metrics"]["top1"] for row in trainings.shipped_rows()}
    (subject,) = zoo.load(["convnext"])
    assert OWN_10.known_accuracy(subject, "pretrained") == (shipped["convnext"], "shapes")
    assert OWN_10.known_accuracy(subject, "none") is None
    assert OWN_10.known_accuracy(subject, "pretrained", "tiny") == (82.2, "imagenet-1k")


def test_rows_are_found_wherever_they_are(tmp_path):
    shipped = trainings.shipped_rows()
    file = _write(shipped[:2], tmp_path / "some.jsonl")
    assert trainings.records(file) == results.records(file)
    of_course = trainings.records()
    assert len(of_course) > len(shipped)
    assert of_course[: len(shipped)] == _written(shipped, tmp_path)
    with pytest.raises(UserError, match="no such folder or file"):
        trainings.records(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no trained model"):
        trainings.records(tmp_path)


def test_refuses_rows_without_the_metric():
    with pytest.raises(UserError, match="none of 1 has 'top1'"):
        OWN_21.experiments([{"seed": 0}])
