"""Two runs side by side: what differs and nothing else, numbers joined by what they are of, and one figure."""

import json
import math

import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image

from stm_lab import UserError, cli, figures
from stm_lab.course.compare import compare

ENVIRONMENT = {"python": "3.11.7", "packages": {"torch": "2.15.0", "timm": "1.0"}, "device": "cpu", "git_revision": "r"}


def write_training(folder, *, mixer="halo", seed=0, lr=0.001, top1=(10.0, 20.0), torch="2.15.0", finished=True):
    """What a training leaves, as far as it can be compared."""
    folder.mkdir(parents=True)
    config = {"mixer": mixer, "seed": seed, "lr": lr, "augmentation": {"flip": True}, "out": str(folder)}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {**ENVIRONMENT, "packages": {"torch": torch, "timm": "1.0"}, "run": {"data": "d1", "lr": lr}}
    (folder / "environment.json").write_text(json.dumps(environment))
    rows = [
        {"epoch": float(epoch), "top1": value, "loss": 2.0 / epoch, "weights": "ema", "health": ["ill"]}
        for epoch, value in enumerate(top1, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        (folder / "model.safetensors").write_bytes(b"")
    return folder


def write_run(folder, scores, *, epochs=2, code="c1", torch="2.15.0", trainings=True, extra=()):
    """What a notebook's run leaves: scores are {(mixer, seed): top1}; extra are metrics of rows of seed 0."""
    folder.mkdir(parents=True)
    parameters = {"epochs": epochs, "mixers": ["halo", "swin"], "out": str(folder), "device": "auto"}
    (folder / "status.json").write_text(json.dumps({"state": "done", "notebook": "00_quick", "parameters": parameters}))
    environment = {**ENVIRONMENT, "packages": {"torch": torch, "timm": "1.0"}, "code": code}
    (folder / "environment.json").write_text(json.dumps(environment))
    metrics = [({"mixer": mixer, "top1": top1, "macs": 100}, seed) for (mixer, seed), top1 in scores.items()]
    metrics += [(one, 0) for one in extra]
    base = {"notebook": "00_quick", "parameters": {"epochs": epochs}, "data": "d1", "code": code, "seconds": 3.0}
    lines = [json.dumps({**base, "seed": seed, "metrics": one}) + "\n" for one, seed in metrics]
    (folder / "rows.jsonl").write_text("".join(lines))
    for mixer, seed in scores if trainings else ():
        write_training(folder / "train" / f"{mixer}-s{seed}", mixer=mixer, seed=seed)
    return folder


def told(table, key):
    return {line[key]: (line["a"], line["b"]) for line in table.to_dict("records")}


SCORES = {("halo", 0): 50.0, ("halo", 1): 52.0, ("swin", 0): 40.0}


def test_a_run_and_its_copy_differ_in_nothing(tmp_path):
    one, other = (write_run(tmp_path / name, SCORES) for name in "xy")
    found = compare(one, other)
    assert found.kind == "notebook"
    assert found.identity["same"].all()
    assert found.parameters.empty
    assert found.environment.empty
    assert (found.metrics["difference"] == 0).all()


def test_what_differs_is_told_with_both_values(tmp_path):
    one = write_run(tmp_path / "x", SCORES)
    other = write_run(tmp_path / "y", SCORES, epochs=9, code="c2", torch="2.16.0")
    found = compare(one, other)
    assert told(found.parameters, "parameter") == {"epochs": ("2", "9")}  # not `out`
    assert told(found.environment, "what") == {"packages.torch": ("2.15.0", "2.16.0")}
    identity = told(found.identity, "what")
    assert identity["code"] == ("c1", "c2")
    assert identity["data"] == ("d1", "d1")
    assert list(found.identity["what"][~found.identity["same"]]) == ["code"]


def test_rows_are_joined_by_mixer_and_seed_in_whatever_order(tmp_path):
    one = write_run(tmp_path / "x", SCORES)
    other = write_run(tmp_path / "y", {("swin", 0): 45.0, ("pvt", 0): 7.0, ("halo", 1): 51.0})
    metrics = compare(one, other).metrics
    top1 = metrics[metrics["metric"] == "top1"].set_index(["mixer", "seed"])
    assert dict(top1["difference"].dropna()) == {("halo", 1): -1.0, ("swin", 0): 5.0}
    assert dict(top1["a"].dropna()) == SCORES
    assert math.isnan(top1.loc[("pvt", 0), "a"])
    assert "row" not in metrics
    back = compare(other, one).metrics.set_index(["metric", "mixer", "seed"])["difference"]
    assert dict(back.dropna()) == {key: -value for key, value in dict(
        metrics.set_index(["metric", "mixer", "seed"])["difference"].dropna()).items()}  # fmt: skip


def test_rows_of_one_mixer_are_told_apart_by_their_words_and_then_by_their_order(tmp_path):
    words = [{"run": "long", "top1": 1.0}, {"run": "short", "top1": 2.0}]
    one = write_run(tmp_path / "x", {}, extra=words)
    metrics = compare(one, write_run(tmp_path / "y", {}, extra=words[::-1])).metrics
    assert list(metrics["run"]) == ["long", "short"]
    assert list(metrics["difference"]) == [0, 0]
    numbers = [{"top1": 1.0}, {"top1": 2.0}]
    one = write_run(tmp_path / "v", {}, extra=numbers)
    metrics = compare(one, write_run(tmp_path / "w", {}, extra=numbers[::-1])).metrics
    assert list(metrics["row"]) == [1, 2]
    assert list(metrics["difference"]) == [1, -1]


def test_trainings_are_compared_by_their_last_rows(tmp_path):
    one = write_training(tmp_path / "x", top1=(10.0, 20.0))
    other = write_training(tmp_path / "y", lr=0.01, top1=(10.0, 15.0, 26.5), torch="2.16.0", finished=False)
    found = compare(one, other)
    assert found.kind == "training"
    assert told(found.identity, "what")["state"] == ("finished", "not finished")
    assert told(found.parameters, "parameter") == {"lr": ("0.001", "0.01")}
    assert told(found.environment, "what") == {"packages.torch": ("2.15.0", "2.16.0")}
    assert told(found.metrics, "metric")["top1"] == (20.0, 26.5)
    assert set(found.metrics["metric"]) == {"epoch", "top1", "loss"}


# ---- the figure -----------------------------------------------------------------------------------------------------


def bold(axes):
    return {line.get_color(): tuple(line.get_ydata()) for line in axes.lines if line.get_linewidth() == 2.2}


def test_the_figure_has_both_runs_on_the_same_axes(tmp_path):
    one = write_run(tmp_path / "x", SCORES)
    other = write_run(tmp_path / "y", {("swin", 0): 45.0, ("pvt", 0): 7.0})
    figure = compare(one, other).figure
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ("a: x", "b: y")
    assert left.get_ylim() == right.get_ylim()
    assert left.get_xlim() == right.get_xlim()
    colours = figures.MIXER_COLOURS
    assert set(bold(left)) == {colours["halo"], colours["swin"]}
    assert set(bold(right)) == {colours["swin"], colours["pvt"]}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["halo", "swin", "pvt"]


def test_bold_is_the_mean_of_the_seeds_at_epochs_that_all_have():
    rows = [
        {"mixer": "halo", "seed": seed, "epoch": epoch, "top1": 10.0 * epoch + seed}
        for seed, epochs in ((0, (1, 2)), (1, (1, 2, 3)))
        for epoch in epochs
    ]
    left, right = figures.compared_curves({"one": rows, "other": []}).axes
    assert list(bold(left).values()) == [(10.5, 20.5)]
    assert len(left.lines) == 3
    assert [text.get_text() for text in right.texts] == ["no training curves"]


def test_more_names_than_colours_differ_in_their_lines():
    rows = [{"mixer": f"n{k}", "seed": 0, "epoch": e, "top1": k} for k in range(18) for e in (1, 2)]
    axes, _ = figures.compared_curves({"one": rows, "other": rows}).axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 18


def test_curves_without_rows_or_keys_are_refused():
    with pytest.raises(UserError, match="nothing to draw"):
        figures.compared_curves({"one": [], "other": []})
    with pytest.raises(UserError, match="no 'top1'"):
        figures.compared_curves({"one": [{"mixer": "halo", "seed": 0, "epoch": 1}], "other": []})


def test_trainings_of_one_mixer_and_seed_are_called_after_their_folders(tmp_path):
    run = write_run(tmp_path / "x", {}, extra=[{"top1": 1.0}])
    for name in ("lr-1", "lr-2"):
        write_training(run / "train" / name)
    figure = compare(run, run).figure
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["lr-1", "lr-2"]


def test_runs_without_trainings_have_no_figure(tmp_path):
    one, other = (write_run(tmp_path / name, SCORES, trainings=False) for name in "xy")
    assert compare(one, other).figure is None
    assert isinstance(compare(one, write_run(tmp_path / "z", SCORES)).figure, Figure)


# ---- the command, and wrong input -----------------------------------------------------------------------------------


def test_the_command_prints_tables_and_saves_the_figure(tmp_path, monkeypatch, capsys):
    one = write_run(tmp_path / "x", SCORES)
    other = write_run(tmp_path / "y", {("swin", 0): 45.25, ("halo", 0): 51.0}, epochs=9, code="c2")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", "x", "y"]) == 0
    said = capsys.readouterr().out
    assert all(text in said for text in (str(one), str(other), "epochs", "differs", "45.25", "5.25", "macs"))
    assert "".join(said.split()).endswith(str(tmp_path / "compare-x-y.png"))
    assert Image.open(tmp_path / "compare-x-y.png").width > 1000
    assert cli.main(["compare", "x/train/halo-s0", "y/train/swin-s0", "--out", "here.png"]) == 0
    assert "mixer" in capsys.readouterr().out
    assert (tmp_path / "here.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["x", "nowhere"], "nowhere: no such folder"),
        (["x", "."], "no run's folder"),
        (["x", "x/train"], "x/train/halo-s0"),
        (["x", "x/train/halo-s0"], "compare two of a kind"),
        (["x", "x", "--out", "figure.pdf"], "figure.pdf: the figure is a .png"),
        (["x", "x", "--out", "nowhere/figure.png"], "No such file or directory"),
        (["x"], "RUN"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, expected):
    write_run(tmp_path / "x", SCORES)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert expected in err
    assert not list(tmp_path.glob("*.png"))
