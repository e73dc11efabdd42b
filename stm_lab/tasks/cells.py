"""The table: all mixers on all tasks, a row for each cell and seed, in one file that grows and is never trained twice.

What is wanted is checked before torch is imported, which takes seconds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from stm_lab.designs import Design, unified
from stm_lab.mixers import get_mixer, list_mixers
from stm_lab.mixers.plugins import MODULE_PREFIX, load_plugins
from stm_lab.tasks.definitions import TASKS, get_task
from stm_lab.util import jsonfiles, paths
from stm_lab.util.devices import cores, resolve_device
from stm_lab.util.environment import code_fingerprint, describe_environment
from stm_lab.util.errors import UserError, check_known
from stm_lab.util.files import sha256_of, write_whole
from stm_lab.util.folders import hold
from stm_lab.util.processes import side_by_side
from stm_lab.util.progress import progress

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Names = Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
Folder = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]
MIXERS = ("identity", "pooling", "convnext", "dcn_v3", "swin", "halo", "pvt", "pvt_v2")
_HEAD_DIM = 16


class Settings(BaseModel):
    """How networks are trained on the tasks: what decides a cell's numbers, besides its task, mixer and seed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    height: Count = 12  # tokens
    width: Count = 12
    dim: Count = 32
    depth: Count = 4  # blocks
    model_options: dict[str, Any] = {}  # overrides of each mixer's unified design, such as position_embedding
    steps: Count = 300
    batch_size: Count = 32  # maps
    learning_rates: Annotated[tuple[Rate, ...], Field(min_length=1, strict=False)] = (3e-3, 1e-3, 1e-2)
    validation_maps: Count = 128  # to choose the rate by
    test_maps: Count = 512  # that accuracy is reported on

    @property
    def every(self) -> int:
        """Steps between two points of a curve."""
        return max(1, self.steps // 10)


def design_of(mixer: str, settings: Settings) -> Design:
    """The mixer's unified design at the size of the tasks: nano's windows, no reduction, no position embedding.

    `settings.model_options` are on top. Raises UserError for an unknown mixer or option.
    """
    alike = {"layer_scale": 1.0, "mlp_ratios": (4, 4, 4, 4), "position_embedding": False}
    design = unified(mixer, "nano")
    alike |= {"dims": (settings.dim,) * 4, "depths": (settings.depth,) * 4}
    heads = settings.dim // _HEAD_DIM if settings.dim % _HEAD_DIM == 0 else 1
    design = replace(design, **alike, stage_options={"heads": (heads,) * 4, "reduction": (1,) * 4})
    return design.override(**settings.model_options)


class TableConfig(Settings):
    """A table: its settings, which cells it has, and where they are computed."""

    mixers: Names = MIXERS
    tasks: Names = tuple(TASKS)
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1, strict=False)] = (0, 1, 2)
    plugins: Annotated[tuple[str, ...], Field(strict=False)] = ()  # files that register mixers
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    processes: Count | None = None  # None: one a core on CPUs, else one
    out: Folder | None = None  # None: `runs_dir()/tasks`

    def settings(self) -> Settings:
        """What all cells share."""
        return Settings(**{name: getattr(self, name) for name in Settings.model_fields})

    def check(self) -> None:
        """Load the plugins. Raises UserError for an unknown task, mixer or option, and a map that is too small."""
        load_plugins(self.plugins)
        for mixer in self.mixers:
            check_known("mixer", mixer, list_mixers(), "tasks: ")
            if mixer not in MIXERS and not _is_of_plugin(mixer):
                raise UserError(f"tasks: mixer {mixer!r} is not defined in a file; give plugins=[file]")
        for name in self.tasks:
            task = get_task(name)
            trained, tested = task.sizes(self.height, self.width)
            for size in (trained, *tested):
                task.check_size(*size)
        for mixer in self.mixers:
            design_of(mixer, self.settings())


