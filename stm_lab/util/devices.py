"""Devices by name, and the number of cores. Nothing here touches a device before it is asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stm_lab.util.errors import UserError, check_known

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str | torch.device | None = "auto") -> torch.device:
    """The device called `name`; "auto" and None choose cuda, else mps, else cpu. A torch.device is returned as it is.

    Raises UserError for an unknown name, or a device that this machine does not have.
    """
    import torch  # here, since the number of cores is wanted where nothing is computed

    if isinstance(name, torch.device):
        return name
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    if name is None or name == "auto":
        return torch.device(next(kind for kind, is_here in available.items() if is_here()))
    check_known("device", name, DEVICES)
    if not available[name]():
        raise UserError(f"device {name!r} is not available on this machine; use 'auto' or 'cpu'")
    return torch.device(name)


def cores() -> int:
    """The number of cores that this process may use: `STM_LAB_CORES`, which a sweep sets for its runs, else all."""
    given = os.environ.get("STM_LAB_CORES", "")
    if given.isdecimal():
        return max(1, int(given))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
