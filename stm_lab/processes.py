"""Children that know nothing of the program that started them."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager


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
