"""Several processes on this machine: torchrun as a child, never a fork of this process, which may have touched CUDA."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from stm_lab.train.config import TrainConfig
from stm_lab.train.isolation import own_environment
from stm_lab.util.devices import cores
from stm_lab.util.errors import UserError
from stm_lab.util.processes import as_child


def launch(config: TrainConfig, *, force: bool) -> None:
    """Train in `config.num_processes` child processes; what they print is passed on as it comes.

    Raises:
        UserError: what the children said if the input was wrong.
        RuntimeError: the training failed.
    """
    folder = config.run_dir()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "config.yaml"
        path.write_text(config.model_copy(update={"num_processes": 1, "out": str(folder)}).to_yaml(), encoding="utf-8")
        processes = ["--standalone", "--nproc-per-node", str(config.num_processes)]
        training = ["-m", "stm_lab.train", str(path), *(["--force"] if force else [])]
        command = as_child("torch.distributed.run", *processes, *training)
        environment = own_environment() | {"OMP_NUM_THREADS": str(max(1, cores() // config.num_processes))}
        said = _run(command, environment)
    refused = [line for line in said if line.startswith("error: ")]
    failed = [line for line in said if line.startswith("failed: ")]
    if refused:
        raise UserError(refused[0].removeprefix("error: "))
    if failed:
        raise RuntimeError(failed[0].removeprefix("failed: "))


def _run(command: list[str], environment: dict[str, str]) -> list[str]:
    """Run to the end, passing lines on; all lines. Raises RuntimeError if it fails without saying why."""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        said, told = [], False  # after our own word, what torchrun says of its children's status is noise
        try:
            for line in child.stdout:
                said.append(line.rstrip())
                told = told or line.startswith(("error: ", "failed: "))
                if not told:
                    print(line, end="", flush=True)
        except BaseException:
            child.terminate()  # torchrun ends its children
            raise
    if child.returncode and not any(line.startswith(("error: ", "failed: ")) for line in said):
        raise RuntimeError(f"the child processes ended with status {child.returncode}: {' '.join(said[-3:])}")
    return said
