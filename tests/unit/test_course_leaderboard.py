"""The leaderboard: which runs count, what is kept apart, and what the seeds can tell apart."""

import itertools
import json
import math
import re

import pandas as pd
import pytest

from stm_lab import UserError, cli
from stm_lab.course import leaderboard, summary
from stm_lab.course.pages import alike, as_text, exact, parts, said_of, write
from stm_lab.course.results import rows

SCORES = {"identity": [30, 30.5, 31.2], "halo": [40, 41, 42], "swin": [39, 42.5, 41.9], "pvt": [30, 31, 29]}


def row(mixer, seed, top1, **changes):
    return {
        "notebook": "00_quickstart",
        "parameters": {"epochs": 1, "mixers": ["halo", "swin"], "seeds": [0, 1, 2]},
        "seed": seed,
        "data": "d1",
        "revision": "r",
        "code": "c1",
        "device": "cpu",
        "seconds": 1.0,
        "metrics": {"mixer": mixer, "top1": top1},
    } | changes


def runs(**scores):
    return [row(mixer, seed, top1) for mixer, of_seed in scores.items() for seed, top1 in enumerate(of_seed)]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Write a run's folder below the folder of runs, and return it."""
    home = tmp_path / "runs"
    home.mkdir()
    monkeypatch.setenv("STM_LAB_RUNS", str(home))

    def run(name, recorded, state="done", notebook="00_quickstart"):
        folder = home / notebook / name
        folder.mkdir(parents=True)
        (folder / "status.json").write_text(json.dumps({"state": state, "notebook": notebook}))
        (folder / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in recorded))
        return folder

    return run


def same(one, other):
    pd.testing.assert_frame_equal(one, other)
    assert one.attrs["verdict"] == other.attrs["verdict"]


# ---- one group ------------------------------------------------------------------------------------------------------


def test_it_is_the_summary_ranked(run):
    folder = run("a", runs(**SCORES))
    table = leaderboard(baseline="identity")
    assert list(table["mean"]) == sorted(table["mean"], reverse=True)
    expected = summary(rows(folder), baseline="identity").set_index("mixer").loc[list(table["mixer"])].reset_index()
    pd.testing.assert_frame_equal(table.drop(columns="rank_statement"), expected)
    assert table.attrs["notes"] == []
    assert table.attrs["left_out"] == {}


def test_the_interval_that_decides_is_student_t_paired_by_seed(run):
    """halo - swin = 1, -1.5, 0.1: t(0.975, 2) from a printed table says 'noise'; halo - identity is far from it."""
    run("a", runs(**SCORES))
    table = leaderboard().set_index("mixer")
    assert list(table.index) == ["swin", "halo", "identity", "pvt"]
    said = [statement.partition(" (")[0] for statement in table["rank_statement"]]
    assert said == ["leader", "within the noise of the leader", "below the leader", "below the leader"]
    differences = [39 - 40, 42.5 - 41, 41.9 - 42]
    mean = sum(differences) / 3
    half = 4.302653 * math.sqrt(sum((d - mean) ** 2 for d in differences) / 2 / 3)
    (verdict,) = leaderboard().attrs["verdict"]
    assert "not told apart from the next, halo" in verdict
    assert f"({mean:+.2f}, 95% interval {mean - half:+.2f} .. {mean + half:+.2f}, paired by seed)" in verdict
    assert table["rank_statement"]["halo"].endswith(f" ({-mean - half:+.2f} .. {-mean + half:+.2f})")


def test_comparisons_over_some_of_the_seeds_say_over_how_many(run):
    run("a", runs(halo=[10, 20, 30, 90], swin=[11, 22, 31]))
    table = leaderboard()
    assert table["rank_statement"][1].endswith(", 3 common seeds)")
    assert table.attrs["verdict"][0].endswith("paired by seed, 3 common seeds).")


def test_a_leader_that_is_told_apart_is_said_to_be(run):
    run("a", runs(identity=[10, 50, 90], halo=[11, 51.1, 90.9]))
    table = leaderboard()
    assert "halo leads" in table.attrs["verdict"][0]
    assert ", told apart from the next, identity" in table.attrs["verdict"][0]


