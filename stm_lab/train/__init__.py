"""Training all models alike: `fit("quick", mixer="swin")`, `fit_all(configs)`, `load_run(folder)`."""

from stm_lab.util.modules import lazily

__all__ = ["Result", "TrainConfig", "evaluate", "fit", "fit_all", "list_presets", "load_config", "load_run"]

# a configuration is checked without torch, which takes seconds to import
__getattr__, __dir__ = lazily(
    __name__,
    {
        "config": ("TrainConfig", "list_presets", "load_config"),
        "evaluation": ("evaluate",),
        "folder": ("load_run",),
        "runs": ("fit", "fit_all"),
        "trainer": ("Result",),
    },
)
