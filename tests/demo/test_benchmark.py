from __future__ import annotations

import numpy as np
import pytest

from mfn_compile.demo import benchmark
from mfn_compile.demo.benchmark import PairTable, Seeds


@pytest.fixture(scope="module")
def table() -> PairTable:
    return benchmark.pairs()


def test_ten_folds_of_300_matched_and_300_mismatched_pairs(table: PairTable) -> None:
    assert len(table) == 6000
    for fold in range(10):
        same = table.same[table.fold == fold]
        assert same.size == 600
        assert int(same.sum()) == 300
    assert set(table.fold.tolist()) == set(range(10))


def test_same_means_equal_identity_and_never_the_same_picture(table: PairTable) -> None:
    who = table.images.identity
    assert np.array_equal(who[table.first] == who[table.second], table.same)
    assert (table.first != table.second).all()


def test_no_pair_occurs_twice_in_any_order(table: PairTable) -> None:
    ordered = np.sort(np.stack([table.first, table.second], axis=1), axis=1)
    assert len(np.unique(ordered, axis=0)) == len(table)


def test_identities_are_disjoint_between_folds(table: PairTable) -> None:
    seen: set[int] = set()
    for fold in range(10):
        here = table.fold == fold
        index = np.concatenate([table.first[here], table.second[here]])
        people = set(table.images.identity[index].tolist())
        assert not people & seen
        seen |= people


def test_images_are_distinct_and_nearly_all_in_use(table: PairTable) -> None:
    assert len(table.images) == 2400
    assert len(set(table.images.names)) == 2400
    used = np.unique(np.concatenate([table.first, table.second]))
    assert used.size > 2300
    assert used.min() >= 0
    assert used.max() < 2400


def test_pairs_do_not_change_between_calls(table: PairTable) -> None:
    again = benchmark.pairs()
    assert np.array_equal(again.first, table.first)
    assert np.array_equal(again.second, table.second)
    assert np.array_equal(again.images.identity, table.images.identity)
    assert np.array_equal(again.images.shot, table.images.shot)


def test_all_sets_have_disjoint_identities(table: PairTable) -> None:
    limit = benchmark.SET_LIMIT
    sets = [
        set(benchmark.training_seeds(limit, 1).identity.tolist()),
        set(benchmark.calibration_seeds(limit).identity.tolist()),
        set(benchmark.unlabeled_seeds(limit).identity.tolist()),
        set(table.images.identity.tolist()),
    ]
    assert len(set.union(*sets)) == sum(len(people) for people in sets)


@pytest.mark.parametrize("choose", [benchmark.calibration_seeds, benchmark.unlabeled_seeds])
def test_small_sets_have_one_picture_a_person_and_are_prefixes(choose: object) -> None:
    assert callable(choose)
    long, short = choose(50), choose(20)
    assert isinstance(long, Seeds)
    assert len(set(long.identity.tolist())) == 50
    assert np.array_equal(long.identity[:20], short.identity)


def test_calibration_has_300_crops_by_default() -> None:
    assert len(benchmark.calibration_seeds()) == 300


def test_training_seeds_come_person_by_person() -> None:
    seeds = benchmark.training_seeds(3, 4)
    assert seeds.identity.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert seeds.shot.tolist() == [0, 1, 2, 3] * 3


@pytest.mark.parametrize("count", [0, -1, benchmark.SET_LIMIT + 1])
def test_a_set_that_would_leave_its_seed_range_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="number of identities"):
        benchmark.calibration_seeds(count)


def test_image_names() -> None:
    assert benchmark.image_name(123, 4) == "rendered/000123_04"
    assert benchmark.calibration_seeds(1).names == ("rendered/200000_00",)
