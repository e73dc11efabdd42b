"""`fit_all`: several trainings at once, each the same as alone, and nothing lost when one of them dies."""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

import stm_lab
from stm_lab.train import fit, fit_all, load_config
from stm_lab.train import runs as pool_module
from stm_lab.util.errors import UserError
from stm_lab.util.processes import without_main

FEW = (48, 50)


@pytest.fixture(scope="module")
def short(few):
    return {
        "mixer": "identity", "recipe": few, "epochs": 1, "batch_size": 16, "warmup_epochs": 0.5, "device": "cpu",
        "drop_path_rate": 0.2, "augmentation": {"flip": True}, "ema_decay": 0.9,
    }  # fmt: skip


def configs_in(folder, short, seeds, **more):
    return [load_config(short, seed=seed, out=str(folder / str(seed)), **more) for seed in seeds]


def test_what_is_finished_is_not_trained_again(short, tmp_path, monkeypatch):
    configs = configs_in(tmp_path, short, [0, 1])
    first = fit(configs[0])
    fit_all(configs, processes=2)
    monkeypatch.setattr(pool_module, "_train_elsewhere", None)
    monkeypatch.setattr(pool_module, "fit", None)
    again = fit_all(configs, processes=2)
    assert again[0].rows == first.rows


@pytest.mark.parametrize(("size", "epochs", "elsewhere"), [(32, 1, 1), (48, 67, 3), (None, 1, 3)])
def test_processes_are_started_where_that_saves_time(short, tmp_path, monkeypatch, size, epochs, elsewhere):
    """Three runs in batches of 16: a few steps are done before a process is up; of None nobody knows."""
    monkeypatch.setattr(pool_module, "cores", lambda: 3)
    seen = []
    monkeypatch.setattr(pool_module, "_train_elsewhere", lambda jobs, processes, threads: seen.append(processes))
    monkeypatch.setattr(pool_module, "fit", lambda config: seen.append(1))
    monkeypatch.setattr(pool_module, "finished", lambda folder: None)
    fit_all(configs_in(tmp_path, short, [0, 1, 2], train_size=size, epochs=epochs))
    assert set(seen) == {elsewhere}


def test_two_runs_in_one_folder_are_refused(short, tmp_path):
    with pytest.raises(UserError, match="is the folder of two runs"):
        fit_all([load_config(short, seed=seed, out=str(tmp_path / "one")) for seed in (0, 1)])
    assert not any(tmp_path.iterdir())


def test_wrong_input_stops_all_before_any_starts(short, tmp_path):
    with pytest.raises(UserError, match="did you mean 'identity'"):
        fit_all([load_config(short, out=str(tmp_path / "0")), {**short, "mixer": "identty"}])
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_mixer_of_a_notebook_is_trained_by_the_notebook(short, tmp_path, monkeypatch):
    class Still(torch.nn.Identity):
        def __init__(self, dim):
            super().__init__()

    Still.__module__ = "__main__"
    stm_lab.register_mixer("still_of_test")(Still)
    monkeypatch.setattr(pool_module, "_train_elsewhere", None)
    results = fit_all(configs_in(tmp_path, short, [0, 1], mixer="still_of_test"), processes=2)
    assert [result.rows[-1]["step"] for result in results] == [3, 3]
    monkeypatch.delitem(stm_lab.mixers.registry._mixers, "still_of_test")


UNGUARDED = """
import sys, json
import mymix_of_test
from stm_lab.train import fit_all
for run in fit_all(json.load(open(sys.argv[1])), processes=2):
    print("reached", run.run_dir)
"""
MIXER = """
import stm_lab, torch

@stm_lab.register_mixer("mine_of_test")
class Mine(torch.nn.Identity):
    def __init__(self, dim):
        super().__init__()
"""


@pytest.mark.slow
def test_processes_of_a_script_without_a_guard_give_what_one_gives(short, tmp_path, monkeypatch):
    """In the order asked for, with a mixer of a module of the user's own."""
    (tmp_path / "script.py").write_text(UNGUARDED)
    (tmp_path / "mymix_of_test.py").write_text(MIXER)
    together = configs_in(tmp_path / "together", short, [2, 0, 1], mixer="mine_of_test")
    (tmp_path / "configs.json").write_text(json.dumps([config.model_dump(mode="json") for config in together]))
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "configs.json")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.stdout.splitlines() == [f"reached {config.out}" for config in together], run.stderr
    assert "training, 2 at once" in run.stderr  # in workers
    assert "3/3 (100%) runs" in run.stderr
    assert "Traceback" not in run.stderr
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("mymix_of_test")
    alone = fit_all(configs_in(tmp_path / "alone", short, [2, 0, 1], mixer="mine_of_test"), processes=1)
    for config, other in zip(together, alone, strict=True):
        one = fit(config)  # finished: read from its folder
        for name, weights in other.model.state_dict().items():
            torch.testing.assert_close(one.model.state_dict()[name], weights, rtol=1e-4, atol=1e-5, msg=name)
        assert one.metrics.keys() == other.metrics.keys()
    monkeypatch.delitem(stm_lab.mixers.registry._mixers, "mine_of_test")


def test_the_main_module_is_hidden_for_a_moment_alone():
    main = sys.modules["__main__"]
    with without_main():
        assert not hasattr(sys.modules["__main__"], "__file__")
    assert sys.modules["__main__"] is main


@pytest.mark.slow
def test_a_mixer_that_no_other_process_finds_is_trained_here(short, tmp_path, monkeypatch):
    class Local(torch.nn.Identity):
        def __init__(self, dim):
            super().__init__()

    stm_lab.register_mixer("local_of_test")(Local)
    monkeypatch.setattr(pool_module, "_train_elsewhere", None)
    results = fit_all(configs_in(tmp_path, short, [0, 1], mixer="local_of_test"), processes=2)
    assert [result.rows[-1]["step"] for result in results] == [3, 3]
    monkeypatch.delitem(stm_lab.mixers.registry._mixers, "local_of_test")


SCRIPT = """
import sys, json
from stm_lab.train import fit_all
if __name__ == "__main__":
    fit_all(json.load(open(sys.argv[1])), processes=2)
"""


@pytest.fixture
def started(short, tmp_path):
    """`fit_all` of two runs too long to end by themselves, in a process of its own, once both have begun."""
    (tmp_path / "script.py").write_text(SCRIPT)
    configs = [
        {**short, "epochs": 2000, "out": str(tmp_path / str(seed)), "seed": seed, "augmentation": {"flip": True}}
        for seed in (0, 1)
    ]
    (tmp_path / "configs.json").write_text(json.dumps(configs))
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "configs.json")]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: all(list(tmp_path.glob(f"{seed}/checkpoints/step-*")) for seed in (0, 1)), process)
            yield process
        finally:
            if members(process.pid):
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(what, process, seconds=120):
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def members(group):
    """The processes of a group that are not merely waiting to be buried, with their command lines."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = " ".join(process.cmdline())
    return found


def workers(group):
    return [pid for pid, command in members(group).items() if "spawn_main" in command]


def assert_soon_gone(there):
    end = time.monotonic() + 30
    while there():
        assert time.monotonic() < end, there()
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills process groups")
def test_a_killed_worker_is_told_and_takes_nothing_finished_along(started):
    os.kill(workers(started.pid)[0], signal.SIGKILL)
    said = started.stderr.read()
    assert started.wait(30) == 1
    assert "RuntimeError: a training process died, perhaps for want of memory" in said
    assert_soon_gone(lambda: members(started.pid))
