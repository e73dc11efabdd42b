"""`stm-lab sweep --dry-run`: what would run, how long, in how much memory - by the very options of the sweep."""

import types

import psutil
import pytest
import torch
from small_course import MIXERS, begun, of, planned

from stm_lab import UserError, cli
from stm_lab.course import cluster
from stm_lab.course.forecast import forecast
from stm_lab.course.room import Machine, Room
from stm_lab.course.run import Limits
from stm_lab.course.watch import GIGABYTE
from stm_lab.util import paths

SIX = (MIXERS, [0, 1])


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Four cores, no GPU, and 10 GB of memory that is free, of which the engine takes nine tenths."""
    monkeypatch.setenv("STM_LAB_CORES", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=10 * GIGABYTE))


def jobs_of(minutes=1.0, gb=0.2, cpus=1, gpus=0.0):
    resources = {"minutes": minutes, "memory_gb": gb, "cpus": cpus, "gpus": gpus}
    return planned(of(*SIX, resources=resources))


def finish(job, seconds=12.0, **more):
    job.folder.create().write_json(
        job.folder.status, {"state": "done", "key": job.key, "seconds": seconds, "code": "x", **more}
    )


@pytest.mark.parametrize(
    ("resources", "processes", "wall", "at_once", "gb"),
    [
        ({}, None, 2, 4, 0.8),  # six minutes on four cores: four, then two
        ({}, 1, 6, 1, 0.2),
        ({}, 2, 3, 2, 0.4),
        ({"cpus": 2}, None, 3, 2, 0.4),
        ({"gb": 4}, None, 3, 2, 8.0),  # memory for two
        ({"gb": 50}, None, 6, 1, 50.0),  # too large for the machine: alone
        ({"minutes": 2.5}, None, 5, 4, 0.8),
    ],
)
def test_cores_memory_and_processes_make_the_width(small, resources, processes, wall, at_once, gb):
    would = forecast(jobs_of(**resources), Limits(), Room.here(processes))
    assert would.plans == ["run"] * 6
    assert (would.wall, would.at_once) == (pytest.approx(wall), at_once)
    assert would.memory_gb == pytest.approx(gb)
    assert would.work == pytest.approx(6 * resources.get("minutes", 1))


def test_minutes_are_the_cards_until_some_are_done(small):
    jobs = planned(of(MIXERS, [0]))
    would = forecast(jobs, Limits(), Room.here(1))
    assert (would.measured, would.work) == (0, pytest.approx(0.3))
    finish(jobs[0], seconds=12)
    would = forecast(jobs, Limits(), Room.here(1))
    assert (would.measured, would.work) == (1, pytest.approx(2 * 12 / 60))
    assert would.plans == ["skip", "run", "run"]


def test_force_does_again_what_is_done_and_takes_the_time_of_all(small):
    jobs = jobs_of()
    for job in jobs[:4]:
        finish(job, seconds=30)
    kept, again = (forecast(jobs, Limits(force=force), Room.here(1)) for force in (False, True))
    assert kept.plans == ["skip"] * 4 + ["run"] * 2
    assert again.plans == ["again"] * 4 + ["run"] * 2
    assert (kept.work, again.work) == (pytest.approx(1), pytest.approx(3))
    assert kept.notes == ["4 of the 4 that are done were made with other code; --force runs all again."]
    assert again.notes == []


def test_a_limit_of_memory_makes_room_and_names_what_it_would_stop(small):
    """A run may not take more than --memory, so that more of them fit; those that need more are told."""
    jobs = jobs_of(gb=4)
    would = forecast(jobs, Limits(memory=2.25), Room.here())
    assert (would.at_once, would.memory_gb) == (4, 9.0)
    assert would.notes == ["--memory 2.25: 6 of the runs take up to 4 GB by their card, and would be stopped."]
    assert forecast(jobs, Limits(memory=5), Room.here()).notes == []
    assert forecast(jobs, Limits(memory=5), Room.here()).memory_gb == 8.0  # a limit is no need


def test_a_limit_of_time_ends_what_takes_longer(small):
    would = forecast(jobs_of(minutes=3), Limits(timeout=2), Room.here(1))
    assert would.work == pytest.approx(12)
    assert would.notes == ["--timeout 2: 6 of the runs take about 3 minutes, and would be stopped."]


def test_what_was_begun_goes_on_and_what_runs_elsewhere_waits(small):
    jobs = jobs_of()
    for job, state in zip(jobs, ("interrupted", "running", "failed"), strict=False):
        job.folder.create().write_json(job.folder.status, {"state": state, "key": job.key})
    with jobs[3].folder.create().alone():
        assert forecast(jobs, Limits(), Room.here(1)).plans == ["go on", "go on", "run", "wait", "run", "run"]
    assert forecast(jobs, Limits(force=True), Room.here(1)).plans == ["run"] * 6


def test_on_machines_of_a_cluster_no_run_spans_two(small):
    jobs = jobs_of(cpus=3)
    would = forecast(jobs, Limits(), Room([Machine(4, 9, 0), Machine(4, 9, 0)]))
    assert (would.wall, would.at_once) == (pytest.approx(3), 2)
    with pytest.raises(UserError, match="no machine has all of that"):
        forecast(jobs, Limits(), Room([Machine(2, 9, 0)] * 9))


def said_of(small, capsys, *options):
    (small / "s.yaml").write_text("title: t\nnotebook: 01_small\ngrid: {mixer: [halo, swin, pvt]}\nseeds: [0, 1]\n")
    status = cli.main(["sweep", str(small / "s.yaml"), "--dry-run", *options])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_plan_is_printed_under_the_options_and_starts_nothing(small, capsys):
    status, said, _ = said_of(small, capsys)
    assert status == 0
    assert "6 runs, 6 to run: about 0.6 minutes of runs (by the card), 0.2 on this machine with 4 at a time" in said
    assert "0.8 GB of memory" in said
    assert "0.6 on this machine with 1 at a time, 0.2 GB" in said_of(small, capsys, "--processes", "1")[1]
    said = said_of(small, capsys, "--memory", "0.1")[1]
    assert "0.4 GB of memory" in said
    assert "--memory 0.1: 6 of the runs take up to 0.2 GB by their card, and would be stopped." in said
    assert not begun(small)
    assert not paths.runs_dir().exists()


def test_the_plan_of_a_shard_and_of_what_is_done(small, capsys):
    for job in planned(of(*SIX))[:2]:
        finish(job, seconds=60)
    said = said_of(small, capsys)[1]
    assert "6 runs, 2 done and skipped, 4 to run: about 4 minutes of runs (as the 2 that are done took), 1 on" in said
    assert "3 runs, 1 done and skipped, 2 to run" in said_of(small, capsys, "--shard", "1/2")[1]
    assert "6 runs, 2 to run again, 4 to run: about 6 minutes" in said_of(small, capsys, "--force")[1]


def test_the_plan_on_ray_is_made_without_starting_one(small, capsys, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr(cluster, "_cluster", None)
    status, said, _ = said_of(small, capsys, "--engine", "ray")
    assert status == 0
    assert "0.2 on a Ray cluster of this machine with 4 at a time" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "rya"], "unknown engine 'rya'; did you mean 'ray'?"),
        (["--address", "auto"], "--address is of the engine ray"),
        (["--engine", "ray", "--processes", "2"], "--processes is of the engine local"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "no Ray cluster at '127.0.0.1:1'"),
    ],
)
def test_options_that_the_sweep_would_refuse_the_plan_refuses_too(small, capsys, options, said):
    if "ray" in options:
        pytest.importorskip("ray")
    status, _, error = said_of(small, capsys, *options)
    assert status == 2
    assert said in error
    assert len(error.splitlines()) == 1
