"""Damaged pieces of runs: each is left out and named, all else is read as if it had never been there."""

import json
import warnings

import pytest
import yaml
from companions import companion
from small_course import of, planned

from stm_lab import cli, zoo
from stm_lab.course import leaderboard, results, trainings
from stm_lab.course.compare import compare
from stm_lab.course.forecast import forecast
from stm_lab.course.room import Room
from stm_lab.course.run import Limits
from stm_lab.train import fit, load_config, load_run
from stm_lab.util.errors import UserError
from stm_lab.util.jsonfiles import Damaged

OWN_10 = companion("10")
FEW = (48, 50)
SCORES = {"halo": 50.0, "swin": 40.0, "pvt": 45.0}


def row(mixer, top1):
    made_with = {"notebook": "00_quick", "parameters": {"epochs": 1}, "data": "d", "code": "c", "device": "cpu"}
    return {**made_with, "seed": 0, "seconds": 1.0, "metrics": {"mixer": mixer, "top1": top1, "train_seconds": 2.0}}


def text_of(values):
    return "".join(f"{json.dumps(value)}\n" for value in values)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Write a notebook's run with a row of each mixer, and two epochs of a training; its folder."""
    monkeypatch.setenv("STM_LAB_RUNS", str(tmp_path / "runs"))

    def run(name, scores=SCORES):
        folder = tmp_path / "runs" / "00_quick" / name
        training = folder / "train" / "halo-s0"
        training.mkdir(parents=True)
        (folder / "status.json").write_text(json.dumps({"state": "done", "notebook": "00_quick", "parameters": {}}))
        environment = {"device_name": "a machine", "torch_threads": 1, "code": "c"}
        (folder / "environment.json").write_text(json.dumps(environment))
        (folder / "rows.jsonl").write_text(text_of(row(*score) for score in scores.items()))
        config = load_config("quick", mixer="halo", epochs=2).model_dump(mode="json")
        (training / "config.yaml").write_text(yaml.safe_dump(config))
        (training / "environment.json").write_text(json.dumps({"run": {"data": "d"}, "device": "cpu"}))
        epochs = [{"epoch": e, "step": 9 * e, "top1": 10.0 * e, "loss": 1.0, "seconds": 1.0} for e in (1, 2)]
        (training / "metrics.jsonl").write_text(text_of(epochs))
        (training / "model.safetensors").write_bytes(b"")
        return folder

    return run


def change_last_line(change):
    def damage(path):
        *others, last = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*others, change(last)]))

    return damage


def of_json(**entries):
    return change_last_line(lambda line: json.dumps({**json.loads(line), **entries}).encode() + b"\n")


