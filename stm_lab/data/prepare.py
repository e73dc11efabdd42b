"""`prepare`: decode and resize a recipe's images once, and keep them; called by `stm-lab data prepare`.

The folder `prepared/<name>-<fingerprint>/<size>` holds one folder a split that `datasets.load_from_disk` reads, and the
manifest: recipe, fingerprint, counts, broken images, hashes of the parts. It appears by one rename when all is
there. Until then its parts, which `parts` makes, gather in a hidden folder beside it, each put there by a rename; so
whatever stops the work, it goes on from the parts that are whole. One process gathers at a time, by the `lock`.
`loading` reads what is made here, and `verify` holds it against its hashes.
"""

from __future__ import annotations

import errno
import json
import shutil
import warnings
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import datasets
import PIL.Image
from datasets import Dataset

from stm_lab.data import parts, sources
from stm_lab.data.loading import (
    MANIFEST,
    PNG_UP_TO,
    class_counts,
    declaration,
    declared_fingerprint,
    load,
    prepared_manifests,
    raw,
    raw_fingerprint,
    without_images,
    without_progress_bars,
)
from stm_lab.data.lock import alone
from stm_lab.data.parts import PrepareFailed
from stm_lab.data.recipe import Recipe
from stm_lab.util import files, paths
from stm_lab.util.devices import cores
from stm_lab.util.errors import UserError

FORMAT = 2  # counts up with every change of what is written; parts of another format are not gone on with


def default_size(recipe: Recipe) -> int:
    """The recipe's image size, and 8/7 of it where crops are cut out at random: 64 -> 64, 224 -> 256."""
    return recipe.image_size if recipe.image_size <= PNG_UP_TO else round(recipe.image_size * 8 / 7)


def prepare(
    recipe: Recipe, *, data_root: Path | None = None, size: int | None = None, workers: int | None = None
) -> Path:
    """Decode and resize all images of a recipe; the folder of the first data root that then has them.

    What some data root has already is not made again. Drawn data are drawn.

    Args:
        recipe: as of `load_recipe`.
        data_root: the folder of the raw data, as for `load`.
        size: pixels of the shorter side, at least 1; default: `default_size`.
        workers: processes; default: one a core. 1: in this process.

    Raises:
        UserError: the raw data cannot be had or are not what the recipe says, or another process prepares them;
            nothing was begun.
        PrepareFailed: more than `max_broken` images of a split are broken (they are named), an image's file cannot be
            read or nothing can be written.
    """
    size = default_size(recipe) if size is None else size
    if size < 1:
        raise UserError(f"size {size} is too small; at least 1")
    with without_progress_bars():
        source, folder = sources.locate(recipe, data_root)
        if source.kind == "generator":
            for split in recipe.counts:
                load(recipe, split)
            name = f"{recipe.name}-{raw_fingerprint(recipe, source, folder)}"
            return next(r / "prepared" / name for r in paths.data_roots() if (r / "prepared" / name).is_dir())
        splits = {split: raw(recipe, split, source, folder) for split in recipe.counts}
        found = raw_fingerprint(recipe, source, folder)
    for split in recipe.counts:
        if others := sources.passed_over(recipe, split, source, folder):
            warnings.warn(f"{recipe.name}: {split}: {others}", stacklevel=2)
    if declared_fingerprint(recipe, source) - {found}:
        raise UserError(f"{recipe.name}: fingerprint {found}, but the recipe was written for {recipe.fingerprint}")
    for place, manifest in prepared_manifests(recipe).items():
        if (manifest["fingerprint"], manifest["size"]) == (found, size):
            return place
    place = paths.data_roots()[0] / "prepared" / f"{recipe.name}-{found}" / str(size)
    gathering = place.with_name(f".{size}-format{FORMAT}")
    try:
        with alone(gathering.with_name(f"{gathering.name}.lock"), f"preparing {recipe.name}"):
            if not place.is_dir():  # else another process has made it meanwhile
                records = parts.make(recipe, splits, size, gathering, workers or cores())
                _check_broken(recipe, splits, records, gathering)
                _finish(recipe, splits, records, size, found, gathering)
                gathering.rename(place)
                shutil.rmtree(place / "parts")
    except OSError as error:
        raise PrepareFailed(_cannot_write(gathering, error)) from error
    except BrokenProcessPool as error:
        raise PrepareFailed(
            f"{recipe.name}: a worker process was killed, perhaps for want of memory; the parts that are whole stay; "
            f"prepare again, with fewer --workers"
        ) from error
    return place


