"""A sweep: one notebook, many parameters. A YAML file says which runs; an engine does those that are missing.

Each run is the one that `stm-lab run` would do, in the same folder with the same key. So a sweep has no state of its
own: what is done is found again, whoever did it, and two sweeps may share runs.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from stm_lab.course.cards import Card, Resources, Strict, load_card
from stm_lab.course.cluster import Ray
from stm_lab.course.engines import Local, Outcome, do_all
from stm_lab.course.run import Job, Limits, plan
from stm_lab.course.watch import terminated_as_interrupted
from stm_lab.util import paths, yaml12
from stm_lab.util.errors import UserError, check_known, nearest, shown
from stm_lab.util.validation import validated

Engine = Local | Ray


class Gather(Strict):
    """Which results the sweep is about, as `leaderboard` takes them."""

    by: str = "mixer"
    metric: str = "top1"
    baseline: str | None = None


class Sweep(Strict, BaseModel):
    """What a sweep's file says."""

    name: str
    title: str
    notebook: str | int
    profile: str = "quick"
    parameters: dict[str, Any] = {}  # the same for all runs
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}  # every combination of these
    listed: list[dict[str, Any]] = Field(default=[], alias="list")  # with each of these
    seeds: list[int] = []  # and each seed, as the parameter `seed` or as `seeds: [seed]`
    plugins: list[str] = []  # files that register mixers, relative to the sweep's file
    resources: Resources | None = None  # of each run; None: those of the card's profile
    max_runs: int = Field(default=1000, ge=1, le=100_000)  # a slip in a grid is told before a thousand runs start
    gather: Gather = Gather()

    @model_validator(mode="after")
    def _each_is_given_once(self) -> Sweep:
        given = Counter([*self.parameters, *self.grid, *{name for point in self.listed for name in point}])
        given.update((["seed", "seeds"] if self.seeds else []) + (["plugins"] if self.plugins else []))
        for name, times in given.items():
            if times > 1:
                raise ValueError(f"{name!r} is given twice")
        return self

    def count(self) -> int:
        """How many runs it asks for: the product of seeds, list and grid, which are not built for it."""
        return max(1, len(self.seeds)) * max(1, len(self.listed)) * math.prod(map(len, self.grid.values()))

    def points(self) -> list[dict[str, Any]]:
        """The parameters of each run but for the seed. Of two points, the grid's last parameter differs first."""
        combinations = [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        return [{**self.parameters, **point, **more} for point in self.listed or [{}] for more in combinations]


def load_sweep(source: str | Path) -> Sweep:
    """The sweep in a YAML file, or the one of that name in the course's folder `sweeps`. Raises UserError."""
    path = paths.expanded(source)
    if not path.suffix:
        folder = paths.notebooks_dir() / "sweeps"
        check_known("sweep", str(source), [file.stem for file in folder.glob("*.yaml")])
        path = folder / f"{source}.yaml"
    fields = yaml12.read_mapping(path)
    sweep = validated(Sweep, {"name": path.stem, "title": path.stem, **fields}, str(path))
    beside = [str((path.absolute().parent / file).resolve()) for file in sweep.plugins]
    return sweep.model_copy(update={"plugins": beside})


def plan_sweep(sweep: Sweep, shard: tuple[int, int] = (1, 1)) -> list[Job]:
    """The runs of a sweep, one seed after the other, so that a sweep that is stopped early has compared all of them.

    shard: (i, n) with 1 <= i <= n: the i-th of n parts, which together are the whole.
    Raises UserError for anything that `plan` refuses, for any of the runs; too many runs; two that are one.
    """
    card = load_card(sweep.notebook)
    if (runs := sweep.count()) > sweep.max_runs:
        number = f"{runs:,}" if runs < 10**15 else "more than 10^15"
        raise UserError(f"sweep {sweep.name}: {number} runs are more than max_runs = {sweep.max_runs}")
    points = [point | _seeded(card, seed) for seed in sweep.seeds or [None] for point in sweep.points()]
    if sweep.plugins:
        check_known("parameter", "plugins", card.parameters, f"sweep {sweep.name}: ")
        points = [{**point, "plugins": sweep.plugins} for point in points]
    fingerprints: dict[tuple[Any, Any], str | None] = {}
    jobs: dict[Path, Job] = {}
    for point in points:
        try:
            job = plan(card, point, profile=sweep.profile, resources=sweep.resources, fingerprints=fingerprints)
        except UserError as error:
            raise UserError(f"sweep {sweep.name}: {error}") from None
        if job.folder.path in jobs:
            what = "would share the folder `out`" if "out" in point else "are one and the same"
            raise UserError(f"sweep {sweep.name}: two of its runs {what}: {shown(point, 200)}")
        jobs[job.folder.path] = job
    index, parts = shard
    return list(jobs.values())[index - 1 :: parts]


def _seeded(card: Card, seed: int | None) -> dict[str, Any]:
    if seed is None:
        return {}
    for name, value in (("seed", seed), ("seeds", [seed])):
        if name in card.parameters:
            return {name: value}
    raise UserError(f"{card.name} has no parameter seed or seeds; {nearest('seed', card.parameters)}")


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/8" -> (2, 8). Raises UserError for anything else."""
    first, _, second = text.partition("/")
    if re.fullmatch("[0-9]{1,9}/[0-9]{1,9}", text) and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise UserError(f"shard {shown(text)}: expected i/n with 1 <= i <= n, such as 1/4")


def sweep(
    source: str | Path | Mapping[str, Any],
    *,
    engine: Engine | None = None,
    shard: str = "1/1",
    force: bool = False,
    timeout: float | None = None,
    memory: float | None = None,
) -> list[Outcome]:
    """Do the runs of a sweep that are not done; one that fails does not stop the others.

    Args:
        source: a file, a name in the course's `sweeps`, or what such a file would hold.
        engine: `Local(processes)` (the default) or `Ray(address)`.
        shard: "i/n", a part of it, for the job arrays of a batch system.
        force, timeout, memory: of each run, as of `Limits`.

    Returns:
        The outcome of each run, in the order of the plan.

    Raises:
        UserError: the sweep or one of its runs is not right, or their folder cannot be written to; nothing started.
        KeyboardInterrupt: Ctrl-C or SIGTERM. What ran has stopped, and goes on when the sweep is started again.
    """
    limits = Limits(force, timeout, memory)
    is_mapping = isinstance(source, Mapping)
    loaded = validated(Sweep, {"name": "sweep", **source}, "sweep") if is_mapping else load_sweep(source)
    jobs = plan_sweep(loaded, parse_shard(shard))
    for job in {job.folder.path.parent: job for job in jobs if not job.is_done()}.values():
        job.folder.create()  # one of each place, so that a place that cannot be written to is told once
    for job in jobs:
        job.check_place(force)
    with terminated_as_interrupted():  # so does a batch system end what takes too long
        return do_all(engine or Local(), jobs, limits, loaded.title)


def make_engine(name: str, *, processes: int | None = None, address: str | None = None) -> Engine:
    """The engine called "local" or "ray". Raises UserError for another name, and for what the engine has no use for."""
    check_known("engine", name, ("local", "ray"))
    if name == "local" and address is not None:
        raise UserError("--address is of the engine ray; add --engine ray")
    if name == "ray" and processes is not None:
        raise UserError("--processes is of the engine local; Ray places runs by the CPUs and GPUs of their cards")
    return Local(processes) if name == "local" else Ray(address)
