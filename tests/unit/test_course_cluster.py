"""The engine on Ray, with a stand-in for the cluster: what is submitted, heard, and put in its place."""

import dataclasses
import os
import platform
import types

import pytest
from small_course import MIXERS, of, planned, states

from stm_lab import UserError
from stm_lab.course import cluster, sweep
from stm_lab.course.board import Board
from stm_lab.course.cluster import (
    Ray,
    _Answer,
    _course_of,
    _Desk,
    _Machines,
    _received,
    _Submitted,
    _unpack,
    _work_on_ray,
    _zipped,
)
from stm_lab.course.engines import Limits
from stm_lab.course.folder import RunFolder
from stm_lab.course.watch import GIGABYTE
from stm_lab.util.errors import WorkFailed


class RayError(Exception):
    pass


class OneAtATime:
    """What the engine asks of Ray, with one worker: each `wait` ends the run that goes on, and begins the next.

    Args:
        answer: what the worker says of a job.
        begun: called with a job as its run begins.
    """

    exceptions = types.SimpleNamespace(RayError=RayError)

    def __init__(self, answer, begun=lambda job: None):
        self.answer, self.begun = answer, begun
        self.queue, self.cancelled = [], []

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 1.0, "memory": GIGABYTE}}]

    def remote(self, **options):
        return self._actor if "max_restarts" in options else lambda function: self

    def _actor(self, kind):
        of_kind = kind()

        def method(name):
            return types.SimpleNamespace(remote=lambda *args: (name, getattr(of_kind, name)(*args)))

        self.desk = types.SimpleNamespace(**{name: method(name) for name in ("begins", "news")})
        return types.SimpleNamespace(remote=lambda: self.desk)

    def options(self, **_):
        def remote(job, limits, probe, course, desk):
            self.queue.append(reference := (job.key, len(self.queue), id(job)))
            self.jobs = {**getattr(self, "jobs", {}), reference: job}
            return reference

        return types.SimpleNamespace(remote=remote)

    def wait(self, references, **_):
        if not hasattr(self, "now"):
            self._begin(references)
            return [], references
        done = [self.now]
        del self.now
        return done, [each for each in references if each not in done]

    def _begin(self, references):
        self.now = next(each for each in self.queue if each in references)
        self.desk.begins.remote(self.jobs[self.now].key, "far", True)
        self.begun(self.jobs[self.now])

    def get(self, reference, **_):
        if reference[0] == "news":
            return reference[1]
        answer = self.answer(self.jobs[reference])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self, reference):
        self.cancelled.append(reference)


def submitted(ray, todo, limits=None):
    with Board("small", len(todo)) as board:
        runs = _Submitted(ray, limits or Limits(), board, None)
        ray.board = board
        return list(runs.perform(todo).values())


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(cluster.time, "sleep", lambda seconds: None)


# ---- queued, running, held, lost -------------------------------------------------------------------------------------


def test_what_is_queued_is_not_shown_as_running(small, capsys):
    shown = []
    ray = OneAtATime(lambda job: _Answer("done", "", True), lambda job: shown.append(ray.board._note()))
    outcomes = submitted(ray, planned(of(MIXERS, [0, 1])))
    assert states(outcomes) == {"done": 6}
    assert {outcome.way for outcome in outcomes} == {"over the shared folder"}
    # as the next one begins, before that is heard: nothing runs, and the ended ones wait no more
    assert shown == [f"0 running, {6 - k} waiting, 0 failed" for k in range(6)]
    said = capsys.readouterr().err
    assert said.count("far: results over the shared folder") == 1


def test_the_board_has_the_one_that_runs(small):
    seen = []

    class Watched(Board):
        def look(self):
            seen.append([job.values["mixer"] for job, _ in self.running.values()])

    ray = OneAtATime(lambda job: _Answer("done", "", True))
    with Watched("small", 3) as board:
        _Submitted(ray, Limits(), board, None).perform(planned(of(MIXERS, [0])))
    assert [names for names in seen if names] == [["halo"], ["halo"], ["swin"], ["swin"], ["pvt"], ["pvt"]]


def test_a_run_that_another_process_is_at_waits_and_is_then_found_done(small):
    jobs, asked = planned(of(["halo", "swin"], [0])), []

    def answer(job):
        asked.append(job.values["mixer"])
        if job is jobs[0]:  # another sweep was quicker
            job.folder.create().write_json(job.folder.status, {"state": "done", "key": job.key})
            return _Answer("held", "going on already", True)
        return _Answer("done", "", True)

    outcomes = submitted(OneAtATime(answer), jobs)
    assert states(outcomes) == {"done already": 1, "done": 1}
    assert asked == ["halo", "swin"]


def test_a_run_that_another_process_has_given_up_is_submitted_again(small):
    jobs, asked = planned(of(["halo"], [0])), []

    def answer(job):
        asked.append(job.key)
        return _Answer("held" if len(asked) < 3 else "done", "", True)

    assert states(submitted(OneAtATime(answer), jobs)) == {"done": 1}
    assert len(asked) == 3


