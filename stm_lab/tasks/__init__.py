"""What can each operator do? Networks of one mixer learn drawn tasks on a map of tokens, each with a label a token.

The design: no image, no stem, no downsampling. Symbols are embedded, pass the blocks of one stage of the unified
backbone, and are read out one by one, so that whatever a token knows of another came through the mixer. A task is a
function that draws tokens, and a function that answers them; chance is exact, and `identity` cannot beat it. Theory's
prediction for each mixer stands beside the task and was written before the first run. All maps are drawn on the fly, by
counter, the same for all mixers; of three learning rates the best on validation draws is reported on other draws, with
accuracy by step, since "cannot" and "learns slowly" differ. After Arora et al. 2023 (arXiv 2312.04927) and Poli et al.
2024 (arXiv 2403.17844), who did this for language.

    from stm_lab import tasks

    tokens, labels = tasks.get_task("recall").draw((0,), range(4), 12, 12)
    network, metrics = tasks.train("recall", "swin")
    rows = tasks.table(tasks.TableConfig(tasks=["copy-2", "recall"], mixers=["swin", "pvt"], seeds=[0]))
"""

from stm_lab.util.modules import lazily

__all__ = ["IGNORE", "MIXERS", "TASKS", "Draws", "Settings", "TableConfig", "Task", "TokenNetwork", "get_task"]
__all__ += ["outcome", "register_task", "table", "train", "verdict"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "definitions": ("IGNORE", "TASKS", "Draws", "Task", "get_task", "outcome", "register_task", "verdict"),
        "cells": ("MIXERS", "Settings", "TableConfig", "table"),
        "training": ("TokenNetwork", "train"),
    },
)
