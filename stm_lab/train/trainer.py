"""Training: one run is one `Trainer`, whose state is the model, its average, the optimizer and the steps done.

Nothing random is carried from step to step: the order of the images, their views, mixing and drop path are functions
of the seed and of the epoch or step. So a checkpoint is that state, a run that was killed goes on as if it had not
been, and a step may be dealt out to any number of processes.
"""

from __future__ import annotations

import io
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from stm_lab import data
from stm_lab.data import rng
from stm_lab.data.views import TrainingViews, seeded
from stm_lab.pixels import Normalize
from stm_lab.train import checkpoints, health
from stm_lab.train.batches import Batches, load_splits, mixing
from stm_lab.train.checkpoints import pack, unpack, weights_of
from stm_lab.train.config import TrainConfig
from stm_lab.train.evaluation import count
from stm_lab.train.folder import RunFolder, model_of, view_of
from stm_lab.train.optim import WeightAverage, clip_gradients, make_optimizer, schedule
from stm_lab.train.processes import make_batch_norms_global
from stm_lab.util.devices import keep_freed_memory, resolve_device
from stm_lab.util.errors import UserError
from stm_lab.util.processes import end_with_parent
from stm_lab.util.progress import progress

_STEP = 2**32  # sets these random numbers apart from those of orders and views, whose keys are smaller

