"""Our range search against brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mfn_compile.quantize.mse import (
    SHRINKS,
    Histogram,
    affine_grid,
    best_affine,
    best_symmetric,
    squared_error,
    symmetric_grid,
)


def histogram(seed: int, spread: float, shift: float) -> Histogram:
    values = np.random.default_rng(seed).standard_t(3, 4000) * spread + shift
    counts, edges = np.histogram(values, bins=512)
    return Histogram(float(edges[0]), float(edges[-1]), counts.astype(np.float64))


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 50), st.floats(-20, 20), st.booleans())
@settings(max_examples=30, deadline=None)
def test_symmetric_search_is_the_best_of_all_candidates(
    seed: int, spread: float, shift: float, signed: bool
) -> None:
    found = histogram(seed, spread, abs(shift) if not signed else shift)
    if not signed and found.high <= 0:
        return
    full = max(abs(found.low), abs(found.high)) if signed else found.high
    chosen = squared_error(found, best_symmetric(found, signed=signed))
    tried = [squared_error(found, symmetric_grid(full * s, signed=signed)) for s in SHRINKS]
    assert chosen <= min(tried) * (1 + 1e-12)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 50), st.floats(-20, 20))
@settings(max_examples=30, deadline=None)
def test_affine_search_never_loses_to_the_full_range(
    seed: int, spread: float, shift: float
) -> None:
    found = histogram(seed, spread, shift)
    chosen = best_affine(found)
    assert 0 <= chosen.zero_point <= 255
    full = affine_grid(found.low, found.high)
    assert squared_error(found, chosen) <= squared_error(found, full) * (1 + 1e-12)


@given(st.floats(0.001, 100), st.booleans())
def test_round_trip_is_exact_on_the_grid_and_saturates(limit: float, signed: bool) -> None:
    grid = symmetric_grid(limit, signed=signed)
    levels = np.arange(grid.lowest, grid.highest + 1)
    np.testing.assert_allclose(grid.round_trip(levels * grid.scale), levels * grid.scale)
    outside = grid.round_trip(np.array([-1e6 * limit, 1e6 * limit]))
    np.testing.assert_allclose(outside, [grid.lowest * grid.scale, grid.highest * grid.scale])


def test_outliers_are_clipped_and_the_rest_kept() -> None:
    counts = np.zeros(2048)
    counts[:100] = 1000.0
    counts[-1] = 1e-3
    found = Histogram(0.0, 100.0, counts)
    assert best_symmetric(found, signed=False).scale < 0.5 * 100 / 255
