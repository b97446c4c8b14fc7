from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfn_compile.evaluate.statistics import (
    bootstrap_interval,
    compare_decisions,
    cosine_stats,
    exact_mcnemar,
)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_against_the_closed_form(lost, gained):
    changed = lost + gained
    tail = sum(comb(changed, k) for k in range(min(lost, gained) + 1)) / 2**changed
    assert exact_mcnemar(lost, gained) == pytest.approx(min(1.0, 2 * tail))


def test_bootstrap_without_a_change_is_a_point():
    assert bootstrap_interval(0, 0, 6000) == (0, 0)


def test_bootstrap_covers_the_difference_and_has_the_right_width():
    low, high = bootstrap_interval(30, 10, 6000)
    difference = 100 * 20 / 6000
    error = 100 * np.sqrt(40 / 6000 - (20 / 6000) ** 2) / np.sqrt(6000)
    assert low < difference < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_bootstrap_is_that_of_resampled_pairs():
    changes = np.repeat([1, -1, 0], [12, 5, 83])
    drawn = np.random.default_rng(3).choice(changes, (20_000, 100)).mean(axis=1) * 100
    np.testing.assert_allclose(
        bootstrap_interval(12, 5, 100), np.percentile(drawn, [2.5, 97.5]), atol=1.01
    )


def test_bootstrap_is_seeded():
    assert bootstrap_interval(8, 3, 600) == bootstrap_interval(8, 3, 600)


def test_compare_decisions_counts_both_directions():
    fp32 = np.array([True, True, True, False, False, True])
    int8 = np.array([False, True, False, True, False, True])
    test = compare_decisions(fp32, int8)
    assert (test.flipped, test.lost, test.gained) == (3, 2, 1)
    assert test.mcnemar_p == 1
    assert test.bootstrap_low < 100 / 6 < test.bootstrap_high


def test_cosine_stats_by_hand():
    first = np.array([[1.0, 0.0]] * 4)
    second = np.array([[1.0, 0.0], [0.8, 0.6], [1.0, 0.0], [0.0, 1.0]])
    stats = cosine_stats(first, second)
    assert stats.mean == pytest.approx(0.7)
    assert stats.min == 0
    assert stats.p01 == pytest.approx(0.8 * 0.03)
    assert sum(stats.histogram) == 4
    assert len(stats.histogram_edges) == len(stats.histogram) + 1
    assert stats.histogram_edges[-1] == 1


def test_cosine_of_equal_embeddings():
    rows = np.random.default_rng(0).normal(size=(50, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    stats = cosine_stats(rows, rows)
    assert stats.min == pytest.approx(1)
    assert sum(stats.histogram) == 50
