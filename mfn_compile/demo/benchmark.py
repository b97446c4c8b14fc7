"""Who is rendered for what: training, calibration, unlabeled and held-out identities.

The held-out benchmark has the form of LFW View 2: ten folds of 300 matched and 300 mismatched
pairs, no identity in two folds. All sets are disjoint in identity seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mfn_compile.demo.sampling import generator

IntArray = npt.NDArray[np.int64]

FOLDS = 10
PAIRS_PER_KIND = 300
PEOPLE_PER_FOLD = 40
SHOTS_PER_PERSON = 6

TRAINING_START = 0
CALIBRATION_START = 200_000
UNLABELED_START = 300_000
HELD_OUT_START = 400_000
# No set may grow into the seeds of the next one.
SET_LIMIT = 100_000

PAIR_STREAM = 0xF01D


@dataclass(frozen=True)
class Seeds:
    """Seeds of N pictures, to be handed to :func:`mfn_compile.demo.faces.render`.

    Attributes:
        identity: int64 [N], identity seeds.
        shot: int64 [N], shot seeds.
    """

    identity: IntArray
    shot: IntArray

    def __len__(self) -> int:
        return int(self.identity.size)

    @property
    def names(self) -> tuple[str, ...]:
        """One name a picture, such as ``rendered/400012_04``."""
        pairs = zip(self.identity.tolist(), self.shot.tolist(), strict=True)
        return tuple(image_name(identity, shot) for identity, shot in pairs)


@dataclass(frozen=True)
class PairTable:
    """Verification pairs over a list of distinct pictures.

    Attributes:
        images: the distinct pictures, N of them.
        first: int64 [P], index into ``images`` of the first picture of a pair.
        second: int64 [P], index of the second picture.
        same: bool [P], whether both pictures show one person.
        fold: int64 [P], fold number from 0.
    """

    images: Seeds
    first: IntArray
    second: IntArray
    same: npt.NDArray[np.bool_]
    fold: IntArray

    def __len__(self) -> int:
        return int(self.first.size)


def image_name(identity_seed: int, shot_seed: int) -> str:
    """Name of a rendered picture in reports and pair lists."""
    return f"rendered/{identity_seed:06d}_{shot_seed:02d}"


def training_seeds(identities: int, shots: int) -> Seeds:
    """Training pictures: ``shots`` pictures of each of ``identities`` people, people first."""
    _check_room(identities)
    who = np.repeat(np.arange(identities, dtype=np.int64) + TRAINING_START, shots)
    return Seeds(identity=who, shot=np.tile(np.arange(shots, dtype=np.int64), identities))


def calibration_seeds(count: int = 300) -> Seeds:
    """Calibration pictures: one of each of ``count`` people."""
    return _one_each(CALIBRATION_START, count)


def unlabeled_seeds(count: int = 512) -> Seeds:
    """Unlabeled pictures for fine-tuning or spot checks: one of each of ``count`` people."""
    return _one_each(UNLABELED_START, count)


def _one_each(start: int, count: int) -> Seeds:
    _check_room(count)
    return Seeds(
        identity=np.arange(start, start + count, dtype=np.int64),
        shot=np.zeros(count, dtype=np.int64),
    )


def _check_room(identities: int) -> None:
    if not 0 < identities <= SET_LIMIT:
        raise ValueError(f"number of identities must be in 1..{SET_LIMIT}, got {identities}")


def pairs() -> PairTable:
    """The held-out benchmark: 6000 pairs over 2400 pictures of 400 people."""
    people = FOLDS * PEOPLE_PER_FOLD
    images = Seeds(
        identity=np.repeat(np.arange(people, dtype=np.int64) + HELD_OUT_START, SHOTS_PER_PERSON),
        shot=np.tile(np.arange(SHOTS_PER_PERSON, dtype=np.int64), people),
    )
    per_fold = PEOPLE_PER_FOLD * SHOTS_PER_PERSON
    columns = [_fold_pairs(fold) + fold * per_fold for fold in range(FOLDS)]
    index = np.concatenate(columns)
    same_in_fold = np.arange(2 * PAIRS_PER_KIND) < PAIRS_PER_KIND
    return PairTable(
        images=images,
        first=index[:, 0],
        second=index[:, 1],
        same=np.tile(same_in_fold, FOLDS),
        fold=np.repeat(np.arange(FOLDS, dtype=np.int64), 2 * PAIRS_PER_KIND),
    )


def _fold_pairs(fold: int) -> IntArray:
    """Pairs of one fold as indices into its pictures, int64 [600, 2], matched pairs first."""
    rng = generator(PAIR_STREAM, fold)
    count = PEOPLE_PER_FOLD * SHOTS_PER_PERSON
    first, second = np.triu_indices(count, k=1)
    same = first // SHOTS_PER_PERSON == second // SHOTS_PER_PERSON
    matched = rng.choice(np.flatnonzero(same), PAIRS_PER_KIND, replace=False)
    mismatched = rng.choice(np.flatnonzero(~same), PAIRS_PER_KIND, replace=False)
    chosen = np.concatenate([np.sort(matched), np.sort(mismatched)])
    return np.stack([first[chosen], second[chosen]], axis=1).astype(np.int64)
