"""From a recipe's name to a data set: prepared, as it was found, or drawn."""

from __future__ import annotations

import glob
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset
from datasets.table import MemoryMappedTable, concat_tables

from stm_lab.data import sources
from stm_lab.data.found import counts_in_words, declaration, locate
from stm_lab.data.recipe import Recipe, load_recipe
from stm_lab.util import jsonfiles, paths
from stm_lab.util.errors import UserError, check_known

MANIFEST = "manifest.json"
PNG_UP_TO = 96  # pixels of the shorter side
HASHES = ("hash", "raw_hash")  # columns of prepared data: of the image as it was prepared, and as it was found


def load(
    recipe: str | os.PathLike | Recipe,
    split: str = "train",
    *,
    data_root: str | os.PathLike | None = None,
    image_size: int | None = None,
) -> Dataset:
    """One split of a recipe: a Dataset with columns `id`, `image` (decoded on access), `label` and the recipe's own.

    Photographs come in the natural order of their identifiers, whatever the source. Prepared ones are taken where they
    exist; the raw ones are not needed then.

    Args:
        recipe: a name of `list_recipes()`, the path of a YAML file, or a Recipe.
        split: "train" or "validation".
        data_root: the folder of the raw data; default: `raw/<name>` under STM_LAB_DATA, also of recipes it extends.
        image_size: pixels that the shorter side of prepared images must have; default: the recipe's.

    Raises UserError: unknown recipe or split, a faulty recipe, raw data that are missing or are not what the recipe
    says, a cache that cannot be written or read.
    """
    recipe, root = _asked(recipe, data_root)
    check_known("split", split, recipe.counts, where=f"{recipe.name}: ")
    if place := find_prepared(recipe, root, image_size or recipe.image_size):
        return open_prepared(place, split).remove_columns(HASHES)
    found = locate(recipe, root)
    if found.source.kind == "generator":
        return _cached(f"{recipe.name}-{found.fingerprint()}", split, lambda: found.images(split))
    dataset = found.images(split)
    return sources.in_memory(recipe, dataset, found.folder) if found.source.kind == "webdataset" else dataset


def fingerprint(recipe: str | os.PathLike | Recipe, *, data_root: str | os.PathLike | None = None) -> str:
    """What identifies a recipe's data (16 hexadecimal digits). No image is decoded for it.

    Drawn data: the generator, its version, seed and counts. The hub: name, commit, files, classes, subset. Images on
    disk: the classes, and every image's identifier, label and hash, whatever their layout; above 1 GiB of images their
    sizes in bytes instead of their hashes, since naming a run must not read 150 GB. Prepared data have that of the raw
    data they were made from, and are asked first unless `data_root` is given.

    Raises UserError as `load` does.
    """
    recipe, root = _asked(recipe, data_root)
    manifests = {} if root else prepared_manifests(recipe)
    return _only_fingerprint(recipe, manifests) if manifests else locate(recipe, root).fingerprint()


def pixels_of(
    recipe: str | os.PathLike | Recipe, *, data_root: str | os.PathLike | None = None, image_size: int | None = None
) -> str:
    """Which pixels `load` gives, with the same arguments: "raw" (also drawn ones), or "prepared-256-jpeg".

    The fingerprint does not tell: prepared images have that of the raw ones they were made of.
    """
    recipe, root = _asked(recipe, data_root)
    place = find_prepared(recipe, root, image_size or recipe.image_size)
    return f"prepared-{place.name}-{resized_format(int(place.name)).lower()}" if place else "raw"


def _asked(recipe: str | os.PathLike | Recipe, data_root: str | os.PathLike | None) -> tuple[Recipe, Path | None]:
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    return recipe, paths.expanded(data_root) if data_root else None


# ---- for people ------------------------------------------------------------------------------------------------------


def state(recipe: Recipe, *, data_root: Path | None = None) -> str:
    """Where a recipe's images are, in a few words: drawn, prepared, raw in a folder, on the hub, or not here."""
    if sizes := sorted({manifest["size"] for manifest in prepared_manifests(recipe).values()}):
        return f"prepared at {', '.join(map(str, sizes))}"
    try:
        found = locate(recipe, data_root)
    except UserError:
        return "needs --data-root"
    if found.folder is not None:
        return f"raw in {found.folder}"
    return "drawn" if found.source.kind == "generator" else f"needs download{', gated' if found.source.gated else ''}"


