"""One training, `fit("quick", mixer="swin")`, or several at a time, `fit_all([...])`.

Networks as small as `nano` leave most of a processor idle: two runs on one thread each finish sooner than one after the
other on two. Worker processes are spawned, never forked, and end with the one that started them.
"""

from __future__ import annotations

import contextlib
import io
import math
import pickle
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from stm_lab import register_mixer
from stm_lab.mixers import get_mixer, list_mixers
from stm_lab.mixers.plugins import MODULE_PREFIX, load_plugins
from stm_lab.train.config import TrainConfig, load_config
from stm_lab.train.folder import RunFolder, load_run
from stm_lab.train.processes import is_child, isolated, launch
from stm_lab.train.trainer import OnRow, Result, Trainer
from stm_lab.util.devices import cores, resolve_device
from stm_lab.util.environment import code_fingerprint
from stm_lab.util.errors import UserError
from stm_lab.util.processes import side_by_side
from stm_lab.util.progress import progress

_WORTH_A_PROCESS = 300  # steps in all; of `nano` at 32x32 a process does about as many while another one starts


def fit(
    config: str | Path | Mapping[str, Any] | TrainConfig,
    *,
    force: bool = False,
    on_row: OnRow | None = None,
    **overrides: Any,
) -> Result:
    """Train one model: `fit("quick", mixer="swin", seed=1)`.

    A finished run is read from its folder, and an interrupted one goes on from its last checkpoint. If its mixer's file
    has changed since, training starts afresh and says so; with a mixer of a notebook's cell it always starts afresh.
    Afterwards the process is as it was: random numbers, Accelerate's state, environment variables, warnings' filters.

    Args:
        config: a preset's name, a YAML file, a mapping or a `TrainConfig`.
        force: start afresh, whatever the folder holds.
        on_row: called with all rows so far, on the main process: after each epoch, once its checkpoint is written, and
            at the start if the run goes on or is finished.
        **overrides: fields of `TrainConfig`, on top of `config`.

    Raises:
        UserError: the configuration does not fit, the folder holds another run, or another process trains there.
        RuntimeError: the loss is not finite any more, or a file cannot be written.
    """
    config = load_config(config, **overrides)
    load_plugins(config.plugins)
    config.design()
    if on_row is not None and config.num_processes > 1:
        raise UserError("on_row cannot follow child processes; set num_processes = 1, or read the run's metrics.jsonl")
    folder = RunFolder(config)
    if not force and folder.is_finished():
        other = folder.other_code()
        made = f", with other code ({other}, now {code_fingerprint()})" if other else ""
        print(f"{folder.path}: finished already{made}; --force (in Python force=True) trains again")
        result = finished(folder)
        if on_row is not None:
            on_row(list(result.rows))
        return result
    if config.num_processes > 1 and not is_child():
        launch(config, force=force)
        return finished(folder)
    with isolated(resolve_device(config.device)):
        return Trainer(config, force=force).run(on_row=on_row)


def finished(folder: RunFolder) -> Result:
    """The result that the folder of a finished run holds."""
    return Result.of(load_run(folder.path, device=folder.config.device), folder.read_rows(), folder.path)


# ---- several at a time -----------------------------------------------------------------------------------------------


def fit_all(
    configs: Iterable[str | Path | Mapping[str, Any] | TrainConfig], *, processes: int | None = None
) -> list[Result]:
    """Train one model for each configuration, several at a time; the results of `fit`, in that order.

    Args:
        configs: what `fit` takes.
        processes: how many train at once; default: one a core on CPUs, one in all on GPUs or if the runs are done
            sooner than processes start. With one, this process trains; so it does if a mixer is defined where no other
            process finds it, as in a notebook's cell. Mixers of an imported module, or of `plugins`, are found.

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
    jobs = [(folder.config, _sent(folder.config)) for folder in todo]
    if processes > 1 and all(sent for _, sent in jobs):
        for said in filter(None, map(RunFolder.outdated, todo)):
            print(said)  # the workers' output is not seen
        _train_elsewhere(jobs, processes, threads=max(1, cores() // processes))
        return [finished(folder) for folder in folders]
    here = {folder.path: fit(folder.config) for folder in todo}
    return [here.get(folder.path) or finished(folder) for folder in folders]


def _steps(folder: RunFolder) -> float:
    """How many steps a run takes, or infinity if only its data tell."""
    config = folder.config
    return math.inf if config.train_size is None else config.epochs * config.train_size / config.batch_size


def _sent(config: TrainConfig) -> bytes | None:
    """The class of a run's mixer, pickled by module and name; None if another process would not find it."""
    mixer = get_mixer(config.mixer)
    module = mixer.__module__
    if module == "__main__" or not (module.startswith(MODULE_PREFIX) or PathFinder.find_spec(module.split(".")[0])):
        return None
    try:
        return pickle.dumps(mixer)
    except (pickle.PicklingError, AttributeError):  # defined in a function
        return None


def _train_elsewhere(jobs: list[tuple[TrainConfig, bytes]], processes: int, threads: int) -> None:
    with progress(len(jobs), f"training, {processes} at once", unit="runs") as bar:
        for number, row in side_by_side(_train, jobs, processes, threads=threads):  # what is ended has its checkpoints
            config, _ = jobs[number]
            name = f"{config.mixer} {config.scale}, seed {config.seed}"
            for sentence in row.get("health", []):
                bar.say(f"{name}: health: {sentence}")
            bar.update(note=f"{name}: top1 {row['top1']:.1f}%")


def _train(config: TrainConfig, sent: bytes) -> dict[str, Any]:
    """Train in a worker, with the mixer that was `_sent`; the last row. Nothing is printed: bars would mix."""
    load_plugins(config.plugins)
    try:
        mixer = pickle.loads(sent)  # from the parent process; imports its module
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"mixer {config.mixer!r}: another process does not find it ({error}); with processes=1 this one trains"
        ) from None
    if config.mixer not in list_mixers() or get_mixer(config.mixer) is not mixer:
        register_mixer(config.mixer)(mixer)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return fit(config).rows[-1]
