"""Training all models alike: `fit("quick", mixer="swin")`, `load_run(folder)`; `python -m stm_lab.train` too."""

from stm_lab.util.lazy import lazily

__all__ = ["Result", "TrainConfig", "evaluate", "fit", "fit_all", "list_presets", "load_config", "load_run"]

# a configuration is checked without torch, which takes seconds to import
__getattr__, __dir__ = lazily(
    __name__,
    {
        "config": ("TrainConfig", "list_presets", "load_config"),
        "evaluation": ("evaluate",),
        "folder": ("load_run",),
        "pool": ("fit_all",),
        "runs": ("fit",),
        "trainer": ("Result",),
    },
)