HARMLESS = {  # nothing of the file is lost
    "byte order mark": lambda path: path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes()),
    "blank last line": lambda path: path.write_bytes(path.read_bytes() + b"\n  \n"),
    "no last line feed": lambda path: path.write_bytes(path.read_bytes().rstrip()),
    "Windows line ends": lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n")),
}
OF_A_LINE = {  # the last line is lost, and of a file of one object all
    "cut": change_last_line(lambda line: line[: len(line) // 2]),
    "binary": change_last_line(lambda line: b"\x80\xff\x00\n"),
    "zeros": change_last_line(lambda line: bytes(40)),
    "deep": change_last_line(lambda line: b"[" * 100_000),
    "list": change_last_line(lambda line: b"[]\n"),
    "null": change_last_line(lambda line: b"null\n"),
}
OF_A_ROW = {
    "null parameters": of_json(parameters=None),
    "metrics in a list": of_json(metrics=[1]),
    "text as seed": of_json(seed="zero"),
    "list as notebook": of_json(notebook=["00_quick"]),
}
OF_A_FILE = {
    "blank": lambda path: path.write_bytes(b""),
    "UTF-16": lambda path: path.write_text(path.read_text(), encoding="utf-16"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "missing": lambda path: path.unlink(),
}


def named(call):
    """What a call returns, and what it said of damage."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        result = call()
    return result, [str(each.message) for each in caught]


def scores(table):
    return dict(zip(table["mixer"], table["mean"], strict=True))


# ---- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", HARMLESS)
def test_what_loses_nothing_is_not_damage(run, way):
    folder = run("a")
    for path in [folder / "rows.jsonl", *folder.rglob("*.json"), *folder.rglob("metrics.jsonl")]:
        HARMLESS[way](path)
    table, said = named(leaderboard)
    assert scores(table) == SCORES
    assert not table.attrs["notes"]
    assert named(lambda: results.records(folder)) == ([results.flat(row(*one)) for one in SCORES.items()], [])
    assert trainings.training_rows(folder)[0]["metrics"]["top1"] == 20
    assert compare(folder, folder).figure is not None
    assert not said


@pytest.mark.parametrize("way", [*OF_A_LINE, *OF_A_ROW])
def test_a_damaged_row_costs_itself_alone(run, way, capsys):
    """The others are what they would be if it had never been written."""
    damaged, other = run("a"), run("b", {"identity": 30.0})
    (OF_A_LINE | OF_A_ROW)[way](damaged / "rows.jsonl")
    whole = {mixer: value for mixer, value in SCORES.items() if mixer != "pvt"}
    table = leaderboard()
    assert scores(table) == whole | {"identity": 30.0}
    where = f"{damaged / 'rows.jsonl'}, line 3: "
    assert sum(where in note for note in table.attrs["notes"]) == 1
    for read in (results.records, trainings.records):
        rows, said = named(lambda read=read: read(damaged))
        assert [one["mixer"] for one in rows] == list(whole)
        assert len(said) == 1
        assert where in said[0]
    found, said = named(lambda: compare(damaged, other))
    assert set(found.metrics["mixer"]) == {*whole, "identity"}
    assert where in " ".join(said)
    assert cli.main(["leaderboard"]) == 0
    said = capsys.readouterr()
    assert " ".join((said.out + said.err).split()).count(where) == 1
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("name", "way"), [*(("rows.jsonl", way) for way in OF_A_FILE), ("status.json", "blank"), ("status.json", "UTF-16")]
)
def test_a_damaged_run_costs_itself_alone(run, name, way):
    damaged = run("a")
    run("b", {"identity": 30.0})
    OF_A_FILE[way](damaged / name)
    table = leaderboard()
    assert scores(table) == {"identity": 30.0}
    assert str(damaged) in json.dumps([table.attrs["notes"], table.attrs["left_out"]])


@pytest.mark.parametrize("name", ["rows.jsonl", "status.json"])
def test_where_all_is_damaged_the_work_fails_in_one_line(run, name, capsys):
    folders = [run(letter, {"halo": 1.0}) for letter in "ab"]
    for folder in folders:
        OF_A_LINE["cut"](folder / name)
    assert cli.main(["leaderboard"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(folders[0]) in said
    assert str(folders[1]) in said
    if name == "rows.jsonl":
        for read in (results.records, results.rows, trainings.records):
            with pytest.raises(Damaged, match=r"rows\.jsonl"):
                read(folders[0])


@pytest.mark.parametrize("way", [*OF_A_LINE, "blank", "UTF-16", "a folder"])
def test_times_of_an_unknown_machine_stand_apart(run, way):
    OF_A_ENVIRONMENT = OF_A_LINE | OF_A_FILE
    OF_A_ENVIRONMENT[way](run("a") / "environment.json")
    run("b", {"identity": 30.0})
    table, said = named(lambda: leaderboard(metric="train_seconds"))
    assert len(table) == 4
    assert len(table.attrs["verdict"]) == 2
    assert "environment.json" in " ".join(said)


# ---- trainings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *(("metrics.jsonl", way) for way in (*OF_A_LINE, *OF_A_FILE, "last epoch missing", "text as top1")),
        *(("environment.json", way) for way in (*OF_A_LINE, *OF_A_FILE)),
        *(("config.yaml", way) for way in ("binary", "zeros", "null", "blank", "UTF-16")),
    ],
)
def test_a_damaged_training_costs_itself_alone(run, name, way):
    """Without its last epoch a training has no result: that of the epoch before is another number."""
    one, other = run("a") / "train" / "halo-s0", run("b") / "train" / "halo-s0"
    other.rename(one.with_name("other"))
    ways = OF_A_LINE | OF_A_FILE
    ways |= {"last epoch missing": change_last_line(lambda line: b""), "text as top1": of_json(top1="20")}
    if name == "config.yaml":
        (one / name).write_text("mixer: halo\n")
    ways[way](one / name)
    if name == "environment.json":
        rows, said = named(lambda: trainings.training_rows(one.parent.parent))
        assert [each["metrics"]["top1"] for each in rows] == [20, 20]
        assert [each["data"] for each in rows] == [None, "d"]
    else:
        rows, said = named(lambda: trainings.training_rows(one.parent.parent))
        assert len(rows) == 1
        with pytest.raises(Damaged if name == "metrics.jsonl" else (Damaged, UserError), match="halo-s0"):
            trainings.training_rows(one)
    assert way == "missing" or sum(str(one / name) in each for each in said) == 1
    found, _ = named(lambda: compare(one, one.with_name("other")))
    assert set(found.metrics["metric"]) >= {"top1", "loss"}
    assert named(lambda: OWN_10.known_accuracy(subject(one), one))[0] in (None, (20.0, "shapes"))


def subject(folder):
    return zoo.LoadedModel("halo", 0, None, None, folder=folder)


@pytest.mark.parametrize("way", [*OF_A_LINE, *OF_A_FILE])
def test_a_sweep_is_planned_over_damaged_status(small, way):
    jobs = planned(of(["halo", "swin"], [0]))
    for job in jobs:
        job.folder.create().status.write_text(json.dumps({"state": "done", "key": job.key, "seconds": 120}))
    (OF_A_LINE | OF_A_FILE)[way](jobs[0].folder.status)
    would, said = named(lambda: forecast(jobs, Limits(), Room.here(1)))
    assert would.plans == ["run", "skip"]
    assert would.minutes == [2, 2]
    assert way == "missing" or len([each for each in said if str(jobs[0].folder.status) in each]) == 1
    for entry in ({"seconds": None}, {"seconds": "x"}, {"parameters": []}):
        jobs[1].folder.write_json(jobs[1].folder.status, {"state": "done", "key": jobs[1].key, **entry})
        named(lambda: forecast(jobs, Limits(), Room.here(1)))


@pytest.mark.slow
def test_a_finished_training_gets_damaged_rows_back(few, tmp_path):
    """From its last checkpoint, without another step; where that is gone, too, nothing is trained over its weights."""
    config = {
        "mixer": "identity", "recipe": few, "epochs": 2, "batch_size": 16, "device": "cpu",
        "out": str(tmp_path / "run"), "train_size": 16, "validation_size": 10,
    }  # fmt: skip
    first = fit(config)
    metrics, environment = tmp_path / "run" / "metrics.jsonl", tmp_path / "run" / "environment.json"
    whole, weights = metrics.read_bytes(), (tmp_path / "run" / "model.safetensors").read_bytes()
    for way in ("cut", "null", "blank", "missing"):
        (OF_A_LINE | OF_A_FILE)[way](metrics)
        again, said = named(lambda: fit(config))
        assert again.rows == first.rows
        assert metrics.read_bytes() == whole
        assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights
        assert str(metrics) in " ".join(said)
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        checkpoint.unlink()
    OF_A_LINE["cut"](metrics)
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: .*--force"):
        fit(config)
    assert load_run(tmp_path / "run")
    for text in ("[]", '{"run": []}', '{"run": null}', "{"):
        environment.write_text(text)
        _, said = named(lambda: load_run(tmp_path / "run"))
        with pytest.raises(UserError, match="nothing says of which run"):
            named(lambda: fit(config))
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights
