"""The engine on Ray, with a stand-in for the cluster: what is submitted, heard, and put in its place."""

import contextlib
import dataclasses
import types

import pytest
from small_course import MIXERS, of, planned, states

from stm_lab import UserError
from stm_lab.course import cluster, engines, sweep
from stm_lab.course.cluster import Ray
from stm_lab.course.folder import RunFolder
from stm_lab.course.room import Machine, Room
from stm_lab.course.run import Limits
from stm_lab.course.watch import GIGABYTE
from stm_lab.util.errors import WorkFailed


class RayError(Exception):
    pass


class OneAtATime:
    """What the engine asks of Ray, with one worker: each `wait` ends the run that was submitted first.

    Args:
        answer: what the worker says of a job in the end.
    """

    exceptions = types.SimpleNamespace(RayError=RayError)

    def __init__(self, answer):
        self.answer, self.asked, self.cancelled = answer, [], []

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 1.0, "memory": GIGABYTE}}]

    def remote(self, **_):
        return lambda function: self

    def options(self, **_):
        return types.SimpleNamespace(remote=self._submit)

    def _submit(self, job, course, limits, probe, here):
        assert probe.is_file()
        self.asked.append(job.values["mixer"])
        return len(self.asked), lambda: self.answer(job)

    def wait(self, tasks, **_):
        return tasks[:1], tasks[1:]

    def get(self, task):
        said = task[1]()
        if isinstance(said, Exception):
            raise said
        return said

    def cancel(self, task):
        self.cancelled.append(task)


DONE = ("done", "", {})


@pytest.fixture
def submitted(small, monkeypatch):
    """Do jobs on such a Ray; their outcomes."""
    pytest.importorskip("ray")
    monkeypatch.setattr(cluster, "PAUSE", 0)

    def submitted(ray, jobs):
        monkeypatch.setattr(cluster, "_cluster", lambda address: contextlib.nullcontext(ray))
        return engines.do_all(Ray(), jobs, Limits(), "small")

    return submitted


# ---- held, lost -------------------------------------------------------------------------------------


def test_a_run_that_another_process_is_at_waits_and_is_then_found_done(submitted):
    jobs = planned(of(["halo", "swin"], [0]))

    def answer(job):
        if job.key != jobs[0].key:
            return DONE
        job.folder.create().write_json(job.folder.status, {"state": "done", "key": job.key})  # another was quicker
        return "held", "going on already", {}

    ray = OneAtATime(answer)
    assert states(submitted(ray, jobs)) == {"done already": 1, "done": 1}
    assert ray.asked == ["halo", "swin"]


def test_a_run_that_another_process_has_given_up_is_submitted_again(submitted):
    ray = OneAtATime(lambda job: DONE if len(ray.asked) == 3 else ("held", "", {}))
    assert states(submitted(ray, planned(of(["halo"], [0])))) == {"done": 1}


def test_a_run_held_here_is_not_submitted_until_it_is_free(submitted, monkeypatch):
    jobs = planned(of(["halo", "swin"], [0]))
    held = iter([True, True, False])
    monkeypatch.setattr(RunFolder, "is_held", lambda folder: folder == jobs[0].folder and next(held, False))
    ray = OneAtATime(lambda job: DONE)
    assert states(submitted(ray, jobs)) == {"done": 2}
    assert ray.asked == ["swin", "halo"]


def test_a_lost_worker_fails_alone(submitted):
    ray = OneAtATime(lambda job: RayError("x\nThe node died.") if job.values["mixer"] == "swin" else DONE)
    outcomes = submitted(ray, planned(of(MIXERS, [0])))
    assert states(outcomes) == {"done": 2, "failed": 1}
    assert [outcome.message for outcome in outcomes if outcome.state == "failed"] == ["lost by Ray: The node died."]


def test_ctrl_c_cancels_what_is_left(submitted):
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


# ---- which machine could do it ---------------------------------------------------------------------------------------


def asking(small, cpus, gpus, gb):
    resources = {"minutes": 1, "memory_gb": gb, "cpus": cpus, "gpus": gpus}
    return planned(of(["halo"], [0], resources=resources))[0]


def test_a_run_needs_one_machine_that_has_it_all(small):
    """Two machines of 4 CPUs do not make one of 6, and a GPU on one is no help to memory on the other."""
    room = Room([Machine(4, 64, 0), Machine(4, 8, 1)])
    room.check(asking(small, 4, 0, 60))
    room.check(asking(small, 4, 1, 8))
    for cpus, gpus, gb in ((6, 0, 1), (1, 1, 16), (1, 2, 1), (1, 0, 65)):
        with pytest.raises(UserError, match="no machine has all of that") as caught:
            room.check(asking(small, cpus, gpus, gb))
        assert "4 CPUs, 0 GPUs and 64.0 GB; 4 CPUs, 1 GPUs and 8.0 GB" in str(caught.value)


def test_machines_fill_up_and_are_given_back(small):
    first, second = Machine(2, 1, 0), Machine(1, 1, 0)
    room, job = Room([first, second]), asking(small, 1, 0, 0.4)
    places = [room.take(job) for _ in range(4)]
    assert places == [(first, []), (first, []), (second, []), None]
    room.give_back(job, places[0])
    assert room.take(job) == (first, [])


def test_runs_share_gpus_and_do_without_on_a_machine_that_has_none(small):
    half = asking(small, 1, 0.5, 0.1)
    room = Room([Machine(9, 9, 2)], lenient=True)
    assert [gpus for _, gpus in (room.take(half) for _ in range(4))] == [[0], [0], [1], [1]]
    assert room.take(half) is None
    assert Room([Machine(9, 9, 0)], lenient=True).take(half)[1] == []


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
    found = {path.relative_to(folder.path).as_posix(): path for path in folder.path.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != ".lock"}


@pytest.fixture
def receive(small, tmp_path):
    """Receive a run's files in the folder of a job; its outcome."""
    job = planned(of(["halo"], [0], parameters={"out": str(tmp_path / "here")}))[0]
    return lambda theirs, state="done": cluster._received(job, state, "", files_of(theirs)).state


def test_a_whole_run_takes_the_place_of_what_was_there(receive, tmp_path):
    theirs = a_run(tmp_path / "far", "done", rows="new", train={"halo-s0": "new"}, figure="new")
    ours = a_run(tmp_path / "here", "interrupted", rows="old", train={"swin-s0": "old"}, figure="old")
    assert receive(theirs) == "done"
    assert files_of(ours) == files_of(theirs)
    assert set(files_of(ours)) == {"rows.jsonl", "train/halo-s0/model.safetensors", "figures/new.png", "status.json"}


def test_a_run_that_failed_takes_no_training_away(receive, tmp_path):
    theirs = a_run(tmp_path / "far", "failed", train={"swin-s0": "new"})
    ours = a_run(tmp_path / "here", "interrupted", train={"halo-s0": "old"})
    assert receive(theirs, "failed") == "failed"
    assert {"train/halo-s0/model.safetensors", "train/swin-s0/model.safetensors"} < set(files_of(ours))
    assert ours.read_status()["state"] == "failed"


def test_a_run_that_failed_far_away_does_not_undo_one_that_is_done_here(receive, tmp_path):
    theirs = a_run(tmp_path / "far", "failed", rows="half")
    ours = a_run(tmp_path / "here", "done", rows="whole")
    assert receive(theirs, "failed") == "failed"
    assert (ours.rows.read_text(), ours.read_status()["state"]) == ("whole", "done")


def test_results_of_a_run_that_goes_on_here_wait(receive, tmp_path):
    theirs = a_run(tmp_path / "far", "done")
    with RunFolder(tmp_path / "here").create().alone():
        assert receive(theirs) == "held"
    assert receive(theirs) == "done"


@pytest.mark.parametrize("before", [None, "done"])
def test_a_full_disk_here_is_told_and_never_looks_done(receive, tmp_path, monkeypatch, before):
    """Whichever file does not go through."""
    theirs = a_run(tmp_path / "far", "done")
    write_whole = cluster.write_whole
    for at in range(3):
        ours = a_run(tmp_path / "here", before) if before else RunFolder(tmp_path / "here")
        count = iter(range(3))

        def full(path, contents, at=at, count=count):
            if next(count) == at:
                raise OSError(28, "No space left on device")
            write_whole(path, contents)

        with monkeypatch.context() as patch:
            patch.setattr(cluster, "write_whole", full)
            assert receive(theirs) == "failed"
        assert not ours.status.exists()
    assert receive(theirs) == "done"


@pytest.mark.slow
@pytest.mark.parametrize(("act", "state"), [("score", "done"), ("fail", "failed")])
def test_a_worker_that_does_not_see_our_folder_sends_everything(small, tmp_path, act, state):
    """Also what `out` would put somewhere else: on that machine it names another folder, or somebody's."""
    ours = tmp_path / "out" if act == "score" else None
    job = planned(of(["halo"], [0], parameters={"act": act, "out": ours and str(ours)}))[0]
    course = {path.name: path.read_bytes() for path in small.iterdir()}
    answer = cluster._on_worker(job, course, Limits(), tmp_path / "nowhere", {})
    assert not job.folder.path.exists()
    assert b'"out = None' in answer[2]["notebook.ipynb"]
    outcome = cluster._received(job, *answer)
    assert outcome.state == state
    assert {"status.json", "notebook.ipynb", "notebook.html", "log.txt"} <= set(files_of(job.folder))
    assert job.folder.rows.exists() == job.is_done() == (state == "done")


def test_a_worker_with_other_data_does_nothing(small, tmp_path):
    job = dataclasses.replace(planned(of(["halo"], [0]))[0], key="0123456789ab")
    course = {path.name: path.read_bytes() for path in small.iterdir()}
    state, message, files = cluster._on_worker(job, course, Limits(), tmp_path / "nowhere", {})
    assert (state, files) == ("failed", {})
    assert "the data or plugins there are not those of the sweep" in message
