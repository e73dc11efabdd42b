"""Training all models alike: `fit("quick", mixer="swin")`, `load_run(folder)`; `python -m stm_lab.train` too."""

from stm_lab.train.config import TrainConfig, list_presets, load_config
from stm_lab.train.evaluation import evaluate
from stm_lab.train.folder import load_run
from stm_lab.train.pool import fit_all
from stm_lab.train.runs import fit
from stm_lab.train.trainer import Result

__all__ = ["Result", "TrainConfig", "evaluate", "fit", "fit_all", "list_presets", "load_config", "load_run"]
