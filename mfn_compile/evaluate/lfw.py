"""Labeled Faces in the Wild as scikit-learn stores it, aligned with a landmark table."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mfn_compile.errors import BadInputError
from mfn_compile.evaluate.alignment import (
    ALIGNER_VERSION,
    fit_similarity,
    invert_similarity,
    warp,
)
from mfn_compile.evaluate.decode import decode_rgb, map_cores, read_bytes
from mfn_compile.evaluate.imageset import Dataset, Indices, combine_digests
from mfn_compile.evaluate.landmarks import packaged_table, read_landmarks
from mfn_compile.evaluate.pairs_file import read_lfw_pairs, resolve
from mfn_compile.model.preprocessing import CROP_SIZE

_COLOUR_PROBES = 16  # images that are looked at to recognise a colour release


@dataclass(frozen=True, eq=False)
class LfwImages:
    """The images that are both on disk and in the landmark table.

    Args:
        root: folder that holds NAME/NAME_0001.jpg.
        names: N image names, sorted.
        points: float64 [N, 5, 2] landmarks.
        splits: N words of the table: pairs, calib, rest.
    """

    root: Path
    names: tuple[str, ...]
    points: NDArray[np.float64]
    splits: tuple[str, ...]

    @cached_property
    def identities(self) -> tuple[str, ...]:
        """The person's name: the image's name without its number."""
        return tuple(name.rpartition("_")[0] for name in self.names)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the files, their landmarks and the aligner's version."""
        hashes = self.content_hashes(np.arange(len(self.names)))
        points = hashlib.sha256(np.ascontiguousarray(self.points, "<f8").tobytes()).hexdigest()
        return combine_digests(ALIGNER_VERSION, points, *self.names, *hashes)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Warns about colour images: the packaged landmarks belong to the greyscale release."""
        step = max(1, len(self.names) // _COLOUR_PROBES)
        for i in range(0, len(self.names), step):
            pixels = np.asarray(self._decode(i), np.int16)
            if np.abs(pixels - pixels[..., :1]).max() > 0:
                return (
                    "These LFW images are in colour; the packaged landmarks were computed on the "
                    "aligned greyscale release. If the accuracy looks low, align the images "
                    "yourself and give the crops with --images and --pairs.",
                )
        return ()

    def split(self, word: str) -> Indices:
        """Indices of the images whose split is `word`: `calib` are set aside for calibration."""
        return np.flatnonzero(np.array(self.splits) == word).astype(np.int64)

    def content_hashes(self, indices: Indices) -> tuple[str, ...]:
        """SHA-256 of the files."""
        return tuple(
            map_cores(
                lambda i: hashlib.sha256(read_bytes(self._path(i))).hexdigest(), indices.tolist()
            )
        )

    def crops(self, indices: Indices) -> NDArray[np.uint8]:
        """Decode and align: uint8 RGB [n, 112, 112, 3]."""
        chosen = indices.tolist()
        matrices = invert_similarity(fit_similarity(self.points[indices]))
        crops = np.empty((len(chosen), CROP_SIZE, CROP_SIZE, 3), np.uint8)

        def fill(position: int) -> None:
            crops[position] = warp(self._decode(chosen[position]), matrices[position])

        for _ in map_cores(fill, range(len(chosen))):
            pass
        return crops

    def _path(self, index: int) -> Path:
        name = self.names[index]
        return self.root / name.rpartition("_")[0] / f"{name}.jpg"

    def _decode(self, index: int) -> Image.Image:
        path = self._path(index)
        return decode_rgb(read_bytes(path), str(path))


def open_lfw(root: Path, landmarks: Path | None = None) -> Dataset:
    """Open LFW with its View 2 pairs.

    Args:
        root: scikit-learn's lfw_home (pairs.txt beside lfw_funneled), or the folder lfw_funneled
            inside of it.
        landmarks: table of the landmarks; None takes the one that ships with the package.

    Raises:
        BadInputError: the layout is another, or pairs name images that are not there.
    """
    images, pairs_file = _layout(root)
    table = read_landmarks(landmarks or packaged_table())
    on_disk = {path.stem for path in images.glob("*/*.jpg")}
    if not on_disk:
        raise BadInputError("folder holds no images NAME/NAME_0001.jpg", where=str(images))
    kept = sorted((name, row) for row, name in enumerate(table.names) if name in on_disk)
    rows = np.array([row for _, row in kept], np.int64)
    image_set = LfwImages(
        images,
        tuple(name for name, _ in kept),
        table.points[rows],
        tuple(table.splits[row] for row in rows),
    )
    index = {name: i for i, name in enumerate(image_set.names)}
    source = f"{images} and the landmark table"
    pairs = resolve(read_lfw_pairs(pairs_file), index, pairs_file, source)
    return Dataset("LFW", image_set, pairs)


def is_lfw(root: Path) -> bool:
    """Whether `root` is laid out like lfw_home or the image folder inside of it."""
    inside = root.name == "lfw_funneled" and (root.parent / "pairs.txt").is_file()
    return (root / "lfw_funneled").is_dir() or inside


def _layout(root: Path) -> tuple[Path, Path]:
    """The folder of the images and the pairs list."""
    home = root if (root / "lfw_funneled").is_dir() else root.parent
    images = home / "lfw_funneled"
    if not root.is_dir() or not images.is_dir() or root not in (home, images):
        nested = root / "lfw_home"
        hint = f"Give {nested}" if nested.is_dir() else "Give the folder that fetch_lfw_pairs made"
        raise BadInputError("not an lfw_home", where=str(root), why="no lfw_funneled", hint=hint)
    pairs = home / "pairs.txt"
    if not pairs.is_file():
        raise BadInputError("LFW's pairs list is missing", where=str(pairs))
    return images, pairs
