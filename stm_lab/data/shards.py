"""Webdataset shards: tar files in which KEY.jpg stands beside KEY.cls, or else KEY.json with a `label`.

Only the headers are read to list what is there; an image is then read from its place in the file, so that the file must
not be compressed.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

from stm_lab.data.folders import identifier
from stm_lab.errors import UserError, check_known
from stm_lab.image_files import IMAGE_FILES


def expanded(pattern: str) -> list[str]:
    """`a-{08..10}.tar` -> a-08.tar, a-09.tar, a-10.tar. Raises UserError for braces that are not such a range."""
    match = re.fullmatch(r"([^{}]*)(?:\{(\d+)\.\.(\d+)\}([^{}]*))?", pattern)
    if not match or (match[2] and int(match[2]) > int(match[3])):
        raise UserError(f"shards: {pattern!r} is not a file name with at most one range such as {{000..012}}")
    if not match[2]:
        return [pattern]
    return [f"{match[1]}{i:0{len(match[2])}d}{match[4]}" for i in range(int(match[2]), int(match[3]) + 1)]


def images(path: Path, labels: Sequence[str] | None) -> list[tuple[str, str, int, int]]:
    """(identifier, class, offset, bytes) of every image in a shard.

    Args:
        labels: the class that a number stands for; None: labels are the classes' identifiers themselves.

    Raises UserError naming file and key: not a tar file, an image without a label, a label that means nothing.
    """
    pictures: dict[str, tarfile.TarInfo] = {}
    told: dict[str, dict[str, bytes]] = {}  # key -> ending -> content
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, dot, ending = member.name.rpartition(".")
                if (dot + ending).lower() in IMAGE_FILES:
                    if key in pictures:
                        raise UserError(f"{path}: two images are called {key!r}")
                    pictures[key] = member
                elif ending in ("cls", "json"):
                    told.setdefault(key, {})[ending] = tar.extractfile(member).read()
    except (tarfile.TarError, OSError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{path}: not a tar file that can be read in place, and uncompressed ({why})") from None
    classes = {}
    for key, contents in told.items():
        ending = "cls" if "cls" in contents else "json"
        classes[key] = _label(contents[ending], ending, f"{path}: {key}.{ending}", labels)
    for key in pictures:
        if key not in classes:
            raise UserError(f"{path}: {key!r} has no label: neither {key}.cls nor {key}.json")
    return [
        (identifier(member.name), classes[key], member.offset_data, member.size) for key, member in pictures.items()
    ]


def _label(content: bytes, ending: str, where: str, labels: Sequence[str] | None) -> str:
    try:
        value = json.loads(content)["label"] if ending == "json" else content.decode()
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{where}: expected a JSON object with a 'label'") from None
    value = str(value).strip()
    if labels is None:
        if value.isdigit():
            raise UserError(f"{where}: the label is the number {value}; the recipe's source must list `labels`")
        return value
    if value.isdigit():
        if int(value) >= len(labels):
            raise UserError(f"{where}: label {value}, but the recipe's source lists {len(labels)} labels")
        return labels[int(value)]
    check_known("label", value, labels, where=f"{where}: ")
    return value
