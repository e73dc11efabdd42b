"""A run's checkpoints: `checkpoints/step-<step>-<digest>.safetensors`, whole or not there.

The name carries a digest of the file's bytes, so a file that was cut off, or changed on the disk, is known as such and
the one before is taken. What is no tensor stands in the file's metadata as JSON; nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from stm_lab.util import files

KEPT = 2
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` steps: tensors by name, and facts that JSON can hold."""

    step: int
    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors whose names begin with `prefix.`, without it."""
        return {
            name.removeprefix(f"{prefix}."): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }


def save(folder: Path, step: int, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Write a checkpoint so that it is whole once it is there, even if the machine stops; keep the last two.

    Raises OSError if it cannot be written; those before are then untouched.
    """
    folder.mkdir(exist_ok=True)
    contents = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        metadata={"facts": json.dumps({"step": step, **facts}, allow_nan=False)},
    )
    name = f"step-{step:08d}-{_digest(contents)}.safetensors"
    files.write_whole(folder / name, contents, durable=True)
    others = [(at, path) for at, path in _all(folder) if path.name != name]
    kept = [path for at, path in others if at < step][: KEPT - 1]
    for _, path in others:
        if path not in kept:  # older ones, and later ones, which were damaged: else this step would not be done again
            path.unlink(missing_ok=True)
    for unfinished in folder.glob(f"*{files.UNFINISHED}"):
        unfinished.unlink(missing_ok=True)


def latest(folder: Path) -> Checkpoint | None:
    """The last checkpoint that is whole; None if there is none. Damaged ones are passed over with a warning."""
    there = _all(folder)
    for step, path in there:
        contents = path.read_bytes()
        if _digest(contents) == _NAME.fullmatch(path.name)[2]:
            return Checkpoint(step, safetensors.torch.load(contents), _facts(contents))
        last = path == there[-1][1]
        rest = "no other is whole, so the run starts afresh" if last else "taking the checkpoint before it"
        warnings.warn(f"{path} is damaged; {rest}", stacklevel=2)
    return None


def _all(folder: Path) -> list[tuple[int, Path]]:
    """Steps and paths, the last first."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*.safetensors"))
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def _digest(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()[:16]


def _facts(contents: bytes) -> dict[str, Any]:
    # safetensors gives metadata of files alone; its header is a length in 8 bytes, then JSON
    length = int.from_bytes(contents[:8], "little")
    try:
        return json.loads(json.loads(contents[8 : 8 + length])["__metadata__"]["facts"])
    except (KeyError, ValueError) as error:
        raise SafetensorError(f"no facts in the checkpoint ({error})") from error
