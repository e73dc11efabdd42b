"""`python -m stm_lab.train quick -p mixer=swin -p seed=1`: one run, also under `accelerate launch` and `torchrun`."""

from __future__ import annotations

import argparse
import sys

from stm_lab.errors import UserError
from stm_lab.overrides import parse_overrides
from stm_lab.train import fit, load_config


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 2 the input was wrong, 1 the training failed, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m stm_lab.train", description="Train one model.")
    parser.add_argument("config", help="a preset (quick, class) or a YAML file")
    parser.add_argument("-p", dest="overrides", metavar="key=value", action="append", default=[], help="set a field")
    options = parser.parse_args(arguments)
    try:
        result = fit(load_config(options.config, **parse_overrides(options.overrides)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    metrics = result.metrics
    print(f"top1 {metrics['top1']:.2f}% ({metrics['weights']}) in {metrics['seconds']:.1f} s: {result.run_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