def test_a_run_held_here_is_not_submitted_until_it_is_free(small, monkeypatch):
    jobs = planned(of(["halo", "swin"], [0]))
    held = iter([True, True, False])
    monkeypatch.setattr(RunFolder, "is_held", lambda folder: folder == jobs[0].folder and next(held, False))
    ray = OneAtATime(lambda job: _Answer("done", "", True))
    assert states(submitted(ray, jobs)) == {"done": 2}
    assert [key for key, _, _ in ray.queue] == [jobs[1].key, jobs[0].key]


def test_a_lost_worker_fails_alone(small):
    ray = OneAtATime(
        lambda job: RayError("x\nThe node died.") if job.values["mixer"] == "swin" else _Answer("done", "", True)
    )
    outcomes = submitted(ray, planned(of(MIXERS, [0])))
    assert states(outcomes) == {"done": 2, "failed": 1}
    assert [outcome.message for outcome in outcomes if outcome.state == "failed"] == ["lost by Ray: The node died."]


def test_a_desk_that_is_lost_stops_nothing(small):
    class NoDesk(OneAtATime):
        def get(self, reference, **how):
            if reference[0] == "news":
                raise RayError("The actor died.")
            return super().get(reference, **how)

    assert states(submitted(NoDesk(lambda job: _Answer("done", "", True)), planned(of(MIXERS, [0])))) == {"done": 3}


def test_ctrl_c_cancels_what_is_left(small):
    def interrupt(job):
        raise KeyboardInterrupt

    ray = OneAtATime(interrupt)
    with pytest.raises(KeyboardInterrupt):
        submitted(ray, planned(of(MIXERS, [0])))
    assert len(ray.cancelled) == 2  # the one that was asked for has its answer


@pytest.mark.parametrize(("address", "kind"), [(None, WorkFailed), ("auto", UserError)])
def test_a_cluster_that_does_not_come_up_is_told_in_one_line(small, monkeypatch, address, kind):
    """Whatever Ray raises: on a machine under load it is a bare Exception."""
    ray = pytest.importorskip("ray")

    def overloaded(**_):
        raise Exception("The current node timed out during startup.\nThis could happen ...")

    monkeypatch.setattr(ray, "init", overloaded)
    with pytest.raises(kind, match="timed out during startup") as caught:
        sweep(of(["halo"], [0]), engine=Ray(address))
    assert "\n" not in str(caught.value)


def test_a_desk_tells_everything_once():
    desk = _Desk()
    desk.begins("a", "far", True)
    desk.begins("b", "near", False)
    assert desk.news() == [("a", "far", True), ("b", "near", False)]
    assert desk.news() == []


# ---- which machine could do it ---------------------------------------------------------------------------------------


def asking(small, cpus, gpus, gb):
    resources = {"minutes": 1, "memory_gb": gb, "cpus": cpus, "gpus": gpus}
    return planned(of(["halo"], [0], resources=resources))[0]


def test_a_run_needs_one_machine_that_has_it_all(small):
    """Two machines of 4 CPUs do not make one of 6, and a GPU on one is no help to memory on the other."""
    machines = _Machines([{"CPU": 4, "memory": 64 * GIGABYTE}, {"CPU": 4, "GPU": 1, "memory": 8 * GIGABYTE}])
    machines.check(asking(small, 4, 0, 60))
    machines.check(asking(small, 4, 1, 8))
    for cpus, gpus, gb in ((6, 0, 1), (1, 1, 16), (1, 2, 1), (1, 0, 65)):
        with pytest.raises(UserError, match="no machine of the cluster has all of that") as caught:
            machines.check(asking(small, cpus, gpus, gb))
        assert "4 CPUs, 0 GPUs and 64.0 GB; 4 CPUs, 1 GPUs and 8.0 GB" in str(caught.value)


def test_machines_fill_up_and_are_given_back(small):
    machines = _Machines([{"CPU": 2, "memory": GIGABYTE}, {"CPU": 1, "memory": GIGABYTE}])
    job = asking(small, 1, 0, 0.4)
    places = [machines.take(job) for _ in range(4)]
    assert places == [0, 0, 1, None]
    machines.give_back(job, 0)
    assert machines.take(job) == 0


# ---- results that are brought back -----------------------------------------------------------------------------------


def a_run(folder, state, **texts):
    """A folder as a run leaves it: rows, a training, `status.json` with `state`."""
    made = RunFolder(folder).create()
    made.rows.write_text(texts.get("rows", "rows"))
    for name, text in texts.get("train", {}).items():
        (folder / "train" / name).mkdir(parents=True)
        (folder / "train" / name / "model.safetensors").write_text(text)
    (made.figures / f"{texts.get('figure', 'a')}.png").write_text("picture")
    made.write_json(made.status, {"state": state})
    return made


