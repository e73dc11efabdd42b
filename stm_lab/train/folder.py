"""A training run's folder: `config.yaml  environment.json  metrics.jsonl  checkpoints/  model.safetensors`.

The weights are written last and in one go: a folder with weights is a finished run, and one with checkpoints alone was
interrupted and goes on.
"""

from __future__ import annotations

import functools
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
from stm_lab.util.files import sha256_of

CONFIG, ENVIRONMENT, METRICS, WEIGHTS = "config.yaml", "environment.json", "metrics.jsonl", "model.safetensors"
_REPLACE = "--force (in Python force=True)"


class RunFolder:
    """The folder that a run writes; making this object touches nothing.

    Attributes:
        path: absolute.
        checkpoints: the folder of the checkpoints.
        repeatable: whether another process can make the run: its mixer stands in a file. A mixer of a notebook's cell
            may have changed since, so that such a run neither goes on nor counts as finished.
        identity: what decides the run's outcome: its configuration, its data, its plugins, and its mixer's file. A
            folder with a run of another identity is refused. If only the mixer's file differs, it is this run before
            somebody worked on the mixer, and is made anew.
    """

    def __init__(self, config: TrainConfig):
        self.config = config
        self.path = config.run_dir()
        self.checkpoints = self.path / "checkpoints"
        self.repeatable = get_mixer(config.mixer).__module__ != "__main__"
        start, size = _weights_file(config), view_of(config).resized_side
        data.load_recipe(config.recipe).check_sizes(config.model_dump())
        self.identity = config.result_fields() | {
            "data": data.fingerprint(config.recipe, data_root=config.data_root),
            "pixels": data.pixels_of(config.recipe, data_root=config.data_root, image_size=size),
            "plugins": [sha256_of(paths.expanded(file)) for file in config.plugins],
            "weights": config.weights if start is None else sha256_of(start),
            "mixer_source": _source_of(get_mixer(config.mixer)),
        }
        self._held: AcquireReturnProxy | None = None

    def is_finished(self) -> bool:
        """Whether the folder holds this very run, with its weights and all its rows; a checkpoint can restore rows.

        Raises UserError if another run is there, or if this one is finished but its rows are lost.
        """
        self._check_identity()
        exists = self.repeatable and (self.path / WEIGHTS).is_file() and self._found() is not None
        if not exists or self.outdated():
            return False
        try:
            self.read_rows()
        except jsonfiles.Damaged as error:
            if not any(self.checkpoints.glob("*.safetensors")):
                where = f"{error}; the run is finished and no checkpoint has its rows"
                raise UserError(f"{where}; bring the file back, or {_REPLACE} to train again") from None
            jsonfiles.tell([f"{error}; made again from the last checkpoint"])
            return False
        return True

    def outdated(self) -> str:
        """What to say if the folder holds this very run, but its mixer's source has changed since; else ""."""
        found = self._found()
        # a field that decided the outcome once, and does so no longer, makes no other run
        if found is None or found["mixer_source"] == self.identity["mixer_source"] or self._differing(found):
            return ""
        return f"{self.path}: the source of mixer {self.config.mixer!r} has changed since; training afresh"

    def other_code(self) -> str | None:
        """The fingerprint of the code that made the run in the folder, if it is not this one."""
        made_with = self._environment().get("code")
        return made_with if made_with != code_fingerprint() else None

    def begin(self, device: torch.device, *, processes: int, afresh: bool) -> None:
        """Make the folder, or go on in it, and hold it until `release`; with `afresh` any run there is removed.

        Raises UserError if the folder cannot be made or written, holds another run, or is held by another process.
        """
        try:
            if not afresh:
                self._check_identity()
            self._held = folders.hold(self.path, "training")
            outdated = self.outdated()
            if outdated and not afresh:
                print(outdated, flush=True)
            if afresh or outdated or not self.repeatable:
                self._clear()
            made_with = {"code": code_fingerprint(), "processes": processes, "run": self.identity}
            environment = describe_environment(device) | made_with
            self._write(ENVIRONMENT, json.dumps(environment, indent=1) + "\n")
            self._write(CONFIG, self.config.to_yaml())
        except OSError as error:
            raise UserError(f"out = {str(self.path)!r}: {error.strerror}") from None

    def release(self) -> None:
        """Let others train here; the system does so when the process ends."""
        if self._held is not None:
            self._held.lock.release()

    def write_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """All lines of `metrics.jsonl`, in one go."""
        self._write(METRICS, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))

    def read_rows(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, one mapping an epoch. Raises Damaged if one is damaged or missing."""
        return jsonfiles.all_epochs(self.path / METRICS, self.config.epochs)

    def save_weights(self, state: Mapping[str, torch.Tensor], **facts: Any) -> None:
        """Write a model's state in one go, with `facts` and what else identifies its model."""
        contents = weights_with_facts(state, facts_of(self.config) | facts)
        files.write_whole(self.path / WEIGHTS, contents, durable=True)
        for unfinished in self.path.glob(f"{WEIGHTS}.*{files.UNFINISHED}"):  # of a process that was killed
            unfinished.unlink(missing_ok=True)

    def _write(self, name: str, text: str) -> None:
        files.write_whole(self.path / name, text.encode(), durable=True)

    def _clear(self) -> None:
        """Remove what a run writes, and nothing else."""
        for name in (WEIGHTS, METRICS, ENVIRONMENT):
            (self.path / name).unlink(missing_ok=True)
        for events in self.path.rglob("events.out.tfevents.*"):
            events.unlink()
        if self.checkpoints.exists():
            shutil.rmtree(self.checkpoints)

    def _environment(self) -> dict[str, Any]:
        return jsonfiles.mapping(self.path / ENVIRONMENT, ("run",))

    def _found(self) -> dict[str, Any] | None:
        """The identity of the run in the folder, if there is one."""
        found = self._environment().get("run")
        # nothing is known of a run from before the source was noted, and hours of work are not thrown away for that
        return None if found is None else {"mixer_source": self.identity["mixer_source"]} | found

    def _differing(self, found: dict[str, Any]) -> list[str]:
        return [name for name in self.identity if name != "mixer_source" and found.get(name) != self.identity[name]]

    def _check_identity(self) -> None:
        found = self._found()
        where, way_out = f"out = {str(self.path)!r}", f"choose another folder, or {_REPLACE} to replace it"
        if found is None:
            for path in (self.path / WEIGHTS, self.path / METRICS, self.checkpoints):
                if path.exists():
                    raise UserError(f"{where} holds {path.name}, and nothing says of which run; {way_out}")
        elif names := self._differing(found):
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"{where} holds another run ({self._difference(names[0], found)}{more}); {way_out}")

    def _difference(self, name: str, found: dict[str, Any]) -> str:
        then, now = found.get(name), self.identity[name]
        if name == "plugins" and isinstance(then, list) and len(then) == len(now):
            changed = [repr(file) for file, a, b in zip(self.config.plugins, then, now, strict=True) if a != b]
            return f"plugin {' and '.join(changed)} has changed since"
        return f"{name} = {then!r} there, {now!r} here"


