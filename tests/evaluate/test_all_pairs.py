import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfn_compile.evaluate import all_pairs
from mfn_compile.evaluate.roc import tar_at_far


def exact_rows(count, rng):
    """Unit rows whose products are exact in float32, so that sums in any order agree."""
    return rng.choice(np.float32([-0.25, 0.25]), (count, 16))


def brute(rows, people):
    i, j = np.triu_indices(len(rows), k=1)
    scores = (rows @ rows.T)[i, j]
    return scores, np.asarray(people)[i] == np.asarray(people)[j]


@settings(max_examples=60)
@given(st.integers(4, 60), st.integers(2, 12), st.integers(0, 2**32 - 1), st.integers(20, 900))
def test_against_brute_force(count, people, seed, block):
    rng = np.random.default_rng(seed)
    rows = exact_rows(count, rng)
    shown = rng.integers(0, people, count)
    scores, same = brute(rows, shown)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_pairs, "_BLOCK_SCORES", block)
        found = all_pairs.score_all(rows, [str(p) for p in shown])
    if same.all() or not same.any():
        assert found is None
        return
    np.testing.assert_array_equal(found.genuine, np.sort(scores[same]))
    assert found.impostors == (~same).sum()
    assert found.histogram.sum() == found.impostors
    expected = np.bincount(all_pairs.bin_of(scores[~same]), minlength=all_pairs.BINS)
    np.testing.assert_array_equal(found.histogram, expected)
    np.testing.assert_array_equal(found.tail, np.sort(scores[~same])[::-1][: len(found.tail)])
    for name, far in all_pairs.FAR_TARGETS.items():
        assert found.tar_at_far()[name] == pytest.approx(100 * tar_at_far(scores, same, far))


def test_tail_and_curve_on_many_impostors(monkeypatch):
    """With far more impostors than the tail holds, rates are still exact and the curve true."""
    monkeypatch.setattr(all_pairs, "_BLOCK_SCORES", 100_000)
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(300, 32))
    people = np.repeat(np.arange(300), 6)
    rows = centres[people] + rng.normal(scale=0.9, size=(1800, 32))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    found = all_pairs.score_all(rows, [str(p) for p in people])
    scores, same = brute(rows, people)
    assert len(found.tail) < found.impostors / 500
    for name, far in all_pairs.FAR_TARGETS.items():
        expected = 100 * tar_at_far(scores, same, far)
        assert found.tar_at_far()[name] == pytest.approx(expected, abs=0.03)
    curve = found.roc()
    assert len(curve.far) <= 400
    assert list(curve.far) == sorted(curve.far)
    assert list(curve.tar) == sorted(curve.tar)
    assert (curve.far[0], curve.far[-1], curve.tar[-1]) == (0, 1, 1)
    genuine, impostor = np.sort(scores[same]), np.sort(scores[~same])
    for far, tar in zip(curve.far[::25], curve.tar[::25], strict=True):
        accepts = round(far * len(impostor))
        low, high = max(accepts - 60, 0), min(accepts + 60, len(impostor))
        at = [impostor[len(impostor) - 1 - min(k, len(impostor) - 1)] for k in (low, high)]
        rates = [(genuine >= t).mean() for t in at]
        assert rates[0] - 0.01 <= tar <= rates[1] + 0.01


def test_nothing_to_compare():
    rows = exact_rows(3, np.random.default_rng(0))
    assert all_pairs.score_all(rows, ["a", "b", "c"]) is None
    assert all_pairs.score_all(rows, ["a", "a", "a"]) is None


def test_scores_beyond_one_are_counted():
    bins = all_pairs.bin_of(np.float32([-1.0000001, -1, 0, 1, 1.0000001]))
    assert bins.tolist() == [0, 0, 2000, 3999, 3999]
