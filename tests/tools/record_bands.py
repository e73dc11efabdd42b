"""Record the accuracies of earlier runs, by which the health check judges later ones.

python tests/tools/record_bands.py RUN...  >  stm_lab/train/bands.yaml
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import yaml

from stm_lab.train.config import load_config
from stm_lab.train.health import band_key
from stm_lab.util import jsonfiles


def record(folders: Sequence[str | Path]) -> dict[str, dict[str, float]]:
    """The bands of finished runs: mean and standard deviation of top-1, percent; a single run makes none.

    Wide spreads are recorded too, since they tell how much seeds differ; `health.after` does not judge by them.
    """
    reached = defaultdict(list)
    for folder in map(Path, folders):
        config = load_config(folder / "config.yaml")
        reached[band_key(config)].append(jsonfiles.all_epochs(folder / "metrics.jsonl", config.epochs)[-1]["top1"])
    return {
        key: {
            "mean": round(statistics.mean(values), 2),
            "spread": round(statistics.stdev(values), 2),
            "runs": len(values),
        }
        for key, values in sorted(reached.items())
        if len(values) > 1
    }


if __name__ == "__main__":
    print("# top-1 (percent) of earlier runs by configuration: see tests/tools/record_bands.py")
    print(yaml.safe_dump(record(sys.argv[1:])), end="")
