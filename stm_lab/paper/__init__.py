"""What the paper and its forerunners report, as data: figures that were published, with where they come from.

Nothing here was measured by us but for the counts, which were counted; our own numbers are rows (see `stm_lab.course`).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

_HERE = Path(__file__).parent

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
    (tests hold them to counts of the published code); `macs_fvcore` is the total that the paper prints, in full.
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

    Each was trained by its authors' recipe. `scale` is the unified scale that stands nearest in size. Of halo there is
    none here: its paper reports other sizes of image.
    """

    mixer: str
    scale: str
    model: str
    parameters_m: float
    top1: float
    source: str


@cache
def published() -> tuple[Published, ...]:
    """The paper's table, micro to base, five mixers; costs of pvt_v2 and of dcn_v3 large, which it leaves out, are in
    `counts`."""
    costs = counts()
    return tuple(
        Published(
            row["mixer"],
            row["scale"],
            row["model"],
            float(row["top1_imagenet1k"]),
            float(row["box_ap_coco_1x"]),
            float(row["mask_ap_coco_1x"]),
            **costs[row["mixer"], row["scale"]],
        )
        for row in _lines("published")
    )


@cache
def originals() -> tuple[Original, ...]:
    """The originals of four of the mixers in three sizes each, smallest first."""
    found, sizes = [], {}
    for row in _lines("originals"):  # smallest first
        sizes[row["family"]] = sizes.get(row["family"], -1) + 1
        scale = ("tiny", "small", "base")[sizes[row["family"]]]
        top1, millions = float(row["top1_imagenet1k"]), float(row["params_m"])
        found.append(Original(row["family"], scale, row["model"], millions, top1, row["source"]))
    return tuple(found)


@cache
def counts() -> Mapping[tuple[str, str], Mapping[str, int]]:
    """Parameters and multiply-adds at 224x224 of all 25 unified models of the published code, by (mixer, scale)."""
    lines = {(row.pop("mixer"), row.pop("scale")): row for row in _lines("counts")}
    return MappingProxyType({name: {key: int(value) for key, value in row.items()} for name, row in lines.items()})


def rows() -> list[dict]:
    """`published` as dictionaries, as figures take them."""
    return [asdict(one) for one in published()]


def order(scale: str = "micro", by: str = "top1") -> list[str]:
    """The mixers of a scale, the best first."""
    return [one.mixer for one in sorted(published(), key=lambda one: -getattr(one, by)) if one.scale == scale]


def _lines(name: str) -> list[dict[str, str]]:
    with (_HERE / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
