"""Sweeps: what they plan, that every engine does the same, and that nothing finished is lost however they end."""

import concurrent.futures
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections import Counter

import pandas as pd
import psutil
import pytest
import small_course
from children import hears_ctrl_c, wait_until
from kinds import once
from small_course import MIXERS, begun, of, planned, states

from stm_lab import UserError, cli
from stm_lab.course import cluster, leaderboard, sweep
from stm_lab.course.cluster import Ray
from stm_lab.course.engines import Local, visible_devices
from stm_lab.course.sweep import load_sweep, parse_shard
from stm_lab.util import paths
from stm_lab.util.devices import cores

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `cluster`")


def board():
    return leaderboard(paths.runs_dir(), by="mixer", metric="top1", baseline="pvt")


# ---- the plan --------------------------------------------------------------------------------------------------------


def test_every_combination_once_seed_by_seed(small):
    jobs = planned(of(["halo", "swin"], [3, 4], list=[{"act": "score"}], parameters={}))
    points = [(job.values["mixer"], job.values["seed"]) for job in jobs]
    assert points == [("halo", 3), ("swin", 3), ("halo", 4), ("swin", 4)]
    assert len({job.key for job in jobs}) == 4
    assert not paths.runs_dir().exists()


def test_a_list_and_a_grid_multiply(small):
    jobs = planned(
        {"title": "t", "notebook": 1 and "01", "list": [{"seed": 0}, {"seed": 5}], "grid": {"mixer": MIXERS}}
    )
    assert [(job.values["seed"], job.values["mixer"]) for job in jobs] == [(s, m) for s in (0, 5) for m in MIXERS]


@pytest.mark.parametrize("parts", [1, 2, once(3), 5, 7, 9])
def test_shards_are_a_partition(small, parts):
    whole = planned(of(MIXERS, [0, 1]))
    shards = [planned(of(MIXERS, [0, 1]), shard=(index, parts)) for index in range(1, parts + 1)]
    assert sorted(job.key for shard in shards for job in shard) == sorted(job.key for job in whole)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: t\nnotebook: 01_small\ngrid: {mixer: [halo}", "line 3, column 20"),
        ("title: t\nnotebook: 02_small", "unknown notebook '02_small'; did you mean '01_small'?"),
        ("title: t\nnotebook: 01_small\ngrid: {mixr: [halo]}", "unknown parameter 'mixr'; did you mean 'mixer'?"),
        ("title: t\nnotebook: 01_small\ngrid: {mixer: [halo, swim]}", "unknown value 'swim'; did you mean 'swin'?"),
        ("title: t\nnotebook: 01_small\ngrid: {mixer: []}", "grid.mixer = []: list should have at least 1 item"),
        ("title: t\nnotebook: 01_small\ngrid: {seed: [0, x]}", "seed = 'x': should be a valid integer"),
        ("title: t\nnotebook: 01_small\ngird: {mixer: [halo]}", "did you mean 'grid'?"),
        ("title: t\nnotebook: 01_small\nseeds: [0, -1]", "seed = -1: should be greater than or equal to 0"),
        ("title: t\nnotebook: 01_small\nseeds: [0, 1, 0]", "two of its runs are one and the same"),
        ("title: t\nnotebook: 01_small\nseeds: [0, 1, 2]\nmax_runs: 2", "3 runs are more than max_runs = 2"),
        ("title: t\nnotebook: 01_small\nprofile: papr", "unknown profile 'papr'"),
        ("title: t\nnotebook: 01_small\nplugins: [a.py]", "unknown parameter 'plugins'"),
        ("title: t\nnotebook: 01_small\nseeds: 3", "seeds"),
        ("title: t\nnotebook: 01_small\nparameters: {seed: 1}\ngrid: {seed: [1]}", "'seed' is given twice"),
        ("title: t\nnotebook: 1\nparameters: {seed: 5}\nseeds: [0, 1]", "'seed' is given twice"),
        ("title: t\nnotebook: 1\nparameters: {out: here}\nseeds: [0, 1]", "would share the folder `out`"),
        ("title: 3\nnotebook: 01_small", "title"),
        ("title: t\nnotebook: 01_small\ngather: {metrics: top1}", "did you mean 'metric'?"),
    ],
)
def test_malformed_sweeps_are_refused_in_one_line(small, tmp_path, text, said):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        sweep(tmp_path / "s.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not paths.runs_dir().exists()


def test_a_place_that_cannot_be_written_to_is_told_once_before_anything_starts(small, tmp_path, monkeypatch, capfd):
    """Not once for each run: the place is the same for all."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("STM_LAB_RUNS", str(tmp_path / "file"))
    (small / "s.yaml").write_text("title: t\nnotebook: 1\ngrid: {mixer: [halo, swin, pvt]}\n")
    assert cli.main(["sweep", str(small / "s.yaml")]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "Not a directory; give a folder that can be written to" in said.err


def test_names_and_shards(small):
    (small / "sweeps").mkdir()
    (small / "sweeps" / "mine.yaml").write_text("title: t\nnotebook: 01_small\n")
    assert load_sweep("mine").name == "mine"
    with pytest.raises(UserError, match="unknown sweep 'mime'; did you mean 'mine'"):
        load_sweep("mime")
    assert parse_shard("2/8") == (2, 8)
    for wrong in ("0/2", "3/2", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(UserError, match="expected i/n"):
            parse_shard(wrong)


# ---- the engines -----------------------------------------------------------------------------------------------------


ALL = of(["halo", "pvt"], [0, 1])


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """The leaderboard of four runs done one after the other."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STM_LAB_NOTEBOOKS", str(small_course.write(folder / "course")))
        patch.setenv("STM_LAB_RUNS", str(folder / "runs"))
        assert states(sweep(ALL, engine=Local(1))) == {"done": 4}
        return board()


