"""Embeddings of many images by several networks, chunk by chunk and resumable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mfn_compile.errors import InternalCheckError
from mfn_compile.evaluate.chunk_cache import ChunkCache
from mfn_compile.evaluate.imageset import ImageSet, Indices
from mfn_compile.progress import Progress

CHUNK = 256
Embeddings = NDArray[np.float32]


class Embedder(Protocol):
    """A network on some engine."""

    @property
    def key(self) -> str:
        """Content key of model, engine and preprocessing."""

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """RGB crops uint8 [n, 112, 112, 3] to float32 [n, D]."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """Embeddings float32 [n, D] of images and, where asked for, of their mirror images."""

    straight: Embeddings
    mirrored: Embeddings | None

    def flip_sum(self) -> Embeddings:
        """Sum of both, the usual test-time augmentation (before normalization)."""
        if self.mirrored is None:
            raise InternalCheckError("mirrored embeddings were not computed")
        return self.straight + self.mirrored


class _Chunk:
    """A chunk of images, decoded once and only when an embedder needs it."""

    def __init__(self, image_set: ImageSet, indices: Indices, cache: ChunkCache) -> None:
        self._images, self._indices, self._cache = image_set, indices, cache
        self._crops: NDArray[np.uint8] | None = None

    def embed(self, embedder: Embedder, mirrored: bool) -> Embeddings:
        key = self._cache.key(embedder.key, self._images.digest, self._indices, mirrored)
        known = self._cache.get(key, len(self._indices))
        if known is not None:
            return known
        if self._crops is None:
            self._crops = self._images.crops(self._indices)
        crops = np.ascontiguousarray(self._crops[:, :, ::-1]) if mirrored else self._crops
        embeddings = np.ascontiguousarray(embedder.embed(crops), np.float32)
        self._check(embeddings)
        self._cache.put(key, embeddings)
        return embeddings

    def _check(self, embeddings: Embeddings) -> None:
        if embeddings.ndim != 2 or len(embeddings) != len(self._indices):
            raise InternalCheckError(
                f"{len(self._indices)} images gave embeddings of shape {embeddings.shape}"
            )
        norms = np.linalg.norm(embeddings.astype(np.float64), axis=1)
        bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
        if bad.size:
            kind = "zero" if norms[bad[0]] == 0 else "not finite"
            raise InternalCheckError(
                f"the embedding of an image is {kind}",
                where=self._images.names[int(self._indices[bad[0]])],
                why=f"{bad.size} of {len(norms)} images of the chunk are like that",
                hint="Check the checkpoint's weights and normalization",
            )


def embed_all(
    image_set: ImageSet,
    indices: Indices,
    embedders: Sequence[Embedder],
    *,
    flip: bool,
    cache: ChunkCache,
    progress: Progress,
    chunk: int = CHUNK,
    title: str = "Embedding images",
) -> dict[str, Embedded]:
    """Run every embedder over the images; what the cache holds is not computed again.

    Args:
        image_set: where the crops come from.
        indices: int64 [n], the images.
        embedders: networks; a key that occurs twice is run once.
        flip: also embed the mirror images.
        cache: finished chunks.
        progress: counts images.
        chunk: images that are in memory at a time.
        title: of the progress task.

    Returns:
        By embedder key, rows in the order of `indices`.

    Raises:
        InternalCheckError: an embedding is zero or not finite; it names the image.
        BadInputError: an image cannot be decoded.
    """
    distinct = {embedder.key: embedder for embedder in embedders}
    straight: dict[str, list[Embeddings]] = {key: [] for key in distinct}
    mirrored: dict[str, list[Embeddings]] = {key: [] for key in distinct}
    with progress.task(title, len(indices)) as task:
        for start in range(0, len(indices), chunk):
            part = _Chunk(image_set, indices[start : start + chunk], cache)
            for key, embedder in distinct.items():
                straight[key].append(part.embed(embedder, mirrored=False))
                if flip:
                    mirrored[key].append(part.embed(embedder, mirrored=True))
            task.advance(len(indices[start : start + chunk]))
    return {
        key: Embedded(
            np.concatenate(straight[key]), np.concatenate(mirrored[key]) if flip else None
        )
        for key in distinct
    }
