"""Whether one thing is faster than another, from paired times on a machine that is never quiet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mfn_compile.knob_result import Ratio

CONFIDENCE = 0.95


def ratio(before: NDArray[np.float64], after: NDArray[np.float64]) -> Ratio:
    """Median of the paired ratios before / after, with its exact interval.

    The interval is of the sign test: two of the sorted ratios, chosen so that the median of any
    continuous distribution lies between them in at least 95 % of cases. It supposes nothing of the
    noise, and one round that another process disturbed does not move it. Below six rounds no two
    of them can promise that; the whole range is taken.

    Args:
        before: seconds [rounds], all above 0.
        after: seconds [rounds], of the same rounds.
    """
    logs = np.sort(np.log(before / after))
    found = stats.quantile_test(logs, q=float(np.median(logs)), p=0.5)
    interval = found.confidence_interval(CONFIDENCE)
    low = logs[0] if np.isnan(interval.low) else interval.low
    high = logs[-1] if np.isnan(interval.high) else interval.high
    value, low, high = np.exp((np.median(logs), low, high))
    return Ratio(value=value, low=low, high=high)


def noise(control: Ratio) -> float:
    """How far from 1 the interval of a thing against itself reaches, as a ratio of at least 1."""
    return max(1.0, control.high, 1 / control.low)
