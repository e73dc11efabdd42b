"""How many answers are wrong when pictures are corrupted, and how much more so than for a baseline."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from stm_lab.measure._batches import Data, as_images, check_classes, device_of, evaluating, model_name, rows_of, sight
from stm_lab.measure.corruptions import CORRUPTIONS, SEVERITIES, TABLES, corrupt, table_for
from stm_lab.util.errors import UserError, check_known
from stm_lab.util.progress import progress

_LONG = 20_000  # corrupted images from which on progress is shown


@dataclass(frozen=True)
class Baseline:
    """What corruption errors are relative to: errors in percent, on clean images and by corruption, the mean over
    `severities` of `table`. `images`: how many; None for published numbers, which any number is compared with."""

    name: str
    clean_error: float
    mean_error: Mapping[str, float]
    severities: tuple[int, ...] = SEVERITIES
    table: str = "imagenet-c"
    images: int | None = None

    @classmethod
    def of(cls, results: Sequence[CorruptionError]) -> Baseline:
        """The mean of results of one model or of its seeds. Raises UserError for none, and for results that were not
        measured alike."""
        if not results:
            raise UserError("Baseline.of: no results")
        first = results[0]
        if len({(one.corruptions, one.severities, one.table, one.images) for one in results}) > 1:
            raise UserError("Baseline.of: results of different corruptions, severities, tables or numbers of images")
        means = np.mean([one.mean_error for one in results], 0).tolist()
        clean = float(np.mean([one.clean_error for one in results]))
        mean_error = dict(zip(first.corruptions, means, strict=True))
        return cls(first.model, clean, mean_error, first.severities, first.table, first.images)


# Hendrycks and Dietterich 2019 (arXiv 1903.12261): on the files of ImageNet-C, at 224 pixels. Only for models of
# ImageNet-1k, and not for frost, which is drawn here.
_ALEXNET_ERRORS = (
    (88.6428, 89.4468, 92.2640),  # noise
    (81.9880, 82.6268, 78.5948, 79.8360),  # blur
    (86.6816, 82.6572, 81.9324, 56.4592),  # weather
    (85.3204, 64.6056, 71.7840, 60.6500),  # digital
)
ALEXNET = Baseline("alexnet", 43.5, dict(zip(CORRUPTIONS, itertools.chain(*_ALEXNET_ERRORS), strict=True)))


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
        return self._ratio(self.mean_error, 0.0)

    @property
    def relative_ce(self) -> np.ndarray:
        clean = np.nan if self.baseline is None else self.baseline.clean_error
        return self._ratio(self.mean_error - self.clean_error, clean)

    @property
    def mce(self) -> float:
        return float(self.ce.mean())

    @property
    def relative_mce(self) -> float:
        return float(self.relative_ce.mean())

    def _ratio(self, ours: np.ndarray, clean: float) -> np.ndarray:
        """`ours`, (C,), over the baseline's errors less `clean`, in percent; NaN where these are not above zero."""
        by_name = {} if self.baseline is None else self.baseline.mean_error
        theirs = np.array([by_name.get(name, np.nan) for name in self.corruptions]) - clean
        return 100 * ours / np.where(theirs > 0, theirs, np.nan)

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
        count = len(self.severities)
        return rows_of(
            self,
            "model images table",
            corruption=np.repeat(self.corruptions, count),
            severity=np.tile(self.severities, len(self.corruptions)),
            error=self.error.ravel(),
            clean_error=self.clean_error,
            baseline=None if self.baseline is None else self.baseline.name,
            ce=self.ce.repeat(count),
            relative_ce=self.relative_ce.repeat(count),
        )


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
    """Measure errors on the corruptions of ImageNet-C (see `corrupt`), made in batches from a seed.

    All models, by name, see the same corrupted images. They may normalise differently, but take images of one size.

    Args:
        data: (images, labels), images (N, 3, H, W) from 16 pixels on, or a Dataset, which is decoded at `image_size`
            (default: the first model's own).
        corruptions, severities: some of `CORRUPTIONS`, and of 1 to 5.
        table: whose numbers the severities are, see `corrupt`.
        device: default each model's own. seed: of the corruptions, and for models that draw random numbers.

    Raises:
        UserError: unknown corruptions, severities, table or device, data that are no labelled images, a model without
            a classifier or of other classes, logits that are not finite.
    """
    if not models:
        raise UserError("corruption_errors: no models")
    for name in corruptions:
        check_known("corruption", name, CORRUPTIONS)
    if table is not None:
        check_known("table of severities", table, TABLES)
    if not corruptions or not severities or not set(severities) <= set(SEVERITIES):
        raise UserError(f"corruptions {list(corruptions)}, severities {list(severities)}: expected some, and 1 to 5")
    first = next(iter(models.values()))
    images = as_images(data, first, image_size)
    if images.labels is None:
        raise UserError("data: images without labels; errors take (images, labels) or a Dataset")
    views = list(itertools.product(corruptions, severities))
    is_long = len(views) * len(images.pixels) > _LONG
    with ExitStack() as stack, torch.inference_mode():
        judges = [(one, sight(one, stack.enter_context(evaluating(one, device, seed)))) for one in models.values()]

        def error(corruption: str | None, severity: int) -> np.ndarray:
            """(M,): of each model, in percent, on one view of all images; None: as they are."""
            wrong = np.zeros(len(judges), int)
            for places, pixels, labels in images.parts(device_of(first, device), batch_size):
                if corruption is not None:
                    pixels = corrupt(pixels, corruption, severity, seed=seed, first=int(places[0]), table=table)
                for i, (model, sees) in enumerate(judges):
                    logits = sees(pixels)
                    check_classes(model, logits, labels)
                    wrong[i] += int((logits.argmax(1).cpu() != labels.cpu()).sum())
            return wrong * (100 / len(images.pixels))

        clean = error(None, 0)
        told = progress(views, "corrupted images", unit="view") if is_long else views
        errors = np.stack([error(*view) for view in told], 1)  # (M, C * S)
    return {
        name: CorruptionError(
            model=model_name(model),
            images=len(images.pixels),
            table=table or table_for(images.pixels.shape[-2:]),
            corruptions=tuple(corruptions),
            severities=tuple(severities),
            clean_error=float(clean[i]),
            error=errors[i].reshape(len(corruptions), len(severities)),
        )
        for i, (name, model) in enumerate(models.items())
    }
