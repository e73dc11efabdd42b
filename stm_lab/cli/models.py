"""`stm-lab mixers`, `models`, `train`."""

from __future__ import annotations

from typing import Annotated

import typer

from stm_lab.cli.console import Overrides, print_table

_OF_THE_NETWORK = {"pvt_v2": "its networks have a 3x3 convolution in the MLP where pvt's have a position embedding."}


def mixers() -> None:
    """List the spatial token mixers and their options."""
    from stm_lab.mixers.registry import described, list_mixers

    lines = []
    first = {}  # a mixer under a second name differs only in its networks
    for name in list_mixers():
        summary, options = described(name)
        if first.setdefault(summary, name) != name:
            summary = f"The operator of {first[summary]}; {_OF_THE_NETWORK.get(name, 'the networks differ.')}"
        lines.append((name, summary, ", ".join(f"{option}={default}" for option, default in options.items())))
    print_table("mixers", ("name", "note", "options"), lines)


def models() -> None:
    """List the models by their names in timm, with their parameters at 1000 classes."""
    import timm
    import torch

    from stm_lab.entrypoints import NAMES

    lines = []
    for name in (name for name in NAMES if name.startswith("unified_")):
        with torch.device("meta"):  # shapes alone, no memory
            model = timm.create_model(name, num_classes=1000)
        lines.append((name, f"{sum(parameter.numel() for parameter in model.parameters()):,}"))
    print_table("models", ("name", "parameters (1000 classes)"), lines)


def train(
    config: Annotated[str, typer.Argument(help="A preset (quick, class, paper-unified ...) or a YAML file.")],
    parameters: Overrides = [],  # noqa: B006
    force: Annotated[bool, typer.Option(help="Start anew, even if the run's folder holds results.")] = False,
) -> None:
    """Train one model, or resume an interrupted training."""
    from stm_lab.train.config import load_config
    from stm_lab.util.overrides import parse_overrides

    load_config(config, **parse_overrides(parameters))  # what is wrong is refused before torch is imported
    from stm_lab.train.__main__ import train as perform

    raise typer.Exit(perform(config, parameters, force=force))
