"""Progress that suits the reader: a bar in a terminal or live notebook, one plain line per interval in a log.

The bar is tqdm's text bar, which leaves no widget state. Log files and notebooks executed by papermill get lines: the
first update, then one per interval, and the last.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from io import TextIOWrapper
from typing import TextIO

from tqdm.std import tqdm

INTERVAL = 10.0  # seconds between two plain lines


def write_to_any_console() -> None:
    """Let standard output and error write "?" for what their encoding lacks: an arrow on Windows, a strange file name.

    Python would stop with an error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a notebook's stream writes Unicode
            stream.reconfigure(errors="replace")


def _kernel_shell():
    """IPython's shell if this process is a notebook's kernel, else None. IPython is not imported for it."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell if hasattr(shell, "kernel") else None


def is_watched(stream: TextIO) -> bool:
    """Whether a person sees `stream` as it is written: a terminal, or a notebook with a front end.

    A kernel does not know its front end. Jupyter's server sets JPY_SESSION_NAME for the kernels of open notebooks, VS
    Code leaves a name in the notebook and Colab its module; a kernel with none of these is executed in batch.
    """
    shell = _kernel_shell()
    if shell is None:
        return stream.isatty()
    in_vs_code, in_colab = "__vsc_ipynb_file__" in shell.user_ns, "google.colab" in sys.modules
    return bool(os.environ.get("JPY_SESSION_NAME")) or in_vs_code or in_colab


class progress:
    """Counts through an iterable, `for batch in progress(batches, "reading")`, or to a total:

        with progress(300, "halo nano", unit="step") as bar:
            bar.update(note="loss 2.19")

    The default `stream` is standard error, but in a notebook, where that is red, standard output. `watched` chooses bar
    (True) or plain lines (False); default: by `is_watched`. `note` is shown after the count, until the next one.
    """

    def __init__(
        self,
        iterable_or_total: Iterable | int,
        description: str,
        *,
        unit: str = "item",
        stream: TextIO | None = None,
        watched: bool | None = None,
    ):
        counts = isinstance(iterable_or_total, int)
        self._iterable = None if counts else iterable_or_total
        sized = isinstance(iterable_or_total, Sized)
        self.total: int | None = iterable_or_total if counts else len(iterable_or_total) if sized else None
        self.description, self.unit, self.count, self.note = description, unit, 0, ""
        self.stream = stream or (sys.stdout if _kernel_shell() is not None else sys.stderr)
        self._started, self._printed_at, self._printed_count = time.monotonic(), -float("inf"), -1
        self._bar = None
        if is_watched(self.stream) if watched is None else watched:
            self._bar = tqdm(total=self.total, desc=description, unit=unit, file=self.stream, dynamic_ncols=True)

    def update(self, n: int = 1, note: str = "") -> None:
        """Count `n` more."""
        self.count += n
        self.note = note or self.note
        if self._bar is not None:
            self._bar.set_postfix_str(self.note, refresh=n == 0)  # the time goes on, though nothing is counted
            self._bar.update(n)
        elif time.monotonic() - self._printed_at >= INTERVAL or self.count == self.total:
            self._print_line()

    def say(self, text: str) -> None:
        """Print a line of its own, above the bar."""
        tqdm.write(text, file=self.stream)
        self.stream.flush()

    def close(self) -> None:
        """Write the last line, if it has not been written."""
        if self._bar is not None:
            self._bar.close()
        elif self._printed_count != self.count:
            self._print_line()

    def _print_line(self) -> None:
        self._printed_at, self._printed_count = time.monotonic(), self.count
        share = f"/{self.total} ({100 * self.count / self.total:.0f}%)" if self.total else ""
        parts = [f"{self.count}{share} {self.unit}", f"{self._printed_at - self._started:.0f} s", self.note]
        print(f"{self.description}: " + ", ".join(filter(None, parts)), file=self.stream, flush=True)

    def __iter__(self) -> Iterator:
        with self:
            for item in self._iterable:
                yield item
                self.update()

    def __enter__(self) -> progress:
        return self

    def __exit__(self, *_) -> None:
        self.close()
