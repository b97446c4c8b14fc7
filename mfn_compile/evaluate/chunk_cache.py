"""Embeddings of a chunk of images on disk, addressed by what determines them."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from mfn_compile.errors import DeviceError
from mfn_compile.evaluate.imageset import Indices, combine_digests

_CHECKSUM_BYTES = 32  # a SHA-256 behind the array; NumPy ignores it


class ChunkCache:
    """Folder of `.npy` files named by their key.

    A file is written aside and renamed, so that a killed run leaves whole entries only. What is
    damaged all the same is not returned.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @staticmethod
    def key(embedder_key: str, set_digest: str, indices: Indices, mirrored: bool) -> str:
        """SHA-256 of everything that determines the embeddings of a chunk.

        Pillow's version counts: decoders differ in the last bit.
        """
        chosen = hashlib.sha256(np.ascontiguousarray(indices, "<i8").tobytes()).hexdigest()
        side = "mirrored" if mirrored else "as is"
        return combine_digests(embedder_key, set_digest, chosen, side, PIL.__version__)

    def get(self, key: str, rows: int) -> NDArray[np.float32] | None:
        """The embeddings float32 [rows, D], or None when absent or damaged."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        body, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
        if hashlib.sha256(body).digest() != checksum:
            return None
        array: NDArray[np.float32] = np.load(io.BytesIO(body), allow_pickle=False)
        return array if array.ndim == 2 and len(array) == rows else None

    def put(self, key: str, embeddings: NDArray[np.float32]) -> None:
        """Store embeddings [n, D]; DeviceError when the folder cannot be written."""
        buffer = io.BytesIO()
        np.save(buffer, embeddings, allow_pickle=False)
        body = buffer.getvalue()
        path = self._path(key)
        aside = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(dir=path.parent, suffix=".part")
            with os.fdopen(handle, "wb") as stream:
                stream.write(body + hashlib.sha256(body).digest())
            os.replace(aside, path)
        except OSError as error:
            if aside:
                Path(aside).unlink(missing_ok=True)
            raise DeviceError(
                "embeddings cannot be cached",
                where=str(path.parent),
                why=error.strerror or type(error).__name__,
                hint="Free some space or choose another cache folder",
            ) from error

    def _path(self, key: str) -> Path:
        return self._root / key[:2] / f"{key}.npy"