def _cannot_write(place: Path, error: OSError) -> str:
    what_now = "make room" if error.errno == errno.ENOSPC else "mend that"
    return (
        f"{place}: cannot be written ({error.strerror or error}); the parts that are whole stay; {what_now} and "
        f"prepare again, or set STM_LAB_DATA to another folder"
    )


# ---- from parts to a data set ----------------------------------------------------------------------------------------


def _check_broken(
    recipe: Recipe, splits: dict[str, Dataset], records: dict[str, list[dict[str, Any]]], folder: Path
) -> None:
    """Raise PrepareFailed if too many images are broken, or all of a class; their parts are made anew the next time."""
    faults, hint = [], ""
    for split, of_split in records.items():
        why_of = {name: why for record in of_split for name, why in record["broken"]}
        if not why_of:
            continue
        kept = [row for row, name in enumerate(splits[split]["id"]) if name not in why_of]
        without = without_images(recipe, class_counts(splits[split].select(kept)))
        if len(why_of) > recipe.max_broken or without:
            for number in (k for k, record in enumerate(of_split) if record["broken"]):
                parts.record_of(folder, split, number).unlink()
            named = ", ".join(f"{name} ({why})" for name, why in list(why_of.items())[:5])
            named += ", ..." if len(why_of) > 5 else ""
            faults.append(f"{len(why_of)} broken images in {split}: {named}{without and f'; without them {without}'}")
            if len(why_of) > recipe.max_broken:
                hint = f", or raise the recipe's max_broken ({recipe.max_broken}) to leave them out"
    if faults:
        raise PrepareFailed(f"{recipe.name}: {'; '.join(faults)}; mend them and prepare again{hint}")


def _finish(
    recipe: Recipe,
    splits: dict[str, Dataset],
    records: dict[str, list[dict[str, Any]]],
    size: int,
    found: str,
    folder: Path,
) -> None:
    """Make data sets of the parts as `datasets` knows them, and write the manifest."""
    for split, dataset in splits.items():
        features = parts.features_of(dataset.features)
        empty = Dataset.from_dict({name: [] for name in features}, features)
        with without_progress_bars():
            empty.save_to_disk(folder / split)  # the library's own description, whose one file becomes our parts
        state = json.loads((folder / split / "state.json").read_text())
        for file in state["_data_files"]:
            (folder / split / file["filename"]).unlink()
        state["_data_files"] = [{"filename": parts.file_name(k)} for k in range(len(records[split]))]
        files.write_whole(folder / split / "state.json", json.dumps(state).encode(), durable=True)
    manifest = {
        "format": FORMAT,
        "name": recipe.name,
        "declaration": declaration(recipe),
        "fingerprint": found,
        "size": size,
        "counts": {split: sum(record["count"] for record in made) for split, made in records.items()},
        "broken": {split: [one for record in made for one in record["broken"]] for split, made in records.items()},
        "parts": {split: [record["sha256"] for record in made] for split, made in records.items()},
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "made_with": {"pillow": PIL.__version__, "datasets": datasets.__version__},
    }
    files.write_whole(folder / MANIFEST, json.dumps(manifest, indent=1).encode(), durable=True)
    for scratch in folder.rglob(f"*{files.UNFINISHED}"):  # left by processes that were killed
        scratch.unlink()