@functools.cache  # an imported class stays what it was while its file is edited; imported anew it is another class
def _source_of(mixer: type[nn.Module]) -> str | None:
    """The sha256 of the file in which a mixer is defined; None if it is in none, as in a notebook's cell."""
    try:
        return sha256_of(Path(inspect.getsourcefile(mixer)))
    except (TypeError, OSError):
        return None


# ---- weights and models ----------------------------------------------------------------------------------------------


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
    contents = safetensors.torch.save(state, {name: str(fact) for name, fact in facts.items()})
    length = int.from_bytes(contents[:8], "little")
    header = json.loads(contents[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))  # the library's order differs by process
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + contents[8 + length :]


def _weights_file(config: TrainConfig) -> Path | None:
    """The file that a run starts from, if that is a path. Raises UserError if it does not exist."""
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
    """The model that a run starts from. Raises UserError for an unknown mixer, scale or option, or unfit weights."""
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
        UserError: no such folder, no training run in it, an unfinished one, a changed plugin, or weights of another
            model.
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


def _check_plugins(folder: Path, config: TrainConfig) -> None:
    """Raise UserError if a file of the run's plugins has changed since."""
    then = jsonfiles.mapping(folder / ENVIRONMENT, ("run",)).get("run", {}).get("plugins")
    for file, digest in zip(config.plugins, then if isinstance(then, list) else [], strict=False):
        path = paths.expanded(file)
        if path.is_file() and sha256_of(path) != digest:
            raise UserError(
                f"plugin {file!r} has changed since the run in {folder}; bring back the file that it ran with"
            )
