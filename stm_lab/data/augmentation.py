"""What may be done to training images, as data: a file of its own, since it is checked where nothing is computed."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Augmentation(BaseModel):
    """What happens to a training image before it is batched; the default is nothing at all. Types are strict."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    flip: bool = False  # left-right, for half of the views
    crop: Literal["none", "pad", "resized"] = "none"  # pad: shift by up to crop_padding; resized: 8-100% of the area
    crop_padding: int = Field(4, ge=1, le=32)  # pixels, mirrored at the border; for crop "pad"
    auto_augment: str | None = None  # RandAugment in timm's syntax, such as rand-m9-mstd0.5-inc1
    color_jitter: float = Field(0.0, ge=0, le=1)  # brightness, contrast, saturation; as in timm not beside auto_augment
    erasing: float = Field(0.0, ge=0, le=1)  # probability that one rectangle becomes normal noise

    @field_validator("auto_augment")
    @classmethod
    def _is_randaugment(cls, value: str | None) -> str | None:
        # timm skips over what it cannot read; a policy that is not applied must be an error
        if value is not None and not re.fullmatch(r"rand(-(m\d+|n\d+|mmax\d+|inc[01]|(p|mstd)\d+(\.\d+)?))*", value):
            raise ValueError(f"{value!r} is not RandAugment in timm's syntax, such as 'rand-m9-mstd0.5-inc1'")
        return value
