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

_EVERY = 0.5  # seconds between two looks at the parent of a process that multiprocessing did not start
_PARENT = "STM_LAB_PARENT"  # how a child started by `run_as_child` tells its own children whose they are


def end_with_parent(_: object = None) -> None:
    """End this process as soon as its parent has ended, even if that was killed and could tell nobody.

    Every process that the package starts calls this first. A thread waits for the parent: on Linux a signal could do
    the same, but it is sent when the thread that started the child ends, not the process, and other systems lack it.

    Args:
        _: not used; data loaders call it with the number of the worker.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:  # a pipe or a handle, which holds even if the parent has ended already

        def wait() -> None:
            multiprocessing.connection.wait([parent.sentinel])
    else:
        number = int(os.environ.pop(_PARENT, os.getppid()))

        def wait() -> None:
            _wait_for(number)

    def end() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=end, name="ends with its parent", daemon=True).start()


def _wait_for(parent: int) -> None:
    """Wait until the parent of this process, whose number that is or was, has ended."""
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
    """Processes that are started meanwhile do not run this program's main file anew.

    They need nothing of it; and where it has no `if __name__ == "__main__"`, it would do its work in each of them.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


if __name__ == "__main__":
    _run_as_child(*sys.argv[1:])
