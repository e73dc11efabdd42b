"""From runs to the weights that come with the package: float16, measured again after the cast.

python -m stm_lab.train nano-weights -p mixer=swin
python -m stm_lab.train.weights RUN...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import safetensors.torch

from stm_lab import data
from stm_lab.errors import UserError
from stm_lab.models import WEIGHTS
from stm_lab.train.config import load_config
from stm_lab.train.evaluation import evaluate
from stm_lab.train.folder import load_run

ROWS = WEIGHTS / "rows.jsonl"


def publish(run: str | Path) -> dict:
    """Write a finished run's weights, in float16, to the package's folder, and its row to the `rows.jsonl` there.

    The row has the run's configuration, its last metrics, and top-1 (percent of the validation split) of the weights
    as they are written. Raises UserError if there is no finished run.
    """
    run = Path(run)
    config, model = load_config(run / "config.yaml"), load_run(run)
    name = f"unified_{config.mixer}_{config.scale}.{Path(config.recipe).stem}"
    state = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    WEIGHTS.mkdir(exist_ok=True)
    path = WEIGHTS / f"{name}.safetensors"
    path.write_bytes(safetensors.torch.save({key: value.contiguous() for key, value in state.items()}))

    model.load_pretrained(str(path))  # as whoever uses them will
    image_size = config.image_size or data.load_recipe(config.recipe).image_size
    validation = data.load(config.recipe, "validation", data_root=config.data_root, image_size=image_size)
    top1, _ = evaluate(model, *data.to_tensors(validation, image_size, config.crop_pct))
    last = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    row = {
        "name": name,
        "top1_float16": top1,
        "metrics": last,
        "config": config.result_fields(),
        "data": data.fingerprint(config.recipe, data_root=config.data_root),
        "environment": json.loads((run / "environment.json").read_text(encoding="utf-8"))["packages"],
    }
    others = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if ROWS.is_file() else []
    rows = sorted([other for other in others if other["name"] != name] + [row], key=lambda one: one["name"])
    ROWS.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return row


def main(runs: list[str]) -> int:
    for run in runs:
        try:
            row = publish(run)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        print(f"{row['name']}: {row['metrics']['top1']:.2f}% trained, {row['top1_float16']:.2f}% as written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
