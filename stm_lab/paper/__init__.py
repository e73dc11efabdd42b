"""What the paper and its forerunners report, as data: published numbers and their sources.

Only the parameters and multiply-adds were counted by us; our own measurements are rows (see `stm_lab.course`).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

SOURCES: Mapping[str, str] = MappingProxyType(
    {
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
)


@dataclass(frozen=True)
class Published:
    """One network of the paper: top-1 on ImageNet-1k in percent, box and mask AP on COCO in points; and its costs.

    `parameters` and multiply-adds for one image of 224x224 are not the paper's but counted by `stm_lab.measure.cost`
    (tests compare them with counts of the published code); `macs_fvcore` is the total that the paper prints, in full.
    """

    mixer: str
    scale: str
    model: str
    top1: float
    box_ap: float
    mask_ap: float
    parameters: int
    macs: int
    macs_fvcore: int


@dataclass(frozen=True)
class Original:
    """A network as its own paper reports it: top-1 on ImageNet-1k in percent at 224x224, millions of parameters.

    Each was trained by its authors' recipe. `scale` is the unified scale of the nearest size. Halo has none: its paper
    reports other image sizes.
    """

    mixer: str
    scale: str
    model: str
    parameters_m: float
    top1: float
    source: str


@cache
def published() -> tuple[Published, ...]:
    """The paper's table: five mixers, micro to base. `counts` also has pvt_v2 and dcn_v3 large, which it leaves out."""
    columns, found = ("top1_imagenet1k", "box_ap_coco_1x", "mask_ap_coco_1x"), []
    for row in _rows("published"):
        name = row["mixer"], row["scale"]
        found.append(Published(*name, row["model"], *(float(row[column]) for column in columns), **counts()[name]))
    return tuple(found)


@cache
def originals() -> tuple[Original, ...]:
    """The originals of four of the mixers in three sizes each, smallest first."""
    found = []
    for number, row in enumerate(_rows("originals")):
        numbers = float(row["params_m"]), float(row["top1_imagenet1k"])
        scale = ("tiny", "small", "base")[number % 3]
        found.append(Original(row["family"], scale, row["model"], *numbers, row["source"]))
    return tuple(found)


@cache
def counts() -> Mapping[tuple[str, str], Mapping[str, int]]:
    """Parameters and multiply-adds at 224x224 of all 25 unified models of the published code, by (mixer, scale)."""
    found = {}
    for row in _rows("counts"):
        name = row.pop("mixer"), row.pop("scale")
        found[name] = {column: int(value) for column, value in row.items()}
    return MappingProxyType(found)


def rows() -> list[dict]:
    """`published` as dictionaries, as figures take them."""
    return [asdict(one) for one in published()]


def _rows(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
