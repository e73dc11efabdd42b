"""Folders of image files, in the layouts in which people have these data sets on disk.

`ilsvrc`: `train/<class>/*`, and `val/<class>/*` or, as it is distributed, `val/*` flat with a label file beside or in
it: `LOC_val_solution.csv` (Kaggle's) or `imagenet_2012_validation_synset_labels.txt` (line i is the class of image i).
Kaggle's `ILSVRC/Data/CLS-LOC` above `train` and `val` is found as well. An image is known by its file's name, without
the ending (see `identifier`).

`tiny-imagenet`: `train/<class>/images/*`, `val/images/*`, `val/val_annotations.txt`. Known by the file's name.

`imagefolder`: `train/<class>/*` and `validation/<class>/*` (or `val`). Known as `<class>/<file's name>`, since there
such names often begin anew in every class.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from stm_lab.errors import UserError, nearest
from stm_lab.image_files import IMAGE_FILES, is_image_file

LOOKS = {  # layouts, in a few words
    "ilsvrc": "train/CLASS/*.JPEG, val/CLASS/*.JPEG (or val/*.JPEG beside LOC_val_solution.csv)",
    "tiny-imagenet": "train/CLASS/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt",
    "imagefolder": "train/CLASS/*.jpg, val/CLASS/*.jpg",
}
Found = tuple[str, str, str]  # identifier, class, path
_OF_IMAGENET = re.compile(r"(?:.*/)?(n\d{8}_\d+|ILSVRC2012_val_\d{8})(?:_n\d{8})?")
_FOLDERS = {"train": ("train",), "validation": ("validation", "val")}
_DEVKIT = "ILSVRC2012_validation_ground_truth.txt"


def identifier(name: str) -> str:
    """What an image is known by, from its file's name: the same in whatever way a set is distributed.

    It has no ending. Images of ImageNet have neither a folder nor the class that the hub's files end in:
    n01440764_10026_n01440764.JPEG is n01440764_10026.
    """
    stem, dot, ending = name.rpartition(".")
    name = stem if (dot + ending).lower() in IMAGE_FILES else name
    match = _OF_IMAGENET.fullmatch(name)
    return match[1] if match else name


def present(layout: str, split: str, root: Path) -> bool:
    """Whether `root` looks like a folder of this layout, as far as its folders' names tell."""
    folder = _split_folder(split, _inner(root))
    if layout == "tiny-imagenet":
        return (root / "wnids.txt").is_file() or (root / "val" / "val_annotations.txt").is_file()
    return folder is not None


def images(layout: str, split: str, root: Path, classes: Sequence[str]) -> list[Found]:
    """The image files of these classes in one split, in no particular order.

    Raises UserError if the split, a class or the labels are missing, or two images have one name.
    """
    root = _inner(root)
    folder = _split_folder(split, root)
    if folder is None:
        raise UserError(
            f"{root}: no folder {' or '.join(_FOLDERS[split])}; the layout {layout!r} looks like {LOOKS[layout]}"
        )
    if layout == "tiny-imagenet":
        found = _tiny_imagenet(split, folder, classes)
    elif layout == "ilsvrc" and split == "validation" and not any(entry.is_dir() for entry in os.scandir(folder)):
        found = _flat(folder, classes, _validation_labels(root, folder))
    else:
        found = _by_class(folder, classes, inner="", prefix=layout == "imagefolder")
    listed: dict[str, Found] = {}
    for name, label, path in found:
        known = identifier(name)
        if known in listed:
            raise UserError(f"{path}: the image {known!r} is there twice, see {listed[known][2]}")
        listed[known] = known, label, path
    return list(listed.values())


def _inner(root: Path) -> Path:
    kaggle = root / "ILSVRC" / "Data" / "CLS-LOC"
    return kaggle if kaggle.is_dir() else root


def _split_folder(split: str, root: Path) -> Path | None:
    return next((root / name for name in _FOLDERS[split] if (root / name).is_dir()), None)


def _image_files(folder: Path) -> Iterator[os.DirEntry]:
    return (entry for entry in os.scandir(folder) if is_image_file(entry.name))


def _by_class(folder: Path, classes: Sequence[str], *, inner: str, prefix: bool) -> Iterator[Found]:
    there = {entry.name for entry in os.scandir(folder) if entry.is_dir()}
    for name in classes:
        if name not in there:
            raise UserError(f"{folder}: no folder of class {name!r}; {_few(name, there)}")
        if not (folder / name / inner).is_dir():
            raise UserError(f"{folder / name}: no folder {inner!r}")
        for entry in _image_files(folder / name / inner):
            yield f"{name}/{entry.name}" if prefix else entry.name, name, entry.path


def _tiny_imagenet(split: str, folder: Path, classes: Sequence[str]) -> Iterator[Found]:
    if split == "train":
        return _by_class(folder, classes, inner="images", prefix=False)
    annotations = _text(folder / "val_annotations.txt")
    rows = [line.split("\t") for line in annotations if line]
    for number, row in enumerate(rows, 1):
        if len(row) < 2:
            raise UserError(f"{folder / 'val_annotations.txt'}, line {number}: expected file, class, ... between tabs")
    return _flat(folder / "images", classes, {row[0]: row[1] for row in rows})


def _flat(folder: Path, classes: Sequence[str], labels: dict[str, str]) -> Iterator[Found]:
    """Images that lie together, whose classes are told by `labels`: file's name, with or without ending -> class."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    wanted, unseen = set(classes), set(classes)
    for entry in _image_files(folder):
        label = labels.get(entry.name) or labels.get(Path(entry.name).stem)
        if label is None:
            raise UserError(f"{entry.path}: no label; {nearest(entry.name, labels)}")
        if label in wanted:
            unseen.discard(label)
            yield entry.name, label, entry.path
    if unseen:
        raise UserError(f"{folder}: no image of class {min(unseen)!r}; {_few(min(unseen), set(labels.values()))}")


def _validation_labels(root: Path, folder: Path) -> dict[str, str]:
    places = [folder, root, *root.parents[:3]]  # Kaggle's solution lies three folders above `val`
    for place in places:
        if (place / "LOC_val_solution.csv").is_file():
            rows = csv.reader(_text(place / "LOC_val_solution.csv"))
            return {row[0]: row[1].split()[0] for row in rows if len(row) > 1 and row[1].strip()}
        if (file := place / "imagenet_2012_validation_synset_labels.txt").is_file():
            return {f"ILSVRC2012_val_{number:08d}": label.strip() for number, label in enumerate(_text(file), 1)}
    devkit = any((place / _DEVKIT).is_file() for place in places)
    why = f"; {_DEVKIT} numbers the classes in an order of its own and cannot be used" if devkit else ""
    raise UserError(
        f"{folder}: the images are not in folders by class, and neither LOC_val_solution.csv nor "
        f"imagenet_2012_validation_synset_labels.txt is in {root}{why}"
    )


def _text(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or 'not a UTF-8 text file'}") from None


def _few(name: str, known: set[str]) -> str:
    return nearest(name, known) if len(known) <= 20 else f"{len(known)} others are there, such as {min(known)!r}"