def test_equals_are_said_to_be_identical(run):
    """Not within a noise that there is none of; each with the same number for each seed, though seeds differ."""
    run("a", runs(halo=[40, 41, 42.5], swin=[40, 41, 42.5], pvt=[39, 39, 39]))
    table = leaderboard(baseline="swin").set_index("mixer")
    assert table.loc["swin", "rank_statement"] == "identical to the leader"
    assert table.loc["halo", "statement"] == "identical"
    assert table.attrs["verdict"][0].endswith("identical to the next, swin, for every seed that both have.")


@pytest.mark.parametrize(
    ("swin", "statement"), [({0: 40}, "one seed"), ({7: 40}, "no seed in common"), ({0: 40, 7: 1}, "one seed")]
)
def test_what_cannot_be_told(run, swin, statement):
    run("a", [*runs(halo=[50.0, 51.0]), *(row("swin", seed, top1) for seed, top1 in swin.items())])
    table = leaderboard()
    assert table["rank_statement"][1] == statement
    assert f"{statement} to compare them by, so it may be luck" in table.attrs["verdict"][0]


def test_one_line_leads_alone(run):
    run("a", runs(halo=[50.0]))
    assert leaderboard().attrs["verdict"] == ["halo leads with a top1 of 50 (1 seed), alone."]


def test_a_low_loss_leads(run):
    losses = [
        row(mixer, seed, 0, metrics={"mixer": mixer, "validation_loss": loss + 0.01 * seed})
        for mixer, loss in (("halo", 2.0), ("swin", 1.0))
        for seed in (0, 1)
    ]
    run("a", losses)
    table = leaderboard(metric="validation_loss")
    assert list(table["mixer"]) == ["swin", "halo"]
    assert table["rank_statement"][1].startswith("above the leader (+")


def test_seeds_that_all_agree_are_noted(run):
    run("a", runs(halo=[40, 40], swin=[39, 39]))
    assert leaderboard().attrs["notes"] == [
        "Every seed has the same top1, so the intervals have no width and say nothing about chance."
    ]
    run("b", runs(pvt=[40, 41]))
    assert leaderboard().attrs["notes"] == []


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [
        ([51.234, 0.0114, -0.75, math.nan], ["51.23", "0.01", "-0.75", ""]),
        ([0.0114, -0.2], ["0.011", "-0.200"]), ([1.006e-05, 2e-6], ["0.0000101", "0.0000020"]),
        ([-0.0001, 3.0], ["0.00", "3.00"]), ([-4e-16, 0.0], ["0.00", "0.00"]), ([1.2e-9], ["1.20e-09"]),
        ([2692565.4, 12.3], ["2,692,565", "12"]), ([math.nan], [""]), ([], []),
    ],
)  # fmt: skip
def test_numbers_of_a_column_have_as_many_decimals(numbers, texts):
    assert alike(numbers) == texts


@pytest.mark.parametrize("value", [0.999, 12.0, 2000.0, 1e-05, 0.1, 123456.75, 3, 10_000, "a", "12"])
def test_a_parameter_is_shown_as_it_is(value):
    assert type(value)(float(exact(value)) if isinstance(value, float) else exact(value)) == value
    assert not exact(value).endswith((".0", ".00"))


def test_neither_console_nor_page_rounds_a_parameter(run, capsys, tmp_path):
    """As what parts the groups, as a line's name, and in the notes; also where it is not set everywhere."""
    for decay, size in ((0.999, 2000), (0.99, None)):
        given = {"parameters": {"ema_decay": decay, "validation_size": size, "epochs": 12.0}}
        run(str(decay), [one | given for one in runs(halo=[40.0, 41.0])])
    page = tmp_path / "page.html"
    assert cli.main(["leaderboard", "--out", str(page)]) == 0
    for text in (capsys.readouterr().out, page.read_text()):
        assert "ema_decay 0.999, validation_size 2000" in " ".join(text.split())
        assert "(0.99, 0.999)" in " ".join(text.split())
    lines = leaderboard(by="ema_decay")
    assert set(as_text(lines)["ema_decay"]) == {"0.99", "0.999"}


