"""Make the weights that come with the package from runs: float16, measured again after the cast.

stm-lab train nano-weights -p mixer=swin
python tests/tools/publish_weights.py RUN...
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from stm_lab import data
from stm_lab.entrypoints import WEIGHTS
from stm_lab.published import read_facts
from stm_lab.train.config import TrainConfig, list_presets, load_config
from stm_lab.train.evaluation import evaluate
from stm_lab.train.folder import WEIGHTS as MODEL_FILE
from stm_lab.train.folder import load_run, view_of, weights_with_facts
from stm_lab.util import jsonfiles
from stm_lab.util.errors import UserError, WorkFailed

ROWS = WEIGHTS / "rows.jsonl"


def publish(run: str | Path) -> dict:
    """Write a finished run's weights, in float16, to the package's folder, and its row to the `rows.jsonl` there.

    The row has the run's configuration, its last metrics, top-1 (percent of the validation split) of the weights as
    they are written, and their provenance: a command that trains the same, the revision and fingerprint of the code,
    the device, the versions of packages. Raises UserError if there is no finished run.
    """
    run = Path(run)
    config, model = load_config(run / "config.yaml"), load_run(run)
    name = f"unified_{config.mixer}_{config.scale}.{Path(config.recipe).stem}"
    state = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    WEIGHTS.mkdir(exist_ok=True)
    path = WEIGHTS / f"{name}.safetensors"
    path.write_bytes(weights_with_facts(state, read_facts(run / MODEL_FILE)))

    model.load_pretrained(path)  # as every user will
    view = view_of(config)
    validation = data.load(config.recipe, "validation", data_root=config.data_root, image_size=view.resized_side)
    top1, _ = evaluate(model, *data.to_tensors(validation, view))
    last = jsonfiles.all_epochs(run / "metrics.jsonl", config.epochs)[-1]
    made_with = jsonfiles.read(run / "environment.json")
    row = {
        "name": name,
        "command": command_of(config),
        "top1_float16": top1,
        "metrics": last,
        "config": config.result_fields(),
        "data": data.fingerprint(config.recipe, data_root=config.data_root),
        "revision": made_with.get("git_revision"),  # null: the package was installed, and not run from a checkout
        "code": made_with.get("code"),
        "device": made_with.get("device_name"),
        "environment": made_with["packages"],
    }
    others = jsonfiles.lines(ROWS)[0] if ROWS.is_file() else []
    rows = sorted([other for other in others if other["name"] != name] + [row], key=lambda one: one["name"])
    ROWS.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return row


def command_of(config: TrainConfig) -> str:
    """The shortest command that trains this outcome: a preset, its mixer, and the fields that differ."""
    wanted = config.result_fields()

    def differing(preset: str) -> dict:
        there = load_config(preset).result_fields()
        return {name: value for name, value in wanted.items() if name == "mixer" or value != there[name]}

    preset = min(list_presets(), key=lambda preset: len(differing(preset)))
    values = {name: value if isinstance(value, str) else json.dumps(value) for name, value in differing(preset).items()}
    assignments = [part for name, value in values.items() for part in ("-p", f"{name}={value}")]
    return shlex.join(["stm-lab", "train", preset, *assignments])


def main(runs: list[str]) -> int:
    """Publish the runs in these folders; returns the exit status: 0, 2 for no finished run, 1 for a damaged one."""
    for run in runs:
        try:
            row = publish(run)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except WorkFailed as error:  # its rows are damaged
            print(f"failed: {error}", file=sys.stderr)
            return 1
        print(f"{row['name']}: {row['metrics']['top1']:.2f}% trained, {row['top1_float16']:.2f}% as written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