@pytest.fixture(scope="module")
def started():
    """A cluster of this machine, as a sweep starts it."""
    pytest.importorskip("ray")
    with cluster._cluster(None) as ray:
        yield ray


@pytest.fixture
def ray(started, monkeypatch):
    """The engine on that cluster."""
    monkeypatch.setattr(cluster, "_cluster", lambda address: contextlib.nullcontext(started))
    return Ray()


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(lambda: sweep(ALL, engine=Local(2)), id="two processes"),
        pytest.param(lambda: [*sweep(ALL, shard="1/2"), *sweep(ALL, shard="2/2")], id="two shards"),
    ],
)
def test_however_it_is_done_the_leaderboard_is_the_same(small, one_by_one, how):
    assert states(how()) == {"done": 4}
    pd.testing.assert_frame_equal(board(), one_by_one)
    assert set(one_by_one["n"]) == {2}


@needs_ray
@pytest.mark.soak  # its two halves, the worker's and ours, are tested in test_course_cluster.py
def test_on_ray_without_a_shared_folder_it_is_the_same(small, ray, tmp_path, monkeypatch):
    """Its workers look for a file that is nowhere, and so send back what they do."""
    nowhere = contextlib.nullcontext(types.SimpleNamespace(name="/nowhere"))
    monkeypatch.setattr(cluster, "tempfile", types.SimpleNamespace(NamedTemporaryFile=lambda **_: nowhere))
    two = of(["halo", "pvt"], [0])
    outcomes = sweep(two, engine=ray)
    assert states(outcomes) == {"done": 2}
    folder = outcomes[0].job.folder
    assert all(path.is_file() for path in (folder.rows, folder.html, folder.notebook, folder.log, folder.status))
    assert states(sweep(two, engine=ray)) == {"done already": 2}
    by_ray = board()
    monkeypatch.setenv("STM_LAB_RUNS", str(tmp_path / "here"))
    assert states(sweep(two)) == {"done": 2}
    pd.testing.assert_frame_equal(by_ray, board())


@needs_ray
@pytest.mark.slow
def test_a_killed_ray_worker_is_tried_again(small, ray):
    def kill_the_worker():
        wait_until(lambda: begun(small), 60)
        psutil.Process(begun(small)[0][2]).parent().kill()  # of a kernel that sleeps in its first trial

    killer = threading.Thread(target=kill_the_worker)
    killer.start()
    assert states(sweep(of(["halo"], [0], list=[{"act": "once"}]), engine=ray)) == {"done": 1}
    killer.join()
    assert len(begun(small)) == 2
    assert list(leaderboard(paths.runs_dir())["n"]) == [1]


@pytest.mark.slow
def test_one_that_fails_or_dies_does_not_stop_the_others_and_is_tried_again(small, capfd):
    acts = {"halo": "fail", "swin": "kill", "pvt": "score"}
    runs = {"title": "t", "notebook": 1, "seeds": [0]}
    first = sweep({**runs, "list": [{"mixer": mixer, "act": act} for mixer, act in acts.items()]})
    assert [outcome.state for outcome in first] == ["failed", "failed", "done"]
    assert "ValueError: no good" in first[0].message
    assert first[1].job.folder.read_status()["failure"]["kind"] == "died"
    assert "failed: 01_small: cell [3]: ValueError: no good" in capfd.readouterr().err
    again = {**runs, "list": [{"mixer": mixer} for mixer in acts]}
    assert states(sweep(again)) == {"done already": 1, "done": 2}  # `act` is not in the key
    assert states(sweep(again)) == {"done already": 3}
    assert len(begun(small)) == 5