OnRow = Callable[[list[dict[str, Any]]], object]  # called with a run's rows so far


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        model: with the weights that were saved, in evaluation mode, on the device that it was trained on.
        metrics: the last row, but `seconds` of the whole run, and the model's number of `parameters`.
        rows: one mapping an epoch, the lines of `metrics.jsonl`:
            `epoch`, `step`: how many are done; the last epoch may be a part of one.
            `loss`, `grad_norm` (before clipping): means over the epoch's steps; `grad_norm_max`; `lr`: the last step's.
            `images_per_second` of training; `data_wait`: the share (0 to 1) of its time spent waiting for a batch.
            `weights`: "ema" or "raw", those that the run saves, of which `top1` (percent of the validation split) and
            `validation_loss` are; `top1_raw`: that of the weights that the optimizer moves.
            `seconds`: wall time of the epoch and its evaluation; `health`: what looks wrong, if anything does.
        run_dir: the absolute folder.
    """

    model: nn.Module
    metrics: dict[str, Any]
    rows: list[dict[str, Any]]
    run_dir: Path

    @classmethod
    def of(cls, model: nn.Module, rows: list[dict[str, Any]], run_dir: Path) -> Result:
        parameters = sum(parameter.numel() for parameter in model.parameters())
        metrics = rows[-1] | {"parameters": parameters, "seconds": sum(row["seconds"] for row in rows)}
        return cls(model, metrics, rows, run_dir)


class Trainer:
    """One run, ready to start or to go on from its last checkpoint.

    Raises UserError if the configuration does not fit its data, the processes or the folder.
    """

    def __init__(self, config: TrainConfig, *, force: bool = False):
        keep_freed_memory()
        self.config = config
        self._own_group = not torch.distributed.is_initialized()
        self.accelerator = _accelerator(config)
        self.device = self.accelerator.device
        recipe = data.load_recipe(config.recipe)
        self.label = f"{config.mixer} {config.scale} on {recipe.name}, seed {config.seed}"
        self.num_classes, self.view = len(recipe.classes), view_of(config)
        self._make_model()  # before the data: what it refuses is refused before they are fetched
        self._load_data()
        self.mix = mixing(config, self.num_classes)
        self.learning_rate = schedule(config, self.batches.steps)
        self.steps = self.learning_rate.steps
        self._check_every = 10 if self.device.type == "cpu" else 50  # steps; reading a loss waits for the device
        self.step = 0  # steps done
        self.rows: list[dict[str, Any]] = []  # of the epochs done
        self.losses = self.norms = torch.zeros(0, device=self.device)  # of the steps of this epoch, so far
        self._seconds = 0.0  # of this epoch, before the run was interrupted
        self._saved_at: int | None = None  # step of the last checkpoint
        self.folder = RunFolder(config)
        with self._holding():
            self._begin(force)

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """Release the folder if the run stops here, since a notebook's process lives on. OSError -> RuntimeError."""
        try:
            yield
        except OSError as error:
            self.folder.release()
            raise RuntimeError(f"{error.filename or self.folder.path}: {error.strerror or error}") from error
        except BaseException:
            self.folder.release()
            raise

    def _load_data(self) -> None:
        config, world, rank = self.config, self.accelerator.num_processes, self.accelerator.process_index
        if config.num_processes not in (1, world):
            raise UserError(
                f"num_processes = {config.num_processes}, but a launcher started {world}; leave it out there"
            )
        try:
            config.check_parts(world)
        except ValueError as error:
            raise UserError(error) from None
        views, self.validation = load_splits(config, self.view, rank, world)
        self.batches = Batches(
            len(views),
            config.batch_size,
            config.seed,
            parts=world * config.accumulate,
            first=rank * config.accumulate,
            count=config.accumulate,
        )
        self.loader = DataLoader(
            views,
            batch_sampler=self.batches,
            collate_fn=TrainingViews.collate,
            num_workers=config.workers,
            worker_init_fn=end_with_parent,
            persistent_workers=config.workers > 0,
            pin_memory=self.device.type == "cuda",
        )

    def _make_model(self) -> None:
        config = self.config
        self._seed(config.seed)
        model = model_of(config, self.num_classes, self.view.image_size).to(self.device)
        self.memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        model.to(memory_format=self.memory_format)
        if self.accelerator.num_processes > 1:
            make_batch_norms_global(model)
            # of the head's 1x1 convolution, whose strides differ only where its sizes are 1
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        sharded = self.accelerator.distributed_type == DistributedType.FSDP
        if sharded and config.ema_decay:
            raise UserError("ema_decay needs whole weights, and FSDP shards them; set ema_decay=null")
        self.ema = WeightAverage(model, config.ema_decay) if config.ema_decay else None
        self.normalized = Normalize(model, self.device)
        if config.compile:
            model.compile()  # in place: names and copies of the weights stay as they are
        optimizer = make_optimizer(model, config.lr, config.weight_decay, fused=config.fused)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        # the same weights without what wraps the forward pass; sharded weights are gathered by what wraps them
        self.raw = self.model if sharded else self.accelerator.unwrap_model(self.model)
        # Accelerate's own clipping and step look for packages and gather parameters each time, which takes a tenth of a
        # small model's step; shards and fp16's scaler need them
        self._plain = not sharded and self.accelerator.scaler is None
        self._parameters = list(self.raw.parameters())

    def run(self, *, on_row: OnRow | None = None) -> Result:
        """Train to the end, one row an epoch, then save the weights. `on_row`: as for `fit`."""
        with self._holding():
            result = self._run(on_row)
        self.folder.release()
        return result

    def _run(self, on_row: OnRow | None) -> Result:
        main = self.accelerator.is_main_process
        follow = on_row if main and on_row is not None else lambda rows: None
        with progress(self.steps, self.label, unit="steps", stream=None if main else io.StringIO()) as bar:
            if self.step:
                bar.say(f"{self.folder.path}: going on at step {self.step} of {self.steps}")
                bar.update(self.step)
            else:
                _tell(bar, health.before(self.config))
            if self.rows:
                follow(list(self.rows))
            while self.step < self.steps:
                self._started = time.perf_counter() - self._seconds
                row = self.train_epoch(bar) | self.evaluate() | {"seconds": time.perf_counter() - self._started}
                self._end_epoch(row, bar)
                self._seconds = 0.0
                follow(list(self.rows))
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)  # the forward pass as it was
        model = self.averaged.eval()
        state = weights_of(self.model) if self.ema is None else model.state_dict()
        if main:
            facts = {"weights": self.weights, "num_classes": self.num_classes, "image_size": self.view.image_size}
            self.folder.save_weights(state, **facts)
        self.accelerator.wait_for_everyone()
        for tracker in self.accelerator.trackers:
            tracker.finish()
        if self._own_group:  # else it is the caller's, and `end_training` would end that, too
            self.accelerator.state.destroy_process_group()
        return Result.of(model, self.rows, self.folder.path)

    def _end_epoch(self, row: dict[str, Any], bar: progress) -> None:
        said = health.during(
            self.config,
            [*self.rows, row],
            steps=self.steps,
            classes=self.num_classes,
            images=self.accelerator.num_processes * len(self.validation[1]),
        )
        if self.step == self.steps:
            said += health.after(self.config, row["top1"])
        _tell(bar, said)
        self.rows.append(row | ({"health": said} if said else {}))
        self.losses = self.norms = torch.zeros(0, device=self.device)
        self._write_rows()
        self.accelerator.log({k: v for k, v in row.items() if isinstance(v, (int, float))}, step=self.step)
        self._save()
        bar.note = f"loss {row['loss']:.3f}, top1 {row['top1']:.1f}%"

    @property
    def weights(self) -> str:
        """The run's outcome: "ema" or "raw" weights."""
        return "raw" if self.ema is None else "ema"

    @property
    def averaged(self) -> nn.Module:
        """The model with those weights."""
        return self.raw if self.ema is None else self.ema.module

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def _begin(self, force: bool) -> None:
        """Open the folder, and restore the state of its last checkpoint if there is one."""
        if self.accelerator.is_main_process:
            self.folder.begin(self.device, processes=self.accelerator.num_processes, afresh=force)
        self.accelerator.wait_for_everyone()
        if self.config.tracker != "none":
            self.accelerator.init_trackers("")
        checkpoint = checkpoints.latest(self.folder.checkpoints)
        found = torch.tensor([-1 if checkpoint is None else checkpoint.step], device=self.device)
        if len(self.accelerator.gather(found).unique()) > 1:
            raise UserError(f"out = {str(self.folder.path)!r} must be one folder that all processes share")
        if checkpoint is not None:
            self._restore(checkpoint)
        self._write_rows()

    def _write_rows(self) -> None:
        if self.accelerator.is_main_process:
            self.folder.write_rows(self.rows)

    def _save(self) -> None:
        tensors = pack(self.model, self.optimizer.optimizer, self.ema)
        scaler = self.accelerator.scaler
        facts = {
            "rows": self.rows,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "seconds": time.perf_counter() - self._started if len(self.losses) else 0.0,
        }
        if self.accelerator.is_main_process:
            epoch = {"epoch.losses": self.losses, "epoch.norms": self.norms}
            checkpoints.save(self.folder.checkpoints, self.step, tensors | epoch, facts)
        self._saved_at = self.step
        self.accelerator.wait_for_everyone()

    def _restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        self.step, self.rows = checkpoint.step, checkpoint.facts["rows"]
        self._saved_at, self._seconds = self.step, checkpoint.facts["seconds"]
        self.losses, self.norms = (checkpoint.part("epoch")[name].to(self.device) for name in ("losses", "norms"))
        unpack(checkpoint, self.model, self.optimizer.optimizer, self.ema)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(checkpoint.facts["scaler"])

    # ---- one epoch --------------------------------------------------------------------------------------------------

    def train_epoch(self, bar: progress) -> dict[str, Any]:
        """Train to the end of the epoch or of the run; returns the row's part about training."""
        per_epoch = self.batches.steps
        epoch, start = divmod(self.step, per_epoch)
        length = min(per_epoch, self.steps - epoch * per_epoch)
        self.batches.epoch, self.batches.start = epoch, start
        self.loader.dataset.set_epoch(epoch)
        losses, norms = torch.zeros(2, length, device=self.device)  # read in one go: reading waits for the device
        losses[:start], norms[:start] = self.losses, self.norms
        self.model.train()
        started = time.perf_counter()
        batches, checked = iter(self.loader), start
        waited = time.perf_counter() - started
        for i in range(start, length):
            asked = time.perf_counter()
            parts = self._next(batches)
            waited += time.perf_counter() - asked
            losses[i], norms[i] = self.train_step(parts)
            due = self.config.checkpoint_every is not None and self.step % self.config.checkpoint_every == 0
            if due or (i + 1) % self._check_every == 0 or i + 1 == length:
                self._check_finite(losses, norms, checked, i + 1)
                checked = i + 1
                bar.note = f"loss {losses[i].item():.3f}"
            if due and i + 1 < length:  # the end of the epoch has its own
                self.losses, self.norms = losses[: i + 1], norms[: i + 1]
                self._save()
            bar.update()
        seconds = time.perf_counter() - started
        counted = norms[norms.isfinite()]  # fp16 skips steps that overflow
        return {
            "epoch": self.step / per_epoch,
            "step": self.step,
            "loss": losses.mean().item(),
            "lr": self.learning_rate(self.step - 1),
            "grad_norm": counted.mean().nan_to_num().item(),
            "grad_norm_max": counted.max().item() if len(counted) else 0.0,
            "images_per_second": (length - start) * self.config.batch_size / seconds,
            "data_wait": waited / seconds,
        }

    def _next(self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        try:
            return [next(batches) for _ in range(self.config.accumulate)]
        except UserError as error:  # a broken image; a worker's traceback comes as the error's text
            said = str(error).strip().splitlines()[-1]
            raise RuntimeError(said.removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")) from error

    def train_step(self, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        """One step on this process's parts of it: images (B, 3, S, S) in [0, 1] and labels (B,) each.

        Returns the mean loss over these parts, and the norm of the whole step's gradient, on the device.
        """
        lr = self.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        seed = int(rng.words(self.config.seed, self.step, _STEP, count=1)[0, 0]) >> 32
        losses = []
        for k, (images, labels) in enumerate(parts):
            self._seed(seed + self.batches.first + k)  # for drop path, which draws for each image
            with self.accelerator.no_sync(self.model) if k + 1 < len(parts) else nullcontext():
                losses.append(self._backward(images, labels, seed, len(parts)))
        if self._plain:
            norm = clip_gradients(self._parameters, self.config.clip_grad)
            self.optimizer.optimizer.step()
        else:
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip_grad or math.inf)
            self.optimizer.step()
        self.optimizer.optimizer.zero_grad()
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.raw, step=self.step)
        return torch.stack(losses).mean(), norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _seed(self, seed: int) -> None:
        """Seed the CPU's and the device's generator; `torch.manual_seed` would seek all devices at each step."""
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def _backward(self, images: torch.Tensor, labels: torch.Tensor, seed: int, parts: int) -> torch.Tensor:
        images = self.normalized(images).contiguous(memory_format=self.memory_format)
        targets = labels.to(self.device, non_blocking=True)
        if self.mix is not None:
            with seeded(seed):  # the same for all parts of a step
                images, targets = self.mix(images, targets)  # targets: (B, classes), smoothed already
            smoothing = 0.0
        else:
            smoothing = self.config.label_smoothing
        loss = F.cross_entropy(self.model(images), targets, label_smoothing=smoothing)
        self.accelerator.backward(loss / parts)
        return loss.detach()

    def _check_finite(self, losses: torch.Tensor, norms: torch.Tensor, start: int, stop: int) -> None:
        """Average this epoch's losses [start, stop) over all processes, in place.

        Raises RuntimeError if one is not finite, or a gradient is not: the weights are spoilt then, too. (With fp16 the
        scaler leaves out a step whose gradient is not finite.)
        """
        losses[start:stop] = self.accelerator.reduce(losses[start:stop], "mean")
        checked = {"loss": losses[start:stop]}
        if self.accelerator.scaler is None:
            checked["gradient's norm"] = norms[start:stop]
        for what, values in checked.items():
            if len(wrong := (~values.isfinite()).nonzero()):
                step = self.batches.epoch * self.batches.steps + start + int(wrong[0])
                raise self._diverged(what, values[wrong[0]].item(), step)

    def _diverged(self, what: str, value: float, step: int) -> RuntimeError:
        lr = self.learning_rate(step)
        return RuntimeError(health.diverged(what, value, step, self.steps, lr, self._saved_at))

    # ---- evaluation -------------------------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, Any]:
        """The row's part about the weights, on the whole validation split."""
        models = [self.raw] if self.ema is None else [self.ema.module, self.raw]
        with self.accelerator.autocast():
            counts = torch.stack([count(model, *self.validation, self.normalized, 256) for model in models])
        counts = self.accelerator.reduce(counts, "sum")  # (models, 3): correct answers, loss, images
        top1, loss = (counts[:, 0] / counts[:, 2] * 100).tolist(), (counts[:, 1] / counts[:, 2]).tolist()
        if not math.isfinite(loss[0]):
            raise self._diverged("validation loss", loss[0], self.step - 1)
        return {"weights": self.weights, "top1": top1[0], "validation_loss": loss[0], "top1_raw": top1[-1]}


def _tell(bar: progress, said: list[str]) -> None:
    for sentence in said:
        bar.say(f"health: {sentence}")


def _accelerator(config: TrainConfig) -> Accelerator:
    device = resolve_device(config.device)
    if config.precision == "fp16" and device.type == "cpu":  # Accelerate would train in float32 and not say so
        raise UserError("precision = 'fp16' needs a GPU; on a CPU take 'no' or 'bf16'")
    try:
        return Accelerator(
            cpu=device.type == "cpu",
            mixed_precision=config.precision,
            log_with=None if config.tracker == "none" else config.tracker,
            project_dir=config.run_dir(),
        )
    except ValueError as error:
        raise UserError(f"precision = {config.precision!r}: {error}") from None
