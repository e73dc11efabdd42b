"""Folders of image files, in the layouts in which people have these data sets on disk.

`ilsvrc`: `train/<class>/*`, and `val/<class>/*` or, as it is distributed, `val/*` flat with a label file beside or in
it: `LOC_val_solution.csv` (Kaggle's) or `imagenet_2012_validation_synset_labels.txt` (line i is the class of image i).
Kaggle's `ILSVRC/Data/CLS-LOC` above `train` and `val` is found as well. An image is known by its file's name, without
the ending (see `identifier`).

`tiny-imagenet`: `train/<class>/images/*`, `val/images/*`, `val/val_annotations.txt`; or, as most tutorials sort it,
`val/<class>/images/*` or `val/<class>/*`. Known by the file's name.

`imagefolder`: `train/<class>/*` and `validation/<class>/*` (or `val`). Known as `<class>/<file's name>`, since there
such names often begin anew in every class.

What lies in a folder of images and is none is listed too, for messages: see `images` and `passed_over`.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stm_lab.data.image_files import has_image_ending, is_leftover
from stm_lab.util.errors import UserError, nearest
from stm_lab.util.files import read_text, same_name

LOOKS = {  # layouts, in a few words
    "ilsvrc": "train/CLASS/*.JPEG, val/CLASS/*.JPEG (or val/*.JPEG beside LOC_val_solution.csv)",
    "tiny-imagenet": "train/CLASS/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt (or val/CLASS/*.JPEG)",
    "imagefolder": "train/CLASS/*.jpg, val/CLASS/*.jpg",
}
Found = tuple[str, str, str]  # identifier, class, path
_OF_IMAGENET = re.compile(r"(?:.*/)?(n\d{8}_\d+|ILSVRC2012_val_\d{8})(?:_n\d{8})?")
_FOLDERS = {"train": ("train",), "validation": ("validation", "val")}
_LABELS = ("LOC_val_solution.csv", "imagenet_2012_validation_synset_labels.txt")
_DEVKIT = "ILSVRC2012_validation_ground_truth.txt"


def identifier(name: str) -> str:
    """What an image is known by, from its file's name: the same in whatever way a set is distributed.

    It has no ending, and is in Unicode's form NFC. Images of ImageNet have neither a folder nor the class that the
    hub's files end in: n01440764_10026_n01440764.JPEG is n01440764_10026.
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


def present(layout: str, split: str, root: Path) -> bool:
    """Whether `root` looks like a folder of this layout, as far as its folders' names tell."""
    folder = _split_folder(split, _inner(root))
    if layout != "tiny-imagenet" or folder is None:
        return folder is not None
    told = (root / "wnids.txt", root / "val" / "val_annotations.txt")
    return any(file.is_file() for file in told) or any((entry / "images").is_dir() for entry in folder.iterdir())


def images(layout: str, split: str, root: Path, classes: Sequence[str]) -> tuple[list[Found], list[str]]:
    """The image files of these classes in one split, in no particular order, and the paths that were passed over.

    Passed over is what lies in a class's folder and is no image (the path of a folder ends in /), an image beside the
    classes' folders, and the folder of a class that is not asked for.

    Raises UserError if the split, a class or the labels are missing, or two images have one name.
    """
    root = _inner(root)
    folder = _split_folder(split, root)
    if folder is None:
        raise UserError(
            f"{root}: no folder {' or '.join(_FOLDERS[split])}; the layout {layout!r} looks like {LOOKS[layout]}"
        )
    others: list[str] = []
    there = _class_folders(folder)
    if split == "validation" and layout == "tiny-imagenet" and not there.keys() & set(classes):
        found = _flat(folder / "images", classes, _annotations(folder / "val_annotations.txt"), others)
    elif split == "validation" and layout == "ilsvrc" and not there:
        found = _flat(folder, classes, _validation_labels(root, folder), others)
    else:
        found = _by_class(folder, there, classes, layout, others)
    listed: dict[str, Found] = {}
    for name, label, path in found:
        known = identifier(name)
        if known in listed:
            raise UserError(f"{path}: the image {known!r} is there twice, see {listed[known][2]}")
        listed[known] = known, label, path
    return list(listed.values()), others


