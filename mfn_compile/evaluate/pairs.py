"""The pairs of a verification benchmark."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfn_compile.errors import BadInputError


@dataclass(frozen=True, eq=False)
class PairSet:
    """P pairs of images with their truth and their fold; keeps read-only copies.

    Args:
        first: int64 [P], index into the image set.
        second: int64 [P].
        same: bool [P], whether both images show one person.
        fold: int64 [P], 0 to K-1, every fold used, K at least 2.

    Raises:
        BadInputError: the arrays do not form such a set.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]
    fold: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("first", "second", "same", "fold"):
            copy = np.array(getattr(self, name), np.bool_ if name == "same" else np.int64)
            copy.setflags(write=False)
            object.__setattr__(self, name, copy)
        problem = self._problem()
        if problem:
            raise BadInputError("pairs cannot be evaluated", why=problem)

    def _problem(self) -> str:
        arrays = (self.first, self.second, self.same, self.fold)
        if any(a.ndim != 1 or len(a) != len(self.first) for a in arrays):
            return "first, second, same and fold differ in length"
        if len(self.first) == 0:
            return "the list is empty"
        if min(self.first.min(), self.second.min(), self.fold.min()) < 0:
            return "an index is negative"
        if np.any(self.first == self.second):
            return f"pair {int(np.argmax(self.first == self.second))} compares an image to itself"
        if self.same.all() or not self.same.any():
            return "pairs of one person and pairs of two people are both needed"
        counts = np.bincount(self.fold)
        if len(counts) < 2 or counts.min() == 0:
            return "there must be two folds or more, numbered without a gap"
        return ""

    def __len__(self) -> int:
        return len(self.first)

    @property
    def folds(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1

    def images(self) -> NDArray[np.int64]:
        """Sorted unique indices of the images that occur in a pair."""
        return np.unique(np.concatenate([self.first, self.second])).astype(np.int64)

    def digest(self) -> str:
        """SHA-256 of the four arrays."""
        digest = hashlib.sha256()
        for array in (self.first, self.second, self.same, self.fold):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def contiguous_folds(count: int, folds: int = 10) -> NDArray[np.int64]:
    """Fold of each of `count` pairs in order, as scikit-learn's unshuffled KFold cuts them.

    The first `count % folds` folds hold one pair more than the others.
    """
    if count < folds:
        raise BadInputError(
            f"{count} pairs do not fill {folds} folds", hint="Give at least one pair a fold"
        )
    sizes = np.full(folds, count // folds)
    sizes[: count % folds] += 1
    return np.repeat(np.arange(folds), sizes).astype(np.int64)
