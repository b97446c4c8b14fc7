"""Decoding of untrusted image files within fixed limits, and its spread over all cores."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mfn_compile.errors import BadInputError
from mfn_compile.model.preprocessing import CROP_SIZE

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MIN_SIDE = 32  # pixels; a face below that carries no identity
MAX_PIXELS = 32_000_000
MAX_FILE_BYTES = 64 * 2**20

_SQUARE = (0.92, 1.09)  # width / height that counts as a square crop
_NARROW = (0.83, 0.885)  # around 96 / 112, the other common crop
_NARROW_WIDTH = 96

T = TypeVar("T")
R = TypeVar("R")


def read_bytes(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a whole file of at most `limit` bytes; BadInputError when that fails."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise BadInputError(
                "file is too large", where=str(path), why=f"{size:,} bytes, limit {limit:,}"
            )
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(
            "file cannot be read", where=str(path), why=error.strerror or type(error).__name__
        ) from error


def decode_rgb(data: bytes, where: str) -> Image.Image:
    """Decode an encoded image to RGB; greyscale is legitimate and gets three equal channels.

    Raises:
        BadInputError: not an image, damaged, under 32 or over 32 million pixels (a bomb).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image.size, where)
        return image.convert("RGB")  # decodes
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInputError("image is too large", where=where, why=str(error)) from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
        reason = "it is none of " + ", ".join(FORMATS)
        if not isinstance(error, UnidentifiedImageError):
            reason = str(error) or type(error).__name__
        raise BadInputError(
            "image cannot be decoded",
            where=where,
            why=reason,
            hint="Replace the file or take its pairs out of the list",
        ) from error


def _check_size(size: tuple[int, int], where: str) -> None:
    width, height = size
    if min(width, height) < MIN_SIDE:
        raise BadInputError(
            f"image of {width}x{height} pixels is too small",
            where=where,
            why=f"a side needs at least {MIN_SIDE} pixels",
        )
    if width * height > MAX_PIXELS:
        raise BadInputError(
            f"image of {width}x{height} pixels is too large",
            where=where,
            why=f"the limit is {MAX_PIXELS:,} pixels",
        )


def as_crop(image: Image.Image, where: str) -> NDArray[np.uint8]:
    """Fit an aligned RGB crop into uint8 [112, 112, 3].

    A square crop is resized; one of 112x96 proportions becomes the centre columns 8 to 104, which
    is where such crops are cut from, with black at both sides.

    Raises:
        BadInputError: the proportions are neither.
    """
    ratio = image.width / image.height
    if _SQUARE[0] <= ratio <= _SQUARE[1]:
        width = CROP_SIZE
    elif _NARROW[0] <= ratio <= _NARROW[1]:
        width = _NARROW_WIDTH
    else:
        raise BadInputError(
            f"image of {image.width}x{image.height} pixels is no aligned crop",
            where=where,
            why="a crop is square, or 112 high and 96 wide (or in that proportion)",
            hint="Align the faces to the 112x112 ArcFace template first",
        )
    if image.size != (width, CROP_SIZE):
        image = image.resize((width, CROP_SIZE), Image.Resampling.BILINEAR)
    crop = np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8)
    left = (CROP_SIZE - width) // 2
    crop[:, left : left + width] = np.asarray(image)
    return crop


def map_cores(function: Callable[[T], R], items: Iterable[T], threads: int = 0) -> Iterator[R]:
    """Map in order with `threads` threads, 0 for one a core: the work has to release the GIL."""
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(function, items)