def test_the_order_of_rows_and_of_runs_does_not_matter(run):
    recorded = runs(halo=[40.1, 41.7, 42.3], swin=[39.2, 42.5, 41.9])
    tables = []
    for number, order in enumerate(itertools.islice(itertools.permutations(recorded), 0, 720, 97)):
        folders = [run(f"{number}-{k}", order[k::3]) for k in range(3)]
        tables += [leaderboard(folders, baseline="swin"), leaderboard(folders[::-1], baseline="swin")]
    for table in tables[1:]:
        same(tables[0], table)


def test_shards_are_as_good_as_the_whole(run):
    whole = run("whole", runs(**SCORES))
    shards = []
    for number, one in enumerate(runs(**SCORES)):
        mixer, seed = one["metrics"]["mixer"], one["seed"]
        shards.append(run(f"s{number}", [one | {"parameters": {"epochs": 1, "mixers": [mixer], "seeds": [seed]}}]))
    table = leaderboard(shards, baseline="identity")
    same(table, leaderboard(whole, baseline="identity"))
    assert table.attrs["notes"] == []


# ---- what is kept apart ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "column", "values"),
    [
        ({"code": "c2"}, "code", ["c1", "c2"]),
        ({"data": "d0"}, "data", ["d0", "d1"]),
        ({"parameters": {"epochs": 12, "mixers": ["pvt"], "seeds": [9]}}, "parameters.epochs", [1, 12]),
        ({"parameters": {"epochs": 1, "crop": "pad"}}, "parameters.crop", [None, "pad"]),
    ],
)
def test_what_differs_is_a_group_by_itself(run, changes, column, values):
    """As if the others were not there, and the table says in what they differ."""
    one = run("a", runs(**SCORES))
    other = run("b", [one | changes for one in runs(halo=[10, 11, 12.5], identity=[9, 14, 9])])
    table = leaderboard(baseline="identity")
    assert table.columns[0] == column
    assert table.attrs["differing"] == [column]
    assert [None if pd.isna(value) else value for value in table[column].drop_duplicates()] == values
    alone = [leaderboard(folder, baseline="identity") for folder in (one, other)]
    if column == "data":  # d0 comes before d1
        alone.reverse()
    pd.testing.assert_frame_equal(table.drop(columns=column), pd.concat(alone, ignore_index=True))
    (note,) = table.attrs["notes"]
    assert note.startswith("Kept apart, not averaged: 2 groups of rows")
    assert all(str(value) in note for value in values if value is not None)


def test_parameters_without_a_value_are_as_if_not_there(run):
    run("a", [row("halo", 0, 50.0, parameters={"crop": None})])
    run("b", [row("halo", 1, 51.0, parameters={})])
    assert list(leaderboard()["n"]) == [2]


def test_a_group_without_the_baseline_says_so(run):
    run("a", runs(identity=[10.0], halo=[11.0]))
    run("b", [one | {"code": "c2"} for one in runs(halo=[11.0])])
    table = leaderboard(baseline="identity").set_index(["code", "mixer"])
    assert table.loc[("c2", "halo"), "statement"] == "no identity"
    assert math.isnan(table.loc[("c2", "halo"), "difference"])


@pytest.mark.parametrize("by", ["epochs", "parameters.epochs"])
def test_by_a_parameter_mixers_are_kept_apart(run, by):
    """Though they are not a parameter of one value: the rows name their mixer."""
    for epochs, gain in ((1, 0), (2, 5), (10, 9)):
        parameters = {"epochs": epochs, "mixers": ["halo", "swin"]}
        run(f"{epochs}", [one | {"parameters": parameters} for one in runs(halo=[40 + gain], swin=[30 + gain])])
    table = leaderboard(by=by, baseline="1")
    assert [list(lines[by]) for _, lines, _ in parts(table)] == [[10, 2, 1]] * 2
    assert [made_with for made_with, _, _ in parts(table)] == ["mixer halo", "mixer swin"]
    assert list(table["difference"]) == [9, 5, 0] * 2


