"""Training: one run is one `Trainer`, whose state is the model, its average, the optimizer and the steps done.

Nothing random is carried from step to step: the order of the images, their views, mixing and drop path are functions
of the seed and of the epoch or step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from timm.data import Mixup
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler

from stm_lab import data
from stm_lab.data import rng
from stm_lab.data.views import TrainingViews, seeded
from stm_lab.devices import resolve_device
from stm_lab.errors import UserError
from stm_lab.plugins import load_plugins
from stm_lab.progress import progress
from stm_lab.train.config import TrainConfig, load_config
from stm_lab.train.folder import RunFolder, model_of
from stm_lab.train.optim import WarmupCosine, make_optimizer

_ORDER, _STEP = 1, 2  # what a random number is for; views have their own streams


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        model: with the weights that were saved, in evaluation mode, on the device that it was trained on.
        metrics: the last row, but `seconds` of the whole run, and the model's number of `parameters`.
        rows: one mapping an epoch, the lines of `metrics.jsonl`:
            `epoch`, `step`: how many are done; the last epoch may be a part of one.
            `loss`, `grad_norm` (before clipping): means over the epoch's steps; `lr`: the last step's.
            `images_per_second`, `data_wait`: of training; the latter is the share (0 to 1) of its time that went by
            waiting for the next batch.
            `weights`: "ema" or "raw", those that the run saves; `top1` (percent of the whole validation split) and
            `validation_loss` are theirs. `top1_raw` is that of the weights that the optimizer moves.
            `seconds`: wall time of the epoch and its evaluation.
        run_dir: the absolute folder, for `load_run`.
    """

    model: nn.Module
    metrics: dict[str, Any]
    rows: list[dict[str, Any]]
    run_dir: Path


def fit(config: str | Path | Mapping[str, Any] | TrainConfig, **overrides: Any) -> Result:
    """Train one model: `fit("quick", mixer="swin", seed=1)`.

    Args:
        config: a preset's name, a YAML file, a mapping or a `TrainConfig`.
        **overrides: fields of `TrainConfig`, which come on top.

    Raises:
        UserError: what is asked for does not exist or does not fit; nothing has been trained then.
        RuntimeError: the loss is not finite any more.
    """
    config = load_config(config, **overrides)
    load_plugins(config.plugins)
    return Trainer(config).run()


class Batches(Sampler[list[int]]):
    """Each epoch all rows in an order that depends on (seed, epoch) alone; an incomplete last batch is left out."""

    def __init__(self, size: int, batch_size: int, seed: int):
        self.size, self.batch_size, self.seed, self.epoch = size, batch_size, seed, 0

    def __len__(self) -> int:
        return self.size // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        draws = rng.words(self.seed, self.epoch, _ORDER, np.arange(self.size), count=1)[:, 0]
        order = np.argsort(draws, kind="stable")
        for step in range(len(self)):
            yield order[step * self.batch_size : (step + 1) * self.batch_size].tolist()


