"""One training from a configuration: `fit("quick", mixer="swin")` trains, goes on, or finds what is finished."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stm_lab.mixers.plugins import load_plugins
from stm_lab.train.config import TrainConfig, load_config
from stm_lab.train.folder import RunFolder, load_run
from stm_lab.train.isolation import is_child, isolated
from stm_lab.train.launch import launch
from stm_lab.train.trainer import OnRow, Result, Trainer
from stm_lab.util.devices import resolve_device
from stm_lab.util.environment import code_fingerprint
from stm_lab.util.errors import UserError


def fit(
    config: str | Path | Mapping[str, Any] | TrainConfig,
    *,
    force: bool = False,
    on_row: OnRow | None = None,
    **overrides: Any,
) -> Result:
    """Train one model: `fit("quick", mixer="swin", seed=1)`.

    If the run's folder holds this very run, finished, that is the answer, and nothing is trained; if it holds a part of
    it, the run goes on from the last checkpoint. If the file in which its mixer is written has changed since, it starts
    afresh, and says so. (So does a mixer of a notebook's cell every time, which may have changed.)

    Afterwards the process is as it was: random numbers, Accelerate's state, environment variables, warnings' filters.

    Args:
        config: a preset's name, a YAML file, a mapping or a `TrainConfig`.
        force: start afresh, whatever is there.
        on_row: called with all rows so far after each epoch, once its checkpoint is written, and at the start if some
            are there: the run goes on, or is finished. On the main process only.
        **overrides: fields of `TrainConfig`, which come on top.

    Raises:
        UserError: what is asked for does not exist or does not fit, or the folder holds another run, or another process
            trains there; nothing has been trained then.
        RuntimeError: the loss is not finite any more, or a checkpoint cannot be written.
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
    """What a folder holds whose run came to its end."""
    return Result.of(load_run(folder.path, device=folder.config.device), folder.read_rows(), folder.path)
