"""Notebooks as experiments: `stm-lab demo`, `run`, `sweep`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stm_lab.cli.console import Overrides, print_table
from stm_lab.util.errors import UserError, WorkFailed

if TYPE_CHECKING:
    from stm_lab.course.run import Job, Limits
    from stm_lab.course.sweep import Engine, Sweep

Force = Annotated[bool, typer.Option(help="Start anew, even if there are results.")]
Timeout = Annotated[float | None, typer.Option(metavar="MINUTES", help="Stop a run after this time.")]
Memory = Annotated[float | None, typer.Option(metavar="GB", help="Stop a run that uses more memory (resident).")]


def demo(
    recipe: Annotated[str | None, typer.Option(help="A data recipe: name or YAML file.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="The folder of its raw data.")] = None,
    profile: Annotated[str, typer.Option(help="quick, demo, class or paper.")] = "demo",
    parameters: Overrides = [],  # noqa: B006  (typer reads it, nobody changes it)
    force: Force = False,
) -> None:
    """Train the mixers in one backbone, compare them, and print where figures and numbers are."""
    from stm_lab.course import rows, run, summary
    from stm_lab.util.overrides import parse_overrides

    values = parse_overrides(parameters)
    for name, value in (("recipe", recipe), ("data_root", data_root)):
        if value is not None and name in values:
            raise UserError(f"{name} is given twice, by --{name.replace('_', '-')} and by -p")
        if value is not None:
            values[name] = value
    folder = run("00_quickstart", values, profile=profile, force=force, echo=sys.stderr)

    recorded = rows(folder.path)
    baseline = "identity" if "identity" in set(recorded["mixer"]) else None
    table = summary(recorded, by="mixer", metric="top1", baseline=baseline)
    print_table("top-1 (%) on the validation split", table.columns, table.itertuples(index=False))
    for what in ("notebook", "html", "figures", "rows"):
        if (path := getattr(folder, what)).exists():  # a full disk may have prevented the page
            print(f"{what:<9} {path}")


def run(
    notebook: Annotated[str, typer.Argument(help="Name, number or path.")],
    parameters: Overrides = [],  # noqa: B006
    profile: Annotated[str, typer.Option(help="quick, or another of the notebook's card.")] = "quick",
    force: Force = False,
    timeout: Timeout = None,
    memory: Memory = None,
) -> None:
    """Run one notebook with these parameters, or resume its run; a finished run is not repeated."""
    from stm_lab.course import run as run_notebook
    from stm_lab.util.overrides import parse_overrides

    values = parse_overrides(parameters)
    folder = run_notebook(
        notebook, values, profile=profile, force=force, timeout=timeout, memory=memory, echo=sys.stderr
    )
    print(folder.path)


def sweep(
    file: Annotated[str, typer.Argument(help="A YAML file, or a name in the course's folder sweeps.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, and start nothing.")] = False,
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    processes: Annotated[int | None, typer.Option(min=1, help="Runs at a time; default: by cores and memory.")] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster: auto, or ray://host:port.")] = None,
    shard: Annotated[str, typer.Option(metavar="I/N", help="The I-th of N parts.")] = "1/1",
    force: Force = False,
    timeout: Timeout = None,
    memory: Memory = None,
) -> None:
    """Do the missing runs of a sweep, and gather the results."""
    from stm_lab.course import sweep as perform_sweep
    from stm_lab.course.run import Limits, describe
    from stm_lab.course.sweep import load_sweep, make_engine, parse_shard, plan_sweep

    loaded = load_sweep(file)
    chosen = make_engine(engine, processes=processes, address=address)
    if dry_run:
        limits = Limits(force, timeout, memory)
        _print_plan(loaded.title, plan_sweep(loaded, parse_shard(shard)), limits, chosen)
        return
    outcomes = perform_sweep(file, engine=chosen, shard=shard, force=force, timeout=timeout, memory=memory)
    states = [outcome.state for outcome in outcomes]
    print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    other_code = [outcome for outcome in outcomes if outcome.state == "done already" and outcome.message]
    if other_code:
        print(f"{len(other_code)} of them {other_code[0].message}; --force runs them again")
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        print(f"failed: {describe(outcome.job)}: {outcome.message}")
    _print_gathered(loaded, [outcome.job.folder.path for outcome in outcomes if outcome.state != "failed"])
    if failed:
        raise WorkFailed(f"{len(failed)} of {len(outcomes)} runs failed; the first: {failed[0].message}")


def _print_plan(title: str, jobs: list[Job], limits: Limits, engine: Engine) -> None:
    from stm_lab.course.forecast import forecast
    from stm_lab.course.run import describe

    with engine.room() as (room, where):
        would = forecast(jobs, limits, room)
    lines = []
    for job, plan, minutes in zip(jobs, would.plans, would.minutes, strict=True):
        state = job.folder.read_status().get("state", "missing")
        needs = (_minutes(minutes), f"{job.resources.memory_gb:g}", job.resources.cpus, f"{job.resources.gpus:g}")
        lines.append((job.key, describe(job), state, plan, *needs))
    print_table(title, ("key", "parameters", "state", "plan", "minutes", "GB", "CPUs", "GPUs"), lines)
    counts = ", ".join(f"{would.plans.count(plan)} {_PLANS[plan]}" for plan in dict.fromkeys(would.plans))
    source = f"as the {would.measured} that are done took" if would.measured else "by the card"
    print(
        f"{len(jobs)} runs, {counts}: about {_minutes(would.work)} minutes of runs ({source}), {_minutes(would.wall)} "
        f"{where} with {would.at_once} at a time, {would.memory_gb:.1f} GB of memory"
    )
    for note in would.notes:
        print(note)


_PLANS = {
    "run": "to run",
    "again": "to run again",
    "go on": "to go on with",
    "wait": "going on in another process",
    "skip": "done and skipped",
}


def _minutes(number: float) -> str:
    return f"{number:.0f}" if number >= 9.5 else f"{number:.2g}"


def _print_gathered(sweep: Sweep, folders: list[Path]) -> None:
    """The leaderboard of a sweep's runs, as its file asks for it; why there is none, if its rows do not make one."""
    from stm_lab.cli.results import print_leaderboard
    from stm_lab.course import leaderboard

    if not folders:
        return
    gather = sweep.gather
    try:
        table = leaderboard(folders, by=gather.by, metric=gather.metric, baseline=gather.baseline)
    except UserError as error:  # what was asked of the rows is wrong, not the runs
        print(f"no leaderboard: {error}")
    else:
        print_leaderboard(table, f"{sweep.title}: {gather.metric} by {gather.by}")
