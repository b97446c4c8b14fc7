"""A float picture that shapes are painted on with soft edges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mfn_compile.demo.geometry import SIZE, FaceGrid

Array = npt.NDArray[np.float32]
Colour = tuple[float, float, float]
Slices = tuple[slice, slice]

# Every fourth pixel is enough to find the extent of a feature.
STRIDE = 4

EVERYWHERE: Slices = (slice(0, SIZE), slice(0, SIZE))


def cover(distance: Array, softness: float = 1.0) -> Array:
    """Coverage in [0, 1] from a signed pixel distance (negative inside)."""
    edge: Array = np.float32(0.5) - distance * np.float32(1 / softness)
    return np.clip(edge, 0, 1, out=edge)


def ramp(value: Array, low: float, high: float) -> Array:
    """Smooth step from 0 at ``low`` to 1 at ``high``."""
    t: Array = (value - np.float32(low)) * np.float32(1 / (high - low))
    np.clip(t, 0, 1, out=t)
    smooth: Array = t * t * (3 - 2 * t)
    return smooth


class Canvas:
    """Colour planes ``rgb`` (float32 [3, 112, 112], nominally 0..1) over a face grid."""

    def __init__(self, grid: FaceGrid) -> None:
        self.grid = grid
        self._coarse = grid.x[::STRIDE, ::STRIDE], grid.y[::STRIDE, ::STRIDE]
        self.rgb: Array = np.zeros((3, SIZE, SIZE), dtype=np.float32)

    def window(self, x: float, y: float, reach_x: float, reach_y: float) -> Slices:
        """Rows and columns whose face coordinates lie within reach of (x, y).

        Features are small, so painting only their window keeps rendering fast.
        """
        coarse_x, coarse_y = self._coarse
        near = np.abs(coarse_x - np.float32(x)) < np.float32(reach_x)
        near &= np.abs(coarse_y - np.float32(y)) < np.float32(reach_y)
        rows, columns = np.nonzero(near)
        if rows.size == 0:
            return slice(0, 0), slice(0, 0)
        top, left = STRIDE * int(rows[0]), STRIDE * int(columns.min())
        bottom, right = STRIDE * int(rows[-1]), STRIDE * int(columns.max())
        margin = STRIDE - 1
        return (
            slice(max(top - margin, 0), bottom + STRIDE),
            slice(max(left - margin, 0), right + STRIDE),
        )

    def paint(self, where: Slices, alpha: Array, colour: Colour) -> None:
        """Blend ``colour`` over the window with the coverage ``alpha``."""
        for plane, value in zip(self.rgb, colour, strict=True):
            part = plane[where]
            part += alpha * (np.float32(value) - part)

    def darken(self, where: Slices, amount: Array, tint: Colour = (1.0, 1.0, 1.0)) -> None:
        """Multiply the window by ``1 - amount * tint``."""
        for plane, value in zip(self.rgb, tint, strict=True):
            plane[where] *= 1 - amount * np.float32(value)
