"""`verify`: say what differs from what was prepared; called by `stm-lab data verify`.

It reads what `prepare` has written, and changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from stm_lab.data import sources
from stm_lab.data.found import locate
from stm_lab.data.image_files import open_image
from stm_lab.data.loading import load, open_prepared, part_name, prepared_manifests
from stm_lab.data.recipe import Recipe
from stm_lab.util.errors import UserError


def verify(recipe: Recipe, *, data_root: Path | None = None) -> tuple[list[str], list[str]]:
    """Compute every hash anew: (what was looked at, what differs), a line each. Nothing is changed.

    Prepared images are compared with their hashes; then raw images, if there are any, with those that the prepared ones
    were made of, and the fingerprint with the recipe's. Drawn images are drawn again. Raw images of which none are
    prepared are decoded.

    Raises UserError if there is nothing to verify (images on the hub only), or the raw data cannot be read.
    """
    manifests = prepared_manifests(recipe)
    looked, differs = [], []
    for place, manifest in manifests.items():
        looked.append(f"{place}: prepared at {manifest['size']} pixels")
        for split, hashes in manifest["parts"].items():
            for number, expected in enumerate(hashes):
                differs += _check_part(place / split / part_name(number), expected)
    if differs:
        return looked, differs  # what is damaged itself is no measure for the raw images
    try:
        found = locate(recipe, data_root)
    except UserError:
        if not manifests or data_root:
            raise
        return looked, differs
    if found.source.kind == "hub":
        if not manifests:
            raise UserError(
                f"{recipe.name}: nothing here to verify: its images are on the hub, and none are prepared; first: "
                f"stm-lab data prepare {recipe.argument}"
            )
        return looked, differs  # the commit vouches for them; 150 GB are not fetched to compare
    looked.append(f"{found.folder or found.source.kind}: {'as found' if found.folder else 'drawn'}")
    for split in recipe.counts:
        if found.source.kind == "generator":
            differs += _check_drawn(recipe, split, found.images(split))
        elif manifests:
            looked.append(f"{split}: {found.counted(split)}")
            differs += _check_raw(split, found.selected(split), manifests)
        else:
            broken = list(_check_decoded(split, found.images(split)))
            decoded = f"{recipe.counts[split]:,} images decoded"
            looked.append(f"{split}: not prepared; {decoded}; {found.counted(split)}")
            (differs if len(broken) > recipe.max_broken else looked).extend(broken)
    if not differs:
        actual = found.fingerprint()
        wanted = found.declared_fingerprint() | {manifest["fingerprint"] for manifest in manifests.values()}
        differs += [f"{recipe.name}: fingerprint {actual}, expected {other}" for other in sorted(wanted - {actual})]
    return looked, differs


def _check_part(file: Path, expected: str) -> Iterator[str]:
    """How a part differs from what was prepared: which of its images do, or else that the file does."""
    try:
        content = file.read_bytes()
        rows = pa.ipc.open_stream(content).read_all().select(["id", "image", "hash"]).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        yield f"{file}: cannot be read ({str(error).splitlines()[0]})"
        return
    wrong = [row["id"] for row in rows if sources.content_hash(row["image"]["bytes"]) != row["hash"]]
    yield from (f"{file}: image {name} is not what was prepared" for name in wrong)
    if not wrong and hashlib.sha256(content).hexdigest() != expected:
        yield f"{file}: not what was prepared"


def _check_raw(split: str, dataset: Dataset, manifests: dict[Path, dict[str, Any]]) -> Iterator[str]:
    """How raw images differ from those that prepared ones were made of; broken ones were left out of these."""
    found: dict[str, str | None] = {}
    for name, image in zip(dataset["id"], sources.stored_images(dataset), strict=True):
        try:
            found[name] = sources.content_hash(sources.stored_bytes(image))
        except OSError as error:
            found[name] = None
            yield f"{split}: image {name} cannot be read ({error.strerror or error})"
    for place, manifest in manifests.items():
        prepared = open_prepared(place, split)
        kept = dict(zip(prepared["id"], prepared["raw_hash"], strict=True))
        left_out = {name for name, _ in manifest["broken"][split]}
        for name, content in found.items():
            if name not in kept and name not in left_out:
                yield f"{split}: image {name} was not there when {place} was prepared"
            elif name in kept and content not in (None, kept[name]):
                yield f"{split}: image {name} is not the one that was prepared in {place}"
        gone = [name for name in (*kept, *left_out) if name not in found]
        yield from (f"{split}: image {name} was there when {place} was prepared, and is not any more" for name in gone)


def _check_decoded(split: str, dataset: Dataset) -> Iterator[str]:
    """Which of the images cannot be decoded."""
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
