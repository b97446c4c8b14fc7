import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mfn_compile.errors import BadInputError
from mfn_compile.evaluate.pairs import PairSet, contiguous_folds
from mfn_compile.evaluate.verification import (
    best_threshold,
    normalize,
    pair_scores,
    retest_folds,
    run_folds,
    summarize,
)

SCORES = arrays(
    np.float64, st.integers(2, 40), elements=st.sampled_from([i / 8 for i in range(-8, 9)])
)


def accuracy(scores, same, threshold):
    return ((scores >= threshold) == same).mean()


def pair_set(same, folds=2):
    count = len(same)
    return PairSet(
        np.arange(count), np.arange(count) + count, np.asarray(same), contiguous_folds(count, folds)
    )


@given(SCORES, st.integers(0, 2**32 - 1))
def test_threshold_is_optimal(scores, seed):
    same = np.random.default_rng(seed).random(len(scores)) < 0.5
    candidates = np.concatenate([np.unique(scores), [-2.0, 2.0], np.linspace(-1.1, 1.1, 89)])
    best = max(accuracy(scores, same, t) for t in candidates)
    threshold = best_threshold(scores, same)
    assert np.isfinite(threshold)
    assert accuracy(scores, same, threshold) == best


@given(SCORES, st.integers(0, 2**32 - 1))
def test_threshold_ignores_the_order_of_pairs(scores, seed):
    rng = np.random.default_rng(seed)
    same = rng.random(len(scores)) < 0.5
    order = rng.permutation(len(scores))
    assert best_threshold(scores, same) == best_threshold(scores[order], same[order])


def test_threshold_lies_in_the_middle_of_the_gap():
    scores = np.array([0.1, 0.2, 0.6, 0.9])
    assert best_threshold(scores, np.array([False, False, True, True])) == pytest.approx(0.4)


def test_threshold_between_neighbouring_numbers():
    low = 0.5
    high = float(np.nextafter(low, 1))
    scores, same = np.array([low, high]), np.array([False, True])
    assert accuracy(scores, same, best_threshold(scores, same)) == 1


def test_everything_accepted_or_rejected():
    scores = np.array([0.3, 0.5])
    everything, nothing = np.array([True, True]), np.array([False, False])
    assert accuracy(scores, everything, best_threshold(scores, everything)) == 1
    assert accuracy(scores, nothing, best_threshold(scores, nothing)) == 1


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_folds_against_brute_force(seed, folds):
    rng = np.random.default_rng(seed)
    same = np.tile([True, False], 30)
    pairs = pair_set(same, folds)
    scores = rng.normal(same * 0.8, 0.5)
    outcome = run_folds(scores, pairs)
    for k in range(folds):
        training, testing = pairs.fold != k, pairs.fold == k
        best = max(accuracy(scores[training], same[training], t) for t in [*scores[training], 9])
        found = outcome.thresholds[k]
        assert accuracy(scores[training], same[training], found) == pytest.approx(best)
        assert outcome.accuracies[k] == accuracy(scores[testing], same[testing], found)
    np.testing.assert_array_equal(
        outcome.correct, (scores >= outcome.thresholds[pairs.fold]) == same
    )


def test_kept_thresholds_are_used_fold_by_fold():
    pairs = pair_set([True, False, True, False], folds=2)
    scores = np.array([0.9, 0.1, 0.5, 0.4])
    outcome = retest_folds(scores, pairs, np.array([0.5, 0.95]))
    np.testing.assert_array_equal(outcome.accuracies, [1.0, 0.5])


def test_perfect_model_summary():
    pairs = pair_set([True, False] * 20, folds=10)
    scores = np.where(pairs.same, 0.8, 0.1)
    folds = run_folds(scores, pairs)
    report = summarize(pairs, scores, scores, folds, folds)
    assert report.accuracy == 100
    assert report.accuracy_std == 0
    assert report.tar_at_far == {"1e-3": 100, "1e-4": 100}
    assert report.eer == 0
    assert report.auc == 1
    assert report.threshold == pytest.approx(0.45)
    assert len(report.roc.far) == len(report.roc.tar) <= 400


def test_cosine_is_of_unit_length_rows():
    rows = np.array([[3.0, 4.0], [6.0, 8.0], [-4.0, 3.0]], np.float32)
    pairs = PairSet(np.array([0, 0]), np.array([1, 2]), np.array([True, False]), np.array([0, 1]))
    np.testing.assert_allclose(pair_scores(normalize(rows), pairs), [1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"second": np.array([0, 2])}, "to itself"),
        ({"same": np.array([True, True])}, "both needed"),
        ({"fold": np.array([0, 0])}, "two folds"),
        ({"fold": np.array([0, 2])}, "without a gap"),
        ({"first": np.array([0])}, "differ in length"),
        ({"first": np.array([-1, 1])}, "negative"),
    ],
)
def test_pair_set_is_validated(changes, why):
    good = {
        "first": np.array([0, 1]),
        "second": np.array([2, 3]),
        "same": np.array([True, False]),
        "fold": np.array([0, 1]),
    }
    assert len(PairSet(**good)) == 2
    assert good["first"].flags.writeable
    with pytest.raises(BadInputError, match=why):
        PairSet(**(good | changes))


def test_empty_pair_set():
    none = np.zeros(0, np.int64)
    with pytest.raises(BadInputError, match="empty"):
        PairSet(none, none, none, none)


@pytest.mark.parametrize("count", [10, 11, 19, 6000, 7003])
def test_contiguous_folds_are_those_of_kfold(count):
    model_selection = pytest.importorskip("sklearn.model_selection")
    expected = np.empty(count, int)
    for k, (_, test) in enumerate(model_selection.KFold(10).split(np.zeros(count))):
        expected[test] = k
    np.testing.assert_array_equal(contiguous_folds(count), expected)


def test_too_few_pairs_for_the_folds():
    with pytest.raises(BadInputError, match="9 pairs"):
        contiguous_folds(9)
