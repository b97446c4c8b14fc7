"""What an evaluation reads its crops from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mfn_compile.evaluate.pairs import PairSet

Indices = NDArray[np.int64]


class ImageSet(Protocol):
    """Aligned 112x112 crops that can be named, hashed and read in any order."""

    @property
    def names(self) -> tuple[str, ...]:
        """One name an image, unique."""

    @property
    def identities(self) -> tuple[str, ...] | None:
        """Who an image shows, one an image; None when the set does not say."""

    @property
    def digest(self) -> str:
        """SHA-256 over everything that determines the crops."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that a user should read before trusting the numbers."""

    def content_hashes(self, indices: Indices) -> tuple[str, ...]:
        """SHA-256 of the encoded image, one an index: finds images that two sets share."""

    def crops(self, indices: Indices) -> NDArray[np.uint8]:
        """RGB crops uint8 [n, 112, 112, 3]; BadInputError names an image that fails."""


@dataclass(frozen=True)
class Dataset:
    """Images, the pairs over them, and what to call them in a report."""

    name: str
    images: ImageSet
    pairs: PairSet
    rendered: bool = False


def combine_digests(*parts: str) -> str:
    """SHA-256 over strings, each closed by a zero byte so that no two lists collide."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()
