"""The images that set the ranges: never one of the evaluation, and said where a person is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mfn_compile.errors import BadInputError
from mfn_compile.results import CalibrationInfo

NAMED = 3  # offending images that an error names


@dataclass(frozen=True, eq=False)
class CalibrationData:
    """Calibration crops and what is known about them.

    Attributes:
        crops: uint8 RGB [n, 112, 112, 3].
        source: where they come from, for the report.
        names: one an image; numbers when empty.
        hashes: SHA-256 of the encoded image, one an image; of the crops when empty.
        identities: who each image shows, None when unknown.
        evaluation_hashes: hashes of the evaluation's images, of the same kind.
        evaluation_identities: who the evaluation's images show, None when unknown.
    """

    crops: NDArray[np.uint8]
    source: str
    names: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()
    identities: tuple[str, ...] | None = None
    evaluation_hashes: frozenset[str] = field(default_factory=frozenset)
    evaluation_identities: frozenset[str] | None = None


def crop_hashes(crops: NDArray[np.uint8]) -> tuple[str, ...]:
    """SHA-256 of every crop's pixels."""
    return tuple(hashlib.sha256(crop.tobytes()).hexdigest() for crop in crops)


def check_crops(crops: NDArray[np.uint8], what: str) -> None:
    """Refuse what are no aligned crops.

    Raises:
        BadInputError: not uint8 [n, 112, 112, 3] with n of at least 1.
    """
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (112, 112, 3):
        raise BadInputError(
            f"The {what} crops are {crops.dtype} {list(crops.shape)}",
            why="Aligned crops are uint8 [n, 112, 112, 3]",
        )
    if not len(crops):
        raise BadInputError(f"There are no {what} crops")


def describe(data: CalibrationData) -> CalibrationInfo:
    """What the report says about the calibration.

    Raises:
        BadInputError: no crops, or an image that the evaluation uses too.
    """
    check_crops(data.crops, "calibration")
    hashes = data.hashes or crop_hashes(data.crops)
    names = data.names or tuple(str(i) for i in range(len(hashes)))
    shared = [
        name for name, key in zip(names, hashes, strict=True) if key in data.evaluation_hashes
    ]
    if shared:
        raise BadInputError(
            f"{len(shared)} of {len(hashes)} calibration images occur in the evaluation pairs",
            where=data.source,
            why=f"Calibrating on them would flatter the result: {_some(shared)}",
            hint="Give calibration images that are in no pair",
        )
    return CalibrationInfo(
        source=data.source,
        images=len(hashes),
        sha256=hashlib.sha256("\0".join(hashes).encode()).hexdigest(),
        shared_images=0,
        shared_identities=_shared_identities(data),
    )


def check_disjoint(sets: Mapping[str, NDArray[np.uint8]]) -> None:
    """Refuse crops that two of the named sets share, by content.

    Raises:
        BadInputError: names the two sets.
    """
    hashed = {name: set(crop_hashes(crops)) for name, crops in sets.items()}
    names = list(hashed)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            both = len(hashed[first] & hashed[second])
            if both:
                raise BadInputError(
                    f"{both} crops are in both the {first} and the {second} images",
                    why="What a network was fitted to cannot judge it",
                    hint="Remove duplicate images from the folder",
                )


def _shared_identities(data: CalibrationData) -> int | None:
    if data.identities is None or data.evaluation_identities is None:
        return None
    return sum(person in data.evaluation_identities for person in data.identities)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
