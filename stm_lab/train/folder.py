"""A training run's folder: `config.yaml  environment.json  metrics.jsonl  checkpoints/  model.safetensors`.

What runs is written first, the weights last and in one go: a folder with weights is a finished run. One with
checkpoints and no weights was interrupted, and goes on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from stm_lab import build_model, data, list_mixers
from stm_lab.devices import resolve_device
from stm_lab.environment import describe_environment
from stm_lab.errors import UserError
from stm_lab.mixers import get_mixer
from stm_lab.plugins import load_plugins
from stm_lab.train import checkpoints
from stm_lab.train.config import TrainConfig, load_config

CONFIG, ENVIRONMENT, METRICS, WEIGHTS = "config.yaml", "environment.json", "metrics.jsonl", "model.safetensors"


class RunFolder:
    """The folder that a run writes; making this object touches nothing.

    Attributes:
        path: absolute.
        checkpoints: the folder of the checkpoints.
        repeatable: whether the run can be taken up, or made, by another process: its mixer stands in a file.
        identity: what decides the run's outcome: its configuration, its data, its plugins. A folder that holds a run
            of another identity is refused.
    """

    def __init__(self, config: TrainConfig):
        self.config = config
        self.path = config.run_dir()
        self.checkpoints = self.path / "checkpoints"
        start = _weights_file(config)
        self.identity = config.result_fields() | {
            "data": data.fingerprint(config.recipe, data_root=config.data_root),
            "pixels": data.pixels_of(config.recipe, data_root=config.data_root, image_size=config.image_size),
            "plugins": [_sha256(Path(file).expanduser()) for file in config.plugins],
            "weights": config.weights if start is None else _sha256(start),
        }
        # what a notebook's cell defines may have changed since: such a run neither goes on nor counts as done
        self.repeatable = get_mixer(config.mixer).__module__ != "__main__"

    def is_finished(self) -> bool:
        """Whether this very run is there, with its weights. Raises UserError if another run is."""
        self._check_identity()
        return self.repeatable and (self.path / WEIGHTS).is_file() and self._identity_there() is not None

    def begin(self, device: torch.device, *, processes: int, afresh: bool) -> None:
        """Make the folder, or go on in it; `afresh`: whatever run is there goes.

        Raises UserError if the folder cannot be made or written, or holds another run.
        """
        try:
            if not afresh:
                self._check_identity()
            if afresh or not self.repeatable:
                self._clear()
            self.path.mkdir(parents=True, exist_ok=True)
            environment = describe_environment(device) | {"processes": processes, "run": self.identity}
            _replace(self.path / ENVIRONMENT, json.dumps(environment, indent=1) + "\n")
            _replace(self.path / CONFIG, self.config.to_yaml())
        except OSError as error:
            raise UserError(f"out = {str(self.path)!r}: {error.strerror}") from None

    def _clear(self) -> None:
        """Remove what a run writes, and nothing else."""
        for name in (WEIGHTS, METRICS, ENVIRONMENT):
            (self.path / name).unlink(missing_ok=True)
        for events in self.path.rglob("events.out.tfevents.*"):
            events.unlink()
        if self.checkpoints.exists():
            shutil.rmtree(self.checkpoints)

    def _identity_there(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.path / ENVIRONMENT).read_text(encoding="utf-8")).get("run")
        except (OSError, ValueError):
            return None

    def _check_identity(self) -> None:
        there = self._identity_there()
        if there == self.identity:
            return
        if there is None:
            strange = [
                path.name for path in (self.path / WEIGHTS, self.path / METRICS, self.checkpoints) if path.exists()
            ]
            if strange:
                raise UserError(
                    f"out = {str(self.path)!r} holds {strange[0]}, and nothing says of which run; choose another "
                    "folder, or --force to replace it"
                )
            return
        names = [name for name in self.identity if there.get(name) != self.identity[name]]
        example = f"{names[0]} = {there.get(names[0])!r} there, {self.identity[names[0]]!r} here"
        more = f", and {len(names) - 1} more" if len(names) > 1 else ""
        raise UserError(
            f"out = {str(self.path)!r} holds another run ({example}{more}); choose another folder, or --force to "
            "replace it"
        )

    def write_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """All lines of `metrics.jsonl`, in one go."""
        _replace(self.path / METRICS, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))

    def read_rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / METRICS).read_text(encoding="utf-8").splitlines()]

    def save_weights(self, state: Mapping[str, torch.Tensor], **facts: Any) -> None:
        """Write a model's state in one go, with what `load_run` has to know about it beside the configuration."""
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        # not save_file, whose files nobody else may read
        contents = safetensors.torch.save(state, {name: str(fact) for name, fact in facts.items()})
        checkpoints.write(self.path / WEIGHTS, contents)


def _replace(path: Path, text: str) -> None:
    checkpoints.write(path, text.encode())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_plugins(folder: Path, config: TrainConfig) -> None:
    """Raise UserError if a file of the run's plugins is not what it was then."""
    then = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))["run"]["plugins"]
    for file, digest in zip(config.plugins, then, strict=True):
        path = Path(file).expanduser()
        if path.is_file() and _sha256(path) != digest:
            raise UserError(
                f"plugin {file!r} has changed since the run in {folder}; bring back the file that it ran with"
            )


def _weights_file(config: TrainConfig) -> Path | None:
    """The file that a run starts from, if that is a path. Raises UserError if there is none."""
    if config.weights in ("none", "pretrained"):
        return None
    path = Path(config.weights).expanduser()
    path = path / WEIGHTS if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f"weights = {config.weights!r}: no such file; expected 'none', 'pretrained', the folder of a finished run, "
            "or a checkpoint's file"
        )
    return path


def model_of(config: TrainConfig, num_classes: int, image_size: int) -> nn.Module:
    """The model that a run starts from. Raises UserError for a mixer, scale, option or weights that are not there."""
    options = {"img_size": image_size, **config.model_options}
    if config.drop_path_rate is not None:
        options["drop_path_rate"] = config.drop_path_rate
    pretrained = config.weights == "pretrained"
    model = build_model(config.mixer, config.scale, num_classes=num_classes, pretrained=pretrained, **options)
    start = _weights_file(config)
    if start is not None:
        model.load_pretrained(start)
    model.set_grad_checkpointing(config.grad_checkpointing)
    return model


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
        _check_plugins(folder, config)
        load_plugins(config.plugins)
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            facts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a handle, not a dict)
        untrained = config.model_copy(update={"weights": "none"})
        model = model_of(untrained, int(facts["num_classes"]), int(facts["image_size"]))
        model.load_state_dict(state)
    except (SafetensorError, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder / WEIGHTS}: not the weights of a training run ({error})") from None
    except RuntimeError as error:  # load_state_dict lists what is missing, unexpected and misshapen
        raise UserError(f"{folder / WEIGHTS}: {' '.join(str(error).split())}") from None
    return model.eval().to(resolve_device(device))