class Trainer:
    """Everything that one run needs, ready to `run`. Raises UserError if the configuration does not fit its data."""

    def __init__(self, config: TrainConfig):
        self.config = config
        self.accelerator = _accelerator(config)
        self.device = self.accelerator.device
        recipe = data.load_recipe(config.recipe)
        self.label = f"{config.mixer} {config.scale} on {recipe.name}, seed {config.seed}"
        num_classes, self.image_size = len(recipe.classes), config.image_size or recipe.image_size
        torch.manual_seed(config.seed)
        model = model_of(config, num_classes, self.image_size).to(self.device)
        views, self.validation = _load_data(config, self.image_size)
        self.ema = ModelEmaV3(model, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
        self.normalized = Normalize(model, self.device)
        self.batches = Batches(len(views), config.batch_size, config.seed)
        self.loader = DataLoader(
            views,
            batch_sampler=self.batches,
            collate_fn=TrainingViews.collate,
            num_workers=config.workers,
            persistent_workers=config.workers > 0,
            pin_memory=self.device.type == "cuda",
        )
        self.steps = max(1, round(config.epochs * len(self.batches)))
        warmup_steps = min(round(config.warmup_epochs * len(self.batches)), self.steps - 1)
        self.learning_rate = WarmupCosine(self.steps, warmup_steps, config.warmup_lr, config.lr, config.min_lr)
        optimizer = make_optimizer(model, config.lr, config.weight_decay)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.raw = self.accelerator.unwrap_model(self.model)  # the same weights, without what wraps the forward pass
        self.mix = _mixing(config, num_classes)
        self._check_every = 1 if self.device.type == "cpu" else 50  # steps; reading a loss waits for the device
        self.step = 0  # steps done
        self.folder = RunFolder(config, self.device)

    def run(self) -> Result:
        """Train to the end, one row an epoch; the weights are saved, and returned, once."""
        rows: list[dict[str, Any]] = []
        with progress(self.steps, self.label, unit="steps") as bar:
            while self.step < self.steps:
                started = time.perf_counter()
                row = self.train_epoch(bar) | self.evaluate() | {"seconds": time.perf_counter() - started}
                self.folder.add_row(row)
                rows.append(row)
                bar.note = f"loss {row['loss']:.3f}, top1 {row['top1']:.1f}%"
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)  # the forward pass as it was
        model = self.averaged.eval()
        self.folder.save_weights(
            model, weights=self.weights, num_classes=model.num_classes, image_size=self.image_size
        )
        totals = {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": sum(row["seconds"] for row in rows),
        }
        return Result(model, rows[-1] | totals, rows, self.folder.path)

    @property
    def weights(self) -> str:
        """Which weights are the run's outcome: "ema" or "raw"."""
        return "raw" if self.ema is None else "ema"

    @property
    def averaged(self) -> nn.Module:
        """The model with those weights."""
        return self.raw if self.ema is None else self.ema.module

    # ---- one epoch --------------------------------------------------------------------------------------------------

    def train_epoch(self, bar: progress) -> dict[str, Any]:
        """Train to the end of the epoch or of the run; the part of the row that tells how it went."""
        per_epoch = len(self.batches)
        epoch = self.step // per_epoch
        self.batches.epoch = epoch
        self.loader.dataset.set_epoch(epoch)
        length = min(per_epoch, self.steps - self.step)
        losses, norms = torch.zeros(2, length, device=self.device)  # read in one go: reading waits for the device
        self.model.train()
        waited, started = 0.0, time.perf_counter()
        batches = iter(self.loader)
        for i in range(length):
            asked = time.perf_counter()
            images, labels = next(batches)
            waited += time.perf_counter() - asked
            losses[i], norms[i] = self.train_step(images, labels)
            if (i + 1) % self._check_every == 0 or i + 1 == length:
                self._check_finite(losses[: i + 1], epoch)
                bar.note = f"loss {losses[i].item():.3f}"
            bar.update()
        seconds = time.perf_counter() - started
        return {
            "epoch": self.step / per_epoch,
            "step": self.step,
            "loss": losses.mean().item(),
            "lr": self.learning_rate(self.step - 1),
            "grad_norm": norms[norms.isfinite()].mean().nan_to_num().item(),  # fp16 skips steps that overflow
            "images_per_second": length * self.config.batch_size / seconds,
            "data_wait": waited / seconds,
        }

    def train_step(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step on images (B, 3, S, S) in [0, 1] and labels (B,). Loss and gradient norm, on the device."""
        lr = self.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        seed = int(rng.words(self.config.seed, self.step, _STEP, count=1)[0, 0]) >> 32
        torch.manual_seed(seed)  # for drop path
        images = self.normalized(images.to(self.device, non_blocking=True))
        targets = labels.to(self.device, non_blocking=True)
        if self.mix is not None:
            with seeded(seed):
                images, targets = self.mix(images, targets)  # targets: (B, classes), smoothed already
            smoothing = 0.0
        else:
            smoothing = self.config.label_smoothing
        loss = F.cross_entropy(self.model(images), targets, label_smoothing=smoothing)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip_grad or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.raw, step=self.step)
        return loss.detach(), norm

    def _check_finite(self, losses: torch.Tensor, epoch: int) -> None:
        """Raise RuntimeError, naming the first step whose loss is not finite."""
        wrong = (~losses.isfinite()).nonzero()
        if len(wrong):
            step = epoch * len(self.batches) + int(wrong[0])
            raise RuntimeError(
                f"the loss is {losses[wrong[0]].item()} at step {step} of {self.steps}, learning rate "
                f"{self.learning_rate(step):.3g}; a lower lr, a longer warm-up or a smaller clip_grad may help"
            )

    # ---- evaluation -------------------------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, Any]:
        """The part of the row that tells how good the weights are, on the whole validation split."""
        with self.accelerator.autocast():
            top1, loss = evaluate(self.averaged, *self.validation)
            top1_raw = top1 if self.ema is None else evaluate(self.raw, *self.validation)[0]
        return {"weights": self.weights, "top1": top1, "validation_loss": loss, "top1_raw": top1_raw}


@torch.inference_mode()
def evaluate(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, batch_size: int = 256
) -> tuple[float, float]:
    """Top-1 accuracy in percent and mean cross-entropy, each image counted once. `model` is left in evaluation mode.

    Args:
        model: images (B, 3, S, S) -> logits (B, classes); on any device.
        images: uint8 (N, 3, S, S), as `stm_lab.data.to_tensors` gives them; normalised here as the model wants them.
        labels: int64 (N,).
    """
    device = next(model.parameters()).device
    normalized = Normalize(model, device)
    model.eval()
    correct = loss = torch.zeros((), device=device)
    for some, targets in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        logits = model(normalized(some.to(device))).float()
        targets = targets.to(device)
        correct = correct + (logits.argmax(1) == targets).sum()
        loss = loss + F.cross_entropy(logits, targets, reduction="sum")
    return 100 * correct.item() / len(labels), loss.item() / len(labels)


class Normalize:
    """Images (B, 3, H, W), uint8 or float in [0, 1] -> float32, normalised as the model's pretrained cfg says."""

    def __init__(self, model: nn.Module, device: torch.device):
        self.mean, self.std = (
            torch.tensor(model.pretrained_cfg[name], device=device)[:, None, None] for name in ("mean", "std")
        )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        images = images.float() / 255 if images.dtype == torch.uint8 else images
        return (images - self.mean) / self.std


def _accelerator(config: TrainConfig) -> Accelerator:
    """A fresh Accelerator: its state is kept for the whole process, and a run before may have had other settings."""
    device = resolve_device(config.device)
    if config.precision == "fp16" and device.type == "cpu":  # Accelerate would train in float32 and not say so
        raise UserError("precision = 'fp16' needs a GPU; on a CPU take 'no' or 'bf16'")
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    try:
        return Accelerator(cpu=device.type == "cpu", mixed_precision=config.precision)
    except ValueError as error:
        raise UserError(f"precision = {config.precision!r}: {error}") from None


def _load_data(config: TrainConfig, image_size: int) -> tuple[TrainingViews, tuple[torch.Tensor, torch.Tensor]]:
    """Training views, and all validation images and labels in memory."""
    train, validation = (
        data.take(data.load(config.recipe, split, data_root=config.data_root), size)
        for split, size in (("train", config.train_size), ("validation", config.validation_size))
    )
    if config.batch_size > len(train):
        raise UserError(f"batch_size = {config.batch_size} is more than the {len(train)} training images")
    views = TrainingViews(train, image_size=image_size, augmentation=config.augmentation, seed=config.seed)
    return views, data.to_tensors(validation, image_size)


def _mixing(config: TrainConfig, num_classes: int) -> Mixup | None:
    if not (config.mixup or config.cutmix):
        return None
    return Mixup(
        mixup_alpha=config.mixup,
        cutmix_alpha=config.cutmix,
        prob=config.mixup_prob,
        label_smoothing=config.label_smoothing,
        num_classes=num_classes,
    )
