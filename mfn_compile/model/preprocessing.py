"""From a uint8 crop to the float tensor that a network expects."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

CROP_SIZE = 112  # the ArcFace template's crop; smaller inputs are its centre


class Preprocessing(BaseModel):
    """Input contract of a network: size, colour order, and (pixel - mean) / std a channel.

    `mean` and `std` are in units of 8-bit pixel values and in the order of `color`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = Field(gt=0, le=CROP_SIZE)
    width: int = Field(gt=0, le=CROP_SIZE)
    color: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @field_validator("mean")
    @classmethod
    def _mean_is_finite(cls, mean: tuple[float, ...]) -> tuple[float, ...]:
        if not all(math.isfinite(m) for m in mean):
            raise ValueError("mean must be finite")
        return mean

    @field_validator("std")
    @classmethod
    def _std_divides(cls, std: tuple[float, ...]) -> tuple[float, ...]:
        if not all(math.isfinite(s) and s > 0 for s in std):
            raise ValueError("std must be finite and above 0")
        return std

    def crop(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut the centre [N, height, width, 3] out of [N, 112, 112, 3] crops."""
        top, left = (CROP_SIZE - self.height) // 2, (CROP_SIZE - self.width) // 2
        return crops[:, top : top + self.height, left : left + self.width]

    def apply(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB [N, 112, 112, 3] to float32 [N, 3, height, width]."""
        pixels = self.crop(crops)
        if self.color == "BGR":
            pixels = pixels[..., ::-1]
        mean = np.asarray(self.mean, np.float32)
        std = np.asarray(self.std, np.float32)
        return np.ascontiguousarray(((pixels - mean) / std).transpose(0, 3, 1, 2))

    def describe(self) -> str:
        """One line for the console."""
        mean = ", ".join(f"{m:g}" for m in self.mean)
        std = ", ".join(f"{s:g}" for s in self.std)
        return f"{self.height}x{self.width} {self.color}, (x - [{mean}]) / [{std}]"
