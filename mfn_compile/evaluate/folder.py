"""A folder of aligned crops, with a pairs list of the user's."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfn_compile.errors import BadInputError
from mfn_compile.evaluate.decode import SUFFIXES, as_crop, decode_rgb, map_cores, read_bytes
from mfn_compile.evaluate.imageset import Dataset, Indices, combine_digests
from mfn_compile.evaluate.pairs import PairSet
from mfn_compile.evaluate.pairs_file import NamedPair, read_csv_pairs, read_lfw_pairs, resolve
from mfn_compile.model.preprocessing import CROP_SIZE

MAX_IMAGES = 2_000_000
_FIT_VERSION = "crop-fit/1"  # part of the digest; raise it when `as_crop` changes


@dataclass(frozen=True, eq=False)
class FolderImages:
    """Every image file below a folder.

    Args:
        root: the folder.
        names: N paths relative to it with forward slashes, sorted.
        identities: N names of the people, or None when the folder does not say.
    """

    root: Path
    names: tuple[str, ...]
    identities: tuple[str, ...] | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and files."""
        hashes = self.content_hashes(np.arange(len(self.names)))
        return combine_digests(_FIT_VERSION, *self.names, *hashes)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Says so when the first image is not a 112x112 crop."""
        path = self.root / self.names[0]
        width, height = decode_rgb(read_bytes(path), str(path)).size
        if (width, height) == (CROP_SIZE, CROP_SIZE):
            return ()
        return (
            f"Crops are fitted to {CROP_SIZE}x{CROP_SIZE} ({self.names[0]} is {width}x{height}); "
            "networks expect faces aligned to the ArcFace template.",
        )

    def content_hashes(self, indices: Indices) -> tuple[str, ...]:
        """SHA-256 of the files."""
        paths = [self.root / self.names[i] for i in indices.tolist()]
        return tuple(map_cores(lambda p: hashlib.sha256(read_bytes(p)).hexdigest(), paths))

    def crops(self, indices: Indices) -> NDArray[np.uint8]:
        """Decode and fit: uint8 RGB [n, 112, 112, 3]."""
        crops = np.empty((len(indices), CROP_SIZE, CROP_SIZE, 3), np.uint8)
        paths = [self.root / self.names[i] for i in indices.tolist()]

        def fill(position: int) -> None:
            path = paths[position]
            crops[position] = as_crop(decode_rgb(read_bytes(path), str(path)), str(path))

        for _ in map_cores(fill, range(len(paths))):
            pass
        return crops


def open_images(root: Path) -> FolderImages:
    """Find the images below a folder; links to folders are not followed.

    Identities are taken from the sub-folders when every image lies in one, exactly one level deep.

    Raises:
        BadInputError: no such folder, or no image in it.
    """
    if not root.is_dir():
        raise BadInputError("not a folder", where=str(root))
    names: list[str] = []
    for folder, _, entries in os.walk(root):
        relative = Path(folder).relative_to(root)
        # Hidden files are what file managers leave behind, not crops.
        found = [e for e in entries if e[0] != "." and Path(e).suffix.lower() in SUFFIXES]
        names += [(relative / e).as_posix() for e in found]
        if len(names) > MAX_IMAGES:
            raise BadInputError(f"folder holds over {MAX_IMAGES:,} images", where=str(root))
    if not names:
        raise BadInputError(
            "folder holds no images",
            where=str(root),
            why="looked for " + ", ".join(sorted(SUFFIXES)) + " in it and below",
        )
    names.sort()
    people = tuple(name.split("/")[0] for name in names)
    nested = all(name.count("/") == 1 for name in names)
    return FolderImages(root, tuple(names), people if nested and len(set(people)) > 1 else None)


def open_folder(root: Path, pairs: Path) -> Dataset:
    """Open aligned crops with a pairs list.

    Args:
        root: folder of crops.
        pairs: CSV `first,second,same[,fold]` of file names relative to `root` (ending .csv), or a
            list in LFW's format, whose `name n` is looked for as name/name_000n or name_000n.

    Raises:
        BadInputError: an empty folder, a malformed list, absent or ambiguous images.
    """
    images = open_images(root)
    if pairs.suffix.lower() == ".csv":
        lines, index = read_csv_pairs(pairs), {name: i for i, name in enumerate(images.names)}
    else:
        lines = read_lfw_pairs(pairs)
        index = _stems(images, lines, pairs)
    pair_set = resolve(lines, index, pairs, str(root))
    if images.identities is not None and not _agree(images.identities, pair_set):
        images = FolderImages(images.root, images.names)
    return Dataset(root.resolve().name, images, pair_set)


def _stems(images: FolderImages, lines: list[NamedPair], pairs: Path) -> dict[str, int]:
    """Index by file name without folder and ending; a name that two files share is refused."""
    wanted = {name for line in lines for name in (line.first, line.second)}
    index: dict[str, int] = {}
    for i, name in enumerate(images.names):
        stem = Path(name).stem
        if stem in index and stem in wanted:
            raise BadInputError(
                f"{stem} could be two files",
                where=str(pairs),
                why=f"{images.names[index[stem]]} and {name}",
            )
        index[stem] = i
    return index


def _agree(identities: tuple[str, ...], pairs: PairSet) -> bool:
    """Sub-folders may mean something else than people: trust them only if every pair agrees."""
    people = np.unique(np.array(identities), return_inverse=True)[1]
    return bool(np.array_equal(people[pairs.first] == people[pairs.second], pairs.same))
