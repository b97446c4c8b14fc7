"""Ten-fold verification: LFW's View 2 protocol on cosine similarity.

A pair is called the same person when its score reaches the threshold. In every fold the threshold
is chosen on all other folds and tested on the fold itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfn_compile.evaluate.pairs import PairSet
from mfn_compile.evaluate.roc import area_under_curve, equal_error_rate, roc_curve, tar_at_far
from mfn_compile.results import Verification

FAR_TARGETS = {"1e-3": 1e-3, "1e-4": 1e-4}


@dataclass(frozen=True, eq=False)
class FoldOutcome:
    """What the folds decided.

    Args:
        thresholds: float64 [K].
        accuracies: float64 [K], 0 to 1.
        correct: bool [P], whether each pair was decided right in its own fold.
    """

    thresholds: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    correct: NDArray[np.bool_]


def normalize(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scale rows [N, D] to unit length, in float64."""
    wide = embeddings.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit


def pair_scores(unit: NDArray[np.float64], pairs: PairSet) -> NDArray[np.float64]:
    """Cosine similarity [P] of unit rows [N, D]."""
    scores: NDArray[np.float64] = np.einsum("pd,pd->p", unit[pairs.first], unit[pairs.second])
    return scores


def best_threshold(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """Threshold of the highest accuracy, found exactly by sorting.

    Candidates are one threshold in each gap between neighbouring distinct scores (its middle),
    the lowest score (accept all) and the next number above the highest (reject all): every
    decision that a threshold can make. Of several best candidates the middle one is taken, the
    lower of two middle ones.
    """
    order = np.argsort(scores, kind="stable")
    ordered, truth = scores[order], same[order]
    # Cutting before position k rejects the first k scores.
    cuts = np.concatenate([[0], np.flatnonzero(np.diff(ordered) > 0) + 1, [len(ordered)]])
    rejected_genuine = np.concatenate([[0], np.cumsum(truth)])[cuts]
    right = (cuts - rejected_genuine) + (truth.sum() - rejected_genuine)
    best = np.flatnonzero(right == right.max())
    cut = int(cuts[best[(len(best) - 1) // 2]])
    if cut == 0:
        return float(ordered[0])
    if cut == len(ordered):
        return float(np.nextafter(ordered[-1], np.inf))
    below, above = float(ordered[cut - 1]), float(ordered[cut])
    middle = below + (above - below) / 2
    return middle if middle > below else above  # neighbours that leave no number between them


def run_folds(scores: NDArray[np.float64], pairs: PairSet) -> FoldOutcome:
    """Choose each fold's threshold on the others and test it on the fold."""
    thresholds = np.array(
        [
            best_threshold(scores[pairs.fold != k], pairs.same[pairs.fold != k])
            for k in range(pairs.folds)
        ]
    )
    return retest_folds(scores, pairs, thresholds)


def retest_folds(
    scores: NDArray[np.float64], pairs: PairSet, thresholds: NDArray[np.float64]
) -> FoldOutcome:
    """Test given thresholds [K], one a fold."""
    correct = (scores >= thresholds[pairs.fold]) == pairs.same
    counts = np.bincount(pairs.fold, minlength=pairs.folds)
    accuracies = np.bincount(pairs.fold, weights=correct, minlength=pairs.folds) / counts
    return FoldOutcome(thresholds, accuracies, correct)


def summarize(
    pairs: PairSet,
    scores: NDArray[np.float64],
    flip_scores: NDArray[np.float64],
    folds: FoldOutcome,
    flip_folds: FoldOutcome,
) -> Verification:
    """Report of one model, rates in percent.

    `accuracy` is the mean of the folds' accuracies and its deviation that of the population of
    folds (divided by K), as InsightFace prints it.
    """
    return Verification(
        accuracy=100 * float(folds.accuracies.mean()),
        accuracy_std=100 * float(folds.accuracies.std()),
        accuracy_flip=100 * float(flip_folds.accuracies.mean()),
        accuracy_flip_std=100 * float(flip_folds.accuracies.std()),
        tar_at_far={k: 100 * tar_at_far(scores, pairs.same, f) for k, f in FAR_TARGETS.items()},
        tar_at_far_flip={
            k: 100 * tar_at_far(flip_scores, pairs.same, f) for k, f in FAR_TARGETS.items()
        },
        eer=100 * equal_error_rate(scores, pairs.same),
        auc=area_under_curve(scores, pairs.same),
        threshold=float(folds.thresholds.mean()),
        roc=roc_curve(scores, pairs.same),
    )