def table(config: TableConfig) -> list[dict[str, Any]]:
    """The rows of all cells of a table; those that are not in its file yet are trained, several at a time.

    The file is `rows.jsonl` of the folder `out`, beside `status.json` and `environment.json`, as notebooks' runs have
    them, so that leaderboards find it. Each row is added when its cell is done; a table that is killed goes on there.

    Returns:
        Rows (task, mixer, seed, accuracy, chance, predicted, lr, curves ...), seed by seed, task by task.

    Raises:
        UserError: as `TableConfig.check`; another process writes to the folder.
        RuntimeError: a process died.
    """
    config.check()
    settings, device = config.settings(), resolve_device(config.device)
    cells = ((task, mixer, seed) for seed in config.seeds for task in config.tasks for mixer in config.mixers)
    wanted = list(dict.fromkeys(cells))  # what is named twice is trained once
    folder = Path(paths.expanded(config.out) if config.out else paths.runs_dir() / "tasks").absolute()
    with hold(folder, "table"):
        file = folder / "rows.jsonl"
        stored, damage = jsonfiles.lines(file, _no_row) if file.exists() else ([], [])
        jsonfiles.tell(damage)
        done = {_key(row): row for row in stored}
        todo = [cell for cell in wanted if _key(_row(settings, *cell)) not in done]
        _note(folder, {"state": "running", "notebook": "tasks", "parameters": config.model_dump(mode="json")})
        environment = describe_environment(device)
        write_whole(folder / "environment.json", (json.dumps(environment, indent=1) + "\n").encode())
        facts = {"data": None, "revision": environment["git_revision"], "code": code_fingerprint()}
        with progress(len(todo), "tasks", unit="cells") as bar, closing(_trained(todo, config, str(device))) as cells:
            for cell, metrics in cells:
                row = _row(settings, *cell) | facts | {"device": str(device), "seconds": metrics["training_seconds"]}
                row["metrics"] |= metrics
                stored.append(row)
                done[_key(row)] = row
                write_whole(file, "".join(json.dumps(each) + "\n" for each in stored).encode())
                bar.update(note=f"{cell[0]}, {cell[1]}, seed {cell[2]}: {metrics['accuracy']:.1f}%")
        _note(folder, {"state": "done", "notebook": "tasks", "parameters": config.model_dump(mode="json")})
    return [flat(done[_key(_row(settings, *cell))]) for cell in wanted]


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row as figures read it: metrics beside task and seed."""
    return {"task": row["parameters"]["task"], "seed": row["seed"], **row["metrics"]}


def _note(folder: Path, status: dict[str, Any]) -> None:
    write_whole(folder / "status.json", (json.dumps(status, indent=1) + "\n").encode())


def _row(settings: Settings, task: str, mixer: str, seed: int) -> dict[str, Any]:
    """What a cell's row says before it is trained; a mixer of a plugin counts by its file's contents."""
    of_plugin = {"plugin": sha256_of(Path(_module_of(mixer).__file__))[:12]} if _is_of_plugin(mixer) else {}
    parameters = {"task": task, **settings.model_dump(mode="json")}
    return {"notebook": "tasks", "parameters": parameters, "seed": seed, "metrics": {"mixer": mixer, **of_plugin}}


def _is_of_plugin(mixer: str) -> bool:
    return _module_of(mixer).__name__.startswith(MODULE_PREFIX)


def _module_of(mixer: str) -> ModuleType:
    return sys.modules[get_mixer(mixer).__module__]


_no_row = partial(jsonfiles.not_objects, parts=("parameters", "metrics"), needed=True)


def _key(row: dict[str, Any]) -> str:
    """What tells cells apart."""
    own = {name: row["metrics"].get(name) for name in ("mixer", "plugin")}
    return json.dumps([row["parameters"], row["seed"], own], sort_keys=True)


def _trained(cells: list[tuple], config: TableConfig, device: str) -> Iterator[tuple[tuple, dict[str, Any]]]:
    """Each cell and its metrics, as they are done."""
    processes = min(config.processes or (cores() if device == "cpu" else 1), len(cells))
    jobs = [(*cell, config.settings(), config.plugins, device) for cell in cells]
    if processes > 1:
        for number, metrics in side_by_side(_cell, jobs, processes, threads=max(1, cores() // processes)):
            yield cells[number], metrics
    else:
        for cell, job in zip(cells, jobs, strict=True):
            yield cell, _cell(*job)


def _cell(task: str, mixer: str, seed: int, settings: Settings, plugins: tuple, device: str) -> dict[str, Any]:
    from stm_lab.tasks.training import train

    load_plugins(plugins)
    return train(task, mixer, settings, seed=seed, device=device)[1]
