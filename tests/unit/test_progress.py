"""Progress in the three places where it is read: a terminal, a log, an executed notebook."""

import io
import itertools
import sys
from types import SimpleNamespace

import pytest

from stm_lab.util import progress as module
from stm_lab.util.progress import is_watched, progress


@pytest.fixture
def clock(monkeypatch):
    """Time that moves only when the test says so."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: now.seconds)
    return now


def run(clock, total, seconds_each):
    stream = io.StringIO()
    with progress(total, "work", unit="steps", stream=stream, watched=False) as bar:
        for i in range(total):
            clock.seconds += seconds_each
            bar.update(note=f"loss {i}")
    return stream.getvalue().splitlines()


@pytest.mark.parametrize(("total", "seconds_each"), list(itertools.product([1, 2, 7, 100], [0.01, 1.0, 3.0, 25.0])))
def test_one_line_per_interval_first_and_last_always(clock, total, seconds_each):
    lines = run(clock, total, seconds_each)
    assert lines[0].startswith("work: 1/")
    assert lines[-1].startswith(f"work: {total}/{total} (100%) steps")
    assert lines[-1].endswith(f"loss {total - 1}")
    assert len(lines) == len(set(lines))
    assert len(lines) <= 2 + total * seconds_each / 10
    assert "\r" not in "".join(lines)


def test_last_line_comes_when_the_work_breaks_off(clock):
    stream = io.StringIO()

    def work():
        with progress(10, "work", stream=stream, watched=False) as bar:
            for _ in range(4):
                bar.update()
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert stream.getvalue().splitlines()[-1].startswith("work: 4/10 (40%)")


def test_goes_through_an_iterable_of_unknown_length():
    stream = io.StringIO()
    assert list(progress((i for i in range(5)), "reading", stream=stream, watched=False)) == list(range(5))
    assert stream.getvalue().splitlines()[-1].startswith("reading: 5 item")


def test_a_count_is_no_iterable():
    with pytest.raises(TypeError, match="iterable"):
        list(progress(3, "x", stream=io.StringIO(), watched=False))


def test_a_watched_stream_gets_a_bar():
    stream = io.StringIO()
    with progress(3, "work", stream=stream, watched=True) as bar:
        for _ in range(3):
            bar.update(note="loss 1")
    assert "\r" in stream.getvalue()
    assert "3/3" in stream.getvalue()


def test_who_watches(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    pipe, terminal = io.StringIO(), SimpleNamespace(isatty=lambda: True)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not is_watched(pipe)
    assert is_watched(terminal)
    kernel = SimpleNamespace(kernel=object(), user_ns={})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: kernel))
    assert not is_watched(terminal)  # executed by papermill: nobody looks, whatever the stream claims
    monkeypatch.setenv("JPY_SESSION_NAME", "work/00_quickstart.ipynb")
    assert is_watched(pipe)
