"""Folders of image files, in the layouts in which these data sets are distributed.

`ilsvrc`: `train/<class>/*`, and `val/<class>/*` or, as distributed, `val/*` with a label file in it or beside it:
`LOC_val_solution.csv` (Kaggle's) or `imagenet_2012_validation_synset_labels.txt` (line i is the class of image i).
Kaggle's `ILSVRC/Data/CLS-LOC` above `train` and `val` is found too.

`tiny-imagenet`: `train/<class>/images/*`, `val/images/*`, `val/val_annotations.txt`; or, as most tutorials sort it,
`val/<class>/images/*` or `val/<class>/*`.

`imagefolder`: `train/<class>/*` and `validation/<class>/*` (or `val`). Its images are identified by
`<class>/<file name>`, since file names often repeat from class to class; those of the others by their file names.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stm_lab.data.image_files import has_image_ending, is_leftover
from stm_lab.util.errors import UserError, check_known, nearest
from stm_lab.util.files import read_text, same_name

LOOKS = {  # layouts, in a few words
    "ilsvrc": "train/CLASS/*.JPEG, val/CLASS/*.JPEG (or val/*.JPEG beside LOC_val_solution.csv)",
    "tiny-imagenet": "train/CLASS/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt (or val/CLASS/*.JPEG)",
    "imagefolder": "train/CLASS/*.jpg, val/CLASS/*.jpg",
}
Image = tuple[str, str, str]  # identifier, class, path
_OF_IMAGENET = re.compile(r"(?:.*/)?(n\d{8}_\d+|ILSVRC2012_val_\d{8})(?:_n\d{8})?")
_FOLDERS = {"train": ("train",), "validation": ("validation", "val")}
_KAGGLE, _SYNSETS = "LOC_val_solution.csv", "imagenet_2012_validation_synset_labels.txt"
_DEVKIT = "ILSVRC2012_validation_ground_truth.txt"


def identifier(name: str) -> str:
    """What identifies an image, from its file name: the same however the set is distributed.

    It has no ending, and is in Unicode's form NFC. Images of ImageNet have neither a folder nor the class that file
    names on the hub end in: n01440764_10026_n01440764.JPEG is n01440764_10026.
    """
    name = same_name(name.rpartition(".")[0] if has_image_ending(name) else name)
    match = _OF_IMAGENET.fullmatch(name)
    return match[1] if match else name


def passed_over(paths: Iterable[str]) -> str:
    """A few words on files and folders (their paths end in /) that were passed over; "" if there are none."""
    paths = sorted(paths)
    kinds = Counter("folder" if path.endswith("/") else os.path.splitext(path)[1] or "no ending" for path in paths)
    words = [f"{n:,} {kind}{'s' if kind == 'folder' and n > 1 else ''}" for kind, n in sorted(kinds.items())]
    return f"passed over: {', '.join(words)} (such as {paths[0]})" if paths else ""


def split_folder(split: str, root: Path) -> Path | None:
    """The folder of a split, whatever the layout; None if there is none."""
    kaggle = root / "ILSVRC" / "Data" / "CLS-LOC"
    root = kaggle if kaggle.is_dir() else root
    return next((root / name for name in _FOLDERS[split] if (root / name).is_dir()), None)


def images(layout: str, split: str, root: Path, classes: Sequence[str]) -> tuple[list[Image], list[str]]:
    """The image files of these classes in one split, in no particular order, and the paths that were passed over.

    Passed over are files and folders (their paths end in /) of a class's folder that are no images, images beside the
    folders of classes, and folders of classes that are not asked for.

    Raises UserError if the split, a class or the labels are missing.
    """
    folder = split_folder(split, root)
    if folder is None:
        names = " or ".join(_FOLDERS[split])
        raise UserError(f"{root}: no folder {names}; the layout {layout!r} looks like {LOOKS[layout]}")
    others: list[str] = []
    class_folders = {same_name(entry.name): Path(entry.path) for entry in _entries(folder) if entry.is_dir()}
    if split == "train" or layout == "imagefolder" or class_folders.keys() & set(classes):
        found = _by_class(folder, class_folders, classes, layout, others)
    elif layout == "tiny-imagenet":
        found = _flat(folder / "images", classes, _annotations(folder / "val_annotations.txt"), others)
    else:
        found = _flat(folder, classes, _validation_labels(folder), others)
    return [(identifier(name), label, path) for name, label, path in found], others


def _entries(folder: Path) -> list[os.DirEntry]:
    """All that is in a folder, except what operating systems leave in it."""
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not is_leftover(entry.name)]


def _image_files(folder: Path, others: list[str]) -> list[os.DirEntry]:
    """The image files in a folder; the paths of its other entries are added to `others`."""
    entries = _entries(folder)
    rest = [entry for entry in entries if not has_image_ending(entry.name)]
    others += [f"{e.path}/" if e.is_dir() else e.path for e in rest if e.name not in (_KAGGLE, _SYNSETS, _DEVKIT)]
    return [entry for entry in entries if has_image_ending(entry.name)]


def _by_class(
    folder: Path, class_folders: dict[str, Path], classes: Sequence[str], layout: str, others: list[str]
) -> Iterator[Image]:
    """(file name, class, path) of images in a folder for each class."""
    others += [entry.path for entry in _entries(folder) if has_image_ending(entry.name)]
    others += [f"{class_folders[name]}/" for name in class_folders.keys() - set(classes)]
    for name in classes:
        check_known("class", name, class_folders, where=f"{folder}: no folder of ")
        inner = class_folders[name] / "images"
        in_images = layout == "tiny-imagenet" and inner.is_dir()
        for entry in _image_files(inner if in_images else class_folders[name], others):
            yield f"{name}/{entry.name}" if layout == "imagefolder" else entry.name, name, entry.path


def _flat(folder: Path, classes: Sequence[str], labels: dict[str, str], others: list[str]) -> Iterator[Image]:
    """(file name, class, path) of images in one folder; `labels`: file name, with or without ending -> class."""
    wanted = set(classes)
    for entry in _image_files(folder, others):
        name = same_name(entry.name)
        label = labels.get(name) or labels.get(Path(name).stem)
        if label is None:
            raise UserError(f"{entry.path}: no label; {nearest(entry.name, labels)}")
        if label in wanted:
            yield entry.name, label, entry.path


def _annotations(path: Path) -> dict[str, str]:
    """File name -> class, by Tiny ImageNet's val_annotations.txt."""
    rows = [line.split("\t") for line in _lines(path)]
    for number, row in enumerate(rows, 1):
        if len(row) == 1 and row[0]:
            raise UserError(f"{path}, line {number}: expected file, class, ... between tabs")
    return {row[0]: row[1] for row in rows if len(row) > 1}


def _validation_labels(folder: Path) -> dict[str, str]:
    """File name without ending -> class, by ILSVRC's label files, in the folder or one of those above it."""
    places = [folder, *folder.parents[:4]]  # Kaggle's solution lies four folders above `val`
    for place in places:
        if (place / _KAGGLE).is_file():
            rows = csv.reader(_lines(place / _KAGGLE))
            return {row[0]: row[1].split()[0] for row in rows if len(row) > 1 and row[1].strip()}
        if (place / _SYNSETS).is_file():
            synsets = enumerate(_lines(place / _SYNSETS), 1)
            return {f"ILSVRC2012_val_{number:08d}": synset.strip() for number, synset in synsets}
    devkit = any((place / _DEVKIT).is_file() for place in places)
    why = f"; {_DEVKIT} numbers the classes in an order of its own and cannot be used" if devkit else ""
    raise UserError(f"{folder}: no folders of classes, and neither {_KAGGLE} nor {_SYNSETS} is near it{why}")


def _lines(path: Path) -> list[str]:
    return same_name(read_text(path)).splitlines()
