"""InsightFace's `.bin` benchmark sets: lfw, agedb_30, cfp_fp and their kin."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfn_compile.errors import BadInputError
from mfn_compile.evaluate.decode import MAX_FILE_BYTES, as_crop, decode_rgb, map_cores, read_bytes
from mfn_compile.evaluate.imageset import Dataset, Indices, combine_digests
from mfn_compile.evaluate.pairs import PairSet, contiguous_folds
from mfn_compile.evaluate.restricted_pickle import UnsafePickleError, loads, unwrap
from mfn_compile.model.preprocessing import CROP_SIZE

MAX_BIN_BYTES = 512 * 2**20  # the public sets have 60 to 120 MB
_FIT_VERSION = "crop-fit/1"


@dataclass(frozen=True, eq=False)
class BinImages:
    """Encoded images of a `.bin` file, decoded when asked for.

    Args:
        names: N names, as in `lfw.bin#17`.
        encoded: N encoded images.
    """

    names: tuple[str, ...]
    encoded: tuple[bytes, ...]
    identities: None = None  # the format does not say who is shown
    notes: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the encoded images in order."""
        return combine_digests(_FIT_VERSION, *self.content_hashes(np.arange(len(self.names))))

    def content_hashes(self, indices: Indices) -> tuple[str, ...]:
        """SHA-256 of the encoded images."""
        return tuple(hashlib.sha256(self.encoded[i]).hexdigest() for i in indices.tolist())

    def crops(self, indices: Indices) -> NDArray[np.uint8]:
        """Decode: uint8 RGB [n, 112, 112, 3]."""
        crops = np.empty((len(indices), CROP_SIZE, CROP_SIZE, 3), np.uint8)
        chosen = indices.tolist()

        def fill(position: int) -> None:
            name = self.names[chosen[position]]
            crops[position] = as_crop(decode_rgb(self.encoded[chosen[position]], name), name)

        for _ in map_cores(fill, range(len(chosen))):
            pass
        return crops


def open_bin(path: Path) -> Dataset:
    """Open a `.bin` set: a pickled pair of (2 P encoded images, P truths).

    Images 2 i and 2 i + 1 form pair i. The ten folds are contiguous, as InsightFace's
    verification cuts them (KFold without shuffling).

    Raises:
        BadInputError: the file is too large, damaged, or its pickle holds more than plain data.
    """
    try:
        content = loads(read_bytes(path, MAX_BIN_BYTES))
    except UnsafePickleError as error:
        raise BadInputError(
            "benchmark set cannot be read",
            where=str(path),
            why=f"its pickle is refused: {error}",
            hint="Use an InsightFace .bin set: a pickled list of encoded images and of truths",
        ) from error
    encoded, same = _checked(content, path)
    names = tuple(f"{path.name}#{i}" for i in range(len(encoded)))
    even = np.arange(0, len(encoded), 2)
    try:
        pairs = PairSet(even, even + 1, np.array(same), contiguous_folds(len(same)))
    except BadInputError as error:
        raise BadInputError(error.what, where=str(path), why=error.why) from error
    return Dataset(path.stem, BinImages(names, encoded), pairs)


def _checked(content: Any, path: Path) -> tuple[tuple[bytes, ...], list[bool]]:
    if not (isinstance(content, list | tuple) and len(content) == 2):
        raise _malformed(path, "it must hold two lists: encoded images and truths")
    images, truths = unwrap(content[0]), unwrap(content[1])
    if not isinstance(images, list | tuple) or not isinstance(truths, list | tuple | np.ndarray):
        raise _malformed(path, "it must hold two lists: encoded images and truths")
    if len(images) != 2 * len(truths):
        raise _malformed(path, f"{len(images)} images do not make {len(truths)} pairs")
    encoded = tuple(_image(image, i, path) for i, image in enumerate(images))
    return encoded, [_truth(truth, i, path) for i, truth in enumerate(truths)]


def _image(value: Any, position: int, path: Path) -> bytes:
    data = unwrap(value)
    if isinstance(data, np.ndarray) and data.dtype == np.uint8:
        data = data.tobytes()
    if not isinstance(data, bytes):
        raise _malformed(path, f"image {position} is no encoded image")
    if len(data) > MAX_FILE_BYTES:
        raise _malformed(path, f"image {position} is too large")
    return data


def _truth(value: Any, position: int, path: Path) -> bool:
    if not isinstance(value, bool | int | np.bool_ | np.integer) or value not in (0, 1):
        raise _malformed(path, f"truth {position} is neither True nor False")
    return bool(value)


def _malformed(path: Path, why: str) -> BadInputError:
    return BadInputError("benchmark set is malformed", where=str(path), why=why)
