"""ROC figures of a set of scores; a pair is accepted when its score reaches the threshold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from mfn_compile.results import Roc

Scores = NDArray[np.floating[Any]]
ROC_POINTS = 400


def allowed_accepts(target_far: float, impostors: int) -> int:
    """Most impostors that may be accepted without exceeding the rate.

    The factor keeps a product such as 3000 x 1e-3 from falling under its whole number.
    """
    return min(impostors, math.floor(target_far * impostors * (1 + 1e-9)))


def tar_at_accepts(genuine: Scores, impostor_top: Scores, accepts: int) -> float:
    """Largest share of genuine pairs accepted with at most `accepts` impostors accepted.

    Any threshold at or below the (accepts + 1)-th highest impostor score accepts that impostor
    too, so a genuine score has to lie above it. Nothing is interpolated.

    Args:
        genuine: sorted ascending.
        impostor_top: the highest impostor scores, sorted descending; all of them, or at least
            accepts + 1.
        accepts: impostors that may be accepted.
    """
    if accepts >= len(impostor_top):
        return 1.0
    above = len(genuine) - np.searchsorted(genuine, impostor_top[accepts], side="right")
    return float(above / len(genuine))


def tar_at_far(scores: Scores, same: NDArray[np.bool_], target_far: float) -> float:
    """Largest true accept rate whose false accept rate is at most `target_far`, 0 to 1."""
    impostor = np.sort(scores[~same])[::-1]
    accepts = allowed_accepts(target_far, len(impostor))
    return tar_at_accepts(np.sort(scores[same]), impostor, accepts)


def equal_error_rate(scores: Scores, same: NDArray[np.bool_]) -> float:
    """Error rate, 0 to 1, where false accepts and false rejects are nearest to each other.

    Over all distinct thresholds the one with the smallest |FAR - FRR| is taken (the lowest of
    several) and the mean of both rates returned.
    """
    thresholds = np.append(np.unique(scores), np.inf)
    genuine, impostor = np.sort(scores[same]), np.sort(scores[~same])
    frr = np.searchsorted(genuine, thresholds, side="left") / len(genuine)
    far = 1 - np.searchsorted(impostor, thresholds, side="left") / len(impostor)
    best = int(np.argmin(np.abs(far - frr)))
    return float((far[best] + frr[best]) / 2)


def area_under_curve(scores: Scores, same: NDArray[np.bool_]) -> float:
    """Chance that a genuine pair outscores an impostor pair, ties counted half (Mann-Whitney)."""
    genuine = int(same.sum())
    impostors = len(same) - genuine
    rank_sum = float(rankdata(scores)[same].sum())
    return (rank_sum - genuine * (genuine + 1) / 2) / (genuine * impostors)


def roc_curve(scores: Scores, same: NDArray[np.bool_], points: int = ROC_POINTS) -> Roc:
    """At most `points` points of the curve, evenly spread over the logarithm of FAR."""
    genuine, impostor = np.sort(scores[same]), np.sort(scores[~same])[::-1]
    accepts = spread_counts(len(impostor), points)
    tar = [tar_at_accepts(genuine, impostor, int(k)) for k in accepts]
    return Roc(far=tuple((accepts / len(impostor)).tolist()), tar=tuple(tar))


def spread_counts(most: int, points: int) -> NDArray[np.int64]:
    """0, `most`, and whole numbers between them that are even on a logarithmic scale."""
    spread = np.rint(np.geomspace(1, most, max(points - 1, 1)))
    return np.unique(np.concatenate([[0, most], spread])).astype(np.int64)
