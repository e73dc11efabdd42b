"""Child processes: they end with their parent, and do not run its main file again.

`python -m stm_lab.util.processes PID MODULE ...` runs another program's module as such a child of process PID.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import runpy
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

_EVERY = 0.5  # seconds between two looks at a parent that is not of multiprocessing
_PARENT = "STM_LAB_PARENT"  # by which a child started by `_run_as_child` tells its own children who their parent is


def end_with_parent(_: object = None) -> None:
    """End this process as soon as its parent has ended, even if the parent was killed.

    Every process that the package starts calls this first; data loaders pass it the worker's number. A thread waits for
    the parent: Linux can send a signal, but sends it when the thread that started the child ends, not the process.
    """
    parent = multiprocessing.parent_process()
    number = int(os.environ.pop(_PARENT, os.getppid())) if parent is None else 0

    def end() -> None:
        if parent is not None:  # a pipe or a handle, which holds even if the parent has ended already
            multiprocessing.connection.wait([parent.sentinel])
        else:
            _wait_for(number)
        os._exit(1)

    threading.Thread(target=end, name="ends with its parent", daemon=True).start()


def _wait_for(parent: int) -> None:
    """Wait until the process of this number, the parent of this one, has ended."""
    if os.name == "posix":
        while os.getppid() == parent:  # an orphan gets another
            time.sleep(_EVERY)
    else:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(parent).wait()


def as_child(module: str, *arguments: str) -> list[str]:
    """The command that runs a module in a new process that ends with this one."""
    return [sys.executable, "-m", "stm_lab.util.processes", str(os.getpid()), module, *arguments]


def _run_as_child(parent: str, module: str, *arguments: str) -> None:
    os.environ[_PARENT] = parent
    end_with_parent()
    os.environ[_PARENT] = str(os.getpid())  # for the children of that module
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


@contextmanager
def without_main() -> Iterator[None]:
    """Processes that are started meanwhile do not run this program's main file again.

    They need nothing of it; without an `if __name__ == "__main__"` it would do its work in each of them.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


if __name__ == "__main__":
    _run_as_child(*sys.argv[1:])
