"""Training all models alike: `fit("quick", mixer="swin")`, `load_run(folder)`; `python -m stm_lab.train` too."""

from stm_lab.train.config import TrainConfig, list_presets, load_config
from stm_lab.train.folder import load_run
from stm_lab.train.loop import Result, evaluate, fit

__all__ = ["Result", "TrainConfig", "evaluate", "fit", "list_presets", "load_config", "load_run"]
