"""Every image against every other: verification down to a false accept rate of one in a million.

LFW's 13,233 images make 87.5 million pairs. Scores are computed in blocks of rows and never kept
as a whole: genuine scores are kept (few), impostor scores only as a fine histogram and as the
exact top tail that small false accept rates depend on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfn_compile.evaluate.roc import (
    ROC_POINTS,
    allowed_accepts,
    spread_counts,
    tar_at_accepts,
)
from mfn_compile.results import Roc

FAR_TARGETS = {"1e-3": 1e-3, "1e-4": 1e-4, "1e-5": 1e-5, "1e-6": 1e-6}
TAIL_SHARE = 1e-3  # share of the impostors that is kept exactly
BINS = 4000  # of width 1/2000 over cosines -1 to 1
_BLOCK_SCORES = 4_000_000  # scores in memory at a time
_GONE = np.float32(-4.0)  # below every cosine: no pair, or a genuine one


@dataclass(frozen=True, eq=False)
class AllScores:
    """Scores of all pairs of N images.

    Args:
        genuine: float32, ascending, every pair of one person.
        tail: float32, descending, the highest impostor scores (all of them if few).
        impostors: number of impostor pairs.
        histogram: int64 [BINS], impostor scores by `bin_of`.
    """

    genuine: NDArray[np.float32]
    tail: NDArray[np.float32]
    impostors: int
    histogram: NDArray[np.int64]

    def tar_at_far(self) -> dict[str, float]:
        """True accept rate in percent by false accept rate, exact."""
        return {
            name: 100
            * tar_at_accepts(self.genuine, self.tail, allowed_accepts(far, self.impostors))
            for name, far in FAR_TARGETS.items()
        }

    def roc(self) -> Roc:
        """At most 400 points: exact in the tail, at the histogram's edges above it."""
        half = ROC_POINTS // 2
        counts = spread_counts(max(len(self.tail) - 1, 1), half)
        far = counts / self.impostors
        tar = np.array([tar_at_accepts(self.genuine, self.tail, int(k)) for k in counts])
        accepted = np.cumsum(self.histogram[::-1])[::-1]
        genuine = np.bincount(bin_of(self.genuine), minlength=BINS)
        found = np.cumsum(genuine[::-1])[::-1] / len(self.genuine)
        edges = np.flatnonzero(accepted >= len(self.tail))[::-1]
        edges = edges[np.unique(np.linspace(0, len(edges) - 1, half - 1).astype(int))]
        far = np.concatenate([far, accepted[edges] / self.impostors, [1.0]])
        tar = np.concatenate([tar, found[edges], [1.0]])
        return Roc(far=tuple(far.tolist()), tar=tuple(np.maximum.accumulate(tar).tolist()))


def bin_of(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Histogram bin of each cosine; what rounding put beyond -1 or 1 counts to the last bin."""
    scaled = scores * np.float32(BINS / 2)
    scaled += np.float32(BINS / 2)
    np.clip(scaled, 0, BINS - 1, out=scaled)
    return scaled.astype(np.int64)


class _Tail:
    """The `size` highest of all values it was shown."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept = np.empty(0, np.float32)
        self._floor = np.float32(-np.inf)

    def add(self, values: NDArray[np.float32]) -> None:
        self._kept = np.concatenate([self._kept, values[values > self._floor]])
        if len(self._kept) > 4 * self._size:  # rarely: partitioning costs more than comparing
            self._shrink()

    def _shrink(self) -> None:
        if len(self._kept) > self._size:
            cut = len(self._kept) - self._size
            self._kept = np.partition(self._kept, cut)[cut:]
            self._floor = self._kept[0]

    def descending(self) -> NDArray[np.float32]:
        self._shrink()
        return np.sort(self._kept)[::-1]


def score_all(unit: NDArray[np.float32], identities: Sequence[str]) -> AllScores | None:
    """Score all pairs of images.

    Args:
        unit: float32 [N, D], rows of unit length.
        identities: who each row shows.

    Returns:
        None when there is no genuine or no impostor pair.
    """
    people = np.unique(np.array(identities), return_inverse=True)[1]
    order = np.argsort(people, kind="stable")
    rows, people = np.ascontiguousarray(unit[order], np.float32), people[order]
    # Sorted by person, the genuine partners of row i are the columns i + 1 to ends[i].
    ends = np.searchsorted(people, people, side="right")
    count = len(rows)
    genuine_count = int((ends - np.arange(1, count + 1)).sum())
    impostors = count * (count - 1) // 2 - genuine_count
    if not genuine_count or not impostors:
        return None
    genuine: list[NDArray[np.float32]] = []
    tail = _Tail(max(math.ceil(TAIL_SHARE * impostors) + 1, 1000))
    histogram = np.zeros(BINS, np.int64)
    for block, gone in _impostor_blocks(rows, ends, genuine):
        tail.add(block.ravel())
        histogram += np.bincount(bin_of(block.ravel()), minlength=BINS)
        histogram[0] -= gone
    top = tail.descending()[:impostors]
    return AllScores(np.sort(np.concatenate(genuine)), top, impostors, histogram)


def _impostor_blocks(
    rows: NDArray[np.float32], ends: NDArray[np.int64], genuine: list[NDArray[np.float32]]
) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Blocks of scores with all but the impostors marked `_GONE`, and the number of marks.

    Genuine scores are moved to `genuine`.
    """
    count = len(rows)
    start = 0
    while start < count:
        stop = min(count, start + max(1, _BLOCK_SCORES // (count - start)))
        block = rows[start:stop] @ rows[start:].T
        gone = 0
        for i in range(start, stop):
            end = int(ends[i]) - start
            genuine.append(block[i - start, i + 1 - start : end].copy())
            block[i - start, :end] = _GONE
            gone += end
        yield block, gone
        start = stop