def describe(recipe: Recipe, *, data_root: Path | None = None) -> dict[str, Any]:
    """What is known of a recipe's images, for people: `state`, the `command` that prepares them and `fingerprint`; if
    they are prepared or in a folder, also `images_per_class` of each split, with what was passed over, or `fault`."""
    options = "" if recipe.source[-1].kind in ("generator", "hub") else " --data-root FOLDER"
    known = {
        "state": state(recipe, data_root=data_root),
        "command": f"stm-lab data prepare {recipe.argument}{options}",
        "fingerprint": recipe.fingerprint or "known when the images are there",
    }
    if known["state"] == "needs --data-root":
        return known
    try:
        known["fingerprint"] = fingerprint(recipe, data_root=data_root)
        if (manifests := prepared_manifests(recipe)) and data_root is None:
            place = next(iter(manifests))
            counted = {split: counts_in_words(recipe, open_prepared(place, split)) for split in recipe.counts}
        else:
            found = locate(recipe, data_root)
            counted = {split: found.counted(split) for split in recipe.counts} if found.folder else {}
    except UserError as error:
        return known | {"fault": str(error)}
    return known | ({"images_per_class": counted} if counted else {})


# ---- prepared data ---------------------------------------------------------------------------------------------------


def prepared_manifests(recipe: Recipe) -> dict[Path, dict[str, Any]]:
    """The folders that `prepare` has made of this recipe's images, in any data root: folder -> its manifest."""
    found = {}
    for root in paths.data_roots():
        for file in sorted((root / "prepared").glob(f"{glob.escape(recipe.name)}-*/[0-9]*/{MANIFEST}")):
            manifest = _opened(file.parent, lambda file=file: jsonfiles.read(file))
            if manifest.get("declaration") == declaration(recipe):
                found[file.parent] = manifest
    return found


def find_prepared(recipe: Recipe, data_root: Path | None, image_size: int) -> Path | None:
    """The prepared folder with the smallest images whose shorter side has `image_size` pixels or more; None without
    one, or if it was made of other images than those in `data_root`."""
    manifests = prepared_manifests(recipe)
    large = {place: manifest for place, manifest in manifests.items() if manifest["size"] >= image_size}
    if not large:
        return None
    wanted = locate(recipe, data_root).fingerprint() if data_root else _only_fingerprint(recipe, manifests)
    places = [place for place, manifest in large.items() if manifest["fingerprint"] == wanted]
    return min(places, key=lambda place: large[place]["size"], default=None)


def _only_fingerprint(recipe: Recipe, manifests: dict[Path, dict[str, Any]]) -> str:
    fingerprints = {manifest["fingerprint"] for manifest in manifests.values()}
    if len(fingerprints) > 1:
        raise UserError(
            f"{recipe.name}: prepared from different images in {' and '.join(map(str, manifests))}; "
            f"pass --data-root to say which images, or delete the others"
        )
    return fingerprints.pop()


def resized_format(size: int) -> str:
    """The format of images that `prepare` resizes to a shorter side of `size`."""
    return "PNG" if size <= PNG_UP_TO else "JPEG"


def part_name(number: int) -> str:
    """The file name of a part of a prepared split: an Arrow file of up to `prepare.PART` images."""
    return f"part-{number:05d}.arrow"


def open_prepared(place: Path, split: str) -> Dataset:
    """A split of a prepared folder, its parts mapped into memory. Raises UserError if it is damaged."""

    def parts() -> Dataset:
        hashes = jsonfiles.read(place / MANIFEST)["parts"][split]
        files = [str(place / split / part_name(number)) for number in range(len(hashes))]
        # tables first: a Dataset of each would hash its columns, a minute for the whole of ImageNet
        table = concat_tables(list(map(MemoryMappedTable.from_file, files)))
        return Dataset(table, fingerprint=hashlib.sha256("".join(hashes).encode()).hexdigest()[:16])

    return _opened(place / split, parts)


def _opened(place: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # whatever pyarrow, json or datasets say of a damaged folder
        raise UserError(f"{place}: damaged; delete that folder, and make it again") from error


# ---- the cache of drawn data -----------------------------------------------------------------------------------------


def _cached(name: str, split: str, make: Callable[[], Dataset]) -> Dataset:
    """The data set `prepared/<name>/<split>` of the first data root that has it, else made and kept in the first root.

    It appears there under its name by one rename, when it is whole; if another process was quicker, its copy is taken.
    """
    places = [root / "prepared" / name / split for root in paths.data_roots()]
    place = next((place for place in places if place.is_dir()), places[0])
    if not place.is_dir():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{split}-", dir=place.parent, ignore_cleanup_errors=True) as made:
                with sources.without_progress_bars():
                    make().save_to_disk(Path(made) / split)
                try:
                    (Path(made) / split).rename(place)
                except OSError:
                    if not place.is_dir():  # if it is, another process was quicker
                        raise
        except OSError as error:
            raise UserError(
                f"{place}: cannot be written ({error.strerror or error}); set STM_LAB_DATA to a folder that can"
            ) from error
    return _opened(place, lambda: datasets.load_from_disk(place))
