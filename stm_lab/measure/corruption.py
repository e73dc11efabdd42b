"""How many answers are wrong when pictures are corrupted, and how much more so than for a baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from stm_lab.measure._batches import Data, Images, as_images, check_batch_size, check_classes, evaluating, model_name
from stm_lab.measure.corruptions import CORRUPTIONS, SEVERITIES, TABLES, corrupt, table_for
from stm_lab.pixels import Normalize
from stm_lab.util.errors import UserError, check_known
from stm_lab.util.progress import progress

_LONG = 300  # corrupted batches from which on progress is shown


@dataclass(frozen=True)
class Baseline:
    """What corruption errors are relative to: errors in percent, on clean images and by corruption, the mean over
    `severities` of `table`. `images`: how many, None where that is no matter (published numbers)."""

    name: str
    clean_error: float
    mean_error: Mapping[str, float]
    severities: tuple[int, ...] = SEVERITIES
    table: str = "imagenet-c"
    images: int | None = None

    @classmethod
    def of(cls, results: Sequence[CorruptionError]) -> Baseline:
        """The mean of some results, of one model or of its seeds. Raises UserError for none, and for some that were
        not measured alike."""
        if not results:
            raise UserError("Baseline.of: no results")
        first = results[0]
        kinds = {(one.corruptions, one.severities, one.table, one.images) for one in results}
        if len(kinds) > 1:
            raise UserError("Baseline.of: results of different corruptions, severities, tables or numbers of images")
        means = np.mean([one.mean_error for one in results], 0).tolist()
        clean = float(np.mean([one.clean_error for one in results]))
        return cls(
            first.model,
            clean,
            dict(zip(first.corruptions, means, strict=True)),
            first.severities,
            first.table,
            first.images,
        )


# Hendrycks and Dietterich 2019 (arXiv 1903.12261): of the classes of ImageNet-1k, at 224 pixels, on the files of
# ImageNet-C. To be used with models of ImageNet-1k only, and not for frost, which is drawn here.
ALEXNET = Baseline(
    name="alexnet",
    clean_error=43.5,
    mean_error={
        "gaussian_noise": 88.6428,
        "shot_noise": 89.4468,
        "impulse_noise": 92.2640,
        "defocus_blur": 81.9880,
        "glass_blur": 82.6268,
        "motion_blur": 78.5948,
        "zoom_blur": 79.8360,
        "snow": 86.6816,
        "frost": 82.6572,
        "fog": 81.9324,
        "brightness": 56.4592,
        "contrast": 85.3204,
        "elastic_transform": 64.6056,
        "pixelate": 71.7840,
        "jpeg_compression": 60.6500,
    },
)


@dataclass(frozen=True, eq=False)
class CorruptionError:
    """Errors (100 - top-1 accuracy) of one model, in percent, on clean and on corrupted images.

    `error`, (C, S): by `corruptions` and `severities`. `table`: whose numbers the severities are.

    With a `baseline` b, in percent, by the definitions of Hendrycks and Dietterich 2019, section 4: a corruption's `ce`
    is sum(error) / sum(error_b) over the severities, `relative_ce` is sum(error - clean) / sum(error_b - clean_b), and
    `mce`, `relative_mce` are their means over the corruptions. Below 100 the model is better than the baseline.
    NaN where the baseline's sum is not above zero, or there is no baseline.
    """

    model: str
    images: int
    table: str
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    clean_error: float
    error: np.ndarray
    baseline: Baseline | None = None

    @property
    def mean_error(self) -> np.ndarray:
        """(C,): the mean over the severities."""
        return self.error.mean(1)

    @property
    def ce(self) -> np.ndarray:
        return self._ratio(self.mean_error, [self._of_baseline(name) for name in self.corruptions])

    @property
    def relative_ce(self) -> np.ndarray:
        clean = np.nan if self.baseline is None else self.baseline.clean_error
        theirs = [self._of_baseline(name) - clean for name in self.corruptions]
        return self._ratio(self.mean_error - self.clean_error, theirs)

    @property
    def mce(self) -> float:
        return float(self.ce.mean())

    @property
    def relative_mce(self) -> float:
        return float(self.relative_ce.mean())

    def against(self, baseline: CorruptionError | Baseline) -> CorruptionError:
        """The same errors, relative to another model's.

        Raises UserError if that was measured at other severities, by another table, on another number of images, or
        not on one of the corruptions.
        """
        if isinstance(baseline, CorruptionError):
            baseline = Baseline.of([baseline])
        for what in ("severities", "table", "images"):
            theirs, ours = getattr(baseline, what), getattr(self, what)
            if theirs is not None and theirs != ours:
                raise UserError(f"baseline {baseline.name}: {what} {theirs}, but {ours} of {self.model}")
        for name in self.corruptions:
            check_known("corruption", name, baseline.mean_error, f"baseline {baseline.name}: ")
        return replace(self, baseline=baseline)

    def rows(self) -> list[dict]:
        """One row a corruption and severity; ce and relative_ce are those of the corruption, None where undefined."""
        shares = [
            [None if np.isnan(value) else float(value) for value in values] for values in (self.ce, self.relative_ce)
        ]
        return [
            {
                "model": self.model,
                "images": self.images,
                "table": self.table,
                "corruption": name,
                "severity": severity,
                "error": float(self.error[i, j]),
                "clean_error": self.clean_error,
                "baseline": None if self.baseline is None else self.baseline.name,
                "ce": shares[0][i],
                "relative_ce": shares[1][i],
            }
            for i, name in enumerate(self.corruptions)
            for j, severity in enumerate(self.severities)
        ]

    def _of_baseline(self, name: str) -> float:
        return np.nan if self.baseline is None else self.baseline.mean_error[name]

    @staticmethod
    def _ratio(ours: np.ndarray, theirs: Sequence[float]) -> np.ndarray:
        theirs = np.asarray(theirs, dtype=float)
        return 100 * ours / np.where(theirs > 0, theirs, np.nan)


def corruption_error(
    model: nn.Module,
    data: Data,
    *,
    baseline: nn.Module | CorruptionError | Baseline | None = None,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    table: str | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    image_size: int | None = None,
    seed: int = 0,
) -> CorruptionError:
    """The errors of a model on the corruptions of ImageNet-C (see `corrupt`), made here, in batches, from a seed.

    Args:
        data: (images, labels), images (N, 3, H, W) from 16 pixels on, or a Dataset, which is decoded at `image_size`
            (default: the model's own).
        baseline: a model (which sees the same corrupted images), a result measured alike, `ALEXNET`, or None.
        corruptions, severities: some of `CORRUPTIONS`, and of 1 to 5.
        table: whose numbers the severities are, see `corrupt`.
        device: default the model's own. seed: of the corruptions, and for models that draw random numbers.

    Raises:
        UserError: unknown corruptions, severities, table or device, data that are no labelled images, a model without a
            classifier or of other classes, a baseline that was not measured alike.
    """
    models = {"model": model}
    if isinstance(baseline, nn.Module):
        models["baseline"] = baseline
    options = {"corruptions": corruptions, "severities": severities, "table": table, "device": device}
    results = corruption_errors(models, data, **options, batch_size=batch_size, image_size=image_size, seed=seed)
    other = results.get("baseline", baseline)
    return results["model"] if other is None else results["model"].against(other)


def corruption_errors(
    models: Mapping[str, nn.Module],
    data: Data,
    *,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    table: str | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    image_size: int | None = None,
    seed: int = 0,
) -> dict[str, CorruptionError]:
    """`corruption_error` of several models, by name, on the same corrupted images: each is made once and shown to all.

    They need not normalise alike, but take images of one size. Arguments and errors as for `corruption_error`.
    """
    if not models:
        raise UserError("corruption_errors: no models")
    wanted = _checked(corruptions, severities, table, batch_size)
    images = _labelled(data, next(iter(models.values())), image_size)
    wrong = {name: np.zeros((len(wanted), len(severities)), int) for name in models}
    clean = dict.fromkeys(models, 0)
    starts = range(0, len(images.pixels), batch_size)
    with ExitStack() as stack, torch.inference_mode(), _told(len(starts) * len(wanted) * len(severities)) as update:
        devices = [stack.enter_context(evaluating(model, device, seed)) for model in models.values()]
        judges = {name: _Judge(model, on) for (name, model), on in zip(models.items(), devices, strict=True)}
        for start in starts:
            some = slice(start, start + batch_size)
            pixels, labels = images.pixels[some].to(devices[0]), images.labels[some]
            for name, judge in judges.items():
                clean[name] += judge.wrong(pixels, labels)
            for i, corruption in enumerate(wanted):
                for j, severity in enumerate(severities):
                    view = corrupt(pixels, corruption, severity, seed=seed, first=start, table=table)
                    for name, judge in judges.items():
                        wrong[name][i, j] += judge.wrong(view, labels)
                    update(note=corruption)
    percent = 100 / len(images.pixels)
    return {
        name: CorruptionError(
            model=model_name(model),
            images=len(images.pixels),
            table=table or table_for(images.pixels.shape[-2:]),
            corruptions=wanted,
            severities=tuple(severities),
            clean_error=clean[name] * percent,
            error=wrong[name] * percent,
        )
        for name, model in models.items()
    }


class _Judge:
    """A model in evaluation mode, to which corrupted images are shown."""

    def __init__(self, model: nn.Module, device: torch.device):
        self.model, self.normalise = model, Normalize(model, device)

    def wrong(self, pixels: Tensor, labels: Tensor) -> int:
        logits = self.model(self.normalise(pixels))
        check_classes(self.model, logits, labels)
        return int((logits.argmax(1).cpu() != labels).sum())


@contextmanager
def _told(total: int) -> Iterator[Callable[..., None]]:
    """What to call after each batch: progress is shown where there are many."""
    if total <= _LONG:
        yield lambda **_: None
    else:
        with progress(total, "corrupted images", unit="batch") as bar:
            yield bar.update


def _checked(corruptions: Sequence[str], severities: Sequence[int], table: str | None, batch_size: int) -> tuple:
    for name in corruptions:
        check_known("corruption", name, CORRUPTIONS)
    if table is not None:
        check_known("table of severities", table, TABLES)
    if not corruptions or not severities or not set(severities) <= set(SEVERITIES):
        raise UserError(f"corruptions {list(corruptions)}, severities {list(severities)}: expected some, and 1 to 5")
    check_batch_size(batch_size)
    return tuple(corruptions)


def _labelled(data: Data, model: nn.Module, image_size: int | None) -> Images:
    images = as_images(data, model, image_size)
    if images.labels is None:
        raise UserError("data: images without labels; errors take (images, labels) or a Dataset")
    return images
