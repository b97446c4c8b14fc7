"""When a float32 multiplier rounds as exact arithmetic does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def keeps_ties(ratio: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the multiplier float32(ratio) brings exact halves to exact halves.

    An accumulator that is worth exactly k + 1/2 stays there in float32 where the multiplier is off
    by less than 2**-25 of itself, for |k| < 256 and accumulators below 2**24. Where it does not,
    the value may be rounded to the other side than by a division, which is what QDQ files ask for.
    """
    return np.abs(ratio.astype(np.float32) - ratio) < np.abs(ratio) * 2.0**-25