@pytest.mark.parametrize("by", ["data", "recipe"])
def test_by_data_the_recipe_may_differ(run, by):
    for recipe in ("faces", "shapes"):
        run(recipe, [row("halo", 0, 50.0, data=f"d-{recipe}", parameters={"recipe": recipe})])
    assert len(list(parts(leaderboard(by=by)))) == 1


# ---- which rows count -----------------------------------------------------------------------------------------------


def test_only_what_came_to_its_end_counts(run):
    run("a", runs(halo=[50.0]))
    for state in ("failed", "running", "interrupted"):
        run(state, runs(halo=[1.0]), state=state)
    by_hand = run("hand", runs(swin=[40.0]), state="interactive")
    (run("broken", runs(halo=[2.0])) / "status.json").write_text('{"state": "do')
    table = leaderboard()
    assert list(table["mean"]) == [50, 40]
    assert {why: len(folders) for why, folders in table.attrs["left_out"].items()} == {
        "failed": 1, "running": 1, "interrupted": 1, "unreadable status.json": 1,
    }  # fmt: skip
    assert table.attrs["notes"] == [f"Made by hand in JupyterLab, perhaps not to the end: {by_hand}."]


def test_a_sweeps_own_folder_is_no_run(run, tmp_path):
    run("a", runs(halo=[50.0]))
    summed_up = tmp_path / "runs" / "sweeps" / "x"
    summed_up.mkdir(parents=True)
    (summed_up / "rows.jsonl").write_text(json.dumps(row("halo", 0, 99.0)) + "\n")
    (summed_up / "status.json").write_text('{"state": "done"}')
    assert list(leaderboard()["mean"]) == [50]


def on(folder, name, threads=1):
    (folder / "environment.json").write_text(json.dumps({"device_name": name, "torch_threads": threads}))
    return folder


@pytest.mark.parametrize("metric", ["train_seconds", "images_per_second", "milliseconds", "peak_memory_gb"])
def test_times_of_two_machines_are_not_averaged(run, metric):
    """Both call their device `cpu`; an accuracy is the same wherever it is taken, and is averaged."""

    def timed(number, seed):
        return row("halo", seed, 50.0 + seed) | {"metrics": {"mixer": "halo", "top1": 50.0 + seed, metric: number}}

    on(run("a", [timed(10.0, 0), timed(11.0, 1)]), "small")
    on(run("b", [timed(90.0, 2), timed(91.0, 3)]), "large")
    table = leaderboard(metric=metric)
    assert sorted(table["mean"]) == [10.5, 90.5]
    assert table.attrs["differing"] == ["device"]
    assert set(table["device"]) == {"cpu: small, 1 thread", "cpu: large, 1 thread"}
    assert table.attrs["notes"][0].startswith(
        "Kept apart, not averaged: 2 groups of rows, which differ in device (cpu: "
    )
    assert list(leaderboard(metric="top1")["n"]) == [4]
    by_device = leaderboard(metric=metric, by="device")
    assert set(by_device["device"]) == set(table["device"])
    assert list(by_device["n"]) == [2, 2]


def test_threads_and_devices_make_other_times(run):
    timed = [row("halo", seed, 1.0) | {"metrics": {"mixer": "halo", "images_per_second": 5.0}} for seed in range(3)]
    on(run("a", timed[:1]), "small", threads=1)
    on(run("b", timed[1:2]), "small", threads=2)
    run("c", [timed[2] | {"device": "cuda"}])  # no environment.json there
    table = leaderboard(metric="images_per_second")
    assert set(table["device"]) == {"cpu: small, 1 thread", "cpu: small, 2 threads", "cuda"}


def test_rows_of_one_machine_are_one_group(run):
    timed = [row("halo", seed, 1.0) | {"metrics": {"mixer": "halo", "images_per_second": 5.0}} for seed in range(2)]
    folders = [on(run(str(k), [one]), "small") for k, one in enumerate(timed)]
    assert list(leaderboard(metric="images_per_second")["n"]) == [2]
    files = [folder / "rows.jsonl" for folder in folders]
    assert list(leaderboard(files, metric="images_per_second")["n"]) == [2]
    (folders[1] / "environment.json").write_text('{"device_na')
    assert len(leaderboard(metric="images_per_second")) == 2  # nothing says that it was the same one


