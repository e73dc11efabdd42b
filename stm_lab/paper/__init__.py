"""What the paper and its forerunners report, as data: published numbers and their sources.

Accuracies are top-1 on ImageNet-1k at 224x224 in percent, `box_ap` and `mask_ap` are of COCO in points. Parameters and
multiply-adds of an image of 224x224 are not the paper's but counted by `stm_lab.measure.cost` (tests compare them with
counts of the published code); `macs_fvcore` is the total that the paper prints, in full. Our own measurements are rows
(see `stm_lab.course`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

SOURCES = {
    "published": (
        "Hu et al. 2022, Demystify Transformers & Convolutions in Modern Image Deep Networks, arXiv 2211.05781, "
        "and the tables of its published code, github.com/OpenGVLab/STM-Evaluation: ImageNet-1k top-1 at 224x224 "
        "after 300 epochs; COCO box and mask AP of Mask R-CNN, 1x schedule"
    ),
    "Liu et al. 2021": "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, arXiv 2103.14030",
    "Liu et al. 2022": "A ConvNet for the 2020s, arXiv 2201.03545",
    "Wang et al. 2021": "Pyramid Vision Transformer, arXiv 2102.12122",
    "Wang et al. 2023": "InternImage: Exploring Large-Scale Vision Foundation Models, arXiv 2211.05778",
}


def published() -> tuple[Any, ...]:
    """The paper's table, five mixers, micro to base, as named tuples: mixer, scale, model, top1, box_ap, mask_ap,
    parameters, macs, macs_fvcore. `counts` also has pvt_v2 and dcn_v3 large, which it leaves out."""
    return tuple(_table("published").merge(_table("counts")).itertuples(index=False, name="Published"))


def originals() -> tuple[Any, ...]:
    """Four of the mixers' own networks in three sizes each, smallest first, as their papers report them: mixer, scale
    (the unified one of the nearest size), model, parameters_m (millions), top1, source.

    Each was trained by its authors' recipe. Halo has none: its paper reports other image sizes."""
    return tuple(_table("originals").itertuples(index=False, name="Original"))


def counts() -> dict[tuple[str, str], dict[str, int]]:
    """Parameters and multiply-adds at 224x224 of all 25 unified models of the published code, by (mixer, scale)."""
    return _table("counts").set_index(["mixer", "scale"]).to_dict("index")


def rows() -> list[dict[str, Any]]:
    """`published` as dictionaries, as figures take them."""
    return [one._asdict() for one in published()]


@cache
def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(Path(__file__).parent / f"{name}.csv")
