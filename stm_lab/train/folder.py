"""A training run's folder: `config.yaml  environment.json  metrics.jsonl  model.safetensors`.

What runs is written first, the weights last and in one go: a folder with weights is a finished run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from stm_lab import build_model, list_mixers
from stm_lab.devices import resolve_device
from stm_lab.environment import describe_environment
from stm_lab.errors import UserError
from stm_lab.plugins import load_plugins
from stm_lab.train.config import TrainConfig, load_config

CONFIG, ENVIRONMENT, METRICS, WEIGHTS = "config.yaml", "environment.json", "metrics.jsonl", "model.safetensors"


class RunFolder:
    """The folder that a run writes. Making one starts it afresh: what an earlier run left under these names goes.

    Raises:
        UserError: the folder cannot be made or written.
    """

    def __init__(self, config: TrainConfig, device: torch.device):
        self.path = config.run_dir()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / WEIGHTS).unlink(missing_ok=True)
            (self.path / CONFIG).write_text(config.to_yaml(), encoding="utf-8")
            (self.path / METRICS).write_text("", encoding="utf-8")
            environment = json.dumps(describe_environment(device), indent=1)
            (self.path / ENVIRONMENT).write_text(f"{environment}\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"out = {str(self.path)!r}: {error.strerror}") from None

    def add_row(self, row: Mapping[str, Any]) -> None:
        """One more line of `metrics.jsonl`, on disk when this returns."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def save_weights(self, model: nn.Module, **facts: Any) -> None:
        """Write the state of `model` in one go, with what `load_run` has to know about it beside the configuration."""
        unfinished = self.path / f"{WEIGHTS}.part"
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, unfinished, metadata={name: str(fact) for name, fact in facts.items()})
        os.replace(unfinished, self.path / WEIGHTS)


def model_of(config: TrainConfig, num_classes: int, image_size: int) -> nn.Module:
    """The untrained model of a configuration. Raises UserError for a mixer, scale or option that is not there."""
    options = {"img_size": image_size, **config.model_options}
    if config.drop_path_rate is not None:
        options["drop_path_rate"] = config.drop_path_rate
    return build_model(config.mixer, config.scale, num_classes=num_classes, **options)


def load_run(folder: str | Path, *, device: str | torch.device = "cpu") -> nn.Module:
    """The trained model of a run's folder, in evaluation mode on `device`. Nothing in the weights' file is executed.

    If its mixer is not registered, the run's plugins are loaded.

    Raises:
        UserError: no such folder, no training run in it, an unfinished one, or weights of another model.
    """
    folder = Path(folder).expanduser()
    for name, meaning in ((CONFIG, "it is no training folder"), (WEIGHTS, "the run is not finished")):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: {f'no {name}: {meaning}' if folder.is_dir() else 'no such folder'}")
    config = load_config(folder / CONFIG)
    if config.mixer not in list_mixers():
        load_plugins(config.plugins)
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            facts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a handle, not a dict)
        model = model_of(config, int(facts["num_classes"]), int(facts["image_size"]))
        model.load_state_dict(state)
    except (SafetensorError, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder / WEIGHTS}: not the weights of a training run ({error})") from None
    except RuntimeError as error:  # load_state_dict lists what is missing, unexpected and misshapen
        raise UserError(f"{folder / WEIGHTS}: {' '.join(str(error).split())}") from None
    return model.eval().to(resolve_device(device))