@pytest.mark.parametrize("order", ["ac", "ca"])
def test_of_two_runs_that_contradict_each_other_neither_counts(run, order):
    """Which of them came first does not matter, the other seeds and mixers count, and the page says what is missing."""
    scores = {"a": 51.0, "c": 51.5}
    folders = [run(name, runs(halo=[50.0, scores[name], 52.0], swin=[40.0])) for name in order]
    table = leaderboard().set_index("mixer")
    assert (table.loc["halo", "n"], table.loc["halo", "mean"]) == (2, 51)
    assert table.loc["swin", "n"] == 1
    (copies, note) = table.attrs["notes"]
    assert copies.startswith("3 rows stand in ")
    assert note.startswith("Not counted, since runs contradict each other, 1 seed: mixer = halo, seed 1 has top1 ")
    assert all(f"{scores[name]:g} in {folder}" in note for name, folder in zip(order, folders, strict=True))


def test_many_contradictions_are_one_note(run):
    run("a", runs(halo=[1.0] * 9 + [5.0]))
    run("b", runs(halo=[2.0] * 9 + [5.0]))
    table = leaderboard()
    assert list(table["n"]) == [1]
    assert "9 seeds: " in table.attrs["notes"][1]
    assert table.attrs["notes"][1].endswith("; and 6 more.")


def test_nothing_but_contradictions(run):
    folders = [run(name, runs(halo=[number])) for name, number in (("a", 1.0), ("b", 2.0))]
    with pytest.raises(UserError, match="no rows to compare; mixer = halo, seed 0 has top1 1 in ") as caught:
        leaderboard()
    assert all(str(folder) in str(caught.value) for folder in folders)


def test_a_copy_counts_once(run):
    one, copy = run("a", runs(halo=[50.0, 51.0])), run("b", runs(halo=[50.0, 51.0, 58.0]))
    table = leaderboard()
    assert list(table["mean"]) == [53]
    assert list(table["n"]) == [3]
    assert table.attrs["notes"] == [f"2 rows stand in {one} and in {copy}, with equal top1; counted once."]


def test_a_run_named_twice_is_one(run):
    folder = run("a", runs(halo=[50.0]))
    table = leaderboard([folder, folder.parent, folder.parent.parent])
    assert list(table["n"]) == [1]
    assert table.attrs["notes"] == []


def test_files_of_rows_are_taken_as_they_are(run):
    folder = run("a", runs(**SCORES), state="failed")
    same(leaderboard(folder / "rows.jsonl"), leaderboard(run("b", runs(**SCORES))))


def test_one_notebook_of_several(run):
    run("a", runs(halo=[50.0]))
    run("b", [row("halo", 0, 60.0, notebook="09_train")], notebook="09_train")
    run("c", [], state="failed", notebook="09_train")
    assert list(leaderboard()["notebook"]) == ["00_quickstart", "09_train"]
    for name in ("09", 9, "9", "09_train"):
        table = leaderboard(notebook=name)
        assert list(table["mean"]) == [60]
        assert list(table.attrs["left_out"]) == ["failed"]
    with pytest.raises(UserError, match="did you mean '09_train'"):
        leaderboard(notebook="09_trian")


def test_a_run_with_several_numbers_for_one_seed_is_left_out(run):
    run("a", runs(halo=[50.0]))
    shifted = [row("halo", 0, 9.0 - s, metrics={"mixer": "halo", "top1": 9.0 - s, "shift": s}) for s in (0, 1)]
    folder = run("b", shifted)
    table = leaderboard()
    assert list(table["mean"]) == [50]
    ((why, left_out),) = table.attrs["left_out"].items()
    assert "several rows with top1 for one mixer and seed, which differ in shift" in why
    assert left_out == [str(folder)]
    with pytest.raises(UserError, match="which differ in shift"):
        leaderboard(folder)
    assert len(leaderboard(folder, by="shift")) == 2


