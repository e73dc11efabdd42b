"""What trained models see in your own pictures: `predict("photo.jpg", "runs/00_quickstart/1a2b3c")`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stm_lab.data.image_files import is_image_file, open_image
from stm_lab.util import paths
from stm_lab.util.devices import resolve_device
from stm_lab.util.errors import UserError, nearest
from stm_lab.util.files import told

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from stm_lab import zoo
    from stm_lab.pixels import EvaluationView, Normalize

Paths = str | os.PathLike | Sequence[str | os.PathLike]
_BATCH = 64  # images at a time


def predict(images: Paths, weights: str | os.PathLike, *, top: int = 3, device: str | None = None) -> pd.DataFrame:
    """The likeliest classes of each image, by each model.

    Columns: `image` (its path), `model` (its folder's name, or its mixer), `mixer`, `seed`, `rank` (1 is the
    likeliest), `class` (its readable name) and `confidence` (the softmax's, in percent: how sure a model is, not how
    often it is right; a picture of something else is taken for one of the classes all the same). Images are decoded,
    resized and cropped as each model is evaluated. `DataFrame.attrs["known"]` has the number of classes by recipe.

    Args:
        images: files, or folders whose image files are taken (neither hidden ones nor those of folders in them).
        weights: the folder of a training, or of a notebook's run, whose finished trainings are all taken; a file of
            weights, published or ours, that tells its model (its classes have names if it names their recipe, or if
            they are ImageNet's 1,000, else numbers); or "pretrained": the weights that come with the package (scale
            nano, recipe `shapes`).
        top: how many classes, at least 1.
        device: None is the fastest available.

    Raises:
        UserError: an image or folder that does not exist or cannot be read, weights that are none, a recipe that does
            not fit them.
    """
    if top < 1:
        raise UserError(f"top = {top}: must be at least 1")
    return _predicted(_image_files(images), weights, top, device)


def _predicted(files: list[Path], weights: str | os.PathLike, top: int, device: str | None) -> pd.DataFrame:
    import pandas as pd  # here, so that a missing image is refused at once
    import torch

    from stm_lab import zoo
    from stm_lab.pixels import Normalize

    on = resolve_device(device)
    decoded: dict[EvaluationView, torch.Tensor] = {}
    lines, known = [], {}
    for loaded in zoo.load(None, weights, device=on):
        if loaded.recipe is not None and loaded.classes is not None:
            known[loaded.recipe] = len(loaded.classes)
        view = loaded.view()
        if view not in decoded:
            decoded[view] = torch.stack([_decoded(file, view) for file in files])
        with torch.inference_mode():
            lines += _answers(loaded, decoded[view], Normalize(loaded.model, on), top)
    table = pd.DataFrame(lines).sort_values("image", kind="stable", ignore_index=True)
    table["image"] = [str(files[place]) for place in table["image"]]
    table.attrs["known"] = known
    return table


def _answers(
    loaded: zoo.LoadedModel, images: torch.Tensor, normalized: Normalize, top: int
) -> Iterator[dict[str, Any]]:
    """The lines of one model for images (N, 3, S, S), uint8; `image` is the place in them."""
    names = loaded.classes and list(loaded.classes.values())
    for start in range(0, len(images), _BATCH):
        logits = loaded.model(normalized(images[start : start + _BATCH])).float()
        shares, labels = logits.softmax(1).topk(min(top, logits.shape[1]))  # (B, top), the largest first
        for place, answers in enumerate(zip(shares.tolist(), labels.tolist(), strict=True), start):
            for rank, (share, label) in enumerate(zip(*answers, strict=True), 1):
                yield {
                    "image": place,
                    "model": loaded.name if loaded.folder is None else loaded.folder.name,
                    "mixer": loaded.name,
                    "seed": loaded.seed,
                    "rank": rank,
                    "class": names[label] if names else f"class {label}",
                    "confidence": 100 * share,
                }


# ---- images ---------------------------------------------------------------------------------------------------------


@told()
def _image_files(images: Paths) -> list[Path]:
    """Each file once, in the order given; those of a folder by name."""
    given = [images] if isinstance(images, str | os.PathLike) else images
    files: dict[Path, None] = {}
    for path in map(Path, given):
        path = paths.expanded(path)
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if is_image_file(file.name) and not file.is_dir())
            if not inside:
                raise UserError(f"{path}: no images in that folder (such as .jpg, .png, .webp, .tif)")
            files |= dict.fromkeys(inside)
        elif os.path.lexists(path):  # a link to nowhere, too: opening it tells what is wrong
            files[path] = None
        else:
            names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UserError(f"{path}: no such image; {nearest(path.name, names)}")
    if not files:
        raise UserError("no images; give a file or a folder")
    return list(files)


def _decoded(file: Path, view: EvaluationView) -> torch.Tensor:
    """One image as `data.to_tensors` has those of a validation split: uint8 (3, H, W)."""
    try:
        image = open_image(file)
    except UserError as error:
        raise UserError(f"{file}: cannot be read as an image ({error})") from error
    return view(image)
