"""Devices by name, the number of cores, and how memory is freed. Nothing here touches a device before it is asked."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING

from stm_lab.util.errors import UserError, check_known

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h

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


def keep_freed_memory() -> None:
    """Let glibc reuse the memory of large tensors, up to 1 GB each, for the rest of this process.

    By default it returns blocks above 32 MB to the system when they are freed, and the pages of the next tensor are
    faulted in anew: 198,000 faults a step of unified_convnext_tiny (batch 8, 224 pixels, one thread of an Intel Xeon).
    Without them the step takes 2.94 s of processor time instead of 3.21 s, and unified_swin_tiny's 2.59 s instead of
    2.89 s; the peak of memory is 2% higher (one run each, not repeated). A nano model has no such
    tensors. Does nothing without glibc.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    # where the first is refused (older versions allow 32 MB), the second alone would fix the threshold at 128 kB
    if hasattr(libc, "gnu_get_libc_version") and libc.mallopt(_M_MMAP_THRESHOLD, 2**30) == 1:
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