def files_of(folder):
    return {path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*") if path.is_file()} - {".lock"}


def test_a_whole_run_takes_the_place_of_what_was_there(tmp_path):
    theirs = a_run(tmp_path / "far", "done", rows="new", train={"halo-s0": "new"}, figure="new")
    ours = a_run(tmp_path / "here", "interrupted", rows="old", train={"swin-s0": "old"}, figure="old")
    _unpack(_zipped(theirs.path), ours, whole=True)
    assert files_of(ours) == {"rows.jsonl", "train/halo-s0/model.safetensors", "figures/new.png", "status.json"}
    assert (ours.rows.read_text(), ours.read_status()["state"]) == ("new", "done")


def test_a_run_that_failed_takes_no_training_away(tmp_path):
    theirs = a_run(tmp_path / "far", "failed", train={"swin-s0": "new"})
    ours = a_run(tmp_path / "here", "interrupted", train={"halo-s0": "old"})
    _unpack(_zipped(theirs.path), ours, whole=False)
    assert {"train/halo-s0/model.safetensors", "train/swin-s0/model.safetensors"} < files_of(ours)
    assert ours.read_status()["state"] == "failed"


def test_a_run_that_failed_far_away_does_not_undo_one_that_is_done_here(tmp_path):
    theirs = a_run(tmp_path / "far", "failed", rows="half")
    ours = a_run(tmp_path / "here", "done", rows="whole")
    _unpack(_zipped(theirs.path), ours, whole=False)
    assert (ours.rows.read_text(), ours.read_status()["state"]) == ("whole", "done")


def received(job, answer):
    ray = types.SimpleNamespace(get=lambda reference: answer, exceptions=types.SimpleNamespace(RayError=RayError))
    return _received(ray, None, job)


def as_worker(monkeypatch, job, probe):
    """What a worker does of a job, in this process, and what it says to the desk."""
    for name in ("STM_LAB_DATA", "STM_LAB_RUNS", "STM_LAB_NOTEBOOKS"):  # it changes these
        monkeypatch.setenv(name, os.environ.get(name, ""))
    said = []
    desk = types.SimpleNamespace(begins=types.SimpleNamespace(remote=lambda *news: said.append(news)))
    return _work_on_ray(job, Limits(), probe, _course_of(job), desk), said


@pytest.mark.slow
@pytest.mark.parametrize(("act", "state"), [("score", "done"), ("fail", "failed")])
def test_a_worker_that_does_not_see_our_folder_sends_everything(small, monkeypatch, tmp_path, act, state):
    job = planned(of(["halo"], [0], parameters={"act": act}))[0]
    answer, said = as_worker(monkeypatch, job, tmp_path / "nowhere")
    assert (answer.state, answer.shares) == (state, False)
    assert said == [(job.key, platform.node(), False)]
    assert not job.folder.path.exists()
    outcome = received(job, answer)
    assert (outcome.state, outcome.way) == (state, "brought back by Ray")
    assert {"status.json", "notebook.ipynb", "notebook.html", "log.txt"} <= files_of(job.folder)
    assert job.folder.rows.exists() == job.is_done() == (state == "done")


@pytest.mark.slow
def test_a_worker_that_sees_our_folder_writes_there(small, monkeypatch, tmp_path):
    (tmp_path / "probe").touch()
    job = planned(of(["halo"], [0]))[0]
    answer, said = as_worker(monkeypatch, job, tmp_path / "probe")
    assert (answer.state, answer.shares, answer.files) == ("done", True, None)
    assert said == [(job.key, platform.node(), True)]
    assert job.is_done()


def test_a_worker_with_other_data_does_nothing(small, monkeypatch, tmp_path):
    job = dataclasses.replace(planned(of(["halo"], [0]))[0], key="0123456789ab")
    answer, _ = as_worker(monkeypatch, job, tmp_path / "nowhere")
    assert (answer.state, answer.files) == ("failed", None)
    assert "the data or plugins there are not those of the sweep" in answer.message
    assert received(job, answer).way == ""


def test_results_of_a_run_that_goes_on_here_wait(small, tmp_path):
    job = planned(of(["halo"], [0]))[0]
    answer = _Answer("done", "", False, _zipped(a_run(tmp_path / "far", "done").path))
    with job.folder.create().alone():
        assert received(job, answer).state == "held"
    outcome = received(job, answer)
    assert (outcome.state, outcome.way) == ("done", "brought back by Ray")


def test_a_full_disk_here_is_told_and_never_looks_done(small, tmp_path, monkeypatch):
    """Whichever file does not go through: the run is not done, and nothing half unpacked stays."""
    job = planned(of(["halo"], [0]))[0]
    answer = _Answer("done", "", False, _zipped(a_run(tmp_path / "far", "done").path))
    moved = type(tmp_path).replace

    for at in range(3):
        count = iter(range(10))

        def full(path, target, at=at, count=count):
            if next(count) == at:
                raise OSError(28, "No space left on device")
            return moved(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(type(tmp_path), "replace", full)
            outcome = received(job, answer)
        if at < 2:  # the folder of figures is merged, so rows and status are what is moved
            assert outcome.state == "failed"
            assert "could not be put in their place: " in outcome.message
            assert "No space left on device" in outcome.message
            assert not job.is_done()
            assert "status.json" not in files_of(job.folder)
        assert not (job.folder.path / ".incoming").exists()