def _inner(root: Path) -> Path:
    kaggle = root / "ILSVRC" / "Data" / "CLS-LOC"
    return kaggle if kaggle.is_dir() else root


def _split_folder(split: str, root: Path) -> Path | None:
    return next((root / name for name in _FOLDERS[split] if (root / name).is_dir()), None)


def _entries(folder: Path) -> list[os.DirEntry]:
    """All that is in a folder except what systems leave behind."""
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not is_leftover(entry.name)]


def _image_files(folder: Path, others: list[str]) -> Iterator[os.DirEntry]:
    """The image files in a folder; the paths of what else is in it are added to `others`."""
    for entry in _entries(folder):
        if has_image_ending(entry.name):
            yield entry
        elif entry.name not in (*_LABELS, _DEVKIT):
            others.append(f"{entry.path}/" if entry.is_dir() else entry.path)


def _class_folders(folder: Path) -> dict[str, Path]:
    """Class -> its folder, whose name may be in another of Unicode's forms."""
    there: dict[str, Path] = {}
    for entry in _entries(folder):
        if entry.is_dir():
            name = same_name(entry.name)
            if name in there:
                raise UserError(f"{folder}: two folders are called {name!r}, in two of Unicode's forms; join them")
            there[name] = Path(entry.path)
    return there


def _by_class(
    folder: Path, there: dict[str, Path], classes: Sequence[str], layout: str, others: list[str]
) -> Iterator[Found]:
    """Images of the classes whose folders are `there`, in `folder`."""
    others += [entry.path for entry in _entries(folder) if has_image_ending(entry.name)]
    others += [f"{there[name]}/" for name in there.keys() - set(classes)]
    for name in classes:
        if name not in there:
            raise UserError(f"{folder}: no folder of class {name!r}; {_few(name, set(there))}")
        inner = there[name] / "images"
        in_images = layout == "tiny-imagenet" and inner.is_dir()
        found = list(_image_files(inner if in_images else there[name], others))
        if layout == "tiny-imagenet" and not in_images and not found:
            raise UserError(f"{there[name]}: no folder 'images', and no image")
        for entry in found:
            yield f"{name}/{entry.name}" if layout == "imagefolder" else entry.name, name, entry.path


def _annotations(path: Path) -> dict[str, str]:
    """File's name -> class, by Tiny ImageNet's val_annotations.txt."""
    rows = [line.split("\t") for line in _text(path) if line]
    for number, row in enumerate(rows, 1):
        if len(row) < 2:
            raise UserError(f"{path}, line {number}: expected file, class, ... between tabs")
    return {row[0]: row[1] for row in rows}


def _flat(folder: Path, classes: Sequence[str], labels: dict[str, str], others: list[str]) -> Iterator[Found]:
    """Images that lie together, whose classes are told by `labels`: file's name, with or without ending -> class."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    wanted = set(classes)
    for entry in _image_files(folder, others):
        name = same_name(entry.name)
        label = labels.get(name) or labels.get(Path(name).stem)
        if label is None:
            raise UserError(f"{entry.path}: no label; {nearest(entry.name, labels)}")
        if label in wanted:
            yield entry.name, label, entry.path


def _validation_labels(root: Path, folder: Path) -> dict[str, str]:
    places = [folder, root, *root.parents[:3]]  # Kaggle's solution lies three folders above `val`
    for place in places:
        if (place / _LABELS[0]).is_file():
            rows = csv.reader(_text(place / _LABELS[0]))
            return {row[0]: row[1].split()[0] for row in rows if len(row) > 1 and row[1].strip()}
        if (file := place / _LABELS[1]).is_file():
            return {f"ILSVRC2012_val_{number:08d}": label.strip() for number, label in enumerate(_text(file), 1)}
    devkit = any((place / _DEVKIT).is_file() for place in places)
    why = f"; {_DEVKIT} numbers the classes in an order of its own and cannot be used" if devkit else ""
    raise UserError(
        f"{folder}: the images are not in folders by class, and neither {_LABELS[0]} nor {_LABELS[1]} is in {root}{why}"
    )


def _text(path: Path) -> list[str]:
    return same_name(read_text(path)).splitlines()


def _few(name: str, known: set[str]) -> str:
    return nearest(name, known) if len(known) <= 20 else f"{len(known)} others are there, such as {min(known)!r}"
