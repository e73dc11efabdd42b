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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any

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


def side_by_side(work: Callable, jobs: Sequence[tuple], processes: int, *, threads: int) -> Iterator[tuple[int, Any]]:
    """(number of the job, `work(*job)`) as jobs are done, in so many processes with so many of torch's threads each.

    They are spawned, never forked, and end with this one; if it is interrupted or a job fails, they are ended.

    Raises:
        RuntimeError: a process died. What a job raises comes as it is.
    """
    before = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, initializer=_begin, initargs=(threads,)) as pool:
        try:
            with without_main():  # the first submissions start the processes
                running = {pool.submit(work, *job): number for number, job in enumerate(jobs)}
            for done in as_completed(running):
                yield running[done], done.result()
        except BaseException as error:  # Ctrl-C too
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            if isinstance(error, BrokenProcessPool):
                raise RuntimeError(
                    f"a training process died, perhaps for want of memory; with fewer than {processes} processes each "
                    "has more, and what was done is kept"
                ) from None
            raise


def _begin(threads: int) -> None:
    import torch  # here, since most users of this module compute nothing

    end_with_parent()
    torch.set_num_threads(threads)


if __name__ == "__main__":
    _run_as_child(*sys.argv[1:])
