"""What a training run is: one frozen configuration that refuses what it does not know; and the shipped presets."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from stm_lab.data.augmentation import Augmentation
from stm_lab.designs import NETWORKS, Design
from stm_lab.mixers import list_mixers, option_names
from stm_lab.util import paths, yaml12
from stm_lab.util.errors import UserError, check_known, shown
from stm_lab.util.overrides import extended, merge
from stm_lab.util.validation import Count, validated

PRESETS = Path(__file__).parent / "presets"

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Folder = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"should be a list, such as -p 'plugins=[{value}]'")
    return value


class Outcome(BaseModel):
    """The fields that decide what comes out of a run: one with another value of any of them is another run."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    # what is trained
    mixer: str = "halo"
    scale: str = "nano"
    model_options: dict[str, Any] = {}  # `design`, and overrides of it, as `build_model` takes them
    drop_path_rate: Annotated[float, Field(ge=0, lt=1)] | None = None  # None: the design's own
    weights: str = "none"  # to start from: none, "pretrained", a run's folder, or a checkpoint's file
    plugins: Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(_listed)] = ()  # they register mixers

    # on what
    recipe: str = "shapes"
    train_size: Count | None = None  # images, balanced over the classes; None: all
    validation_size: Count | None = None
    image_size: Count | None = None  # pixels; None: the recipe's
    crop_pct: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of a validation image's shorter side that is seen
    augmentation: Augmentation = Augmentation()
    mixup: NotNegative = 0.0  # alpha; 0 is off
    cutmix: NotNegative = 0.0  # alpha; 0 is off. With both on, each is used for half of the batches
    mixup_prob: Share = 1.0  # share of steps that are mixed at all
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    # how
    epochs: Positive = 10  # may be a fraction
    batch_size: Annotated[int, Field(ge=2)] = 128  # per step, of all processes; an incomplete last one is left out
    accumulate: Count = 1  # parts of a step for each process; each has its own statistics in batch norm
    lr: Positive = 1e-3  # at the peak
    warmup_epochs: NotNegative = 1
    warmup_lr: NotNegative = 1e-6  # of the first step
    min_lr: NotNegative = 1e-5  # at the end of the cosine
    weight_decay: NotNegative = 0.05
    clip_grad: Positive | None = 5.0  # largest norm of the gradient; None: not clipped
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None  # average of the weights, warmed up; None: none
    precision: Literal["no", "fp16", "bf16"] = "no"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class TrainConfig(Outcome):
    """One run, completely. The defaults are the plainest training; the presets hold the recipes. Types are strict.

    The fields of this class itself say where and how the outcome is computed. They may change while a run is
    interrupted: they change the order of sums, and so rounding, and with several processes which draws drop path makes.
    """

    data_root: Folder | None = None
    channels_last: bool = False  # memory format of convolutions
    compile: bool = False  # torch.compile: minutes at the start, faster steps after
    grad_checkpointing: bool = False  # computes activations twice instead of keeping them
    fused: bool = True  # AdamW as one kernel
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    num_processes: Count = 1  # on this machine, in child processes; for more see `accelerate launch`
    workers: Annotated[int, Field(ge=0)] = 0  # processes that prepare batches; 0: this one does
    checkpoint_every: Count | None = None  # steps; there is one at the end of each epoch in any case
    tracker: Literal["none", "tensorboard"] = "none"  # where Accelerate sends the rows, besides metrics.jsonl
    out: Folder | None = None  # the run's folder; None: one in `runs_dir()`, named after the run

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs = {self.warmup_epochs} must be less than epochs = {self.epochs}")
        for name in ("warmup_lr", "min_lr"):
            if getattr(self, name) > self.lr:
                raise ValueError(f"{name} = {getattr(self, name)} must not be above lr = {self.lr}")
        self.check_parts(self.num_processes)
        return self

    def check_parts(self, processes: int) -> None:
        """Raise ValueError unless a step can be dealt out to so many processes, their parts, and pairs to mix."""
        paired = bool(self.mixup or self.cutmix)
        if self.batch_size % (parts := processes * self.accumulate * (1 + paired)):
            raise ValueError(
                f"batch_size = {self.batch_size} must be a multiple of {parts}: {processes} process(es), accumulate = "
                f"{self.accumulate}{', and pairs to mix' if paired else ''}"
            )

    def run_dir(self) -> Path:
        """The absolute folder of this run: `out`, or `runs_dir()/train/<recipe>-<mixer>-<scale>-s<seed>-<hash>`."""
        if self.out is not None:
            return paths.expanded(self.out).absolute()
        digest = hashlib.sha256(json.dumps(self.result_fields(), sort_keys=True).encode()).hexdigest()[:8]
        return paths.runs_dir() / "train" / f"{Path(self.recipe).stem}-{self.mixer}-{self.scale}-s{self.seed}-{digest}"

    @property
    def model_name(self) -> str:
        """What tables call the model: its mixer or, unless the design is the unified one, timm's name of it."""
        design = self.model_options.get("design", "unified")
        return self.mixer if design == "unified" else f"{design}_{self.mixer}_{self.scale}"

    def design(self) -> Design:
        """The network's design, by `model_options`. The mixer must be registered: `plugins` are loaded before.

        Raises UserError for an option that is none of the design, such as `num_classes`, which the run decides.
        """
        options = dict(self.model_options)
        network = options.pop("design", "unified")
        check_known("design", network, NETWORKS, "model_options: ")
        design = NETWORKS[network](self.mixer, self.scale)
        try:
            return design.override(**options)
        except UserError as error:
            raise UserError(f"model_options: {error}") from None

    def result_fields(self) -> dict[str, Any]:
        """The fields of `Outcome`, which decide the outcome."""
        return self.model_dump(mode="json", include=set(Outcome.model_fields))

    def to_yaml(self) -> str:
        """Every field, as a file that `load_config` reads."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def list_presets() -> list[str]:
    """The names of the shipped presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_config(source: str | Path | Mapping[str, Any] | TrainConfig, /, **overrides: Any) -> TrainConfig:
    """A configuration from a preset's name, a YAML file, a mapping, or another configuration, with `overrides` on top.

    A file or mapping may say `extends:` with a preset's name, or a file's path relative to its own.

    Raises:
        UserError: an unknown preset, a missing file, or a field that is unknown or has a wrong value, in one line.
    """
    where, file = "training configuration", None
    if isinstance(source, TrainConfig):
        values = source.model_dump()
    elif isinstance(source, Mapping):
        values = source
    else:
        where, file = str(source), _find(source, Path.cwd())
        values = yaml12.read_mapping(file)
    values = merge(extended(values, where, _find, file=file)[0], overrides)
    _check_no_options(values, where)
    config = validated(TrainConfig, values, where, also=["extends"])
    if config.mixer in list_mixers():  # else one of its plugins may register it
        try:
            config.design()
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    return config


def _check_no_options(values: Mapping[str, Any], where: str) -> None:
    """Raise UserError if a key is an option of the mixer or of its design, which belong in `model_options`."""
    mixer = values.get("mixer", TrainConfig.model_fields["mixer"].default)
    of_mixer = option_names(mixer) if mixer in list_mixers() else []
    of_design = ["design", *(field.name for field in fields(Design))]
    for name in values:
        if name not in TrainConfig.model_fields and name in (*of_mixer, *of_design):
            raise UserError(
                f"{where}: unknown key {name!r}; it is an option of the model: "
                f"-p model_options.{name}={shown(values[name])}"
            )


def _find(source: Any, folder: Path) -> Path:
    """The file of a preset, or the file at a path: what has a suffix or a folder in it is a path."""
    source = str(source)
    if source in list_presets():
        return PRESETS / f"{source}.yaml"
    path = folder / paths.expanded(source)
    if os.path.isfile(path):  # unlike Path.is_file, also where no file could have such a name
        return path.resolve()
    if path.suffix or path.name != source:
        raise UserError(f"training configuration {source!r}: no such file")
    check_known("training preset", source, list_presets())