def test_rows_of_other_metrics_are_nothing_odd(run):
    curve = row("halo", 0, 0, metrics={"mixer": "halo", "agreement": [1.0, 0.5]})
    run("a", [*runs(halo=[50.0]), curve, curve])
    assert list(leaderboard()["mean"]) == [50]


# ---- wrong input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"metric": "top"}, "unknown metric 'top'; did you mean 'top1'?"),
        ({"metric": "lost"}, "unknown metric 'lost'; did you mean 'loss'?"),
        ({"metric": "mixer"}, "unknown metric 'mixer'"),  # no number
        ({"metric": "empty"}, "unknown metric 'empty'"),  # NaN in every row
        ({"by": "mixr"}, "unknown column 'mixr'; did you mean 'mixer'?"),
        ({"by": "epoch"}, "did you mean 'epochs'?"),
        ({"baseline": "hallo"}, "did you mean 'halo'?"),
        ({"runs": "nowhere"}, "nowhere: no such folder or file"),
        ({"notebook": "01"}, "unknown notebook '01'"),
    ],
)
def test_unknown_names(run, arguments, expected):
    metrics = {"mixer": "halo", "top1": 50.0, "loss": 1.0, "empty": math.nan}
    run("a", [row("halo", 0, 0, metrics=metrics)])
    with pytest.raises(UserError, match=re.escape(expected)):
        leaderboard(**arguments)


def test_no_rows_at_all(run, tmp_path):
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'runs'}: no runs")):
        leaderboard()
    folder = run("a", [], state="failed")
    run("b", [], state="failed")
    with pytest.raises(UserError, match=re.escape(str(folder.parent)) + r".*2 failed"):
        leaderboard()
    with pytest.raises(UserError, match="did you mean 'runs'"):
        leaderboard(tmp_path / "rns")


# ---- the command, and files -----------------------------------------------------------------------------------------


def test_the_command_prints_the_table_and_writes_files(run, tmp_path, capsys):
    run("a", runs(**SCORES))
    run("<b>", [one | {"code": "c2"} for one in runs(halo=[1.0])])
    run("c", [], state="failed")
    files = [tmp_path / f"board{suffix}" for suffix in (".csv", ".parquet", ".html")]
    outs = [argument for file in files for argument in ("--out", str(file))]
    assert cli.main(["leaderboard", "--baseline", "identity", "--notebook", "00", *outs]) == 0
    said = " ".join(capsys.readouterr().out.split())
    table = leaderboard(baseline="identity")
    assert all(text in said for text in [*table.attrs["verdict"], *map(str, files)])
    assert "Kept apart, not averaged" in said
    assert "1 run: failed" in said
    pd.testing.assert_frame_equal(pd.read_csv(files[0]), table, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_parquet(files[1]), table)
    page = files[2].read_text()
    assert all(text in page for text in table["mixer"])
    assert "<b>" not in page  # a folder's name is text
    assert not re.search(r"(src|href)=", page)
    assert sorted(path.name for path in tmp_path.glob("*board*")) == sorted(path.name for path in files)


def test_every_note_and_line_is_on_the_page(run, tmp_path):
    run("a", runs(**SCORES))
    run("b", [one | {"code": "c2"} for one in runs(halo=[1.0])], state="interactive")
    table = leaderboard()
    page = write(table, tmp_path / "board.html", title="A & B").read_text()
    assert page.count("<tr") == 2 + len(table)
    assert "<h1>A &amp; B</h1>" in page
    assert all(note in page for note in said_of(table))


@pytest.mark.parametrize("name", ["board.xlsx", "board"])
def test_another_suffix_is_refused_before_anything_is_read(name, capsys):
    assert cli.main(["leaderboard", "nowhere", "--out", name]) == 2
    assert ".csv, .parquet, .html" in capsys.readouterr().err


def test_a_folder_that_is_not_there(run, tmp_path):
    run("a", runs(halo=[50.0]))
    with pytest.raises(UserError, match="No such file or directory"):
        write(leaderboard(), tmp_path / "nowhere" / "board.csv")
