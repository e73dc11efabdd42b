"""Webdataset shards: tar files with KEY.jpg and KEY.cls, or else KEY.json with a `label`, for each image.

Only headers and labels are read to list the images; an image is later read from its place in the file, so the file must
not be compressed.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

from stm_lab.data.folders import Image, identifier
from stm_lab.data.image_files import has_image_ending, is_leftover
from stm_lab.util.errors import UserError, check_known
from stm_lab.util.files import same_name

MAX_SHARDS = 100_000  # of a split; ImageNet-1k has 1,024
_LABEL_UP_TO = 2**20  # bytes


def expanded(pattern: str) -> list[str]:
    """`a-{08..10}.tar` -> a-08.tar, a-09.tar, a-10.tar.

    Raises UserError for braces that are not such a range, and for a range of more than `MAX_SHARDS`.
    """
    match = re.fullmatch(r"([^{}]*)(?:\{([0-9]{1,12})\.\.([0-9]{1,12})\}([^{}]*))?", pattern)
    if not match or (match[2] and int(match[2]) > int(match[3])):
        raise UserError(f"{pattern!r} is not a file name with at most one range such as {{000..012}}")
    if not match[2]:
        return [pattern]
    numbers = range(int(match[2]), int(match[3]) + 1)
    if len(numbers) > MAX_SHARDS:
        raise UserError(f"{pattern!r} stands for {len(numbers):,} shards, more than {MAX_SHARDS:,}")
    return [f"{match[1]}{number:0{len(match[2])}d}{match[4]}" for number in numbers]


def images(path: Path, labels: Sequence[str] | None) -> tuple[list[Image], list[str]]:
    """(identifier, class, place) of every image in a shard, and the members that were passed over.

    A place is `PATH#OFFSET+BYTES`, as `sources.stored_bytes` reads it. Members that are links, folders or sparse are
    passed over, like files of another ending: only what lies in the shard itself is read.

    `labels`: the classes that the numbers 0, 1, ... stand for; None: labels are the identifiers of classes.

    Raises OSError for a file that cannot be opened, and UserError naming file and key: no tar file, an image without a
    label, a label that means nothing.
    """
    pictures: dict[str, list[tarfile.TarInfo]] = {}
    labelled: dict[str, tuple[str, bytes]] = {}  # key -> name and content of the member with its label
    others: list[str] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, ending = member.name.rpartition(".")
                if is_leftover(member.name.rpartition("/")[2]):
                    continue
                is_image = has_image_ending(member.name)
                if not member.isreg() or member.issparse() or not (is_image or ending in ("cls", "json")):
                    others.append(f"{path}: {member.name}")
                elif is_image:
                    pictures.setdefault(key, []).append(member)
                elif member.size > _LABEL_UP_TO:
                    raise UserError(f"{path}: {member.name} has {member.size:,} bytes, too many for a label")
                elif ending == "cls" or key not in labelled:
                    labelled[key] = member.name, tar.extractfile(member).read()
    except tarfile.TarError as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{path}: not a tar file that can be read in place, and uncompressed ({why})") from None
    if missing := pictures.keys() - labelled.keys():
        key = min(missing)
        raise UserError(f"{path}: {key!r} has no label: neither {key}.cls nor {key}.json")
    classes = {key: _label(content, f"{path}: {name}", labels) for key, (name, content) in labelled.items()}
    return [
        (identifier(member.name), classes[key], f"{path}#{member.offset_data}+{member.size}")
        for key, members in pictures.items()
        for member in members
    ], others


def _label(content: bytes, where: str, labels: Sequence[str] | None) -> str:
    try:
        text = content.decode("utf-8-sig")
        value = same_name(str(json.loads(text)["label"] if where.endswith(".json") else text).strip())
    except UnicodeDecodeError:
        raise UserError(f"{where}: not UTF-8 text") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{where}: expected a JSON object with a 'label'") from None
    if not value.isdecimal():
        check_known("label", value, [value] if labels is None else labels, where=f"{where}: ")
        return value
    if labels is None:
        raise UserError(f"{where}: the label is the number {value}; the recipe's source must list `labels`")
    if len(value) > 18 or int(value) >= len(labels):
        raise UserError(f"{where}: label {value[:18]}, but the recipe's source lists {len(labels)} labels")
    return labels[int(value)]
