"""A run is followed row by row, and its figure grows in one place."""

import json
from types import SimpleNamespace

import pytest
from companions import companion
from matplotlib.figure import Figure

from stm_lab import UserError, figures
from stm_lab.train import checkpoints, fit
from stm_lab.train.trainer import Trainer

OWN_09 = companion("09")
FEW = (32, 20)  # images to train and to validate on


@pytest.fixture
def short(few, tmp_path):
    """Three epochs of two steps."""
    return {
        "mixer": "identity", "recipe": few, "image_size": 32, "epochs": 3, "batch_size": 16, "device": "cpu",
        "out": str(tmp_path / "run"),
    }  # fmt: skip


@pytest.fixture
def shown(monkeypatch):
    """What has been displayed: a list for each place, of all that stood there."""
    places = []

    def display(thing, display_id=False):
        places.append([thing])
        return SimpleNamespace(update=places[-1].append) if display_id else None

    monkeypatch.setattr(OWN_09, "display", display)
    return places


# ---- fit calls ------------------------------------------------------------------------------------------------------


def test_called_after_each_epoch_with_all_rows_once_they_are_safe(short, tmp_path):
    calls = []

    def follow(rows):
        checkpoint = checkpoints.latest(tmp_path / "run" / "checkpoints")
        assert checkpoint.facts["rows"] == rows
        calls.append(rows)

    result = fit(short, on_row=follow)
    assert [len(rows) for rows in calls] == [1, 2, 3]
    assert [rows[-1]["epoch"] for rows in calls] == [1, 2, 3]
    assert (
        calls[-1]
        == result.rows
        == [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    )


def test_what_is_called_cannot_change_the_run(short):
    assert len(fit(short, on_row=lambda rows: rows.clear()).rows) == 3


def test_a_finished_run_is_shown_at_once(short):
    calls, result = [], fit(short)
    fit(short, on_row=calls.append)
    assert calls == [result.rows]


def test_a_run_that_goes_on_shows_what_was_there_first(short, monkeypatch):
    evaluate = Trainer.evaluate

    def interrupted(self):
        if self.step == 4:
            raise KeyboardInterrupt
        return evaluate(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(short)
    calls = []
    fit(short, on_row=calls.append)
    assert [len(rows) for rows in calls] == [1, 2, 3]


def test_child_processes_cannot_be_followed(short):
    with pytest.raises(UserError, match=r"num_processes = 1, or read .*metrics\.jsonl"):
        fit(short, num_processes=2, on_row=print)


# ---- the figure -----------------------------------------------------------------------------------------------------


def rows(count):
    keys = ("loss", "validation_loss", "top1", "top1_raw", "grad_norm", "grad_norm_max")
    return [{"epoch": i + 1, **dict.fromkeys(keys, 1.0)} for i in range(count)]


def test_watched_it_is_redrawn_in_one_place(shown):
    with OWN_09.LiveFigure(figures.run_curves, watched=True) as follow:
        assert [len(place) for place in shown] == [1]  # the place is taken before anything is printed
        for count in (1, 2, 3):
            follow(rows(count))
    assert [len(place) for place in shown] == [4]
    drawn = shown[0][1:]
    assert [len(figure.axes[0].lines[0].get_xdata()) for figure in drawn] == [1, 2, 3]
    assert drawn[-1] is follow.figure


def test_unwatched_only_the_last_is_shown_once(shown):
    with OWN_09.LiveFigure(figures.run_curves, watched=False) as follow:
        for count in (1, 2, 3):
            follow(rows(count))
        assert shown == []
    assert shown == [[follow.figure]]
    assert len(follow.figure.axes[0].lines[0].get_xdata()) == 3


def test_a_run_that_breaks_off_leaves_its_curves(shown):
    def broken():
        with OWN_09.LiveFigure(figures.run_curves, watched=False) as follow:
            follow(rows(2))
            raise RuntimeError("the loss is nan")

    with pytest.raises(RuntimeError, match="nan"):
        broken()
    assert isinstance(shown[0][0], Figure)


def test_without_rows_there_is_nothing_to_show(shown):
    with OWN_09.LiveFigure(figures.run_curves, watched=False) as follow:
        pass
    assert shown == []
    assert follow.figure is None
