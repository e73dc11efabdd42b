"""`python -m stm_lab.train quick -p mixer=swin -p seed=1`: one run, also under `accelerate launch` and `torchrun`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from torch.distributed import is_torchelastic_launched

from stm_lab.train import fit, list_presets, load_config
from stm_lab.train.processes import is_child
from stm_lab.util.errors import UserError, one_line
from stm_lab.util.overrides import parse_overrides
from stm_lab.util.processes import end_with_parent
from stm_lab.util.progress import write_to_any_console


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 2 the input was wrong, 1 the training failed, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m stm_lab.train", description="Train one model.")
    parser.add_argument("config", help=f"a preset ({', '.join(list_presets())}) or a YAML file")
    parser.add_argument("-p", dest="overrides", metavar="key=value", action="append", default=[], help="set a field")
    parser.add_argument("--force", action="store_true", help="start afresh, whatever the run's folder holds")
    write_to_any_console()
    options = parser.parse_args(arguments)
    return train(options.config, options.overrides, force=options.force)


def train(config: str, assignments: Iterable[str], *, force: bool) -> int:
    """Train a preset or file with these `key=value` on top; returns the exit status, as `main` does."""
    if is_child() and is_torchelastic_launched():
        end_with_parent()
    try:
        result = fit(load_config(config, **parse_overrides(assignments)), force=force)
    except UserError as error:
        return _ended(f"error: {error}", 2)
    except RuntimeError as error:
        return _ended(f"failed: {error}", 1)
    except KeyboardInterrupt:
        return 130
    metrics = result.metrics
    if _speaks():
        print(f"top1 {metrics['top1']:.2f}% ({metrics['weights']}) in {metrics['seconds']:.1f} s: {result.run_dir}")
    return 0


def _speaks() -> bool:
    """Whether this process speaks for all of a run's."""
    return not is_child() or os.environ["RANK"] == "0"


def _ended(text: str, status: int) -> int:
    """Say why the run ends, under torchrun in its report too, which comes after any output of ours."""
    if _speaks():
        print(one_line(text), file=sys.stderr, flush=True)
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        Path(report).write_text(json.dumps({"message": text, "timestamp": int(time.time())}), encoding="utf-8")
    return status


if __name__ == "__main__":
    status = main()
    if status == 130 and _speaks():
        print("interrupted", file=sys.stderr, flush=True)
    sys.exit(status)
