"""Paired statistics: did INT8 change decisions, and by how much."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from mfn_compile.results import CosineStats, PairedTest

BOOTSTRAP_SAMPLES = 10_000
BOOTSTRAP_SEED = 20_130_213
HISTOGRAM_BINS = 50


def exact_mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided McNemar test: a binomial test of the changed pairs against one half."""
    if lost + gained == 0:
        return 1.0
    return float(binomtest(lost, lost + gained, 0.5).pvalue)


def bootstrap_interval(
    lost: int,
    gained: int,
    pairs: int,
    samples: int = BOOTSTRAP_SAMPLES,
    seed: int = BOOTSTRAP_SEED,
) -> tuple[float, float]:
    """95 % percentile interval of the accuracy difference fp32 minus INT8, in points.

    Drawing pairs with replacement and counting the lost and gained among them is drawing those
    counts from a multinomial distribution, so no pair needs to be touched.
    """
    shares = np.array([lost, gained, pairs - lost - gained]) / pairs
    counts = np.random.default_rng(seed).multinomial(pairs, shares, size=samples)
    difference = 100 * (counts[:, 0] - counts[:, 1]) / pairs
    low, high = np.percentile(difference, [2.5, 97.5])
    return float(low), float(high)


def compare_decisions(
    fp32_correct: NDArray[np.bool_], int8_correct: NDArray[np.bool_]
) -> PairedTest:
    """Compare right and wrong decisions [P] of two models on the same pairs.

    The interval is that of `Evaluation.drop`: positive where INT8 loses.
    """
    lost = int((fp32_correct & ~int8_correct).sum())
    gained = int((~fp32_correct & int8_correct).sum())
    low, high = bootstrap_interval(lost, gained, len(fp32_correct))
    return PairedTest(
        flipped=lost + gained,
        lost=lost,
        gained=gained,
        mcnemar_p=exact_mcnemar(lost, gained),
        bootstrap_low=low,
        bootstrap_high=high,
        bootstrap_samples=BOOTSTRAP_SAMPLES,
    )


def cosine_stats(first: NDArray[np.float64], second: NDArray[np.float64]) -> CosineStats:
    """Cosine of matching unit rows [N, D]: mean, 1st percentile, minimum and a histogram.

    The histogram reaches from the minimum, rounded down to a hundredth, to 1.
    """
    cosine = np.clip(np.einsum("nd,nd->n", first, second), -1.0, 1.0)
    start = min(float(np.floor(cosine.min() * 100) / 100), 0.99)
    counts, edges = np.histogram(cosine, bins=HISTOGRAM_BINS, range=(start, 1.0))
    return CosineStats(
        mean=float(cosine.mean()),
        p01=float(np.percentile(cosine, 1)),
        min=float(cosine.min()),
        histogram=tuple(int(c) for c in counts),
        histogram_edges=tuple(float(e) for e in edges),
    )
