"""A training run's folder: `config.yaml  environment.json  metrics.jsonl  checkpoints/  model.safetensors`.

What runs is written first, the weights last and in one go: a folder with weights is a finished run. One with
checkpoints and no weights was interrupted, and goes on.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from filelock import AcquireReturnProxy
from torch import nn

from stm_lab import build_model, data, list_mixers, load_published
from stm_lab.mixers import get_mixer
from stm_lab.mixers.plugins import load_plugins
from stm_lab.pixels import EvaluationView
from stm_lab.published import read_facts
from stm_lab.train.config import TrainConfig, load_config
from stm_lab.util import files, folders, jsonfiles, paths
from stm_lab.util.devices import resolve_device
from stm_lab.util.environment import code_fingerprint, describe_environment
from stm_lab.util.errors import UserError

CONFIG, ENVIRONMENT, METRICS, WEIGHTS = "config.yaml", "environment.json", "metrics.jsonl", "model.safetensors"


class RunFolder:
    """The folder that a run writes; making this object touches nothing.

    Attributes:
        path: absolute.
        checkpoints: the folder of the checkpoints.
        repeatable: whether the run can be taken up, or made, by another process: its mixer stands in a file.
        identity: what decides the run's outcome: its configuration, its data, its plugins, and the file that its mixer
            is written in. A folder that holds a run of another identity is refused; but one that differs in the
            mixer's file alone is this run before somebody worked on the mixer, and is made anew.
    """

    def __init__(self, config: TrainConfig):
        self.config = config
        self.path = config.run_dir()
        self.checkpoints = self.path / "checkpoints"
        start = _weights_file(config)
        data.load_recipe(config.recipe).check_sizes(config.model_dump())
        self.identity = config.result_fields() | {
            "data": data.fingerprint(config.recipe, data_root=config.data_root),
            "pixels": data.pixels_of(
                config.recipe, data_root=config.data_root, image_size=view_of(config).resized_side
            ),
            "plugins": [_sha256(paths.expanded(file)) for file in config.plugins],
            "weights": config.weights if start is None else _sha256(start),
            "mixer_source": _source_of(get_mixer(config.mixer)),
        }
        self._held: AcquireReturnProxy | None = None
        # what a notebook's cell defines may have changed since: such a run neither goes on nor counts as done
        self.repeatable = get_mixer(config.mixer).__module__ != "__main__"

    def is_finished(self) -> bool:
        """Whether this very run is there, with its weights and all its rows.

        The last checkpoint has the rows too: a finished run with damaged ones goes on from there, at its end.

        Raises UserError if another run is there, or if this one is finished but the rows are nowhere.
        """
        self._check_identity()
        there = self.repeatable and (self.path / WEIGHTS).is_file() and self._identity_there() is not None
        if not there or self.is_outdated():
            return False
        try:
            self.read_rows()
        except jsonfiles.Damaged as error:
            if not any(self.checkpoints.glob("*.safetensors")):
                raise UserError(
                    f"{error}; the run is finished and no checkpoint has its rows; bring the file back, or --force (in "
                    "Python force=True) to train again"
                ) from None
            jsonfiles.tell([f"{error}; made again from the last checkpoint"])
            return False
        return True

    def is_outdated(self) -> bool:
        """Whether this very run is there, whole or in part, but its mixer's source has changed since."""
        there = self._identity_there()
        # a field that decided the outcome once, and does so no longer, makes no other run
        return (
            there is not None and there["mixer_source"] != self.identity["mixer_source"] and not self._differing(there)
        )

    def other_code(self) -> str | None:
        """The fingerprint of the code that the run there was made with, if it is not this one."""
        made_with = self._environment_there().get("code")
        return made_with if made_with != code_fingerprint() else None

    def begin(self, device: torch.device, *, processes: int, afresh: bool) -> None:
        """Make the folder, or go on in it, and hold it until `release`; `afresh`: whatever run is there goes.

        Raises UserError if the folder cannot be made or written, holds another run, or is held by another process.
        """
        try:
            if not afresh:
                self._check_identity()
            self._held = folders.hold(self.path, "training")
            outdated = self.is_outdated()
            if outdated and not afresh:
                print(self.outdated(), flush=True)
            if afresh or outdated or not self.repeatable:
                self._clear()
            made_with = {"code": code_fingerprint(), "processes": processes, "run": self.identity}
            environment = describe_environment(device) | made_with
            _replace(self.path / ENVIRONMENT, json.dumps(environment, indent=1) + "\n")
            _replace(self.path / CONFIG, self.config.to_yaml())
        except OSError as error:
            raise UserError(f"out = {str(self.path)!r}: {error.strerror}") from None

    def outdated(self) -> str:
        """What is said of a run that `is_outdated`."""
        return f"{self.path}: the source of mixer {self.config.mixer!r} has changed since; training afresh"

    def release(self) -> None:
        """Let others train here. Else the system does so when the process ends, however it does."""
        if self._held is not None:
            self._held.lock.release()

    def _clear(self) -> None:
        """Remove what a run writes, and nothing else."""
        for name in (WEIGHTS, METRICS, ENVIRONMENT):
            (self.path / name).unlink(missing_ok=True)
        for events in self.path.rglob("events.out.tfevents.*"):
            events.unlink()
        if self.checkpoints.exists():
            shutil.rmtree(self.checkpoints)

    def _environment_there(self) -> dict[str, Any]:
        return jsonfiles.mapping(self.path / ENVIRONMENT, ("run",))

    def _identity_there(self) -> dict[str, Any] | None:
        there = self._environment_there().get("run")
        # of a run from before the source was noted nothing is known, and what took hours is not thrown away for that
        return None if there is None else {"mixer_source": self.identity["mixer_source"]} | there

    def _differing(self, there: dict[str, Any]) -> list[str]:
        """The names in which another identity differs from ours, but for the mixer's source."""
        return [name for name in self.identity if name != "mixer_source" and there.get(name) != self.identity[name]]

    def _check_identity(self) -> None:
        there = self._identity_there()
        if there is None:
            strange = [
                path.name for path in (self.path / WEIGHTS, self.path / METRICS, self.checkpoints) if path.exists()
            ]
            if strange:
                raise UserError(
                    f"out = {str(self.path)!r} holds {strange[0]}, and nothing says of which run; choose another "
                    "folder, or --force (in Python force=True) to replace it"
                )
            return
        names = self._differing(there)
        if names:
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(
                f"out = {str(self.path)!r} holds another run ({self._difference(names[0], there)}{more}); choose "
                "another folder, or --force (in Python force=True) to replace it"
            )

    def _difference(self, name: str, there: dict[str, Any]) -> str:
        """One thing in which the run there is another, in words."""
        then, now = there.get(name), self.identity[name]
        if name == "plugins" and isinstance(then, list) and len(then) == len(now):
            changed = [repr(file) for file, a, b in zip(self.config.plugins, then, now, strict=True) if a != b]
            return f"plugin {' and '.join(changed)} has changed since"
        return f"{name} = {then!r} there, {now!r} here"

    def write_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """All lines of `metrics.jsonl`, in one go."""
        _replace(self.path / METRICS, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))

    def read_rows(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, one mapping an epoch. Raises Damaged if one is damaged or missing."""
        return jsonfiles.all_epochs(self.path / METRICS, self.config.epochs)

    def save_weights(self, state: Mapping[str, torch.Tensor], **facts: Any) -> None:
        """Write a model's state in one go, with `facts` and what else says of which model it is."""
        contents = weights_with_facts(state, facts_of(self.config) | facts)
        files.write_whole(self.path / WEIGHTS, contents, durable=True)
        for unfinished in self.path.glob(f"{WEIGHTS}.*{files.UNFINISHED}"):  # of a process that was killed
            unfinished.unlink(missing_ok=True)


def _replace(path: Path, text: str) -> None:
    files.write_whole(path, text.encode(), durable=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def facts_of(config: TrainConfig) -> dict[str, Any]:
    """What a file of weights says of its model, so that it needs no configuration: how to build it, what it knows."""
    options = {"design": "unified"} | config.result_fields()["model_options"]
    facts = {
        "architecture": f"{options.pop('design')}_{config.mixer}_{config.scale}",
        "model_args": json.dumps(options, sort_keys=True),
        "crop_pct": config.crop_pct,
    }
    # a path would mean nothing elsewhere
    return facts | ({"recipe": config.recipe} if config.recipe in data.list_recipes() else {})


def weights_with_facts(state: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> bytes:
    """A .safetensors file of a model's state, with facts as its metadata; the same bytes whenever it is made."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # not save_file, whose files nobody else may read
    return _in_order(safetensors.torch.save(state, {name: str(fact) for name, fact in facts.items()}))


def _in_order(contents: bytes) -> bytes:
    """A safetensors file with its metadata in alphabetical order: the library's own is another in every process."""
    length = int.from_bytes(contents[:8], "little")
    header = json.loads(contents[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + contents[8 + length :]


@functools.cache  # an imported class stays what it was while its file is edited; imported anew it is another class
def _source_of(mixer: type[nn.Module]) -> str | None:
    """The sha256 of the file in which a mixer is defined; None if it is in none, as in a notebook's cell."""
    try:
        return _sha256(Path(inspect.getsourcefile(mixer)))
    except (TypeError, OSError):
        return None


def _check_plugins(folder: Path, config: TrainConfig) -> None:
    """Raise UserError if a file of the run's plugins is not what it was then."""
    then = jsonfiles.mapping(folder / ENVIRONMENT, ("run",)).get("run", {}).get("plugins")
    then = then if isinstance(then, list) else []  # else nobody knows
    for file, digest in zip(config.plugins, then, strict=False):
        path = paths.expanded(file)
        if path.is_file() and _sha256(path) != digest:
            raise UserError(
                f"plugin {file!r} has changed since the run in {folder}; bring back the file that it ran with"
            )


def _weights_file(config: TrainConfig) -> Path | None:
    """The file that a run starts from, if that is a path. Raises UserError if there is none."""
    if config.weights in ("none", "pretrained"):
        return None
    path = paths.expanded(config.weights)
    path = path / WEIGHTS if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f"weights = {config.weights!r}: no such file; expected 'none', 'pretrained', the folder of a finished run, "
            "or a checkpoint's file"
        )
    return path


def view_of(config: TrainConfig) -> EvaluationView:
    """How a run's validation images are resized and cropped; `model_of` gives the same view to the model."""
    return EvaluationView(config.image_size or data.load_recipe(config.recipe).image_size, config.crop_pct)


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
    model.pretrained_cfg |= {"input_size": (3, image_size, image_size), "crop_pct": config.crop_pct}
    model.set_grad_checkpointing(config.grad_checkpointing)
    return model


def load_run(folder: str | Path, *, device: str | torch.device = "cpu") -> nn.Module:
    """The trained model of a run's folder, in evaluation mode on `device`. Nothing in the weights' file is executed.

    If its mixer is not registered, the run's plugins are loaded.

    Raises:
        UserError: no such folder, no training run in it, an unfinished one, or weights of another model.
    """
    folder = paths.expanded(folder)
    for name, meaning in ((CONFIG, "it is no training folder"), (WEIGHTS, "the run is not finished")):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: {f'no {name}: {meaning}' if folder.is_dir() else 'no such folder'}")
    config = load_config(folder / CONFIG)
    if config.mixer not in list_mixers():
        _check_plugins(folder, config)
        load_plugins(config.plugins)
    path = folder / WEIGHTS
    try:
        facts = read_facts(path)
        num_classes, image_size = int(facts["num_classes"]), int(facts["image_size"])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: not the weights of a training run ({error})") from None
    untrained = config.model_copy(update={"weights": "none"})
    model = load_published(model_of(untrained, num_classes, image_size), path)
    return model.eval().to(resolve_device(device))
