"""Several trainings at once: `fit_all` deals them out to processes that each compute on their share of the cores.

Networks as small as `nano` leave most of a processor idle between their many small operations; two runs on one thread
each are done sooner than one after the other on two. The processes are started afresh (spawned), never forked from one
that has touched CUDA, and end with the one that started them.
"""

from __future__ import annotations

import contextlib
import io
import math
import multiprocessing
import pickle
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import torch

from stm_lab import register_mixer
from stm_lab.mixers import get_mixer, list_mixers
from stm_lab.mixers.plugins import MODULE_PREFIX, load_plugins
from stm_lab.train.config import TrainConfig, load_config
from stm_lab.train.folder import RunFolder
from stm_lab.train.runs import finished, fit
from stm_lab.train.trainer import Result
from stm_lab.util.devices import cores, resolve_device
from stm_lab.util.errors import UserError
from stm_lab.util.processes import end_with_parent, without_main
from stm_lab.util.progress import progress

_WORTH_A_PROCESS = 300  # steps in all; of `nano` at 32x32 a process does about as many while another one starts


def fit_all(
    configs: Iterable[str | Path | Mapping[str, Any] | TrainConfig], *, processes: int | None = None
) -> list[Result]:
    """Train one model for each configuration, several at a time; the results are the same as of `fit`, in that order.

    Finished runs are not trained again, and interrupted ones go on, so this may be called again after anything.

    Args:
        configs: what `fit` takes.
        processes: how many train at once; default: one a core on CPUs, one in all on GPUs or if the runs are done
            sooner than processes start. With one, this process trains; so it does if a mixer was defined where no other
            process finds it, as in a notebook's cell. Those of an imported module, or of `plugins`, are found.

    Raises:
        UserError: a configuration does not fit, or two would write to one folder; nothing has been trained then.
        RuntimeError: a training failed, or its process died. Those that were finished are kept.
    """
    configs = [load_config(config) for config in configs]
    load_plugins(dict.fromkeys(file for config in configs for file in config.plugins))
    folders = [RunFolder(config) for config in configs]
    twice = [path for path, times in Counter(folder.path for folder in folders).items() if times > 1]
    if twice:
        raise UserError(f"fit_all: {twice[0]} is the folder of two runs; give each its own `out`")
    todo = [folder for folder in folders if not folder.is_finished()]
    on_cpu = all(resolve_device(folder.config.device).type == "cpu" for folder in todo)
    if processes is None:
        processes = cores() if on_cpu and sum(map(_steps, todo)) > _WORTH_A_PROCESS else 1
    processes = min(processes, len(todo))
    mixers = {folder.config.mixer: _sent(folder.config) for folder in todo}
    if processes > 1 and None not in mixers.values():
        for folder in filter(RunFolder.is_outdated, todo):
            print(folder.outdated())  # what the workers print is not seen
        jobs = [(folder.config, mixers[folder.config.mixer]) for folder in todo]
        _train_elsewhere(jobs, processes, threads=max(1, cores() // processes))
        return [finished(folder) for folder in folders]
    here = {folder.path: fit(folder.config) for folder in todo}
    return [here.get(folder.path) or finished(folder) for folder in folders]


def _steps(folder: RunFolder) -> float:
    """How many steps a run takes, if that can be told without its data."""
    config = folder.config
    return math.inf if config.train_size is None else config.epochs * config.train_size / config.batch_size


def _sent(config: TrainConfig) -> bytes | None:
    """A mixer's class as another process finds it, by module and name; None if it would not."""
    mixer = get_mixer(config.mixer)
    package = mixer.__module__.partition(".")[0]
    if package == "__main__" or not (_is_plugin(mixer) or PathFinder.find_spec(package)):
        return None
    try:
        return pickle.dumps(mixer)
    except (pickle.PicklingError, AttributeError):  # defined in a function
        return None


def _is_plugin(mixer: type) -> bool:
    return mixer.__module__.startswith(MODULE_PREFIX)


def _train_elsewhere(jobs: list[tuple[TrainConfig, bytes]], processes: int, threads: int) -> None:
    before = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    with (
        progress(len(jobs), f"training, {processes} at once", unit="runs") as bar,
        ProcessPoolExecutor(processes, spawn, initializer=_begin, initargs=(threads,)) as pool,
    ):
        try:
            with without_main():  # each of the first of them starts a process
                running = {pool.submit(_train, *job): job[0] for job in jobs}
            for run in as_completed(running):
                config, row = running[run], run.result()
                name = f"{config.mixer} {config.scale}, seed {config.seed}"
                for sentence in row.get("health", []):
                    bar.say(f"{name}: health: {sentence}")
                bar.update(note=f"{name}: top1 {row['top1']:.1f}%")
        except BaseException as error:  # among them Ctrl-C: what runs has its checkpoints
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            if isinstance(error, BrokenProcessPool):
                raise RuntimeError(
                    f"a training process died, perhaps for want of memory; with fewer than {processes} processes each "
                    "has more, and what was done is kept"
                ) from None
            raise


def _begin(threads: int) -> None:
    end_with_parent()
    torch.set_num_threads(threads)


def _train(config: TrainConfig, sent: bytes) -> dict[str, Any]:
    """Train in a worker, with the mixer as it was `_sent`; the last row. Its bar would run into those of the others."""
    load_plugins(config.plugins)
    try:
        mixer = pickle.loads(sent)  # the parent's own word; imports its module
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"mixer {config.mixer!r}: another process does not find it ({error}); with processes=1 this one trains"
        ) from None
    if config.mixer not in list_mixers() or get_mixer(config.mixer) is not mixer:
        register_mixer(config.mixer)(mixer)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return fit(config).rows[-1]
