import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfn_compile.evaluate.roc import (
    allowed_accepts,
    area_under_curve,
    equal_error_rate,
    roc_curve,
    spread_counts,
    tar_at_far,
)


def table(genuine, impostor):
    scores = np.array([*genuine, *impostor], float)
    return scores, np.arange(len(scores)) < len(genuine)


def brute_tar(scores, same, target):
    best = 0.0
    for t in [*np.unique(scores), np.inf]:
        if (scores[~same] >= t).mean() <= target + 1e-12:
            best = max(best, (scores[same] >= t).mean())
    return best


def test_tar_by_hand():
    scores, same = table([0.9, 0.8, 0.3, 0.2], [0.85, 0.5, 0.25, 0.1])
    assert tar_at_far(scores, same, 0.0) == 0.25
    assert tar_at_far(scores, same, 0.24) == 0.25
    assert tar_at_far(scores, same, 0.25) == 0.5
    assert tar_at_far(scores, same, 0.5) == 0.75
    assert tar_at_far(scores, same, 1.0) == 1.0


def test_a_genuine_score_equal_to_the_impostor_is_not_accepted():
    scores, same = table([0.5, 0.7], [0.5])
    assert tar_at_far(scores, same, 0.0) == 0.5


SMALL = st.lists(st.integers(-4, 4).map(lambda i: i / 4), min_size=1, max_size=30)


@given(SMALL, SMALL, st.sampled_from([0.0, 1e-3, 0.1, 0.25, 0.5, 1.0]))
def test_tar_against_brute_force(genuine, impostor, target):
    scores, same = table(genuine, impostor)
    assert tar_at_far(scores, same, target) == brute_tar(scores, same, target)


@given(SMALL, SMALL)
def test_auc_against_brute_force(genuine, impostor):
    scores, same = table(genuine, impostor)
    wins = np.sign(np.subtract.outer(genuine, impostor)) / 2 + 0.5
    assert area_under_curve(scores, same) == pytest.approx(wins.mean())


def test_eer_by_hand():
    assert equal_error_rate(*table([0.6, 0.9], [0.1, 0.2])) == 0
    assert equal_error_rate(*table([0.9, 0.8, 0.7, 0.2], [0.75, 0.3, 0.1, 0.0])) == 0.25
    assert equal_error_rate(*table([0.1], [0.9])) == 1
    assert equal_error_rate(*table([0.5], [0.5])) == 0.5


@given(SMALL, SMALL)
def test_eer_lies_between_the_rates_of_its_neighbours(genuine, impostor):
    scores, same = table(genuine, impostor)
    eer = equal_error_rate(scores, same)
    gaps = []
    for t in [*np.unique(scores), np.inf]:
        far, frr = (scores[~same] >= t).mean(), (scores[same] < t).mean()
        gaps.append((abs(far - frr), (far + frr) / 2))
    smallest = min(gap for gap, _ in gaps)
    assert min(abs(eer - mean) for gap, mean in gaps if gap <= smallest + 1e-9) < 1e-9


@given(SMALL, SMALL)
def test_curve_is_monotone_and_true(genuine, impostor):
    scores, same = table(genuine, impostor)
    curve = roc_curve(scores, same)
    assert curve.far[0] == 0
    assert (curve.far[-1], curve.tar[-1]) == (1, 1)
    assert list(curve.far) == sorted(curve.far)
    assert list(curve.tar) == sorted(curve.tar)
    for far, tar in zip(curve.far, curve.tar, strict=True):
        assert tar == brute_tar(scores, same, far)


def test_curve_is_decimated():
    rng = np.random.default_rng(0)
    scores, same = table(rng.normal(1, 1, 5000), rng.normal(0, 1, 5000))
    assert 100 < len(roc_curve(scores, same).far) <= 400


@pytest.mark.parametrize(
    ("target", "impostors", "accepts"),
    [(1e-3, 3000, 3), (1e-4, 3000, 0), (1e-6, 87_307_271, 87), (1.0, 5, 5), (0.29, 100, 29)],
)
def test_allowed_accepts(target, impostors, accepts):
    assert allowed_accepts(target, impostors) == accepts


@given(st.integers(1, 100_000), st.integers(2, 400))
def test_spread_counts(most, points):
    counts = spread_counts(most, points)
    assert counts[0] == 0
    assert counts[-1] == most
    assert len(counts) <= points + 1