@pytest.mark.slow
def test_what_cannot_be_gathered_hides_no_failure(small, capfd):
    text = "title: t\nnotebook: 1\nlist: [{mixer: halo, act: fail}, {mixer: swin}]\ngather: {metric: top5}\n"
    (small / "s.yaml").write_text(text)
    assert cli.main(["sweep", str(small / "s.yaml")]) == 1
    said = capfd.readouterr()
    assert "1 failed, 1 done" in said.out
    assert "failed: mixer=halo" in said.out
    assert "no leaderboard: " in said.out
    assert "top5" in said.out
    assert "1 of 2 runs failed" in said.err


@pytest.mark.parametrize(("ours", "theirs"), [(None, "1"), ("3,5", "5"), ("GPU-a,GPU-b", "GPU-b")])
def test_a_child_sees_its_own_of_the_devices_that_we_see(monkeypatch, ours, theirs):
    if ours is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ours)
    assert visible_devices([1]) == theirs
    assert visible_devices([]) == ""


def start(small, text, *options):
    """The sweep in a process group of its own, one that hears Ctrl-C even if the tests run in the background."""
    (small / "s.yaml").write_text(text)
    command = [sys.executable, "-m", "stm_lab.cli", "sweep", str(small / "s.yaml"), *options]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, start_new_session=True, preexec_fn=hears_ctrl_c, **pipes)


def done():
    return sum(json.loads(path.read_text())["state"] == "done" for path in paths.runs_dir().glob("*/*/status.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.soak), signal.SIGTERM, signal.SIGKILL]
)
def test_a_sweep_that_ends_early_goes_on(small, number):
    """One run is finished, one sleeps, one waits; after the end no kernel stays, and again does what is missing."""
    assert states(sweep(of(["halo"], [0]))) == {"done": 1}
    text = "title: t\nnotebook: 1\nlist: [{act: once}]\ngrid: {mixer: [halo, swin, pvt]}\nseeds: [0]\n"
    process = start(small, text, "--processes", "1")
    wait_until(lambda: len(begun(small)) == 2)
    # Ctrl-C reaches the whole group; a batch system tells the sweep, and SIGKILL here hits all at once
    (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 130)
    wait_until(lambda: not any(psutil.pid_exists(pid) for _, _, pid in begun(small)), 20)
    assert done() == 1
    if number != signal.SIGKILL:
        found = Counter(json.loads(path.read_text())["state"] for path in paths.runs_dir().glob("*/*/status.json"))
        assert found == {"done": 1, "interrupted": 1}
    (small / "begun.txt").unlink()
    assert states(sweep(of(MIXERS, [0]))) == {"done already": 1, "done": 2}
    assert len(begun(small)) == 2
    assert set(board()["n"]) == {1}


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work(small):
    with concurrent.futures.ThreadPoolExecutor() as both:
        outcomes = [*both.map(lambda _: sweep(ALL, engine=Local(2)), range(2))]
    assert [set(states(each)) <= {"done", "done already"} for each in outcomes] == [True, True]
    found = sorted((mixer, seed) for mixer, seed, _ in begun(small))
    assert found == [(mixer, seed) for mixer in ("halo", "pvt") for seed in (0, 1)]
    assert set(board()["n"]) == {2}


@pytest.mark.slow
def test_a_limit_holds_for_each_run(small):
    outcomes = sweep(of(["halo"], [0], list=[{"act": "sleep"}]), timeout=0.03)
    assert "not done after 0.03 min" in outcomes[0].message


@pytest.mark.soak
def test_scheduling_costs_under_a_tenth_of_a_second_a_run(small, capsys):
    """Of 500 runs: what is not spent in a run - from its kernel's start to its HTML - by each of the processes."""
    started = time.monotonic()
    outcomes = sweep(of(["halo"], list(range(500))), engine=Local(cores()))
    spent = cores() * (time.monotonic() - started)
    inside = sum(outcome.job.folder.read_status()["seconds"] for outcome in outcomes)
    with capsys.disabled():
        print(f"\n{(spent - inside) / 500 * 1000:.0f} ms a run besides {inside / 500 * 1000:.0f} ms in it")
    assert states(outcomes) == {"done": 500}
    assert (spent - inside) / 500 < 0.1


# ---- Ray -------------------------------------------------------------------------------------------------------------


@needs_ray
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "no Ray cluster at '127.0.0.1:1': Connection refused"),
        ("ray://127.0.0.1:1", "Connection refused"),
        ("atuo", "expected auto, ray://host:port or host:port"),
    ],
)
def test_no_cluster_at_that_address(small, monkeypatch, address, said):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=said):
        sweep(of(["halo"], [0]), engine=Ray(address))
