"""`verify`: say what differs from what was prepared; called by `stm-lab data verify`.

It reads what `prepare` has written, and changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
from datasets import Dataset

from stm_lab.data import sources
from stm_lab.data.image_files import open_image
from stm_lab.data.loading import (
    MANIFEST,
    class_counts,
    declared_fingerprint,
    in_words,
    load,
    prepared_manifests,
    raw,
    raw_fingerprint,
    selected,
    without_progress_bars,
)
from stm_lab.data.parts import file_name
from stm_lab.data.recipe import Recipe, Source
from stm_lab.util.errors import UserError


def verify(recipe: Recipe, *, data_root: Path | None = None) -> tuple[list[str], list[str]]:
    """Compute every hash anew: (what was looked at, what differs), a line each. Nothing is changed.

    Prepared images are held against their hashes and the manifest; then raw images (where they are there) against
    those that the prepared ones were made of, at every size, and where none of them differs the fingerprint against the
    recipe's; drawn ones are drawn again. Raw images of which none are prepared are decoded, each of them.

    Raises UserError if there is nothing to verify, as of images that are on the hub alone, or the raw data cannot be
    read at all.
    """
    manifests = prepared_manifests(recipe)
    looked, differs = [], []
    for place, manifest in manifests.items():
        looked.append(f"{place}: prepared at {manifest['size']} pixels")
        for split in manifest["parts"]:
            differs += _check_prepared(place / split, manifest["parts"][split], manifest["counts"][split])
    if differs:
        return looked, differs  # what is damaged itself is no measure for the raw images
    try:
        source, folder = sources.locate(recipe, data_root)
    except UserError:
        if not manifests or data_root:
            raise
        return looked, differs
    if source.kind == "hub" and manifests:
        return looked, differs  # the commit vouches for them; 150 GB are not fetched to compare
    if source.kind == "hub":
        raise UserError(
            f"{recipe.name}: nothing here to verify: its images are on the hub, and none are prepared; first: "
            f"stm-lab data prepare {recipe.argument}"
        )
    looked.append(f"{folder or source.kind}: {'drawn' if source.kind == 'generator' else 'as found'}")
    with without_progress_bars():
        for split in recipe.counts:
            if source.kind == "generator":
                differs += _check_drawn(recipe, split, raw(recipe, split, source, folder))
            elif manifests:
                found = selected(recipe, split, source, folder)
                looked.append(f"{split}: {_told(recipe, split, source, folder, found)}")
                differs += _check_raw(split, found, list(manifests))
            else:
                found = raw(recipe, split, source, folder)
                broken = list(_check_decoded(split, found))
                told = _told(recipe, split, source, folder, found)
                looked.append(f"{split}: not prepared; {len(found):,} images decoded; {told}")
                (differs if len(broken) > recipe.max_broken else looked).extend(broken)
        if not differs:
            found = raw_fingerprint(recipe, source, folder)
            wanted = declared_fingerprint(recipe, source) | {manifest["fingerprint"] for manifest in manifests.values()}
            differs += [f"{recipe.name}: fingerprint {found}, expected {other}" for other in sorted(wanted - {found})]
    return looked, differs


def _told(recipe: Recipe, split: str, source: Source, folder: Path, found: Dataset) -> str:
    """How many images each class has, and what was passed over."""
    others = sources.passed_over(recipe, split, source, folder)
    return "; ".join(filter(None, (in_words(recipe, class_counts(found)), others)))


def _check_prepared(folder: Path, hashes: list[str], count: int) -> Iterator[str]:
    seen = 0
    for number, expected in enumerate(hashes):
        file = folder / file_name(number)
        try:
            content = file.read_bytes()
            rows = pa.ipc.open_stream(content).read_all().select(["id", "image", "hash"]).to_pylist()
        except (OSError, pa.ArrowInvalid) as error:
            yield f"{file}: cannot be read ({str(error).splitlines()[0]})"
            continue
        seen += len(rows)
        wrong = [row["id"] for row in rows if sources.content_hash(row["image"]["bytes"]) != row["hash"]]
        yield from (f"{file}: image {name} is not what was prepared" for name in wrong)
        if not wrong and hashlib.sha256(content).hexdigest() != expected:
            yield f"{file}: not what was prepared"
    try:
        seen = min(seen, len(datasets.load_from_disk(folder)))
    except Exception as error:  # whatever pyarrow, json or datasets say of a damaged folder
        yield f"{folder}: cannot be opened ({type(error).__name__}); delete {folder.parent}, and prepare again"
        return
    if seen != count:
        yield f"{folder}: {seen:,} images, prepared were {count:,}"


def _check_raw(split: str, dataset: Dataset, places: list[Path]) -> Iterator[str]:
    """How raw images differ from those that each of the places was made of; broken ones were left out there."""
    found: dict[str, str | None] = {}
    for name, image in zip(dataset["id"], sources.stored_images(dataset), strict=True):
        try:
            found[name] = sources.content_hash(sources.stored_bytes(image))
        except OSError as error:
            found[name] = None
            yield f"{split}: image {name} cannot be read ({error.strerror or error})"
    for place in places:
        prepared = datasets.load_from_disk(place / split).select_columns(["id", "raw_hash"])
        kept = dict(zip(prepared["id"], prepared["raw_hash"], strict=True))
        left_out = {name for name, _ in json.loads((place / MANIFEST).read_text())["broken"][split]}
        for name, content in found.items():
            if name not in kept and name not in left_out:
                yield f"{split}: image {name} was not there when {place} was prepared"
            elif name in kept and content not in (None, kept[name]):
                yield f"{split}: image {name} is not the one that was prepared in {place}"
        gone = [name for name in (*kept, *left_out) if name not in found]
        yield from (f"{split}: image {name} was there when {place} was prepared, and is not any more" for name in gone)


def _check_decoded(split: str, dataset: Dataset) -> Iterator[str]:
    """Which of the images cannot be read as such."""
    for name, image in zip(dataset["id"], sources.stored_images(dataset), strict=True):
        try:
            open_image(sources.stored_bytes(image))
        except (OSError, UserError) as error:
            yield f"{split}: image {name} cannot be read: {sources.why_broken(error, image)}"


def _check_drawn(recipe: Recipe, split: str, drawn: Dataset) -> Iterator[str]:
    kept = load(recipe, split)
    for row, (one, other) in enumerate(zip(sources.stored_images(kept), sources.stored_images(drawn), strict=True)):
        if one["bytes"] != other["bytes"]:
            yield f"{recipe.name}, {split}: image {row} is not the one that is drawn"
